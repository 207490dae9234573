//! When the reader commits, and what it does about an answer that is late, or no.

use std::time::{Duration, Instant};

use super::{POLL, Reader};
use crate::consumer::committer::Answer;
use crate::names;

/// Marks that were refused are tried again this often.
const COMMIT_RETRY: Duration = Duration::from_secs(1);
/// The last commit before the end may take this long.
const LAST_COMMIT_LIMIT: Duration = Duration::from_secs(5);

impl Reader<'_> {
    /// Takes an answer that came late, and tries again what was refused or had to wait for it.
    pub(super) fn tend_commits(&mut self) {
        let is_due = match self.committer.answer(Duration::ZERO) {
            Some(answer) => self.take(answer),
            None => self.commit_failed.is_some_and(|at| at.elapsed() >= COMMIT_RETRY),
        };
        if is_due {
            self.commit();
        }
    }

    /// Commits what is done and waits for the answer, at most `cfg.commit_answer_max`: nothing is polled meanwhile, so
    /// a revocation finds the batch committed. Marks that get no answer in time count as not committed.
    pub(super) fn commit(&mut self) {
        if let Some(late) = self.committer.answer(Duration::ZERO) {
            self.take(late);
        }
        if !self.ask() {
            return;
        }
        self.commit_failed = None;
        let until = Instant::now() + self.cfg.commit_answer_max;
        // At a stop the last commit waits, in its own time.
        while Instant::now() < until && !self.stop.is_cancelled() {
            let wait = until.saturating_duration_since(Instant::now()).min(POLL);
            if let Some(answer) = self.committer.answer(wait) {
                self.take(answer);
                return;
            }
        }
        if !self.stop.is_cancelled() {
            self.count_commit("unanswered");
            tracing::warn!(group = self.cfg.group, "the broker does not answer a commit, going on without");
        }
    }

    /// At the end: what is under way and what is left.
    pub(super) fn commit_last(&mut self) {
        let until = Instant::now() + LAST_COMMIT_LIMIT;
        while self.committer.is_busy() || self.ask() {
            let left = until.saturating_duration_since(Instant::now());
            let Some(answer) = self.committer.answer(left) else {
                self.count_commit("unanswered");
                tracing::warn!(
                    group = self.cfg.group,
                    "offsets not committed before the end: their records are replayed"
                );
                return;
            };
            let is_done = self.take(answer) && self.offsets.committable().is_empty();
            // A refusal may be a matter of a rebalance, which needs a poll to go on.
            if is_done || Instant::now() >= until || self.poll(POLL).is_err() {
                return;
            }
        }
    }

    /// Begins a commit; false when there is nothing to commit, or an earlier one is still under way.
    fn ask(&mut self) -> bool {
        !self.offsets.committable().is_empty() && self.committer.ask(self.offsets.committable())
    }

    /// Whether the broker has the marks.
    fn take(&mut self, answer: Answer) -> bool {
        match answer.result {
            Ok(()) => {
                self.offsets.committed(&answer.marks);
                self.count_commit("done");
                true
            }
            // Not an error: what is done is replayed if we end here, and committed again if we do not.
            Err(error) => {
                self.commit_failed = Some(Instant::now());
                tracing::warn!(group = self.cfg.group, %error, "offsets not committed");
                self.count_commit("failed");
                false
            }
        }
    }

    fn count_commit(&self, outcome: &'static str) {
        metrics::counter!(names::CONSUMER_COMMITS, "group" => self.cfg.group.clone(), "outcome" => outcome)
            .increment(1);
    }
}
