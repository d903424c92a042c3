//! *Reunite*: rings that were split find each other. A node asks a contact that it remembers to look it up. Where the
//! contact's ring knows it, nothing is to be done; where not, the node learns between whom it would stand there, and points
//! to the nearer of both successors. When all nodes do so, the two rings become one.
//!
//! It is also how an isolated node comes back. (Ours; in the spirit of the merging of rings in Shafaat et al., "Dealing with
//! Network Partitions in Structured Overlay Networks", 2009.)

use super::{Purpose, Replied};
use crate::{
    Call, Chord, Contact, Event, Flaw, Hop, Lookup, Membership, Mode, Procedure, Reply, Request, Step, Why, between,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// The contact says who it is.
    Greeted,
    /// The successor that I would have in the contact's ring tells its neighbours.
    Successor,
}

impl From<Then> for super::Then {
    fn from(then: Then) -> super::Then {
        super::Then::Reunite(then)
    }
}

impl Chord {
    pub(super) fn begin_reunite(&mut self, contact: &Contact) -> Step {
        if !matches!(self.membership, Membership::Joined | Membership::Isolated) {
            return Step::default();
        }
        Step::ask(Call::new(contact, Request::Hello, Then::Greeted), Vec::new())
    }

    pub(super) fn resume_reunite(&mut self, then: Then, by: &Contact, outcome: Replied) -> Step {
        match (then, outcome) {
            (Then::Greeted, Ok(Reply::Hello { me, ring, membership })) => {
                let same_ring =
                    ring.map(|ring| ring.id) == self.ring.map(|ring| ring.id) || self.has(Flaw::MergesStrangers);
                if me != *by || !same_ring {
                    // Somebody else lives there now.
                    self.contacts.retain(|contact| contact != by);
                    return Step::default();
                }
                if membership == Membership::Isolated && self.membership == Membership::Isolated {
                    return self.begin_again_with(&me);
                }
                if !membership.is_member() {
                    return Step::default();
                }
                let begin = vec![Hop { contact: me, why: Why::Start }];
                let excluding = (self.membership == Membership::Isolated).then_some(self.me.id);
                let lookup = Lookup::new(self.me.id, Mode::Fingers, excluding, self.settings.hop_budget, begin);
                self.route(lookup, Purpose::Reunite)
            }
            (Then::Successor, Ok(Reply::Neighbours { successors, .. })) => {
                let nearer = self.successors.first().is_none_or(|mine| between(&self.me.id, &by.id, &mine.id));
                if !nearer || by.id == self.me.id {
                    return Step::default();
                }
                let mut events = Vec::new();
                if self.membership == Membership::Isolated {
                    self.membership = Membership::Joined;
                    self.touch();
                    events.push(Event::Joined);
                }
                self.set_successors(by, &successors, &mut events);
                events.push(Event::Begin(Procedure::Stabilize));
                Step::done(events)
            }
            (Then::Greeted | Then::Successor, _) => Step::default(),
        }
    }

    /// Two nodes that have lost the same ring are its rest, or a part of it, and no second ring: they wait for the others
    /// together, and reunite with them as any part does.
    fn begin_again_with(&mut self, other: &Contact) -> Step {
        let mut events = vec![Event::Joined];
        self.membership = Membership::Joined;
        self.touch();
        self.set_successors(other, &[], &mut events);
        Step::ask(Call::new(other, self.notice(), super::Then::Ignore), events)
    }

    /// The contact's ring says who stands before my id. If that is me, it is my own ring.
    pub(super) fn reunite_at(&mut self, owner: &Contact, successor: Option<Contact>) -> Step {
        if owner.id == self.me.id {
            return Step::default();
        }
        let mut events = Vec::new();
        if self.predecessor.as_ref().is_none_or(|mine| between(&mine.id, &owner.id, &self.me.id)) {
            self.set_predecessor(Some(owner.clone()), &mut events);
        }
        let candidate = successor.unwrap_or_else(|| owner.clone());
        if candidate.id == self.me.id {
            return Step::done(events);
        }
        Step::ask(Call::new(&candidate, Request::Neighbours, Then::Successor), events)
    }
}
