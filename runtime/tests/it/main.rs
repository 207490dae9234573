//! Real Postgres, real Kafka. `./dev test` gives both; without them every test fails at once and says so.

#![allow(clippy::disallowed_methods, reason = "tests read addresses from the environment and write past the product")]

mod cable;
mod consumer;
mod dead_letters;
mod frozen;
mod kafka;
mod pg;
mod rebalance;
mod redis;
mod support;
