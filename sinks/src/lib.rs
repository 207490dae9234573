//! Sinks: what the topics say, made fit for questions. ClickHouse for people and reports, Redis for tills.
//!
//! The path of a record into ClickHouse: [`sink`] takes a batch -> [`rows`] (pure) -> [`store`] inserts by
//! identity -> offsets are committed -> [`marts`] recomputes the touched slices. [`reports`] answers KPI
//! questions and is used by the ingest API as a library. [`view`] keeps Redis.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod marts;
pub mod migrate;
pub mod reports;
pub mod rows;
pub mod sink;
pub mod store;
pub mod view;
pub mod withdraw;
