//! A private Redis: append-only, refuses writes rather than evicting.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::layout::{Identity, Layout};
use crate::endpoints::write_private;

pub fn prepare(layout: &Layout, identity: &Identity) -> Result<()> {
    let folder = layout.service("redis")?;
    let settings = format!(
        "bind 127.0.0.1\nport {port}\ndir {dir}\nsave \"\"\nappendonly yes\nmaxmemory 256mb\nmaxmemory-policy noeviction\n\
         requirepass {password}\ndaemonize no\n",
        port = identity.port("redis"),
        dir = folder.display(),
        password = identity.password("redis"),
    );
    write_private(&folder.join("redis.conf"), settings.as_bytes())
}

pub fn command(layout: &Layout) -> Result<Command> {
    let mut command = Command::new("redis-server");
    command.arg(layout.service("redis")?.join("redis.conf"));
    Ok(command)
}

pub fn is_ready(identity: &Identity) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", identity.port("redis")))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        write!(stream, "AUTH {}\r\nPING\r\nQUIT\r\n", identity.password("redis"))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains("+PONG"))
    };
    ping().unwrap_or(false)
}

pub fn url(identity: &Identity) -> String {
    format!("redis://:{}@127.0.0.1:{}/0", identity.password("redis"), identity.port("redis"))
}
