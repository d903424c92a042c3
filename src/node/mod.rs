//! The running node.

mod error;

use bytes::Bytes;
use chordal_protocol::{Contact, Id, Record, Write, Written};

use crate::api;
pub use error::NodeError;

/// How lookups travel. (Will move to the protocol crate.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Successor by successor.
    Linear,
    /// Closest preceding finger.
    Fingers,
    /// Remembered owners first.
    Cached,
}

impl std::str::FromStr for Mode {
    type Err = String;
    fn from_str(_text: &str) -> Result<Mode, String> {
        unimplemented!()
    }
}

/// Who answered, and after how many hops.
#[derive(Debug, Clone)]
pub struct Served {
    /// The node that keeps the record.
    pub owner: Contact,
    /// How many nodes were asked, the owner included, this node not.
    pub hops: u32,
}

/// A running node: a cheap handle.
#[derive(Clone)]
pub struct Node {}

impl Node {
    /// Who this node is.
    pub fn contact(&self) -> Contact {
        unimplemented!()
    }
    /// The largest value it takes, in bytes.
    pub fn value_limit(&self) -> usize {
        unimplemented!()
    }
    /// Whether its ring was created for lessons.
    pub fn is_lab(&self) -> bool {
        unimplemented!()
    }
    /// Everything `GET /nodeinfo` tells.
    pub async fn info(&self) -> Result<api::NodeInfo, NodeError> {
        unimplemented!()
    }
    /// Its predecessor.
    pub fn predecessor(&self) -> Option<Contact> {
        unimplemented!()
    }
    /// Its successor.
    pub fn successor(&self) -> Option<Contact> {
        unimplemented!()
    }
    /// Why it is not ready, if it isn't.
    pub fn not_ready(&self) -> Option<String> {
        unimplemented!()
    }
    /// findNode: the owner of `id`, with the trace.
    pub async fn find(&self, _id: Id, _mode: Option<Mode>) -> Result<api::Found, NodeError> {
        unimplemented!()
    }
    /// Finds the owner and writes there.
    pub async fn write(&self, _write: Write) -> Result<(Written, Served), NodeError> {
        unimplemented!()
    }
    /// Finds the owner and reads there; a tombstone is `None`.
    pub async fn read(&self, _id: Id) -> Result<(Option<Record>, Served), NodeError> {
        unimplemented!()
    }
    /// Writes as the owner, or says who is.
    pub async fn write_here(&self, _write: Write) -> Result<Written, NodeError> {
        unimplemented!()
    }
    /// Reads as the owner, or says who is.
    pub async fn read_here(&self, _id: Id) -> Result<Option<Record>, NodeError> {
        unimplemented!()
    }
    /// Live records that this node holds, in id order (from zero upwards), strictly after `after`: at most `limit`.
    pub async fn page(&self, _after: Option<Id>, _limit: usize) -> Result<Vec<Record>, NodeError> {
        unimplemented!()
    }
    /// PUT /pred by hand: asks `addr` who it is, then rewires.
    pub async fn rewire_predecessor(&self, _addr: &str) -> Result<Contact, NodeError> {
        unimplemented!()
    }
    /// PUT /succ by hand: asks `addr` who it is, then rewires.
    pub async fn rewire_successor(&self, _addr: &str) -> Result<Contact, NodeError> {
        unimplemented!()
    }
    /// POST /dht/join: finds the owner of the joiner's id, which calls the joiner back; returns when it has joined.
    /// The answer is (joiner, owner).
    pub async fn welcome(&self, _addr: &str) -> Result<(Contact, Contact), NodeError> {
        unimplemented!()
    }
    /// POST /dht/leave: hands everything over and leaves the ring; returns when that is done. The process then stops
    /// (the node cancels its own shutdown token once this answer had time to leave).
    pub async fn leave(&self) -> Result<(), NodeError> {
        unimplemented!()
    }
    /// POST /peer: what another node asks. Both sides are encoded.
    pub async fn answer(&self, _envelope: Bytes) -> Result<Vec<u8>, NodeError> {
        unimplemented!()
    }
    /// Is cancelled when the node stops: streams and connections end on it.
    pub fn shutdown_token(&self) -> tokio_util::sync::CancellationToken {
        unimplemented!()
    }
}
