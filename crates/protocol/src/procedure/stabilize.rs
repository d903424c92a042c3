//! *Stabilize*: ask the successor for its predecessor and its list. If it does not answer, drop it. If its predecessor lies
//! between, ask **that** one before adopting it. Then notify the successor, which rectifies (Zave, section 3).
//!
//! Between asking and applying, the answer may not change what it was based on: an answer from a node that is no longer the
//! successor is dropped, and the next round asks again. (verdi-chord answers `Busy` instead; see
//! docs/decisions/0001-stale-answers-are-dropped.md.)

use super::Replied;
use crate::{Call, Chord, Contact, Event, Flaw, Membership, Procedure, Reply, Request, Step, between};

/// How many nodes a round may walk back towards the true successor.
const STEPS: u32 = 32;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// The successor tells its neighbours.
    Asked { steps: u32 },
    /// A node between me and the successor tells its neighbours, and is adopted.
    Nearer { successor: Contact, steps: u32 },
    /// The successor has heard of me.
    Notified,
}

impl From<Then> for super::Then {
    fn from(then: Then) -> super::Then {
        super::Then::Stabilize(then)
    }
}

impl Chord {
    pub(super) fn begin_stabilize(&mut self) -> Step {
        if self.departing || !(self.membership.is_member() || self.membership == Membership::Isolated) {
            return Step::default();
        }
        self.ask_successor(STEPS, Vec::new())
    }

    fn ask_successor(&mut self, steps: u32, events: Vec<Event>) -> Step {
        if let Some(successor) = self.successors.first() {
            return Step::ask(Call::new(successor, Request::Neighbours, Then::Asked { steps }), events);
        }
        // Alone, I am my own successor, and its predecessor is mine: whoever has notified me comes next.
        match self.predecessor.clone() {
            Some(nearer) => {
                let then = Then::Nearer { successor: self.me.clone(), steps };
                Step::ask(Call::new(&nearer, Request::Neighbours, then), events)
            }
            None => Step::done(events),
        }
    }

    pub(super) fn resume_stabilize(&mut self, then: Then, by: &Contact, outcome: Replied) -> Step {
        if self.departing {
            return Step::default();
        }
        match then {
            Then::Asked { steps } => self.successor_answered(steps, by, outcome),
            Then::Nearer { successor, steps } => self.nearer_answered(&successor, steps, by, outcome),
            Then::Notified => self.was_notified(by, outcome),
        }
    }

    fn successor_answered(&mut self, steps: u32, by: &Contact, outcome: Replied) -> Step {
        let mut events = Vec::new();
        if self.successors.first() != Some(by) {
            return Step::default();
        }
        // Its disk may be full, but it lives.
        if matches!(&outcome, Ok(Reply::Refused(refusal)) if refusal.is_passing()) {
            return Step::default();
        }
        let Ok(Reply::Neighbours { predecessor, successors }) = outcome else {
            self.drop_successor(by, &mut events);
            if self.has(Flaw::DropsWholeList) {
                self.successors.clear();
            }
            return self.after_loss(steps, events);
        };
        self.set_successors(by, &successors, &mut events);
        self.walk_back_or_notify(by, predecessor, steps, events)
    }

    /// If the successor's predecessor lies between, that one is asked next; else the successor hears of me.
    fn walk_back_or_notify(
        &mut self,
        successor: &Contact,
        predecessor: Option<Contact>,
        steps: u32,
        events: Vec<Event>,
    ) -> Step {
        match predecessor {
            Some(nearer) if steps > 0 && between(&self.me.id, &nearer.id, &successor.id) => {
                if self.has(Flaw::AdoptsUnasked) || self.has(Flaw::Original2001) {
                    return self.adopt_unasked(&nearer, events);
                }
                let then = Then::Nearer { successor: successor.clone(), steps: steps - 1 };
                Step::ask(Call::new(&nearer, Request::Neighbours, then), events)
            }
            _ => self.notify(successor, events),
        }
    }

    /// The nearest successor is gone: the next one is asked at once, and with the last of them the ring is lost.
    fn after_loss(&mut self, steps: u32, mut events: Vec<Event>) -> Step {
        if !self.successors.is_empty() {
            return self.ask_successor(steps, events);
        }
        if self.has(Flaw::SecondRing) {
            self.set_predecessor(None, &mut events);
            return Step::done(events);
        }
        if self.membership == Membership::Joined {
            self.membership = Membership::Isolated;
            self.set_predecessor(None, &mut events);
            self.touch();
            events.push(Event::Isolated);
        }
        Step::done(events)
    }

    fn nearer_answered(&mut self, successor: &Contact, steps: u32, by: &Contact, outcome: Replied) -> Step {
        let mut events = Vec::new();
        let basis = self.successors.first().unwrap_or(&self.me);
        if basis != successor || !between(&self.me.id, &by.id, &successor.id) {
            return Step::default();
        }
        match outcome {
            Ok(Reply::Neighbours { predecessor, successors }) => {
                if self.membership == Membership::Isolated {
                    self.membership = Membership::Joined;
                    self.touch();
                    events.push(Event::Joined);
                }
                self.set_successors(by, &successors, &mut events);
                self.walk_back_or_notify(by, predecessor, steps, events)
            }
            // It is dead, or no member: the successor stays, and learns of me so that it can check its predecessor.
            Ok(_) | Err(_) if *successor != self.me => self.notify(successor, events),
            Ok(_) | Err(_) => {
                self.set_predecessor(None, &mut events);
                Step::done(events)
            }
        }
    }

    /// A planted bug: the nearer one may be dead. The version of 2001 keeps the other successors behind it.
    fn adopt_unasked(&mut self, nearer: &Contact, mut events: Vec<Event>) -> Step {
        let behind = if self.has(Flaw::Original2001) { self.successors.entries().to_vec() } else { Vec::new() };
        self.set_successors(nearer, &behind, &mut events);
        self.notify(nearer, events)
    }

    fn notify(&mut self, successor: &Contact, events: Vec<Event>) -> Step {
        Step::ask(Call::new(successor, self.notice(), Then::Notified), events)
    }

    /// What a node tells whom it takes for its successor.
    pub(super) fn notice(&self) -> Request {
        Request::Notify(self.predecessors().cloned().collect())
    }

    fn was_notified(&mut self, by: &Contact, outcome: Replied) -> Step {
        let mut events = Vec::new();
        if self.successors.first() != Some(by) {
            return Step::default();
        }
        if let Ok(Reply::Notified(predecessor)) = outcome {
            self.mutual = predecessor.as_ref() == Some(&self.me);
            if !self.mutual
                && let Some(other) = predecessor
                && between(&self.me.id, &other.id, &by.id)
            {
                // Somebody came in between while we spoke.
                events.push(Event::Begin(Procedure::Stabilize));
            }
        }
        Step::done(events)
    }
}
