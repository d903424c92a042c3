//! What can go wrong when a node is asked for something.

use std::time::Duration;

use chordal_protocol::Contact;

use crate::store::StoreError;
use crate::words::sentence;

/// Why a node did not do what it was asked. Unless a variant says otherwise nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The request was for the owner, and another node owns this id.
    #[error("this node does not serve that id{}", hint_text(.hint))]
    NotMine {
        /// The node to ask instead, if this one knows it.
        hint: Option<Contact>,
    },
    /// It cannot be done now, but asking again later may work.
    #[error("{reason}")]
    Unavailable {
        /// What stands in the way, and what to do.
        reason: String,
    },
    /// The deadline passed. For a write the outcome is unknown: it may have happened.
    #[error("no answer within {:.1} s: {reason}", .waited.as_secs_f32())]
    Deadline {
        /// How long it was tried.
        waited: Duration,
        /// What stood in the way last.
        reason: String,
    },
    /// A node that was named does not answer.
    #[error("{addr} does not answer: {} Is it running, and is the port right?", sentence(.reason))]
    Unreachable {
        /// The address that was tried.
        addr: String,
        /// What happened.
        reason: String,
    },
    /// A node that was named answers, but not as a node that can do what is asked.
    #[error("{addr} cannot do that: {reason}")]
    Peer {
        /// The address that answered.
        addr: String,
        /// What it said.
        reason: String,
    },
    /// A node that was named stands in the way of the request: it is of another ring, or it is this node itself.
    #[error("{reason}")]
    Conflict {
        /// What stands in the way, and what to do.
        reason: String,
    },
    /// What was asked makes no sense.
    #[error("{reason}")]
    Invalid {
        /// What is wrong, and how it should be.
        reason: String,
    },
    /// A value or a key has too many bytes.
    #[error("the {what} has {bytes} bytes, and {limit} are the most; {advice}")]
    TooLarge {
        /// `value` or `key`.
        what: &'static str,
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
        /// What to do.
        advice: &'static str,
    },
    /// Too much is waiting already.
    #[error("too many requests are waiting at this node; try again shortly")]
    Overloaded,
    /// The disk of the node that owns the id is full. Nothing was acknowledged.
    #[error("the disk of {owner}, which owns that id, is full: {reason}. Free some space there; it goes on by itself")]
    OwnerFull {
        /// The owner.
        owner: String,
        /// What its system said.
        reason: String,
    },
    /// The store failed. Nothing was acknowledged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn hint_text(hint: &Option<Contact>) -> String {
    match hint {
        Some(contact) => format!("; ask {contact}"),
        None => "; ask its owner (GET /find/{id} tells who that is)".to_owned(),
    }
}
