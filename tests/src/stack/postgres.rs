//! A private PostgreSQL cluster: never Debian's own, with every durability setting on.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use super::layout::{Identity, Layout};
use super::process;
use crate::endpoints::write_private;

/// fsync, full_page_writes and synchronous_commit stay at their default, on: what a test claims about loss must hold.
pub const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "max_connections=300",
    "wal_level=logical",
    "max_wal_senders=10",
    "shared_buffers=256MB",
    "wal_compression=lz4",
    "max_wal_size=2GB",
    "checkpoint_timeout=15min",
    "jit=off",
    "shared_preload_libraries=pg_stat_statements",
];

pub fn data(layout: &Layout) -> PathBuf {
    layout.run.join("postgres/data")
}

/// Debian keeps the server's programs outside the search path: the highest version wins.
pub fn programs() -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed: apt-get install postgresql-15")?;
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest =
        versions.flatten().map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists()).max_by_key(number);
    Ok(newest.context("PostgreSQL is not installed: apt-get install postgresql-15")?.join("bin"))
}

/// initdb and postgres refuse to run as root, so root runs them as Debian's `postgres`; anybody else as oneself.
fn run_as(command: &mut Command) -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres")?.context("the user postgres is missing: apt-get install postgresql-15")?;
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    Ok(Some(user))
}

fn give(path: &Path, owner: &Option<User>) -> Result<()> {
    if let Some(user) = owner {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .with_context(|| format!("chown {}", path.display()))?;
    }
    Ok(())
}

/// Makes the cluster with its roles and databases, once; later waits until no process of an earlier run holds it.
pub fn prepare(layout: &Layout, identity: &Identity) -> Result<()> {
    let folder = layout.service("postgres")?;
    let data = data(layout);
    end_leftovers(&data);
    if data.join("vorca.made").exists() {
        make_roles(&folder, &data, identity)?;
        return make_vault(&folder, &data, identity);
    }
    if data.exists() {
        fs::remove_dir_all(&data).context("removing a half-made cluster")?;
    }
    let mut initdb = Command::new(programs()?.join("initdb"));
    let owner = run_as(&mut initdb)?;
    give(&folder, &owner)?;
    let passwords = folder.join("superuser-password");
    write_private(&passwords, identity.password("postgres").as_bytes())?;
    give(&passwords, &owner)?;
    let made = initdb
        .args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .arg(format!("--pwfile={}", passwords.display()))
        .arg("-D")
        .arg(&data)
        .current_dir(&folder)
        .env_remove("LANGUAGE")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .context("starting initdb")?;
    fs::remove_file(&passwords)?;
    if !made.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr).trim());
    }
    make_databases(&folder, &data, identity, &["vorca", "registry"]).context("making the databases")?;
    fs::write(data.join("vorca.made"), "")?;
    make_roles(&folder, &data, identity)?;
    make_vault(&folder, &data, identity)
}

/// The key store of personal data. A cluster of an earlier build gets it too.
fn make_vault(folder: &Path, data: &Path, identity: &Identity) -> Result<()> {
    if data.join("vault.made").exists() {
        return Ok(());
    }
    make_databases(folder, data, identity, &["vorca-vault"]).context("making the key store")?;
    Ok(fs::write(data.join("vault.made"), "")?)
}

/// For each name a role and a database that no other role may look into.
fn make_databases(folder: &Path, data: &Path, identity: &Identity, names: &[&str]) -> Result<()> {
    let mut statements = Vec::new();
    for name in names {
        let role = name.replace('-', "_");
        statements.push(format!("create role {role} login password '{}'", identity.password(name)));
        // `./dev services` and `./dev test` give the usual template a schema for tests.
        statements.push(format!("create database {role} owner {role} template template0"));
        statements.push(format!("revoke connect on database {role} from public"));
    }
    run_single(folder, data, &statements)
}

fn make_roles(folder: &Path, data: &Path, identity: &Identity) -> Result<()> {
    ["vorca-app", "vorca-relay"].into_iter().try_for_each(|name| make_role(folder, data, identity, name))
}

