//! Tests of the API against a real Postgres, one database per test.

mod lanes;
mod rig;
