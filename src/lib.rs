//! Chordal is a distributed hash table over HTTP.
#![warn(missing_docs)]

pub mod api;
pub mod client;
pub mod http;
pub mod node;
pub mod store;
