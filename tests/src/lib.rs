//! What surrounds the platform: the supervisor behind `./dev`, simulated tills, the demonstration
//! business, replays of real histories, and the journeys that run against real servers. Links no
//! crate of the platform but the contract; every process is started by path.

pub mod analyst;
pub mod attack;
pub mod bench;
pub mod chaos;
pub mod client;
pub mod demo;
pub mod device;
pub mod endpoints;
pub mod journal;
pub mod launcher;
pub mod metrics;
pub mod plant;
pub mod replay;
pub mod session;
pub mod stack;
pub mod steps;
pub mod tail;
pub mod terminal;
pub mod till;
pub mod till_pricing;
pub mod wire;
