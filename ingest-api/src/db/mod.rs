//! SQL only, one file per table family.

pub mod catalog;
pub mod catalog_writes;
pub mod customers;
pub mod inventory;
pub mod locations;
pub mod locks;
pub mod loyalty;
pub mod outbox;
pub mod profiles;
pub mod relay;
pub mod sales;
pub mod snapshot;
pub mod taxes;
pub mod terminals;
pub mod users;
pub mod vault;
