//! Chordal is a distributed hash table that people can read, run, break, measure and trust: a Chord ring over HTTP.
//!
//! [`Node`] is a node inside your program, [`Client`] uses a ring of which you know some nodes; examples/ has programs for both.
//!
//! ```
//! use chordal::{Client, Node};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder().start().await?;
//! let tag = node.put("greeting", "hello").await?;
//! let client = Client::new([node.addr()])?;
//! client.compare_and_set("greeting", Some(tag), "hello, ring").await?;
//! assert_eq!(node.get("greeting").await?.unwrap().bytes, b"hello, ring");
//! # Ok(())
//! # }
//! ```
//!
//! A tour of the house: [`node`] is the running node; it drives the protocol, which stands apart in the crate
//! `chordal-protocol` and does no I/O. [`http`] is what a node answers, [`store`] is what it keeps, [`api`] has the shapes of
//! the interface, [`client`] speaks it, and [`auth`] keeps strangers out. With the feature `cli`, [`cli`] has the command line of the daemon,
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
#[doc(hidden)]
pub mod words;

pub use chordal_protocol::Condition;

pub use api::ETag;
pub use client::{Client, OperationError, Outcome, Value};
pub use node::{Node, NodeBuilder, NodeError};

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
