//! Points of customers: what a sale earns (`accrual`), the lots that a balance consists of (`lots`). Balances live in
//! `db::loyalty`.

pub mod accrual;
pub mod lots;
