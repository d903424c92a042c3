//! What nodes ask of each other.

use serde::{Deserialize, Serialize};

use crate::replica::{self, Operation};
use crate::{Contact, Id, Mode, NextHop, keeper};

/// The version of what follows in this file. Nodes of different versions refuse each other.
pub const WIRE_VERSION: u16 = 3;

/// Names a ring, so that strangers' rings never merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RingId(pub [u8; 16]);

impl RingId {
    /// The id of every ring that was wired by hand: its nodes have no one to learn an id from.
    pub const WIRED_BY_HAND: RingId = RingId([0; 16]);
}

impl std::fmt::Display for RingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What is settled when a ring is created, and learned by those who join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ring {
    /// Its id.
    pub id: RingId,
    /// Whether it was created for lessons: nodes may then be placed by hand.
    pub lab: bool,
    /// How many nodes keep each value, once there are so many: at most [`Ring::MOST_COPIES`]; or [`Ring::ALL`].
    pub replication_factor: u8,
    /// The largest value, in bytes.
    pub value_limit: u32,
}

impl Ring {
    /// How many nodes keep each value at most. A ring of no more nodes can have every value on every one of them; there each join
    /// and each leave changes all views.
    pub const MOST_COPIES: u8 = 16;

    /// The replication factor that says: every node keeps every value. Such a ring takes no more than [`Ring::MOST_COPIES`] nodes.
    pub const ALL: u8 = u8::MAX;

    /// Whether every node keeps every value.
    pub fn is_full(&self) -> bool {
        self.replication_factor == Ring::ALL
    }

    /// How many nodes keep each value, once there are so many.
    pub fn copies(&self) -> usize {
        usize::from(self.replication_factor.min(Ring::MOST_COPIES))
    }

    /// A ring with the usual settings.
    pub const fn new(id: RingId) -> Ring {
        Ring { id, lab: false, replication_factor: 3, value_limit: 1 << 20 }
    }
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Membership {
    /// It has not found its place yet. It does not answer as a member, so nobody can take it for a ring of one.
    Joining,
    /// It is a member.
    Joined,
    /// It is a member that hands over what it has and then goes.
    Leaving,
    /// It was a member, and its whole successor list has died or been cut off. It looks for the ring through the contacts
    /// that it remembers, and never becomes a second ring by itself.
    Isolated,
    /// It has left.
    Left,
}

impl Membership {
    /// Whether others may build on it.
    pub fn is_member(self) -> bool {
        matches!(self, Membership::Joined | Membership::Leaving)
    }
}

impl std::fmt::Display for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Membership::Joining => "joining",
            Membership::Joined => "joined",
            Membership::Leaving => "leaving",
            Membership::Isolated => "isolated",
            Membership::Left => "left",
        })
    }
}

/// A request with what the asked node must know of the asker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Envelope {
    /// The ring that the asker belongs to; none while it has none.
    pub ring: Option<RingId>,
    /// Who asks.
    pub from: Contact,
    /// What is asked.
    pub request: Request,
}

/// What one node asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Request {
    /// Who are you, and of which ring?
    Hello,
    /// Your predecessor and your successors. Asked by `stabilize` and `join`.
    Neighbours,
    /// I believe that I am your predecessor (Zave's `rectify`). Those before me are these, the nearest first: hints as to who
    /// keeps content together.
    Notify(Vec<Contact>),
    /// The way to an id.
    Route {
        /// The id.
        key: Id,
        /// How the lookup travels.
        mode: Mode,
        /// A node to leave out.
        excluding: Option<Id>,
    },
    /// I have left; this was my predecessor, and these were my successors.
    Departing {
        /// The leaver's predecessor.
        predecessor: Option<Contact>,
        /// The leaver's successors, nearest first.
        successors: Vec<Contact>,
        /// Whom the leaver remembers: of a ring that was split it may be the last one that knows the other part.
        contacts: Vec<Contact>,
    },
    /// Call this node and ask it to join: you own its id.
    Welcome(Contact),
    /// Join my ring, through me.
    Invite(Ring),
    /// Something among those who keep content.
    Keep(keeper::Request),
    /// Do this as the primary of the view of its register.
    Operate(Operation),
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// The node.
        me: Contact,
        /// Its ring.
        ring: Option<Ring>,
        /// Where it stands in it.
        membership: Membership,
    },
    /// To [`Request::Neighbours`].
    Neighbours {
        /// The node's predecessor.
        predecessor: Option<Contact>,
        /// Its successors, nearest first.
        successors: Vec<Contact>,
    },
    /// To [`Request::Notify`]: the node's predecessor after it has heard the notice.
    Notified(Option<Contact>),
    /// To [`Request::Route`].
    Route(NextHop),
    /// Done, or under way.
    Accepted,
    /// To [`Request::Keep`].
    Kept(keeper::Reply),
    /// To [`Request::Operate`].
    Answered(replica::Answer),
    /// It was not done, and nothing has changed.
    Refused(Refusal),
}

impl Refusal {
    /// Whether the refusing node is a member all the same, and only cannot do it now. One that says goodbye is still to tell
    /// who follows it.
    pub fn is_passing(&self) -> bool {
        match self {
            Refusal::NotMember(membership) => *membership == Membership::Leaving,
            Refusal::OtherRing(_) | Refusal::Malformed(_) => false,
            _ => true,
        }
    }
}

/// Why a node does not do what another asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It is not a member of a ring now.
    #[error("it is not a member of a ring now ({0})")]
    NotMember(Membership),
    /// It is a member of another ring.
    #[error("it belongs to another ring ({0})")]
    OtherRing(RingId),
    /// It does not hold that id; this node may.
    #[error("it does not serve that id")]
    NotMine(Option<Contact>),
    /// It is busy with something that this would disturb: ask again in a moment.
    #[error("it is busy with something else")]
    Busy,
    /// It has a ring of its own that it cannot give up.
    #[error("it holds a ring of its own: {0}")]
    Settled(String),
    /// Its store failed.
    #[error("its store failed: {0}")]
    Store(String),
    /// The message makes no sense to it.
    #[error("it cannot make sense of the message: {0}")]
    Malformed(String),
    /// Its disk is full.
    #[error("its disk is full: {0}")]
    Full(String),
    /// Too many changes wait for its disk: ask again in a moment.
    #[error("too many changes wait for its disk")]
    Overloaded,
    /// Of those who keep the id with it too few answer to decide anything.
    #[error("too few of those who keep that id answer")]
    NoMajority {
        /// Those who do not answer, as far as their addresses are known.
        missing: Vec<Contact>,
        /// Whether what was asked may be done all the same.
        in_doubt: bool,
    },
}
