//! Pure: what a cart costs. One entry point serves the quote, the commit and the check of a replay.

pub mod snapshot;
