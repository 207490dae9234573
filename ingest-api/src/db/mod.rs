//! SQL only, one file per table family.

pub mod locks;
pub mod outbox;
pub mod sales;
pub mod snapshot;
