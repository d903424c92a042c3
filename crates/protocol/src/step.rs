//! The forms in which a node is driven: what it is told at first, what it asks for, and what it tells.

use serde::{Deserialize, Serialize};

use crate::procedure::{Procedure, Then};
use crate::{Contact, Membership, Reply, Request, Ring};

/// What a node is told when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How many successors it remembers (Zave's r).
    pub successors: usize,
    /// How many nodes a lookup may ask.
    pub hop_budget: u32,
    /// How many owner intervals it remembers.
    pub cached_owners: usize,
    /// How many contacts it remembers for the day on which all its successors are gone.
    pub contacts: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { successors: 8, hop_budget: 1024, cached_owners: 4096, contacts: 32 }
    }
}

/// A question to another node, with what to do with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// Whom to ask.
    pub to: Contact,
    /// What to ask.
    pub request: Request,
    pub(crate) then: Then,
}

/// The asked node gave no answer: it may be dead, paused, or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unreachable;

/// What a procedure does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct Step {
    /// Whom to ask next. Nothing here ends the procedure.
    pub next: Vec<Call>,
    /// What happened.
    pub events: Vec<Event>,
}

/// What a node says to a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct Answer {
    /// The reply, or who must be asked for it.
    pub outcome: Outcome,
    /// What happened.
    pub events: Vec<Event>,
}

/// A reply, or who must be asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The reply.
    Reply(Reply),
    /// Call this node with an invitation to the ring, and pass on what it replies.
    Invite(Contact, Ring),
    /// Ask the [`Keeper`](crate::keeper::Keeper) of this node.
    Keep(crate::keeper::Request),
    /// The same, for a client.
    Operate(crate::replica::Operation),
}

/// What happened, for logs, for people, and for the driver.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The node has found its place.
    Joined,
    /// It could not join; the text says why. Where that may pass, trying again makes sense.
    JoinFailed {
        /// What stood in the way.
        reason: String,
        /// Whether it may pass.
        may_pass: bool,
    },
    /// All successors are gone.
    Isolated,
    /// It has left.
    Left,
    /// It points to another successor.
    Successor(Option<Contact>),
    /// It points to another predecessor.
    Predecessor(Option<Contact>),
    /// It has given up a ring in which it stood alone, with all that it kept for it.
    GaveUpRing,
    /// Run this procedure too.
    Begin(Procedure),
}

/// What a node must not forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// Who it is.
    pub me: Contact,
    /// Its ring.
    pub ring: Option<Ring>,
    /// Where it stood.
    pub membership: Membership,
    /// Its predecessor. Pointers are hints, and may be older than the rest.
    pub predecessor: Option<Contact>,
    /// Its successors.
    pub successors: Vec<Contact>,
    /// Other nodes that it has known.
    pub contacts: Vec<Contact>,
}

impl Call {
    pub(crate) fn new(to: &Contact, request: Request, then: impl Into<Then>) -> Call {
        Call { to: to.clone(), request, then: then.into() }
    }
}

impl Step {
    /// The procedure ends here.
    pub(crate) fn done(events: Vec<Event>) -> Step {
        Step { events, ..Step::default() }
    }

    /// The procedure goes on with one call.
    pub(crate) fn ask(call: Call, events: Vec<Event>) -> Step {
        Step { next: vec![call], events }
    }
}
