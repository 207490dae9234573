//! Stream processors: pure folds of movements and loyalty entries into state and low-stock alerts, and the
//! one loop that restores, folds, emits, writes state and commits. See the crate's README for the guarantee.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod audit;
pub mod fold;
pub mod low_stock;
pub mod loyalty;
pub mod memory;
pub mod processor;
pub mod publish;
pub mod state;
pub mod stock;
