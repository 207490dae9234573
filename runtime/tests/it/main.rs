//! Real Postgres, real Kafka. `./dev test` gives both; without them every test fails at once and says so.

mod consumer;
mod dead_letters;
mod kafka;
mod pg;
mod rebalance;
mod support;
