//! The shapes of the HTTP interface, the labs' and that of /kv, shared by the server and its clients.
//!
//! Fields that the labs' people know keep their names; what we add stands beside them. Ids are 64 hex digits.

mod bulk;
mod etag;

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chordal_protocol::{Contact, Id, Version};
use serde::{Deserialize, Serialize};

pub use bulk::{BULK_BODY, BULK_RECORDS, BulkAnswer, BulkOp, BulkRecord};
pub use etag::{ETag, ParseETagError};

/// A node: `{"name","id","host","port"}`. Where a client names a node, host and port are enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRef {
    /// What people call it.
    pub name: String,
    /// SHA-256 of `host:port`, or where a lesson placed it.
    pub id: Id,
    /// The host as it was hashed.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl From<&Contact> for NodeRef {
    fn from(contact: &Contact) -> NodeRef {
        NodeRef { name: contact.name.clone(), id: contact.id, host: contact.host().to_owned(), port: contact.port() }
    }
}

impl NodeRef {
    /// `host:port`, with brackets round an IPv6 host.
    pub fn addr(&self) -> String {
        join_host_port(&self.host, self.port)
    }

    /// The contact that this names.
    pub fn contact(&self) -> Contact {
        Contact { id: self.id, addr: self.addr(), name: self.name.clone() }
    }
}

/// `host:port`, with brackets round an IPv6 host.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `POST /seen`: what a node asks that looks for the address to tell others, or wants to know whether they reach it there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenBody {
    /// Where it wants to be called back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_back: Option<CallBack>,
}

/// Where a node wants to be called back, and how it is recognised there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallBack {
    /// The `host:port` that it tells others; without it the one that it is seen at, with this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// The port.
    #[serde(default)]
    pub port: u16,
    /// The SHA-256 of 32 random bytes that nobody but the node knows, 64 hex digits.
    pub challenge: String,
}

/// What `POST /seen` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The address that the request came from.
    pub ip: IpAddr,
    /// Whether the node that asked has answered there, if it wanted to be called back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called_back: Option<bool>,
    /// Why it was not called back, or what came instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST /challenge`: what a node is asked that wants to be called back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The digest that the node has named.
    pub challenge: String,
}

/// What `POST /challenge` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// What has that digest, 64 hex digits.
    pub response: String,
}

/// The media type of a value for which nobody named one: that of text, or of bytes.
pub fn fitting_type(value: &[u8]) -> &'static str {
    if std::str::from_utf8(value).is_ok() { "text/plain; charset=utf-8" } else { "application/octet-stream" }
}

/// Bytes in JSON: a string where they are UTF-8, else `{"base64": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string, or {\"base64\": \"…\"} for bytes that are not UTF-8")]
pub enum Text {
    /// The bytes are UTF-8.
    Plain(String),
    /// They are not.
    Base64 {
        /// The bytes in standard base64 with padding.
        base64: String,
    },
}

impl Text {
    /// The form for these bytes.
    pub fn of(bytes: &[u8]) -> Text {
        match std::str::from_utf8(bytes) {
            Ok(text) => Text::Plain(text.to_owned()),
            Err(_) => Text::Base64 { base64: BASE64.encode(bytes) },
        }
    }

    /// The bytes; an error if the base64 is not that.
    pub fn bytes(&self) -> Result<Vec<u8>, base64::DecodeError> {
        match self {
            Text::Plain(text) => Ok(text.clone().into_bytes()),
            Text::Base64 { base64 } => BASE64.decode(base64),
        }
    }
}

/// Versions stand in JSON as text, such as `"3.14"`: epoch, dot, sequence.
pub mod version_text {
    use super::*;

    /// Writes `3.14`.
    pub fn serialize<S: serde::Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(version)
    }

    /// Reads `3.14`.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `GET /nodeinfo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node's name.
    pub name: String,
    /// Its id.
    pub id: Id,
    /// Its advertised host.
    pub host: String,
    /// Its advertised port.
    pub port: u16,
    /// Its predecessor, if it knows one.
    pub pred: Option<NodeRef>,
    /// Its successor, if it knows one.
    pub succ: Option<NodeRef>,
    /// Its successor list, nearest first, without itself.
    pub successors: Vec<NodeRef>,
    /// The distinct entries of its finger table.
    pub fingers: Vec<FingerInfo>,
    /// What the ring pointers say it owns, `[id, succ)`.
    pub range: RangeInfo,
    /// What it serves.
    pub views: Vec<ViewInfo>,
    /// How many values it holds in what it serves.
    pub keys: u64,
    /// How it routes when a client does not say: `linear`, `fingers` or `cached`.
    pub routing: String,
    /// `joining`, `joined`, `leaving`, `isolated` or `left`.
    pub membership: String,
    /// Whether it is joined, has a live successor and serves what it owns.
    pub ready: bool,
    /// The ring's id, 32 hex digits; null before it has joined one.
    pub ring: Option<String>,
    /// Whether the ring was created for lessons.
    pub lab: bool,
    /// How many nodes are to keep each value, as the ring was created; null before it has joined one.
    pub replication_factor: Option<u8>,
    /// Seconds since the process started.
    pub uptime_s: f64,
    /// The version of chordal.
    pub version: String,
    /// The version of the protocol between nodes.
    pub wire: u16,
    /// The process.
    pub pid: u32,
    /// Ranges that came or went, newest last, at most sixteen.
    pub handovers: Vec<HandoverInfo>,
}

impl NodeInfo {
    /// The node itself, as others name it.
    pub fn itself(&self) -> NodeRef {
        NodeRef { name: self.name.clone(), id: self.id, host: self.host.clone(), port: self.port }
    }
}

