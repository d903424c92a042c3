//! *Join*: find the member that owns my id, take its list for mine, and make it my predecessor. Nobody else changes yet;
//! the rest is `stabilize` (Zave, section 3).

use super::{Purpose, Replied};
use crate::{
    Call, Chord, Contact, Event, Flaw, Hop, Lookup, Membership, Mode, Procedure, Refusal, Reply, Request, Step, Why,
    between,
};

/// How often a joiner looks again because the ring moved under it.
const MOVES: u32 = 8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    /// Contacts that have not been tried.
    others: Vec<Contact>,
    /// The contact that is being tried.
    through: Contact,
    moves: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// The contact says who it is and which ring is its.
    Greeted(Attempt),
    /// The owner of my id tells its neighbours.
    Place(Attempt),
}

impl From<Then> for super::Then {
    fn from(then: Then) -> super::Then {
        super::Then::Join(then)
    }
}

impl Chord {
    pub(super) fn begin_join(&mut self, mut contacts: Vec<Contact>) -> Step {
        contacts.retain(|contact| contact.addr != self.me.addr);
        if contacts.is_empty() {
            let reason = "a node cannot join a ring through itself; name another member".to_owned();
            return Step::done(vec![Event::JoinFailed { reason, may_pass: false }]);
        }
        let through = contacts.remove(0);
        self.greet(Attempt { others: contacts, through, moves: 0 })
    }

    fn greet(&mut self, attempt: Attempt) -> Step {
        let through = attempt.through.clone();
        Step::ask(Call::new(&through, Request::Hello, Then::Greeted(attempt)), Vec::new())
    }

    pub(super) fn resume_join(&mut self, then: Then, by: &Contact, outcome: Replied) -> Step {
        match (then, outcome) {
            (Then::Greeted(attempt), Ok(Reply::Hello { me, ring: Some(ring), membership })) => {
                if !membership.is_member() {
                    return self.join_elsewhere(attempt, format!("{me} is not a member of a ring now ({membership})"));
                }
                if self.ring.is_some_and(|mine| mine.id != ring.id) {
                    return self.join_elsewhere(attempt, format!("{me} belongs to another ring ({})", ring.id));
                }
                if !ring.lab && !self.me.is_genuine() {
                    let reason = "only a ring that was created with --lab takes nodes that are placed with --id";
                    return Step::done(vec![Event::JoinFailed { reason: reason.to_owned(), may_pass: false }]);
                }
                if me.id == self.me.id {
                    return self.join_elsewhere(attempt, occupied(&me));
                }
                self.ring = Some(ring);
                self.touch();
                self.look_for_place(Attempt { through: me, ..attempt })
            }
            (Then::Greeted(attempt), Ok(Reply::Hello { me, ring: None, .. })) => {
                self.join_elsewhere(attempt, format!("{me} has not joined a ring itself yet"))
            }
            (Then::Place(attempt), Ok(Reply::Neighbours { successors, .. })) => {
                self.take_place(attempt, by, &successors)
            }
            (Then::Greeted(attempt) | Then::Place(attempt), Ok(Reply::Refused(refusal))) => {
                self.join_elsewhere(attempt, format!("{by}: {refusal}"))
            }
            (Then::Greeted(attempt) | Then::Place(attempt), Ok(_)) => {
                let refusal = Refusal::Malformed("an answer to another question".to_owned());
                self.join_elsewhere(attempt, format!("{by}: {refusal}"))
            }
            (Then::Greeted(attempt) | Then::Place(attempt), Err(_)) => {
                self.join_elsewhere(attempt, format!("{by} does not answer"))
            }
        }
    }

    /// Looks up my own id as if I were not there: a ring that still lists me from an earlier life must not send me to me.
    fn look_for_place(&mut self, attempt: Attempt) -> Step {
        let begin = vec![Hop { contact: attempt.through.clone(), why: Why::Start }];
        let lookup = Lookup::new(self.me.id, Mode::Fingers, Some(self.me.id), self.settings.hop_budget, begin);
        self.route(lookup, Purpose::Join(attempt))
    }

    /// The lookup has ended at the owner of my id.
    pub(super) fn join_at(&mut self, attempt: Attempt, owner: &Contact) -> Step {
        Step::ask(Call::new(owner, Request::Neighbours, Then::Place(attempt)), Vec::new())
    }

    fn take_place(&mut self, attempt: Attempt, owner: &Contact, successors: &[Contact]) -> Step {
        // The lookup has passed over whoever stands at my id. That may be me, in an earlier life at this address; another
        // node, if it lives, does not make room.
        if let Some(other) = successors.iter().find(|contact| contact.id == self.me.id && **contact != self.me) {
            return self.join_elsewhere(attempt, occupied(other));
        }
        let others: Vec<Contact> = successors.iter().filter(|contact| contact.id != self.me.id).cloned().collect();
        let next = others.first().unwrap_or(owner);
        if !between(&owner.id, &self.me.id, &next.id) {
            // Somebody joined or left meanwhile.
            return if attempt.moves < MOVES {
                self.look_for_place(Attempt { moves: attempt.moves + 1, ..attempt })
            } else {
                self.join_elsewhere(attempt, "the ring changes too fast; try again shortly".to_owned())
            };
        }
        let mut events = vec![Event::Joined];
        self.membership = Membership::Joined;
        self.remember(owner);
        if self.has(Flaw::Original2001) {
            self.set_successors(next, &[], &mut events);
            self.touch();
            events.push(Event::Begin(Procedure::Stabilize));
            return Step::done(events);
        }
        self.set_predecessor(Some(owner.clone()), &mut events);
        match others.split_first() {
            Some((head, tail)) => {
                let tail: Vec<Contact> = tail.iter().chain([owner]).cloned().collect();
                self.set_successors(&head.clone(), &tail, &mut events);
            }
            None => self.set_successors(owner, &[], &mut events),
        }
        self.touch();
        events.push(Event::Begin(Procedure::Stabilize));
        Step::done(events)
    }

    pub(super) fn join_elsewhere(&mut self, mut attempt: Attempt, reason: String) -> Step {
        if attempt.others.is_empty() {
            return Step::done(vec![Event::JoinFailed { reason, may_pass: true }]);
        }
        let through = attempt.others.remove(0);
        self.greet(Attempt { through, ..attempt })
    }
}

fn occupied(by: &Contact) -> String {
    format!("the node at {} already stands at this id; choose another address or --id", by.addr)
}
