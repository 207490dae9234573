//! The ClickHouse side against the real engine: `./dev test` starts it, or `./dev services` and
//! `eval "$(./dev env)"` before `cargo test -p sinks`. Tests keep apart by random locations.

mod access;
mod golden;
mod guide;
mod handler;
mod marts;
mod replay;
mod withdrawal;
mod world;
