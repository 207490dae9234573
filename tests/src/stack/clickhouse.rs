//! ClickHouse: the engine as a library inside a small process of ours (see `clickhouse_host`), over its own HTTP and
//! native interfaces.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use sha2::{Digest, Sha256};

use super::http;
use super::layout::{Identity, Layout};
use crate::endpoints::write_private;

/// Users, rights and limits: the same template serves the containers.
pub const USERS: &str = include_str!("../../../migrations/clickhouse/users.xml.tmpl");

/// Placeholder in the template, name in the identity file, login.
pub const LOGINS: [(&str, &str, &str); 4] = [
    ("@VORCA_MIGRATE_SHA256@", "clickhouse-migrate", "vorca_migrate"),
    ("@VORCA_SINK_SHA256@", "clickhouse-sink", "vorca_sink"),
    ("@VORCA_API_SHA256@", "clickhouse-api", "vorca_api"),
    ("@ANALYST_RO_SHA256@", "clickhouse-analyst", "analyst_ro"),
];

/// The template with each password's SHA-256 in its place.
pub fn render_users(password: impl Fn(&str) -> String) -> String {
    LOGINS.iter().fold(USERS.to_owned(), |text, (placeholder, name, _)| {
        let digest = Sha256::digest(password(name).as_bytes());
        text.replace(placeholder, &digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    })
}

/// Sized for a machine that also runs four other servers and the platform.
fn settings(layout: &Layout) -> String {
    let folder = layout.run.join("clickhouse");
    format!(
        "<clickhouse>\n    <users_config>{users}</users_config>\n    <tmp_path>{tmp}/</tmp_path>\n\
         \x20   <max_connections>512</max_connections>\n    <max_concurrent_queries>100</max_concurrent_queries>\n\
         \x20   <max_server_memory_usage>3000000000</max_server_memory_usage>\n\
         \x20   <background_pool_size>2</background_pool_size>\n    <mark_cache_size>268435456</mark_cache_size>\n\
         </clickhouse>\n",
        users = folder.join("users.xml").display(),
        tmp = folder.join("tmp").display(),
    )
}

pub fn prepare(layout: &Layout, identity: &Identity) -> Result<()> {
    let folder = layout.service("clickhouse")?;
    fs::create_dir_all(folder.join("data"))?;
    fs::create_dir_all(folder.join("tmp"))?;
    // Left from the last run, these tables keep query_log from flushing.
    let system = folder.join("data/data/system");
    for stale in [system, folder.join("data/system")] {
        if stale.exists() {
            fs::remove_dir_all(&stale).with_context(|| format!("removing {}", stale.display()))?;
        }
    }
    let users = render_users(|name| identity.password(name).to_owned());
    write_private(&folder.join("users.xml"), users.as_bytes())?;
    fs::write(folder.join("config.xml"), settings(layout))?;
    Ok(())
}

/// Its standard input must be a terminal: without one this build aborts on any exception in a connection thread, so a
/// wrong password would end it. Closing the returned end makes it end by itself.
pub fn terminal() -> Result<(OwnedFd, OwnedFd)> {
    let pair = openpty(None, None).context("opening a pseudo-terminal (is /dev/pts mounted?)")?;
    // Inherited by another child, the master would outlive the supervisor and ClickHouse with it.
    fcntl(&pair.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok((pair.master, pair.slave))
}

pub fn command(layout: &Layout, identity: &Identity) -> Result<Command> {
    let folder = layout.service("clickhouse")?;
    let mut command = Command::new(std::env::current_exe().context("own path")?);
    command
        .arg("clickhouse-host")
        .arg(layout.clickhouse_home.join("libchdb.so"))
        .arg("--")
        .args(["--config-file".into(), folder.join("config.xml")])
        .args(["--path".into(), folder.join("data")])
        .args(["--listen_host", "127.0.0.1"])
        .args(["--http_port", &identity.port("clickhouse-http").to_string()])
        .args(["--tcp_port", &identity.port("clickhouse-tcp").to_string()])
        .arg(format!("--logger.log={}", folder.join("server.log").display()))
        .args(["--log-level=warning", "--interactive", "--highlight", "0"])
        .args(["-q", "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP"])
        .current_dir(&folder)
        .env("TERM", "dumb")
        // The client inside keeps a history in the home folder of whoever runs it.
        .env("HOME", &folder);
    Ok(command)
}

pub fn is_ready(identity: &Identity) -> bool {
    http::get(identity.port("clickhouse-http"), "/ping").is_some_and(|answer| answer.body.trim() == "Ok.")
}

pub fn url(identity: &Identity) -> String {
    format!("http://127.0.0.1:{}", identity.port("clickhouse-http"))
}
