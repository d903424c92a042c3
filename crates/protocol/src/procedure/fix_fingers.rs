//! *Fix fingers*: look up where a finger begins. One lookup settles all fingers up to the node that it finds, so a round of
//! the whole table takes about log2 N lookups (Chord, section 4.4, with only the distinct entries).

use super::Purpose;
use crate::{Chord, Contact, Lookup, Mode, NextHop, Step};

impl Chord {
    pub(super) fn begin_fix_fingers(&mut self, all: bool) -> Step {
        if !self.membership.is_member() {
            return Step::default();
        }
        let Some(successor) = self.successors.first().cloned() else {
            self.fingers.clear();
            return Step::default();
        };
        if all || self.next_finger == 0 {
            // The successor is known without asking.
            self.next_finger = self.fingers.record(0, &successor).unwrap_or(0);
        }
        self.look_up_finger(all)
    }

    fn look_up_finger(&mut self, all: bool) -> Step {
        if self.next_finger == 0 {
            return Step::default();
        }
        let i = self.next_finger;
        let key = self.me.id.finger_start(i);
        match self.next_hop(&key, Mode::Fingers, None) {
            // Between me and my successor nobody stands, so the finger is the successor.
            NextHop::Owner { successor, .. } => {
                let me = self.me.clone();
                self.finger_found(i, all, &me, successor)
            }
            NextHop::Via(hops) => {
                let lookup = Lookup::new(key, Mode::Fingers, None, self.settings.hop_budget, hops);
                self.route(lookup, Purpose::Finger { i, all })
            }
        }
    }

    /// The first node at or after the start is its owner, if that stands right there, else the owner's successor.
    pub(super) fn finger_found(&mut self, i: u16, all: bool, owner: &Contact, successor: Option<Contact>) -> Step {
        let start = self.me.id.finger_start(i);
        let finger = if owner.id == start { owner.clone() } else { successor.unwrap_or_else(|| owner.clone()) };
        self.next_finger = self.fingers.record(i, &finger).unwrap_or(0);
        if all { self.look_up_finger(all) } else { Step::default() }
    }
}
