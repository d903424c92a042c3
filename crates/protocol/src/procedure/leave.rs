//! *Leave*: hand over everything, wire predecessor and successor together, and go. The predecessor fetches what the leaver
//! holds, in the same way as a joiner does.

use super::Replied;
use crate::{Call, Chord, Contact, Event, Membership, Refusal, Reply, Request, Step};

/// How long to wait before looking again whether the predecessor has fetched everything, in milliseconds.
const LOOK_AGAIN: u64 = 30;
/// After how many looks the predecessor is asked again.
const ASK_AGAIN: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// The predecessor has been asked to fetch everything.
    Asked,
    /// Has it?
    Fetching { looks: u32 },
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

    pub(super) fn begin_leave(&mut self) -> Step {
        match self.membership {
            Membership::Joined | Membership::Leaving => {
                self.membership = Membership::Leaving;
                self.touch();
                if self.is_alone() { self.gone(Vec::new()) } else { self.ask_predecessor() }
            }
            // It has no place on a ring, so nobody can take over from it.
            Membership::Joining | Membership::Isolated | Membership::Left => Step::done(vec![Event::Left]),
        }
    }

    fn ask_predecessor(&mut self) -> Step {
        if self.membership != Membership::Leaving {
            return Step::default();
        }
        if self.has_handed_over() {
            return self.say_goodbye();
        }
        let ranges = self.views.held().iter().map(|held| held.view.range).collect();
        if self.is_alone() {
            return self.gone(Vec::new());
        }
        match self.predecessor.clone() {
            Some(predecessor) => Step::ask(Call::new(&predecessor, Request::Absorb(ranges), Then::Asked), Vec::new()),
            // Until somebody says that it comes before me, there is nobody to ask.
            None => self.look_again(0),
        }
    }

    /// A call to the successor that asks nothing but lets time pass; the driver answers for the wait.
    fn look_again(&mut self, looks: u32) -> Step {
        let whom = self.predecessor.clone().or_else(|| self.successors.first().cloned());
        match whom {
            Some(contact) => {
                let call = Call::new(&contact, Request::Hello, Then::Fetching { looks });
                Step::ask(call.after(LOOK_AGAIN), Vec::new())
            }
            None => self.gone(Vec::new()),
        }
    }

    pub(super) fn resume_leave(&mut self, then: Then, by: &Contact, outcome: Replied) -> Step {
        if self.membership != Membership::Leaving {
            return Step::default();
        }
        match (then, outcome) {
            (Then::Asked, Ok(Reply::Refused(Refusal::NotMine(_) | Refusal::Busy))) => self.look_again(ASK_AGAIN / 2),
            (Then::Asked, Ok(_)) => self.look_again(0),
            (Then::Asked, Err(_)) => {
                let mut events = Vec::new();
                if self.predecessor.as_ref() == Some(by) {
                    self.set_predecessor(None, &mut events);
                }
                self.look_again(0).after(events)
            }
            (Then::Fetching { looks }, _) => {
                if self.has_handed_over() || looks >= ASK_AGAIN {
                    self.ask_predecessor()
                } else {
                    self.look_again(looks + 1)
                }
            }
            (Then::Told { others }, _) => self.tell(others),
        }
    }

    /// Whether nothing is left here, and nothing is coming: a range that is being decided for this node would go with it.
    fn has_handed_over(&self) -> bool {
        self.views.held().is_empty() && self.views.unacknowledged().is_none() && self.deciding == 0
    }

    /// Says goodbye: to the predecessor last, for it then points past me, and to all others that I know to come after me. In a
    /// small ring these are all, and each of them must know that I left, and did not die: when the others have gone too, it
    /// is the ring, and not a node that has lost it.
    fn say_goodbye(&mut self) -> Step {
        self.departing = true;
        let mut all: Vec<Contact> = self.predecessor.iter().cloned().collect();
        all.extend(self.successors.entries().iter().rev().filter(|it| Some(*it) != self.predecessor.as_ref()).cloned());
        self.tell(all)
    }

    /// Tells the last of these that I am gone.
    fn tell(&mut self, mut others: Vec<Contact>) -> Step {
        let Some(next) = others.pop() else { return self.gone(Vec::new()) };
        let request = Request::Departing {
            predecessor: self.predecessor.clone(),
            successors: self.successors.entries().to_vec(),
            contacts: self.contacts.iter().cloned().collect(),
        };
        Step::ask(Call::new(&next, request, Then::Told { others }), Vec::new())
    }

    /// Who goes with its hands full, because nobody is there to take over, comes back as the member that it was.
    fn gone(&mut self, mut events: Vec<Event>) -> Step {
        if self.views.held().is_empty() {
            self.membership = Membership::Left;
            self.touch();
        }
        events.push(Event::Left);
        Step::done(events)
    }
}