/// An entry of a finger table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerInfo {
    /// The lowest finger that this node serves as.
    pub first: u16,
    /// The highest one.
    pub last: u16,
    /// The first node at or after `id + 2^i` for `i` in `first..=last`.
    pub node: NodeRef,
}

/// A stretch `[lo, hi)` of the circle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RangeInfo {
    /// The first id.
    pub lo: Id,
    /// The first id after it; equal to `lo` for the whole circle.
    pub hi: Id,
    /// The share of the circle, in `(0, 1]`.
    pub share: f64,
}

/// A range that a node serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewInfo {
    /// What it covers.
    pub range: RangeInfo,
    /// Its epoch.
    pub epoch: u64,
    /// Those who keep it.
    pub members: Vec<NodeRef>,
    /// Whether this node is its primary, by whom clients are served.
    pub primary: bool,
    /// The primary.
    pub primary_node: NodeRef,
    /// As the primary: `serving`, or `restarting` (it has restarted, and the members have not agreed yet). As any other member:
    /// `keeping`. `sealed`: its members are deciding what follows it. `fetching`: its content is not here yet. `frozen`: it is
    /// about to become one with the view before it.
    pub status: String,
    /// As the primary: how many writes were not known to be at all members a moment ago.
    pub lag: u64,
    /// For how many seconds it has been sealed, as far as was seen; null if it is not.
    pub sealed_s: Option<f64>,
    /// Whether a person made it without a majority of the view before: what only lost members had is lost.
    pub forced: bool,
    /// How many values it holds.
    pub keys: u64,
}

/// A range that came or went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandoverInfo {
    /// `received`, `given`, `taken` (after a crash) or `yielded` (to a newer view).
    pub kind: String,
    /// What it covers.
    pub range: RangeInfo,
    /// The other node.
    pub peer: NodeRef,
    /// How many records moved.
    pub records: u64,
    /// How long ago, in seconds.
    pub ago_s: f64,
}

/// `GET /find`: the owner of an id and how it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// What was looked for.
    pub id: Id,
    /// The last node at or before it.
    pub owner: NodeRef,
    /// How many nodes were asked, the owner included, the asker not.
    pub hops: u32,
    /// `linear`, `fingers` or `cached`.
    pub mode: String,
    /// Each node that was asked, in order.
    pub trace: Vec<HopInfo>,
}

/// A node that was asked on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HopInfo {
    /// Whom.
    pub node: NodeRef,
    /// How long its answer took, in milliseconds.
    pub ms: f64,
    /// Why it was chosen, such as `finger 254`, `successor`, `cached`; `… (no answer)` if it did not.
    pub why: String,
}

/// The body of `POST /dht/store` and `POST /insert`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreBody {
    /// What to store.
    pub value: Text,
    /// Under which key; without one the value is its own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Text>,
}

/// What `POST /dht/store`, `POST /insert` and the deletes answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// SHA-256 of the key.
    pub id: Id,
    /// The node that keeps it.
    pub owner: NodeRef,
    /// The version that was written.
    #[serde(with = "version_text")]
    pub version: Version,
    /// How many nodes were asked on the way, the owner included.
    pub hops: u32,
}

/// What `GET /dht/lookup` and `GET /get/{id}` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookedUp {
    /// SHA-256 of the key.
    pub id: Id,
    /// The key.
    pub key: Text,
    /// The value.
    pub value: Text,
    /// The node that keeps it.
    pub owner: NodeRef,
    /// The version of the value.
    #[serde(with = "version_text")]
    pub version: Version,
    /// How many nodes were asked on the way, the owner included.
    pub hops: u32,
}

/// `GET /db`: a page of what a node holds, in id order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DbPage {
    /// The values.
    pub items: Vec<DbItem>,
    /// What to pass as `?after=` for the next page; null on the last.
    pub next: Option<Id>,
}

/// A value on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DbItem {
    /// SHA-256 of the key.
    pub id: Id,
    /// The key.
    pub key: Text,
    /// The value.
    pub value: Text,
    /// The version of the value.
    #[serde(with = "version_text")]
    pub version: Version,
}

/// What `POST /dht/join` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcomed {
    /// The node that has joined.
    pub joined: NodeRef,
    /// The node that owned its id and welcomed it.
    pub welcomed_by: NodeRef,
}

/// What `POST /dht/leave` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The node that has left.
    pub left: NodeRef,
}

/// The body of `POST /recover`: a range that has lost its majority for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// The first id of the range.
    pub lo: Id,
    /// The first id after it; equal to `lo` for the whole circle.
    pub hi: Id,
    /// The epoch of its view; null where no member is left, so that the range begins again, empty.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// The members that are left, by their ids, the node that is asked among them.
    #[serde(default)]
    pub survivors: Vec<Id>,
    /// Must be true: what only the lost members had is lost for good.
    #[serde(default)]
    pub accept_loss: bool,
}

/// What `POST /recover` answers: the view that serves the range now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    /// What it covers.
    pub range: RangeInfo,
    /// Its epoch.
    pub epoch: u64,
    /// Whether it was made by force. If not, the survivors have carried out what the lost majority may have decided.
    pub forced: bool,
}

/// `GET /return_dht_address` of a bootstrap service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialPeers {
    /// Members of the ring, `host:port`, in random order.
    pub initial_peers: Vec<String>,
}

/// An error: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// A name for the kind of problem, such as `/problems/not-mine`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time, and what to do.
    pub detail: String,
    /// For 421: the node to ask instead, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<NodeRef>,
}
