//! Rings that are closed to strangers, on real processes.
//!
//! - [`strangers`]: who has no key, or another one, or what somebody else has sent
//! - [`roles`]: what each key may do
//! - [`ring`]: a ring under a secret, run by `tasks`, and who joins it
//! - [`rotation`]: keys replaced while the ring runs
//! - [`tls`]: a ring of mutual TLS
//! - [`calls`]: connections that nodes keep for their calls
//! - [`certificates`]: certificates and their authority replaced while the ring runs
//! - [`limits`]: what one client may ask, and whom a node calls
//! - [`call_back`]: what a node can be made to do by those who want to be called back

#[path = "../common/mod.rs"]
mod common;

mod call_back;
mod calls;
mod certificates;
mod limits;
mod ring;
mod roles;
mod rotation;
mod strangers;
mod support;
mod tls;
