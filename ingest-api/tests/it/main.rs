//! Tests of the API against a real Postgres, one database per test.

#![allow(clippy::disallowed_methods, reason = "tests read addresses from the environment and write past the product")]

mod access;
mod api_clients;
mod audit_chain;
mod audit_log;
mod audit_proof;
mod audit_rights;
mod audit_tamper;
mod auth;
mod bad_input;
mod card_data;
mod catalog;
mod connections;
mod epoch;
mod feeds;
mod frozen_leader;
mod identity;
mod inventory;
mod isolation;
mod lane_plans;
mod lanes;
mod last_units;
mod leases;
mod matrix;
mod members;
mod openapi;
mod outbox;
mod parked;
mod passwords;
mod personal_data;
mod process;
mod quotes;
mod refresh;
mod relay;
mod replay;
mod rig;
mod sales;
mod second_factor;
mod sessions;
mod signing_keys;
mod step_up;
mod unknown_commit;
mod users;
mod wire;
mod world;
