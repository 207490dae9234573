//! Tests of the API against a real Postgres, one database per test.

mod access;
mod auth;
mod bad_input;
mod catalog;
mod inventory;
mod lanes;
mod openapi;
mod rig;
mod users;
mod world;
