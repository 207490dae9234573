//! Journeys over the running platform that `./dev test` starts: real servers, real processes, one file
//! per journey. They share the demonstration business and run one after another, since some of them wait
//! for the platform to be quiet.

mod demo;
mod downstream;
mod replay;
mod till_developer;
mod world;
