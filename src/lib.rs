//! Chordal is a distributed hash table that people can read, run, break, measure and trust: a Chord ring over HTTP.
//!
//! A tour of the house: [`node`] is the running node; it drives the protocol, which stands apart in the crate
//! `chordal-protocol` and does no I/O. [`http`] is what a node answers, [`store`] is what it keeps, [`api`] has the shapes of
//! the labs' interface, [`client`] speaks it, and [`auth`] keeps strangers out. With the feature `cli`, [`cli`] has the command line of the daemon,
//! and [`machine`] the nodes of one ring on one machine.

pub mod api;
pub mod auth;
pub mod bootstrap;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod http;
#[cfg(feature = "cli")]
pub mod machine;
pub mod node;
mod pauses;
pub mod store;
