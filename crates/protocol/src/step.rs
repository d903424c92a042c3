//! The forms in which a node is driven: what it is told at first, what it asks for, and what it tells.

use serde::{Deserialize, Serialize};

use crate::procedure::{Procedure, Then};
use crate::{Contact, Handed, Id, Interval, Membership, Record, Reply, Request, Ring, Version, View, Write};

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
    /// After how long without a word from the receiver a hand-over is given up, in milliseconds.
    pub seal_timeout: u64,
    /// How long the holder of a range must be silent before its range is taken, in milliseconds.
    pub suspicion: u64,
    /// How many records travel in one page of a hand-over.
    pub page_records: usize,
    /// How many bytes of content travel in one page, except that one record always does.
    pub page_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            successors: 8,
            hop_budget: 1024,
            cached_owners: 4096,
            contacts: 32,
            seal_timeout: 3_000,
            suspicion: 1_000,
            page_records: 1_024,
            page_bytes: 1 << 20,
        }
    }
}

/// A question to another node, with what to do with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// Whom to ask.
    pub to: Contact,
    /// What to ask.
    pub request: Request,
    /// How long to wait before asking, in milliseconds.
    pub delay: u64,
    pub(crate) then: Then,
}

/// The asked node gave no answer: it may be dead, paused, or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unreachable;

/// What a procedure does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct Step {
    /// Records that must be durable, each unless a newer one is stored, before anything below happens.
    pub merge: Vec<Record>,
    /// Ranges whose content is no longer needed here.
    pub drop: Vec<Interval>,
    /// Whom to ask next. Nothing here ends the procedure.
    pub next: Vec<Call>,
    /// What happened.
    pub events: Vec<Event>,
}

/// What a node says to a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct Answer {
    /// Ranges whose content is no longer needed here.
    pub drop: Vec<Interval>,
    /// The reply, or what the store must be asked for it.
    pub outcome: Outcome,
    /// What happened.
    pub events: Vec<Event>,
}

/// A reply, or what the store must be asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The reply.
    Reply(Reply),
    /// Read this register, then make sure that it is still served here ([`Chord::admit_read`](crate::Chord::admit_read)).
    Read(Id),
    /// Write to this register with this version.
    Write(Write, Version),
    /// Reply with the records of this range that come after the id.
    Scan(Interval, Option<Id>),
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
    /// It has left; what it held has been fetched.
    Left,
    /// It points to another successor.
    Successor(Option<Contact>),
    /// It points to another predecessor.
    Predecessor(Option<Contact>),
    /// A range came from another node.
    Received {
        /// What it covers.
        range: Interval,
        /// From whom.
        from: Contact,
        /// How many records came with it.
        records: u64,
    },
    /// Another node has installed a range that was held here.
    Given {
        /// What it covers.
        range: Interval,
        /// Who has it now.
        to: Contact,
        /// How many records went with it, as far as is known.
        records: u64,
    },
    /// A range was taken whose holder is dead.
    Taken {
        /// What it covers.
        range: Interval,
        /// The dead holder, if it was known.
        from: Option<Contact>,
    },
    /// Another node serves a newer view of a range that was held here.
    Yielded {
        /// What it covers.
        range: Interval,
        /// Who has it now.
        to: Contact,
    },
    /// What was held before the restart is served again.
    Confirmed,
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
    /// The views that it holds.
    pub held: Vec<View>,
    /// The ranges that it has handed over.
    pub handed: Vec<Handed>,
}

impl Call {
    pub(crate) fn new(to: &Contact, request: Request, then: impl Into<Then>) -> Call {
        Call { to: to.clone(), request, delay: 0, then: then.into() }
    }

    pub(crate) fn after(self, delay: u64) -> Call {
        Call { delay, ..self }
    }
}

impl Step {
    /// The procedure ends here.
    pub(crate) fn done(events: Vec<Event>) -> Step {
        Step { events, ..Step::default() }
    }

    /// The same, after these events.
    pub(crate) fn after(self, mut events: Vec<Event>) -> Step {
        events.extend(self.events);
        Step { events, ..self }
    }

    /// The procedure goes on with one call.
    pub(crate) fn ask(call: Call, events: Vec<Event>) -> Step {
        Step { next: vec![call], events, ..Step::default() }
    }
}
