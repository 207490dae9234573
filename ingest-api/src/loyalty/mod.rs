//! Points of customers: what a sale earns. Balances live in `db::loyalty`.

pub mod accrual;
