//! One of two APIs on the same database.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::Stage;
use super::super::load::Load;
use super::super::machine::process_cpu;
use crate::stack::Service;

const START_MAX: Duration = Duration::from_secs(60);

/// A process of the build whose parts can be switched off. Ends when dropped.
pub struct Side {
    child: Child,
    pub url: String,
}

impl Side {
    /// With this part off; with everything, where it is empty.
    pub async fn start(stage: &Stage, off: &str) -> Result<Side> {
        let layout = stage.stack.layout();
        let program = layout.bin.join("ingest-api-switches");
        ensure!(program.exists(), "{} is missing: ./dev bench security builds it", program.display());
        let [http, admin] = [free_port()?, free_port()?];
        let mut command = Command::new(program);
        command
            .arg("serve")
            .env_clear()
            .envs(stage.stack.env_for(Service::Api))
            .env("VORCA__HTTP__LISTEN", format!("127.0.0.1:{http}"))
            .env("VORCA__ADMIN__LISTEN", format!("127.0.0.1:{admin}"))
            .env("VORCA_SWITCHED_OFF", off)
            .current_dir(&layout.run)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let side =
            Side { child: command.spawn().context("starting the API")?, url: format!("http://127.0.0.1:{http}") };
        let begin = Instant::now();
        while is_ready(&format!("http://127.0.0.1:{admin}/readyz")).await.is_err() {
            ensure!(begin.elapsed() < START_MAX, "the API with {off:?} off is not ready");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(side)
    }

    pub fn load(&self) -> Result<Load> {
        Load::new(&self.url)
    }

    /// CPU seconds so far.
    pub fn cpu(&self) -> f64 {
        process_cpu(self.child.id() as i32)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn is_ready(url: &str) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
    client.get(url).send().await?.error_for_status()?;
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
