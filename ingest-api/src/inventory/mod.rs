//! Stock: acts that change it outside sales (receipts, adjustments, thresholds), and what there is.

pub mod acts;
mod adjustment;
pub mod disposition;
pub mod levels;
pub mod store;
