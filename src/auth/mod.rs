//! Who may ask what of a ring that is closed to strangers: its keys, signatures made with them, and replays.
//!
//! [`KeyRing`] is a secret file that is read again when it changes. It signs requests ([`KeyRing::sign`]) and lets their
//! sender tell whether an answer comes from somebody who has the same key ([`Awaited::check`]). The layer in
//! `http::authenticate` is the other end. docs/security.md says what is defended by that and what is not.

mod key_file;
mod key_ring;
mod nets;
mod renewed;
mod replays;
#[cfg(feature = "discover")]
mod ring_tag;
mod signature;
mod tls;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(crate) use key_file::{Key, Keys};
pub use key_file::{KeyFile, KeyFileError, NewKey};
pub(crate) use key_ring::now;
pub use key_ring::{Awaited, KeyRing, NotSigned, Sent};
pub(crate) use nets::{Nets, Reach, reach};
pub(crate) use renewed::Renewed;
pub(crate) use replays::{Refused, Replays, WINDOW};
pub(crate) use signature::{REPLY, SCHEME, Signature, Signed, call_mac, reply_mac};

pub use tls::{Tls, TlsError, role_name};
pub(crate) use tls::{explain_request, prepare, role_of, scheme};

/// What somebody may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ask for values and for what nodes tell about themselves.
    Reader,
    /// Store and delete as well.
    Client,
    /// Everything: what nodes ask each other, joins, leaves, and neighbours set by hand.
    Node,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Reader => "reader",
            Role::Client => "client",
            Role::Node => "node",
        })
    }
}

/// How a node keeps strangers out. By default it doesn't, and then listens on loopback only.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// The keys of the ring. With them every request must be signed.
    pub keys: Option<Arc<KeyRing>>,
    /// Let requests that a reader may send pass without a signature, as browsers send them.
    pub open_read: bool,
    /// The certificate of a node and the authority of its ring. With them every connection is one of mutual TLS.
    pub tls: Option<Tls>,
    /// Further `host:port` by which clients call this node, such as that of a forwarded port.
    pub known_as: Vec<String>,
    /// The nets in which other nodes are called; without any, addresses like the node's own.
    pub allowed: Vec<IpNet>,
    /// What one client may ask.
    pub limits: ClientLimits,
}

/// What one client may ask: one IPv4 address, or one /64 of IPv6. Other nodes may ask more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Requests a second, and as many at once; 0 is any number.
    pub requests: u32,
    /// Connections at once, at least one.
    pub connections: usize,
    /// Whether that holds for programs of this machine too.
    pub on_loopback: bool,
}

impl ClientLimits {
    /// Whether they hold for who comes from there.
    pub(crate) fn hold_for(&self, ip: IpAddr) -> bool {
        self.on_loopback || !ip.to_canonical().is_loopback()
    }
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits { requests: 1000, connections: 256, on_loopback: false }
    }
}

impl Security {
    /// Whether strangers are kept out.
    pub fn is_closed(&self) -> bool {
        self.keys.is_some() || self.tls.is_some()
    }
}
