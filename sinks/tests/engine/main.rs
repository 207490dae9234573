//! The ClickHouse side against the real engine: `./dev test` starts it, or `./dev services` and
//! `eval "$(./dev env)"` before `cargo test -p sinks`. Tests keep apart by random locations.

#![allow(clippy::disallowed_methods, reason = "tests read addresses from the environment and write past the product")]

mod access;
mod golden;
mod guide;
mod handler;
mod marts;
mod replay;
mod withdrawal;
mod world;
