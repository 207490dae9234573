//! SQL only, one file per table family.

pub mod audit;
pub mod catalog;
pub mod catalog_writes;
pub mod customers;
pub mod inventory;
pub mod locations;
pub mod locks;
pub mod outbox;
pub mod relay;
pub mod sales;
pub mod snapshot;
pub mod taxes;
pub mod terminals;
pub mod users;
