//! What the primary of a view does for clients. Each register is one, and linearizable.

use std::sync::Arc;

use super::lead::{HEAVIEST_TAIL, Place};
use super::{Answer, Bug, Member, Name, Operation, Refusal, Replica, Step, Store, Token, Turn, minted};
use crate::{Record, Time, Version, Write, Written};

impl Replica {
    /// A client wants something. The answer comes with this step or a later one; if this node stops being the primary, it is
    /// [`Answer::Unknown`] or a refusal.
    pub fn operate<S: Store>(&mut self, store: &mut S, now: Time, token: Token, operation: Operation) -> Step {
        let mut turn = Turn::new(self, store, now);
        let answer = turn.operate(token, operation);
        turn.step.answers.extend(answer.map(|answer| (token, answer)));
        turn.end()
    }

    /// Serves this view no more in this epoch, as one that has restarted (rule 10): writes have left for other members that this
    /// node could not keep itself, and has taken back. With the next [`Replica::tick`] it proposes the same members.
    pub fn step_down<S: Store>(&mut self, store: &mut S, now: Time, name: &Name) -> Step {
        let mut turn = Turn::new(self, store, now);
        turn.stop_leading(name);
        turn.end()
    }

    /// Forgets outcomes of requests that were minted up to this mark. They are refused from now on (rule 13); members follow
    /// with the next question or write.
    pub fn purge<S: Store>(&mut self, store: &mut S, name: &Name, mark: u64) {
        if self.leads.contains_key(name) {
            store.purge(&name.area(), mark);
        }
    }
}

impl<S: Store> Turn<'_, S> {
    /// The answer, if it can be given at once.
    fn operate(&mut self, token: Token, operation: Operation) -> Option<Answer> {
        match operation {
            Operation::Get(id) => self.read(token, &id),
            Operation::Write(write) => match self.serving(&write.id) {
                Ok((_, lead)) if lead.fills(self.replica.settings.longest_tail, HEAVIEST_TAIL) => {
                    Some(Answer::Refused(Refusal::Busy))
                }
                // Rule 12: its condition may depend on content of which nobody knows yet whether it stands.
                Ok((_, lead)) if lead.open.contains(&write.id) => Some(Answer::Refused(Refusal::Pending)),
                Ok((name, _)) => self.write(name, token, write),
                Err(refusal) => Some(Answer::Refused(refusal)),
            },
        }
    }

    fn write(&mut self, name: Name, token: Token, write: Write) -> Option<Answer> {
        let area = name.area();
        // Rule 13: what has been done is told again, what may have been done and forgotten is not done again.
        if minted(write.request) <= self.store.purged(&area) && !self.has_bug(Bug::PurgeWithoutMark) {
            return Some(Answer::Refused(Refusal::Expired));
        }
        if let Some(outcome) = self.store.outcome(&area, write.request) {
            let done = Answer::Written(Written::Done(outcome.version));
            return self.answer_confirmed(name, token, done);
        }
        let present = self.store.record(&area, &write.id);
        if !write.condition.holds(present.as_ref()) {
            let seen = present.filter(Record::is_live).map(|record| record.version);
            return self.answer_confirmed(name, token, Answer::Written(Written::Refused(seen)));
        }
        let lead = self.replica.leads.get_mut(&name)?;
        lead.sequence += 1;
        let version = Version { epoch: name.epoch, sequence: lead.sequence };
        let Write { id, key, content, request, .. } = write;
        let record = Arc::new(Record { id, key, content, version, request });
        lead.takes(Arc::clone(&record), token, self.now);
        self.store.put(&area, &record);
        let me = self.me();
        self.stored(me, name, version.sequence);
        self.collect(&name);
        self.send_write(&name, version.sequence);
        None
    }

    /// Asks those to keep a write who are not known to have it.
    fn send_write(&mut self, name: &Name, sequence: u64) {
        let Some(members) = self.held(name).map(|held| held.view.members.clone()) else { return };
        let Some(write) = self.replica.leads.get(name).and_then(|lead| lead.tail.get(&sequence)) else { return };
        let lacking = members.into_iter().enumerate().filter(|(place, _)| write.is_lacking(Place(*place)));
        for (_, member) in lacking.collect::<Vec<_>>() {
            self.send_to(name, member, sequence);
        }
    }

    /// A member that has not installed yet keeps a write, durably. It does not speak for the view, so nothing is acknowledged by
    /// that (rule 8); but the write, and what it overwrites, need not be remembered for it (rule 15).
    pub(super) fn kept(&mut self, from: Member, name: Name, sequence: u64) {
        let (now, held) = (self.now, self.held(&name));
        let Some((all, place)) = held.and_then(|held| Some((held.view.members.len(), Place::of(&from, &held.view)?)))
        else {
            return;
        };
        let Some(lead) = self.replica.leads.get_mut(&name) else { return };
        lead.fetching.insert(from, now);
        let Some(write) = lead.tail.get_mut(&sequence) else { return };
        write.kept.add(place);
        lead.drop_stable(all);
        self.settle_stable(&name);
        self.collect(&name);
        self.send_next(&name, from, place, sequence);
    }

    /// The view is sealed here, or over. What was under way is left to whoever asks again.
    pub(super) fn stop_leading(&mut self, name: &Name) {
        let Some(lead) = self.replica.leads.remove(name) else { return };
        self.stop_sending_ahead(name);
        let unknown = lead.tail.into_values().filter_map(|write| write.token).map(|token| (token, Answer::Unknown));
        self.step.answers.extend(unknown);
        let refused = lead.waiting.into_iter().map(|(_, token, _)| (token, Answer::Refused(Refusal::Changing)));
        self.step.answers.extend(refused);
    }

    /// A member has sealed the view for somebody who may not get any further: then it keeps nothing in this epoch any more, and
    /// the primary goes on in another.
    pub(super) fn sealed_elsewhere(&mut self, name: Name) {
        if self.replica.leads.contains_key(&name) {
            self.replica.waits.entry(name).or_insert(self.now);
        }
    }
}
