//! Points of customers: what a program says (`program`, `programs`), what a sale earns (`accrual`), the lots that a balance
//! consists of (`lots`), what is lost in time (`expiry`), entries outside the lanes (`posting`). Balances live in
//! `db::loyalty`.

pub mod accrual;
pub mod expiry;
pub mod lots;
pub mod posting;
pub mod program;
pub mod programs;
