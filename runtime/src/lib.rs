//! What every Vorca process needs, and no product rule: configuration, telemetry, start and stop, the
//! admin port, Postgres, Redis, Kafka, the one consumer loop and the error body of the public API.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod card_data;
pub mod config;
pub mod consumer;
pub mod dead_letter;
pub mod failure;
pub mod kafka;
pub mod lifecycle;
pub mod names;
pub mod offsets;
pub mod ops;
pub mod pg;
pub mod problem;
pub mod redis;
pub mod telemetry;
pub mod trace;
