//! What the primary of a view does without writing: it serves those who read, and asks whether it still is the primary.

use super::lead::Lead;
use super::{
    Answer, Bug, Letter, Marks, Member, Name, Refusal, Replica, Reply, Request, Snapshot, Step, Token, Turn, View,
};
use crate::{Id, Time};

/// Who is asked whether a view stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// As many as are needed. Where one of them is silent, the next beat asks the others.
    Enough,
    /// All: the beat by which members hear the primary.
    All,
}

impl Replica {
    /// A client wants to see a register: [`Replica::operate`] for one who only reads.
    pub fn read<S: Snapshot>(&mut self, store: &S, now: Time, token: Token, id: &Id) -> Step {
        let mut store = store;
        let mut turn = Turn::new(self, &mut store, now);
        let answer = turn.read(token, id);
        turn.step.answers.extend(answer.map(|answer| (token, answer)));
        turn.step
    }

    /// Goes on with an answer that [`Replica::only_acknowledges`]: [`Replica::hear`] where nothing is to be written.
    pub fn hear_acknowledgement<S: Snapshot>(&mut self, store: &S, now: Time, letter: &Letter<Reply>) -> Step {
        let mut store = store;
        let mut turn = Turn::new(self, &mut store, now);
        match letter.body {
            Reply::Confirmed { name, boot, round } => turn.confirmed(letter.from, name, boot, round),
            Reply::Stored { name, sequence } => turn.stored(letter.from, name, sequence),
            _ => {}
        }
        turn.step
    }

    /// Whether this says no more than that a view stands or a write is kept, and comes from the life of its sender that is known
    /// (rule 16).
    pub fn only_acknowledges(&self, letter: &Letter<Reply>) -> bool {
        let known = self.durable.boots.get(&letter.from).copied().unwrap_or(1);
        let is_one = matches!(letter.body, Reply::Confirmed { .. } | Reply::Stored { .. });
        is_one && letter.to == self.durable.me && letter.boot == known
    }
}

impl<S: Snapshot> Turn<'_, S> {
    /// The answer, if it can be given at once.
    pub(super) fn read(&mut self, token: Token, id: &Id) -> Option<Answer> {
        let name = match self.serving(id) {
            // Rule 12: nobody knows yet whether the older or the newer content is the true one.
            Ok((_, lead)) if lead.open.contains(id) && !self.has_bug(Bug::ReadPending) => {
                return Some(Answer::Refused(Refusal::Pending));
            }
            Ok((name, _)) => name,
            Err(refusal) => return Some(Answer::Refused(refusal)),
        };
        let record = self.store.record(&name.area(), id);
        self.answer_confirmed(name, token, Answer::read(record))
    }

    /// The view that this node serves an id in, unless too many wait there.
    pub(super) fn serving(&self, id: &Id) -> Result<(Name, &Lead), Refusal> {
        let Some((name, lead)) = self.replica.leads.iter().find(|(name, _)| name.range.contains(id)) else {
            return Err(self.refusal(id));
        };
        let is_busy = lead.waiting.len() >= self.replica.settings.most_waiting;
        if is_busy { Err(Refusal::Busy) } else { Ok((*name, lead)) }
    }

    fn refusal(&self, id: &Id) -> Refusal {
        let me = self.me();
        let mut held = self.replica.durable.held.values();
        let is_mine = |view: &View| view.range.contains(id) && view.primary == me;
        if held.any(|held| is_mine(&held.view)) { Refusal::Changing } else { Refusal::NotServed }
    }

    /// Rule 11: what a client is told of the present state waits until a majority has said, asked after the client came, that
    /// the view still stands.
    pub(super) fn answer_confirmed(&mut self, name: Name, token: Token, answer: Answer) -> Option<Answer> {
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

    pub(super) fn marks(&self, name: &Name) -> Marks {
        let stable = self.held(name).map_or(0, |held| held.stable);
        Marks { stable, purged: self.store.purged(&name.area()) }
    }
}
