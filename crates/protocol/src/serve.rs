//! What a node answers when it is asked.

use crate::{
    Answer, Chord, Contact, Envelope, Event, Flaw, Interval, Membership, Outcome, Procedure, Refusal, Reply, Request,
    Ring, Standing, Time, View, between,
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
        let mut drop = Vec::new();
        let outcome = match self.refusal(ring, &from, &request) {
            Some(refusal) => Outcome::Reply(Reply::Refused(refusal)),
            None => self.answer(now, from, request, &mut drop, &mut events),
        };
        Answer { drop, outcome, events }
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
        let of_content = matches!(request, Request::Read(_) | Request::Write(_));
        let of_a_handover = matches!(
            request,
            Request::Seal(_) | Request::Page { .. } | Request::Decide { .. } | Request::Installed { .. }
        );
        let of_the_ring = matches!(request, Request::Neighbours | Request::Notify { .. } | Request::Route { .. });
        let for_the_isolated = of_content || of_a_handover || matches!(request, Request::Notify { .. });
        match (self.ring, ring) {
            (Some(mine), Some(theirs)) if mine.id != theirs && !self.has(Flaw::MergesStrangers) => {
                Some(Refusal::OtherRing(mine.id))
            }
            _ if of_views => None,
            _ if self.has(Flaw::AnswersWhileJoining) && self.membership == Membership::Joining => None,
            // A node that lost its ring still serves what it may, lets others fetch it, and hears who is there.
            _ if self.membership == Membership::Isolated && for_the_isolated => None,
            // Who has left tells to whom it gave what it held.
            _ if self.membership == Membership::Left && of_content => None,
            _ if !self.membership.is_member() => Some(Refusal::NotMember(self.membership)),
            // Who says goodbye is no neighbour any more: an answer now would bring it back where it has been taken out.
            _ if self.departing && of_the_ring => Some(Refusal::NotMember(self.membership)),
            _ => None,
        }
    }

    fn answer(
        &mut self,
        now: Time,
        from: Contact,
        request: Request,
        drop: &mut Vec<Interval>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        Outcome::Reply(match request {
            Request::Hello => {
                let claims = self.has(Flaw::AnswersWhileJoining) && self.membership == Membership::Joining;
                let membership = if claims { Membership::Joined } else { self.membership };
                Reply::Hello { me: self.me.clone(), ring: self.ring, membership }
            }
            Request::Neighbours => Reply::Neighbours {
                predecessor: self.predecessor.clone(),
                successors: self.successors.entries().to_vec(),
                views: self.views.told(),
            },
            Request::Notify { views, before } => {
                let reply = self.rectify(from.clone(), &views, events);
                self.hear_of_predecessors(&from, before);
                reply
            }
            Request::Route { key, mode, excluding } => Reply::Route(self.next_hop(&key, mode, excluding.as_ref())),
            Request::Seal(range) => self.serve_seal(now, from, range),
            Request::Page { range, epoch, after } => {
                if !self.has_sealed(&range, epoch, &from) {
                    return Outcome::Reply(Reply::Refused(Refusal::Stale));
                }
                self.views.heard_of_receiver(now);
                return Outcome::Scan(range, after);
            }
            Request::Decide { range, epoch } => self.serve_decide(&from, range, epoch),
            Request::Installed { view, records } => {
                self.serve_installed(view, records, drop, events);
                Reply::Accepted
            }
            Request::Absorb(ranges) => self.serve_absorb(from, ranges, events),
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
            Request::Invite(ring) => self.serve_invite(from, ring, drop, events),
            Request::Read(id) => match self.admit_read(&id) {
                Ok(()) => return Outcome::Read(id),
                Err(refusal) => Reply::Refused(refusal),
            },
            Request::Write(write) => match self.admit_write(&write.id) {
                Ok(version) => return Outcome::Write(write, version),
                Err(refusal) => Reply::Refused(refusal),
            },
            Request::Keep(request) => return Outcome::Keep(request),
            Request::Operate(operation) => return Outcome::Operate(operation),
        })
    }

    /// Zave's *rectify*: adopt the notifier if it lies nearer than the predecessor, or if the predecessor is dead. The notice
    /// itself is the notifier's answer; whether the predecessor is dead is asked before it is given up.
    fn rectify(&mut self, notifier: Contact, views: &[View], events: &mut Vec<Event>) -> Reply {
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
        self.reconcile(&notifier, views, events);
        if self.predecessor.as_ref() == Some(&notifier) {
            self.confirm_by(views, events);
        }
        Reply::Notified { predecessor: self.predecessor.clone(), views: self.views.told() }
    }

    /// What a restarted node held is served again once its predecessor, which points back at it, tells of no later view.
    pub(crate) fn confirm_by(&mut self, views: &[View], events: &mut Vec<Event>) {
        let mine = |view: &View| view.primary == self.me;
        let contested = self.views.held().iter().any(|held| {
            views.iter().any(|view| !mine(view) && view.supersedes(&held.view) && view.range.overlaps(&held.view.range))
        });
        if !contested {
            self.confirm(events);
        }
    }

    fn serve_seal(&mut self, now: Time, to: Contact, range: Interval) -> Reply {
        let held = self.views.held().iter().find(|held| held.view.range.contains(&range.lo)).cloned();
        let Some(held) = held else {
            let given = self.views.handed().find(|handed| {
                !handed.acknowledged && handed.view.primary == to && handed.view.range.contains(&range.lo)
            });
            return match given {
                Some(handed) => Reply::Decided(handed.view.clone()),
                None => Reply::Refused(Refusal::NotHeld(self.views.about(&range))),
            };
        };
        // The range goes to whoever is nearer before it; a leaver gives to the node before itself.
        let nearer = to.id.distance(&range.lo) < self.me.id.distance(&range.lo);
        if to.id == self.me.id || !(nearer || self.membership == Membership::Leaving) {
            return Reply::Refused(Refusal::NotHeld(self.views.about(&range)));
        }
        let busy = self.views.sealing().is_some_and(|sealing| sealing.to != to);
        if busy {
            return Reply::Refused(Refusal::Busy);
        }
        if held.standing == Standing::Unconfirmed {
            return Reply::Refused(Refusal::Changing);
        }
        let Some(granted) =
            held.view.range.intersection(&range).into_iter().min_by_key(|part| range.lo.distance(&part.lo))
        else {
            return Reply::Refused(Refusal::NotHeld(self.views.about(&range)));
        };
        self.views.seal(granted, held.view.epoch, to, now);
        // The seal itself need not survive a crash, but every write before it must be on disk before the reply leaves.
        self.touch();
        Reply::Sealed { range: granted, epoch: held.view.epoch }
    }

    fn has_sealed(&self, range: &Interval, epoch: u64, to: &Contact) -> bool {
        self.views
            .sealing()
            .is_some_and(|sealing| sealing.range == *range && sealing.epoch == epoch && sealing.to == *to)
    }

    fn serve_decide(&mut self, to: &Contact, range: Interval, epoch: u64) -> Reply {
        if self.has_sealed(&range, epoch, to)
            && let Some(view) = self.views.decide()
        {
            self.touch();
            return Reply::Decided(view);
        }
        let decided = self
            .views
            .handed()
            .find(|handed| handed.view.primary == *to && handed.view.range == range && handed.view.epoch > epoch);
        match decided {
            Some(handed) => Reply::Decided(handed.view.clone()),
            None => Reply::Refused(Refusal::Stale),
        }
    }

    pub(crate) fn serve_installed(
        &mut self,
        view: View,
        records: u64,
        drop: &mut Vec<Interval>,
        events: &mut Vec<Event>,
    ) {
        let droppable = self.views.acknowledge(&view);
        if droppable.is_empty() {
            return;
        }
        self.touch();
        drop.extend(droppable);
        events.push(Event::Given { range: view.range, to: view.primary.clone(), records });
        // The receiver stands on the ring, and it is known to answer: look whether it comes next.
        events.push(Event::Begin(Procedure::Stabilize));
    }

    /// A successor that leaves asks the node before it to fetch what it holds. Two neighbours that leave at once would wait
    /// for each other; the one with the smaller id gives way.
    fn serve_absorb(&mut self, from: Contact, ranges: Vec<Interval>, events: &mut Vec<Event>) -> Reply {
        let stands_firm = self.membership == Membership::Leaving && self.me.id > from.id;
        if stands_firm || self.departing {
            return Reply::Refused(Refusal::Busy);
        }
        if self.successors.first() != Some(&from) {
            return Reply::Refused(Refusal::NotMine(self.successors.first().cloned()));
        }
        let fetch = |range| Event::Begin(Procedure::Acquire { range, from: from.clone() });
        events.extend(ranges.into_iter().map(fetch));
        Reply::Accepted
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
    fn serve_invite(&mut self, via: Contact, ring: Ring, drop: &mut Vec<Interval>, events: &mut Vec<Event>) -> Reply {
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
            self.views = crate::Views::default();
            // Its tombstones are of another ring, and must not outlive values of this one.
            drop.push(Interval::whole(self.me.id));
        }
        self.membership = Membership::Joining;
        self.set_predecessor(None, events);
        self.touch();
        events.push(Event::Begin(Procedure::Join { contacts: vec![via] }));
        Reply::Accepted
    }
}
