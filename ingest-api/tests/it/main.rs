//! Tests of the API against a real Postgres, one database per test.

mod access;
mod auth;
mod bad_input;
mod catalog;
mod epoch;
mod identity;
mod inventory;
mod lanes;
mod last_units;
mod openapi;
mod relay;
mod rig;
mod sales;
mod users;
mod world;
