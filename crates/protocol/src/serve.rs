//! What a node answers when it is asked.

use crate::{
    Answer, Chord, Contact, Envelope, Event, Flaw, Membership, Outcome, Procedure, Refusal, Reply, Request, Ring, Time,
    between,
};

impl Chord {
    /// Answers a request. What the answer rests on must be durable before it leaves ([`Chord::revision`]).
    pub fn serve(&mut self, now: Time, envelope: Envelope) -> Answer {
        let Envelope { ring, from, request } = envelope;
        self.pass(now);
        if self.membership == Membership::Isolated && ring.is_some() && ring == self.ring.map(|mine| mine.id) {
            // Somebody of the ring that was lost.
            self.remember(&from);
        }
        let mut events = Vec::new();
        let outcome = match self.refusal(ring, &from, &request) {
            Some(refusal) => Outcome::Reply(Reply::Refused(refusal)),
            None => self.answer(now, from, request, &mut events),
        };
        Answer { outcome, events }
    }

    /// Why a request is not even looked at: the asker is of another ring or not who it says, or this node is no member.
    fn refusal(&self, ring: Option<crate::RingId>, from: &Contact, request: &Request) -> Option<Refusal> {
        if !from.is_well_formed() {
            let text = "the asker's address or name is too long, or not one line".to_owned();
            return Some(Refusal::Malformed(text));
        }
        if self.ring.is_some_and(|ring| !ring.lab) && !from.is_genuine() {
            let text =
                format!("the id of {from} is not the SHA-256 of its address, and only a --lab ring places nodes");
            return Some(Refusal::Malformed(text));
        }
        let for_anybody = matches!(request, Request::Hello | Request::Invite(_));
        if for_anybody {
            return None;
        }
        // Views are decided by their members, wherever those stand on the ring.
        let of_views = matches!(request, Request::Keep(_) | Request::Operate(_));
        let of_the_ring = matches!(request, Request::Neighbours | Request::Notify(_) | Request::Route { .. });
        let for_the_isolated = matches!(request, Request::Notify(_));
        match (self.ring, ring) {
            (Some(mine), Some(theirs)) if mine.id != theirs && !self.has(Flaw::MergesStrangers) => {
                Some(Refusal::OtherRing(mine.id))
            }
            _ if of_views => None,
            _ if self.has(Flaw::AnswersWhileJoining) && self.membership == Membership::Joining => None,
            // A node that lost its ring hears who is there.
            _ if self.membership == Membership::Isolated && for_the_isolated => None,
            _ if !self.membership.is_member() => Some(Refusal::NotMember(self.membership)),
            // Who says goodbye is no neighbour any more: an answer now would bring it back where it has been taken out.
            _ if self.departing && of_the_ring => Some(Refusal::NotMember(self.membership)),
            _ => None,
        }
    }

    fn answer(&mut self, now: Time, from: Contact, request: Request, events: &mut Vec<Event>) -> Outcome {
        Outcome::Reply(match request {
            Request::Hello => {
                let claims = self.has(Flaw::AnswersWhileJoining) && self.membership == Membership::Joining;
                let membership = if claims { Membership::Joined } else { self.membership };
                Reply::Hello { me: self.me.clone(), ring: self.ring, membership }
            }
            Request::Neighbours => Reply::Neighbours {
                predecessor: self.predecessor.clone(),
                successors: self.successors.entries().to_vec(),
            },
            Request::Notify(before) => {
                let reply = self.rectify(from.clone(), events);
                self.hear_of_predecessors(&from, before);
                reply
            }
            Request::Route { key, mode, excluding } => Reply::Route(self.next_hop(&key, mode, excluding.as_ref())),
            Request::Departing { predecessor, successors, contacts } => {
                self.departs(now, &from);
                self.hear_of(contacts);
                self.serve_departing(&from, predecessor, &successors, events);
                Reply::Accepted
            }
            Request::Welcome(joiner) => match self.ring {
                Some(ring) => return Outcome::Invite(joiner, ring),
                None => Reply::Refused(Refusal::NotMember(self.membership)),
            },
            Request::Invite(ring) => self.serve_invite(from, ring, events),
            Request::Keep(request) => return Outcome::Keep(request),
            Request::Operate(operation) => return Outcome::Operate(operation),
        })
    }

    /// Zave's *rectify*: adopt the notifier if it lies nearer than the predecessor, or if the predecessor is dead. The notice
    /// itself is the notifier's answer; whether the predecessor is dead is asked before it is given up.
    fn rectify(&mut self, notifier: Contact, events: &mut Vec<Event>) -> Reply {
        let late = self.departed.iter().any(|(gone, _)| *gone == notifier);
        let adopt = match &self.predecessor {
            _ if late => false,
            None => notifier.id != self.me.id,
            Some(old) => between(&old.id, &notifier.id, &self.me.id),
        };
        let doubted =
            !adopt && !self.has(Flaw::Original2001) && self.predecessor.as_ref().is_some_and(|old| *old != notifier);
        if adopt {
            self.set_predecessor(Some(notifier.clone()), events);
            if self.successors.is_empty() {
                events.push(Event::Begin(Procedure::Stabilize));
            }
        } else if doubted {
            events.push(Event::Begin(Procedure::CheckPredecessor { candidate: Some(notifier.clone()) }));
        }
        Reply::Notified(self.predecessor.clone())
    }

    fn serve_departing(
        &mut self,
        from: &Contact,
        predecessor: Option<Contact>,
        successors: &[Contact],
        events: &mut Vec<Event>,
    ) {
        self.cache.forget_node(from);
        self.contacts.retain(|contact| contact != from);
        if self.predecessor.as_ref() == Some(from) {
            self.set_predecessor(None, events);
            if let Some(candidate) = predecessor.filter(|candidate| candidate.id != self.me.id) {
                events.push(Event::Begin(Procedure::CheckPredecessor { candidate: Some(candidate) }));
            }
        }
        self.drop_successor(from, events);
        if self.membership.is_member() {
            // What followed the leaver follows me too, behind and between what I know; of several that leave at once each
            // may know somebody who stays. If nobody is left, I am a ring of one, as the leaver knew.
            let mut following = self.successors.entries().to_vec();
            following.extend(successors.iter().filter(|contact| contact.id != self.me.id).cloned());
            following.sort_by_key(|contact| self.me.id.distance(&contact.id));
            following.dedup();
            if let Some((head, tail)) = following.split_first() {
                self.set_successors(head, tail, events);
            }
        }
        events.push(Event::Begin(Procedure::Stabilize));
    }

    /// A node that stands alone gives up its ring of one to join another; a member of a larger ring does not.
    fn serve_invite(&mut self, via: Contact, ring: Ring, events: &mut Vec<Event>) -> Reply {
        if self.ring.is_some_and(|mine| mine.id == ring.id) && self.membership.is_member() && !self.is_alone() {
            return Reply::Accepted;
        }
        let free = self.membership == Membership::Joining || self.is_alone();
        if !free {
            let text = format!("it is {} in a ring with others; ask it to leave that first", self.membership);
            return Reply::Refused(Refusal::Settled(text));
        }
        if self.ring.is_none_or(|mine| mine.id != ring.id) {
            self.ring = None;
            events.push(Event::GaveUpRing);
        }
        self.membership = Membership::Joining;
        self.set_predecessor(None, events);
        self.touch();
        events.push(Event::Begin(Procedure::Join { contacts: vec![via] }));
        Reply::Accepted
    }
}
