//! What one node allows those who connect to it.

use std::time::Duration;

use crate::auth::ClientLimits;

/// The bounds of a server. The defaults suit a node; tests shorten them.
///
/// [`serve`](super::serve) attaches them to each request as an extension, so that bodies are read within the same
/// bounds; a router that is run by something else falls back on the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many connections may be open at once, including requests that go on after their client hung up.
    pub connections: usize,
    /// How many of them one client may have, if that is counted for it.
    pub clients: ClientLimits,
    /// From the first byte of a request to the end of its headers.
    pub header: Duration,
    /// How long a connection may stay open with no request on it. Clients should drop theirs earlier than that.
    pub idle: Duration,
    /// How long a connection must have been without a request before it may be closed to make room for a new one.
    pub evict: Duration,
    /// The whole of a request's body.
    pub body: Duration,
    /// The longest pause within a body.
    pub body_gap: Duration,
    /// How long an answer may wait for its reader to take some of it.
    pub stall: Duration,
    /// How much of a body that nobody wants is still read, so that its sender gets to see the answer.
    pub drain_bytes: u64,
    /// For how long it is read.
    pub drain: Duration,
    /// How long requests that are under way may take to finish once the server is told to stop.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1024,
            clients: ClientLimits::default(),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            evict: Duration::from_secs(1),
            body: Duration::from_secs(60),
            body_gap: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            drain_bytes: 64 << 20,
            drain: Duration::from_secs(5),
            shutdown: Duration::from_secs(2),
        }
    }
}
