//! *Rewire*: a person points this node to another one. The other is asked who it is, and then believed; maintenance heals
//! what was wired wrongly.

use super::Replied;
use crate::{Chord, Event, Membership, Procedure, Reply, Step};

/// Which pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The predecessor.
    Predecessor,
    /// The successor. Pointing it to the node itself makes it a ring of one, by hand: the way out for an isolated node
    /// whose ring is gone for good.
    Successor,
}

impl Chord {
    pub(super) fn resume_rewire(&mut self, side: Side, outcome: Replied) -> Step {
        let Ok(Reply::Hello { me: target, ring, .. }) = outcome else {
            return Step::default();
        };
        let mut events = Vec::new();
        if ring.map(|ring| ring.id) != self.ring.map(|ring| ring.id) {
            return Step::default();
        }
        match side {
            Side::Predecessor if target.id == self.me.id => self.set_predecessor(None, &mut events),
            Side::Predecessor => self.set_predecessor(Some(target), &mut events),
            Side::Successor => {
                if self.membership == Membership::Isolated {
                    self.membership = Membership::Joined;
                    self.touch();
                }
                if target.id == self.me.id {
                    self.successors.clear();
                    self.mutual = false;
                    self.pointer_revision += 1;
                    events.push(Event::Successor(None));
                } else {
                    self.set_successors(&target, &[], &mut events);
                }
            }
        }
        events.push(Event::Begin(Procedure::Stabilize));
        Step::done(events)
    }
}
