//! Bad input and bad company, on real processes: everything gets a clear error, nothing is lost, and the node stays up.
//!
//! - [`bad_requests`]: what clients send
//! - [`bad_starts`]: what `chordal start` is told
//! - [`bad_state`]: what `tasks` finds
//! - [`clocks`]: clocks that are wrong
//! - [`crowds`]: clients that are slow, or many
//! - [`full_disk`]: disks without room, and ones that cannot be written
//! - [`hostile_peers`]: nodes that lie, hang, babble, or speak another version
//! - [`resources`]: what a ring that has nothing to do holds on to

#[path = "../common/mod.rs"]
mod common;

mod bad_requests;
mod bad_starts;
mod bad_state;
mod clocks;
mod crowds;
mod full_disk;
mod hostile_peers;
mod resources;
mod support;