/// A role of Vorca's processes, which owns nothing. A cluster of an earlier build gets it too.
fn make_role(folder: &Path, data: &Path, identity: &Identity, name: &str) -> Result<()> {
    let role = name.replace('-', "_");
    let made = data.join(format!("{role}.made"));
    if made.exists() {
        return Ok(());
    }
    let statements = [
        format!("create role {role} login password '{}'", identity.password(name)),
        format!("grant connect on database vorca to {role}"),
    ];
    run_single(folder, data, &statements).with_context(|| format!("making the role {role}"))?;
    Ok(fs::write(made, "")?)
}

/// In single-user mode, before anything listens.
fn run_single(folder: &Path, data: &Path, statements: &[String]) -> Result<()> {
    let mut single = Command::new(programs()?.join("postgres"));
    run_as(&mut single)?;
    let mut child = single
        .args(["--single", "-c", "fsync=off", "-D"])
        .arg(data)
        .arg("postgres")
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting postgres --single")?;
    let mut input = child.stdin.take().context("stdin of postgres --single")?;
    for statement in statements {
        writeln!(input, "{statement}")?;
    }
    drop(input);
    let done = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if !done.status.success() || said.contains("ERROR") || said.contains("FATAL") {
        bail!("postgres --single: {}", said.trim());
    }
    Ok(())
}

/// A server whose parent was killed may still be writing: a new one must not start before the last of it is gone.
pub fn end_leftovers(data: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = process::working_in(data);
        if left.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            left.iter().for_each(|process| process.signal(Signal::SIGKILL));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn command(layout: &Layout, identity: &Identity) -> Result<Command> {
    let folder = layout.service("postgres")?;
    let mut command = Command::new(programs()?.join("postgres"));
    let owner = run_as(&mut command)?;
    let socket = folder.join("socket");
    fs::create_dir_all(&socket)?;
    give(&socket, &owner)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o755))?;
    command.arg("-D").arg(data(layout)).current_dir(&folder).env("LC_ALL", "C.UTF-8");
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.arg("-c").arg(format!("port={}", identity.port("postgres")));
    // The kernel limits a socket's path to 107 bytes; TCP does everything, the socket is a convenience.
    let at = if socket.as_os_str().len() < 80 { socket.display().to_string() } else { String::new() };
    command.arg("-c").arg(format!("unix_socket_directories={at}"));
    Ok(command)
}

pub fn is_ready(identity: &Identity) -> bool {
    let Ok(programs) = programs() else { return false };
    Command::new(programs.join("pg_isready"))
        .args(["-q", "-h", "127.0.0.1", "-t", "1", "-p", &identity.port("postgres").to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// For tests and tools: may make databases of its own.
pub fn superuser_url(identity: &Identity) -> String {
    format!("postgres://postgres:{}@127.0.0.1:{}/postgres", identity.password("postgres"), identity.port("postgres"))
}

/// The key store of personal data, for the processes that need it.
pub fn vault_url(identity: &Identity) -> String {
    let (password, port) = (identity.password("vorca-vault"), identity.port("postgres"));
    format!("postgres://vorca_vault:{password}@127.0.0.1:{port}/vorca_vault")
}

/// For Vorca's processes: adds to the ledgers and owns nothing.
pub fn app_url(identity: &Identity) -> String {
    format!("postgres://vorca_app:{}@127.0.0.1:{}/vorca", identity.password("vorca-app"), identity.port("postgres"))
}

/// For the relay: reads the outbox, and writes down how far it came.
pub fn relay_url(identity: &Identity) -> String {
    let (password, port) = (identity.password("vorca-relay"), identity.port("postgres"));
    format!("postgres://vorca_relay:{password}@127.0.0.1:{port}/vorca")
}

/// For migrations and operators: owner of the database `vorca` and of nothing else.
pub fn vorca_url(identity: &Identity) -> String {
    format!("postgres://vorca:{}@127.0.0.1:{}/vorca", identity.password("vorca"), identity.port("postgres"))
}
