//! What a node does by itself, a file for each procedure, in the call/resume form.

mod check_predecessor;
mod fix_fingers;
mod join;
mod leave;
mod reunite;
mod rewire;
mod stabilize;

pub use rewire::Side;

use crate::{Call, Chord, Contact, Event, Lookup, LookupError, Membership, NextHop, Reply, Request, Ring, Step};
use crate::{Time, Unreachable};

/// Something that a node does by itself: at its start, at intervals, or because of what it heard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Procedure {
    /// Begin a new ring, alone.
    Create {
        /// What is settled for it.
        ring: Ring,
    },
    /// Find a place on the ring of these contacts, tried in order.
    Join {
        /// Members of the ring, as far as is known.
        contacts: Vec<Contact>,
    },
    /// Ask the successor for its predecessor and list, and notify it. To be run at an interval.
    Stabilize,
    /// Ask the predecessor whether it lives, and adopt the candidate if not. To be run at an interval.
    CheckPredecessor {
        /// A node that said it is the predecessor while a nearer one is known.
        candidate: Option<Contact>,
    },
    /// Look up the next distinct finger, or all of them. To be run at an interval.
    FixFingers {
        /// Whether the whole table is gone through.
        all: bool,
    },
    /// Say goodbye and go. What the node keeps must have been taken over by others before
    /// ([`Keeper::leave`](crate::keeper::Keeper::leave)).
    Leave,
    /// Ask a remembered contact to look this node up; if it finds another ring, become one with it.
    Reunite {
        /// The contact.
        contact: Contact,
    },
    /// Point to another node because a person says so.
    Rewire {
        /// Which pointer.
        side: Side,
        /// The node, asked by its address; its own answer counts.
        to: Contact,
    },
}

/// What to do with the answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// The answer is a step of a lookup.
    Route {
        lookup: Lookup,
        purpose: Purpose,
    },
    Join(join::Then),
    Stabilize(stabilize::Then),
    CheckPredecessor(check_predecessor::Then),
    Leave(leave::Then),
    Reunite(reunite::Then),
    Rewire(Side),
    /// The answer does not matter.
    Ignore,
}

/// What a lookup within a procedure is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Join(join::Attempt),
    Finger { i: u16, all: bool },
    Reunite,
}

type Replied = Result<Reply, Unreachable>;

impl Chord {
    /// Begins a procedure.
    pub fn begin(&mut self, now: Time, procedure: Procedure) -> Step {
        self.pass(now);
        match procedure {
            Procedure::Create { ring } => self.create(ring),
            Procedure::Join { contacts } => self.begin_join(contacts),
            Procedure::Stabilize => self.begin_stabilize(),
            Procedure::CheckPredecessor { candidate } => self.begin_check_predecessor(candidate),
            Procedure::FixFingers { all } => self.begin_fix_fingers(all),
            Procedure::Leave => self.begin_leave(),
            Procedure::Reunite { contact } => self.begin_reunite(&contact),
            Procedure::Rewire { side, to } => Step::ask(Call::new(&to, Request::Hello, Then::Rewire(side)), Vec::new()),
        }
    }

    /// Goes on with a procedure when a call has been answered, or has not.
    pub fn resume(&mut self, now: Time, call: Call, outcome: Replied) -> Step {
        self.pass(now);
        let Call { to, then, .. } = call;
        match then {
            Then::Route { lookup, purpose } => self.resume_route(lookup, purpose, &to, outcome),
            Then::Join(then) => self.resume_join(then, &to, outcome),
            Then::Stabilize(then) => self.resume_stabilize(then, &to, outcome),
            Then::CheckPredecessor(then) => self.resume_check_predecessor(then, &to, outcome),
            Then::Leave(then) => self.resume_leave(then, &to, outcome),
            Then::Reunite(then) => self.resume_reunite(then, &to, outcome),
            Then::Rewire(side) => self.resume_rewire(side, outcome),
            Then::Ignore => Step::default(),
        }
    }

    /// A ring of one.
    fn create(&mut self, ring: Ring) -> Step {
        self.ring = Some(ring);
        self.membership = Membership::Joined;
        self.touch();
        Step::done(vec![Event::Joined])
    }

    /// The next call of a lookup, or the end of what it was for.
    fn route(&mut self, mut lookup: Lookup, purpose: Purpose) -> Step {
        match lookup.next_hop() {
            Ok(hop) => {
                let (key, mode, excluding) = (lookup.key(), lookup.mode(), lookup.excluding());
                let request = Request::Route { key, mode, excluding };
                Step::ask(Call::new(&hop.contact, request, Then::Route { lookup, purpose }), Vec::new())
            }
            Err(error) => self.route_failed(purpose, error),
        }
    }

    fn resume_route(&mut self, mut lookup: Lookup, purpose: Purpose, by: &Contact, outcome: Replied) -> Step {
        match outcome {
            Ok(Reply::Route(NextHop::Owner { range, successor })) if range.contains(&lookup.key()) => {
                if lookup.excluding().is_none() {
                    self.learn_owner(range, by);
                }
                self.route_found(purpose, by, successor)
            }
            Ok(Reply::Route(NextHop::Via(hops))) => {
                lookup.led_on(by, hops);
                self.route(lookup, purpose)
            }
            Ok(_) => self.route(lookup, purpose),
            Err(Unreachable) => {
                self.forget_node(by);
                self.route(lookup, purpose)
            }
        }
    }

    fn route_found(&mut self, purpose: Purpose, owner: &Contact, successor: Option<Contact>) -> Step {
        match purpose {
            Purpose::Join(attempt) => self.join_at(attempt, owner),
            Purpose::Finger { i, all } => self.finger_found(i, all, owner, successor),
            Purpose::Reunite => self.reunite_at(owner, successor),
        }
    }

    fn route_failed(&mut self, purpose: Purpose, error: LookupError) -> Step {
        match purpose {
            Purpose::Join(attempt) => self.join_elsewhere(attempt, error.to_string()),
            Purpose::Finger { .. } | Purpose::Reunite => Step::default(),
        }
    }
}
