//! What the primary of a view does for clients. Each register is one, and linearizable.

use std::sync::Arc;

use super::lead::{HEAVIEST_TAIL, Lead, Place, Progress};
use super::{Answer, Bug, Marks, Member, Name, Operation, Refusal, Replica, Request, Step, Store, Token, Turn, minted};
use crate::{Id, Record, Time, Version, Write, Written};

/// Who is asked whether a view stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// As many as are needed. Where one of them is silent, the next beat asks the others.
    Enough,
    /// All: the beat by which members hear the primary.
    All,
}

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
        let id = *operation.id();
        let Some(name) = self.replica.leads.keys().find(|name| name.range.contains(&id)).copied() else {
            return Some(Answer::Refused(self.refusal(&id)));
        };
        let settings = &self.replica.settings;
        let lead = self.replica.leads.get(&name)?;
        let is_full = matches!(operation, Operation::Write(_)) && lead.fills(settings.longest_tail, HEAVIEST_TAIL);
        if is_full || lead.waiting.len() >= settings.most_waiting {
            return Some(Answer::Refused(Refusal::Busy));
        }
        // Rule 12: nobody knows yet whether the older or the newer content is the true one.
        let reads_anyway = self.has_bug(Bug::ReadPending) && matches!(operation, Operation::Get(_));
        if !reads_anyway && lead.open.contains(&id) {
            return Some(Answer::Refused(Refusal::Pending));
        }
        match operation {
            Operation::Get(id) => {
                let record = self.store.record(&name.area(), &id);
                self.answer_confirmed(name, token, Answer::read(record))
            }
            Operation::Write(write) => self.write(name, token, write),
        }
    }

    fn refusal(&self, id: &Id) -> Refusal {
        let me = self.me();
        let held = self.replica.durable.held.values();
        let is_mine = |view: &super::View| view.range.contains(id) && view.primary == me;
        if held.into_iter().any(|held| is_mine(&held.view)) { Refusal::Changing } else { Refusal::NotServed }
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

    /// Asks a member to keep a write.
    pub(super) fn send_to(&mut self, name: &Name, member: Member, sequence: u64) {
        let marks = self.marks(name);
        let Some(write) = self.replica.leads.get(name).and_then(|lead| lead.tail.get(&sequence)) else { return };
        let record = Arc::clone(&write.record);
        self.ask(member, Request::Store { name: *name, record, marks });
    }

    /// A member has a write, durably.
    pub(super) fn stored(&mut self, from: Member, name: Name, sequence: u64) {
        let Some(held) = self.held(&name) else { return };
        let (majority, all) = (held.view.majority(), held.view.members.len());
        let Some(place) = Place::of(&from, &held.view) else { return };
        let majority = if self.has_bug(Bug::AcknowledgeByMinority) { 1 } else { majority };
        let enough = if self.has_bug(Bug::CollectAtMajority) { majority } else { all };
        let Some(lead) = self.replica.leads.get_mut(&name) else { return };
        let Some(write) = lead.tail.get_mut(&sequence) else { return };
        write.at.add(place);
        lead.fetching.remove(&from);
        if !write.is_done && write.at.count() >= majority {
            write.is_done = true;
            lead.open.remove(&write.record.id);
            let done = Answer::Written(Written::Done(write.record.version));
            self.step.answers.extend(write.token.take().map(|token| (token, done)));
        }
        lead.drop_stable(enough);
        self.settle_stable(&name);
        self.send_next(&name, from, place, sequence);
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
        self.send_next(&name, from, place, sequence);
    }

    /// The stable mark goes on, unless something is still to be told of what would be below it (`prefetch`).
    pub(super) fn settle_stable(&mut self, name: &Name) {
        let Some(before) = self.held(name).map(|held| held.stable) else { return };
        let Some(Progress { stable, .. }) = self.replica.leads.get(name).map(Lead::progress) else { return };
        let stable = self.held_back(name).map_or(stable, |held_back| held_back.min(stable));
        if stable > before {
            self.advance(*name, Marks { stable, purged: 0 });
        }
    }

    /// Rule 11: what a client is told of the present state waits until a majority has said, asked after the client came, that
    /// the view still stands.
    fn answer_confirmed(&mut self, name: Name, token: Token, answer: Answer) -> Option<Answer> {
        if self.has_bug(Bug::UnconfirmedRead) {
            return Some(answer);
        }
        let counts_old = self.has_bug(Bug::OldConfirmation);
        let lead = self.replica.leads.get_mut(&name)?;
        let is_idle = lead.waiting.is_empty();
        let needed = if is_idle || !counts_old { lead.round + 1 } else { lead.round };
        lead.waiting.push((needed, token, answer));
        if is_idle {
            self.ask_to_confirm(name, Whom::Enough);
        }
        None
    }

    /// One question serves all who were waiting when it was asked.
    fn ask_to_confirm(&mut self, name: Name, whom: Whom) {
        let (me, boot) = (self.me(), self.replica.durable.boot);
        let marks = self.marks(&name);
        let Some(view) = self.held(&name).map(|held| held.view.clone()) else { return };
        let Some(lead) = self.replica.leads.get_mut(&name) else { return };
        lead.round += 1;
        let round = lead.round;
        let answered = std::mem::take(&mut lead.confirmed);
        let mut others: Vec<Member> = view.others(&me).collect();
        // Where there is no time, as in the model, there is no beat either that would ask the others.
        if whom == Whom::Enough && self.replica.settings.suspicion > 0 {
            // Those first who have answered the last question: they are there.
            others.sort_by_key(|member| !answered.contains(member));
            others.truncate(view.majority() - 1);
        }
        for member in others {
            self.ask(member, Request::Confirm { name, boot, round, marks });
        }
        self.confirmed(me, name, boot, round);
    }

    pub(super) fn confirmed(&mut self, from: Member, name: Name, boot: u64, round: u64) {
        let Some(majority) = self.held(&name).map(|held| held.view.majority()) else { return };
        let is_this_life = boot == self.replica.durable.boot;
        let Some(lead) = self.replica.leads.get_mut(&name) else { return };
        if !is_this_life || round != lead.round || lead.confirmed.len() >= majority {
            return;
        }
        lead.confirmed.insert(from);
        if lead.confirmed.len() < majority {
            return;
        }
        let waiting = std::mem::take(&mut lead.waiting);
        let (served, waiting) = waiting.into_iter().partition(|(needed, ..)| *needed <= round);
        lead.waiting = waiting;
        let go_on = !lead.waiting.is_empty();
        let served: Vec<(u64, Token, Answer)> = served;
        self.step.answers.extend(served.into_iter().map(|(_, token, answer)| (token, answer)));
        if go_on {
            self.ask_to_confirm(name, Whom::Enough);
        }
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

    /// A question that has no majority yet is asked again under its number: a later answer is as good. Otherwise a new one is
    /// asked, for those who may have come since.
    pub(super) fn ask_to_confirm_again(&mut self, name: Name) {
        let (me, boot) = (self.me(), self.replica.durable.boot);
        let marks = self.marks(&name);
        let Some(view) = self.held(&name).map(|held| held.view.clone()) else { return };
        let Some(lead) = self.replica.leads.get(&name) else { return };
        if lead.confirmed.len() >= view.majority() || lead.round == 0 {
            self.ask_to_confirm(name, Whom::All);
            return;
        }
        let (round, confirmed) = (lead.round, lead.confirmed.clone());
        for member in view.others(&me).filter(|member| !confirmed.contains(member)) {
            self.ask(member, Request::Confirm { name, boot, round, marks });
        }
    }

    /// A member has sealed the view for somebody who may not get any further: then it keeps nothing in this epoch any more, and
    /// the primary goes on in another.
    pub(super) fn sealed_elsewhere(&mut self, name: Name) {
        if self.replica.leads.contains_key(&name) {
            self.replica.waits.entry(name).or_insert(self.now);
        }
    }

    fn marks(&self, name: &Name) -> Marks {
        let stable = self.held(name).map_or(0, |held| held.stable);
        Marks { stable, purged: self.store.purged(&name.area()) }
    }
}
