//! The processors against a real broker and registry. `./dev test` gives both; alone: `./dev services`, then
//! `eval "$(./dev env)"`.

mod crashes;
mod faults;
mod rig;
