//! Returns: refunds, exchanges and voids (rules T3 to T6, T9, T11, T13).
//!
//! Parsed (`types`, `check`), computed by pure functions (`legs`, `payout`, `points`, `plan`), committed in an ordinary
//! transaction with the locks of a sale and one more for the documents that goods come back from (`store`). A preview is
//! the same computation without the commit.

pub mod body;
pub mod check;
pub mod hash;
pub mod judge;
pub mod legs;
pub mod origin;
pub mod payout;
pub mod plan;
pub mod points;
pub mod read;
pub mod records;
pub mod returnable;
pub mod routes;
pub mod store;
#[cfg(test)]
mod tests;
pub mod types;
