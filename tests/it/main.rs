//! Journeys over the running platform that `./dev test` starts: real servers, real processes, one file
//! per journey. They share the demonstration business and run one after another, since some of them wait
//! for the platform to be quiet.

#![allow(clippy::disallowed_methods, reason = "tests read addresses from the environment and write past the product")]

mod api_guide;
mod demo;
mod downstream;
mod kpis;
mod replay;
mod till_developer;
mod world;
