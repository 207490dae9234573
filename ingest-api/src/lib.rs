//! The one public door: selling, catalog, stock, loyalty and reports over REST, and the roles that
//! follow a commit out of Postgres (relay, worker).
//!
//! `router.rs` names every route; `sales/` is the path of a sale; `lanes/` commits what waits;
//! `db/` holds the SQL; `relay.rs` publishes the outbox.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod access;
pub mod access_matrix;
pub mod app;
pub mod approvals;
pub mod audit;
pub mod auth;
pub mod browsers;
pub mod budgets;
pub mod business_day;
pub mod card_filter;
pub mod catalog;
pub mod catalog_cache;
pub mod changes;
pub mod checks;
pub mod config;
pub mod connections;
pub mod context;
pub mod cursor;
pub mod customers;
pub mod db;
pub mod edits;
pub mod email;
pub mod error;
pub mod extract;
pub mod guard;
pub mod inventory;
pub mod json;
pub mod lanes;
pub mod limits;
pub mod locations;
pub mod loyalty;
pub mod migrate;
pub mod openapi;
pub mod operator;
pub mod page;
pub mod phone;
pub mod pricing;
pub mod privacy;
pub mod redrive;
pub mod relay;
pub mod reporting;
pub mod returns;
pub mod roles;
pub mod router;
pub mod sales;
pub mod serve;
pub mod switches;
pub mod taxes;
pub mod terminals;
pub mod users;
pub mod verify;
pub mod worker;
