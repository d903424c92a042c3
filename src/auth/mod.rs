//! Who may ask what of a ring that is closed to strangers: its keys, signatures made with them, and replays.
//!
//! [`KeyRing`] is a secret file that is read again when it changes. It signs requests ([`KeyRing::sign`]) and lets their
//! sender tell whether an answer comes from somebody who has the same key ([`Awaited::check`]). The layer in
//! `http::authenticate` is the other end. docs/security.md says what is defended by that and what is not.

mod key_file;
mod key_ring;
mod replays;
mod signature;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use key_file::{Key, Keys};
pub use key_file::{KeyFile, KeyFileError, NewKey};
pub(crate) use key_ring::now;
pub use key_ring::{Awaited, KeyRing, NotSigned, Sent};
pub(crate) use replays::{Refused, Replays, WINDOW};
pub(crate) use signature::{REPLY, SCHEME, Signature, Signed, reply_mac};

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
    /// Further `host:port` by which clients call this node, such as that of a forwarded port.
    pub known_as: Vec<String>,
}

impl Security {
    /// Whether strangers are kept out.
    pub fn is_closed(&self) -> bool {
        self.keys.is_some()
    }
}
