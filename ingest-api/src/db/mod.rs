//! SQL only, one file per table family.

pub mod api_clients;
pub mod arrays;
pub mod attempts;
pub mod audit;
pub mod catalog;
pub mod catalog_writes;
pub mod credentials;
pub mod customers;
pub mod inventory;
pub mod leases;
pub mod locations;
pub mod locks;
pub mod loyalty;
pub mod outbox;
pub mod profiles;
pub mod relay;
pub mod sales;
pub mod second_factors;
pub mod sessions;
pub mod sign_in_policy;
pub mod signing_keys;
pub mod snapshot;
pub mod taxes;
pub mod terminals;
pub mod users;
pub mod vault;
