//! `tasks simulate` as people meet it.
//!
//! - [`overlay`]: very large networks
//! - [`protocol`]: the ring's own code under faults

#[path = "../common/mod.rs"]
mod common;

mod overlay;
mod protocol;
