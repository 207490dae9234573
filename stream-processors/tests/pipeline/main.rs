//! The processors against a real broker and registry. `./dev test` gives both; alone: `./dev services`, then
//! `eval "$(./dev env)"`.

#![allow(clippy::disallowed_methods, reason = "tests read addresses from the environment and write past the product")]

mod crashes;
mod faults;
mod rig;
