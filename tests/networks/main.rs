//! Rings over networks that routers join, in namespaces of the test's own: nodes there have addresses that are not loopback, so
//! each ring has a secret, and what reaches them goes through the commands that people use.
//!
//! - [`world`]: subnets around a router, which can be cut off from it; an address translation with forwarded ports
//! - [`bad_wire`]: a wire that is late and loses some of what it is given
//! - [`subnets`], [`translated`], [`late`]: the rings
//! - [`found`]: rings of nodes that find their addresses
//! - [`igd`]: a router that forwards ports to those who ask; [`forwarded`]: nodes that ask it
//! - [`discovered`]: nodes that find each other on one wire
//!
//! A test that cannot have its networks says on standard error what is missing, and is skipped: they need the right to make
//! namespaces, `ip` (iproute2), and those with an address translation `nft` (nftables).
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod bad_wire;
mod discovered;
mod forwarded;
mod found;
mod igd;
mod late;
mod subnets;
mod translated;
mod world;
