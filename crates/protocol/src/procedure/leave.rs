//! *Leave*: wire predecessor and successor together, and go. What the leaver keeps for others has been taken over before
//! ([`Keeper::leave`](crate::keeper::Keeper::leave)).

use super::Replied;
use crate::{Call, Chord, Contact, Event, Membership, Request, Step};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// One more knows that I am gone; these are still to be told.
    Told { others: Vec<Contact> },
}

impl From<Then> for super::Then {
    fn from(then: Then) -> super::Then {
        super::Then::Leave(then)
    }
}

impl Chord {
    /// Stays a member: the leave has taken too long and was given up.
    pub fn stay(&mut self) {
        if self.membership == Membership::Leaving {
            self.membership = Membership::Joined;
            self.departing = false;
            self.touch();
        }
    }

    /// Says goodbye: to the predecessor last, for it then points past me, and to all others that I know to come after me. In a
    /// small ring these are all, and each of them must know that I left, and did not die: when the others have gone too, it
    /// is the ring, and not a node that has lost it.
    pub(super) fn begin_leave(&mut self) -> Step {
        match self.membership {
            Membership::Joined | Membership::Leaving => {
                self.membership = Membership::Leaving;
                self.departing = true;
                self.touch();
                let mut all: Vec<Contact> = self.predecessor.iter().cloned().collect();
                let following = self.successors.entries().iter().rev();
                all.extend(following.filter(|it| Some(*it) != self.predecessor.as_ref()).cloned());
                self.tell(all)
            }
            // It has no place on a ring, so nobody points to it.
            Membership::Joining | Membership::Isolated | Membership::Left => Step::done(vec![Event::Left]),
        }
    }

    pub(super) fn resume_leave(&mut self, Then::Told { others }: Then, _: &Contact, _: Replied) -> Step {
        if self.membership != Membership::Leaving {
            return Step::default();
        }
        self.tell(others)
    }

    /// Tells the last of these that I am gone.
    fn tell(&mut self, mut others: Vec<Contact>) -> Step {
        let Some(next) = others.pop() else {
            self.membership = Membership::Left;
            self.touch();
            return Step::done(vec![Event::Left]);
        };
        let request = Request::Departing {
            predecessor: self.predecessor.clone(),
            successors: self.successors.entries().to_vec(),
            contacts: self.contacts.iter().cloned().collect(),
        };
        Step::ask(Call::new(&next, request, Then::Told { others }), Vec::new())
    }
}
