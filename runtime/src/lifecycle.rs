//! Start and stop: one stop token per process, tracked tasks, a drain within a budget, exit codes.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ConfigError;

/// A process has this long from SIGTERM to its exit; the supervisor kills it at 30 s.
pub const DRAIN_BUDGET: Duration = Duration::from_secs(25);

/// Exit codes of `sysexits.h`.
pub mod exit {
    /// Wrong arguments.
    pub const USAGE: u8 = 64;
    /// A service this task needs is not there.
    pub const UNAVAILABLE: u8 = 69;
    /// Our own mistake.
    pub const SOFTWARE: u8 = 70;
    /// Wrong configuration.
    pub const CONFIG: u8 = 78;
}

/// Marks an error as "a service this needs is not there": [`exit_code`] answers 69.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Tells every part of the process to stop, and knows which tasks still run. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Stops only when [`Shutdown::cancel`] is called: for tests and one-shot tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops at SIGTERM or SIGINT. A second signal ends the process at once. Needs a running tokio runtime.
    pub fn on_signals() -> Self {
        let shutdown = Self::default();
        let token = shutdown.token.clone();
        tokio::spawn(async move {
            let (mut term, mut int) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
                (Ok(term), Ok(int)) => (term, int),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(%error, "cannot listen for signals, stopping: nobody could stop this process later");
                    return token.cancel();
                }
            };
            let name = tokio::select! { _ = term.recv() => "SIGTERM", _ = int.recv() => "SIGINT" };
            tracing::info!(signal = name, "stopping");
            token.cancel();
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::warn!("second signal: ending without draining");
            std::process::exit(130);
        });
        shutdown
    }

    /// Waits until the process is to stop.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Tells everybody to stop.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Tasks that [`Shutdown::drain`] waits for.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Runs a task that [`Shutdown::drain`] waits for. It must end by itself after [`Shutdown::cancelled`].
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Waits for the tracked tasks, at most `budget`; false when some were still running then.
    pub async fn drain(&self, budget: Duration) -> bool {
        self.token.cancel();
        self.tasks.close();
        let done = tokio::time::timeout(budget, self.tasks.wait()).await.is_ok();
        if !done {
            tracing::warn!(tasks = self.tasks.len(), "stopped before every task had finished");
        }
        done
    }
}

/// Prints what a task has to say. A reader that has gone away (`... | head`) has seen enough: that is no failure. Not for
/// what is said once and never again, such as a password.
pub fn say(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}

/// What `main` returns: 0, 78 for wrong configuration, 69 for an absent service, else 70; the error with its
/// whole chain goes to standard error, as one line of text.
#[expect(clippy::print_stderr, reason = "the last words of a process, perhaps before there is a log")]
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(code_of(&error))
        }
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<ConfigError>()) {
        exit::CONFIG
    } else if error.chain().any(|cause| cause.is::<Unavailable>()) {
        exit::UNAVAILABLE
    } else {
        exit::SOFTWARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[tokio::test]
    async fn drain_waits_for_tracked_tasks_and_gives_up_at_the_budget() {
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let task = shutdown.spawn(async move { inner.cancelled().await });
        assert!(shutdown.drain(Duration::from_secs(5)).await);
        task.await.unwrap();

        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        assert!(!shutdown.drain(Duration::from_millis(5)).await);
    }

    #[test]
    fn exit_codes_follow_the_cause_through_context() {
        let config = Err::<(), _>(ConfigError::new("VORCA__X__Y is missing")).context("starting").unwrap_err();
        let absent = Err::<(), _>(Unavailable("no broker".into())).context("starting").unwrap_err();
        assert_eq!(code_of(&config), exit::CONFIG);
        assert_eq!(code_of(&absent), exit::UNAVAILABLE);
        assert_eq!(code_of(&anyhow::anyhow!("bug")), exit::SOFTWARE);
    }
}
