//! The bootstrap service on real processes: pools whose nodes are killed and paused, services that are killed and started
//! again, clients that ask and join all the while, and what is told to those who start it wrongly.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod bad_input;
mod clients;
mod docs;
mod kills;
mod pauses;
mod restarts;
mod support;
mod variants;
