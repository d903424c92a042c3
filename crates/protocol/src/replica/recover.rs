//! A range that has lost its majority for good, brought back by a person.
//!
//! No rule can do that: whoever is silent may have been in the majority that acknowledged a write, or may come back and go on.
//! So a person names who is left, this refuses while a majority answers, and the view that follows is marked and has an epoch
//! far ahead. What the lost majority had acknowledged may be gone; that promise is void, and the view says so.

use std::collections::BTreeSet;

use super::change::Phase;
use super::{Change, Event, Group, Label, Member, Name, NotProposed, Replica, Step, Store, Turn, Value, View};
use crate::Time;

/// How far ahead a range is put that is made by force, so that no epoch of its former view can reach it.
pub const FORCED_EPOCH_STEP: u64 = 1 << 20;

/// Why a forced view was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotForced {
    /// No recovery of this view was begun here, or it has ended.
    #[error("no recovery is under way")]
    NotBegun,
    /// One of those who are named has not answered; everything is as it was.
    #[error("not all of the named survivors have answered")]
    Silent,
    /// A majority has answered, so nothing needs to be forced: the members are sealed, and the next tick proposes
    /// that they go on.
    #[error("a majority answers: the view can decide by itself")]
    Majority,
}

impl Replica {
    /// Begins a recovery, here at one of the survivors: asks all members to promise. When those who can answer have had the
    /// time to, [`Replica::force`] goes on.
    pub fn recover<S: Store>(
        &mut self,
        store: &mut S,
        now: Time,
        name: Name,
        survivors: BTreeSet<Member>,
    ) -> Result<Step, NotProposed> {
        let mut turn = Turn::new(self, store, now);
        let me = turn.me();
        let view = turn.held(&name).map(|held| held.view.clone()).ok_or(NotProposed::NotAMember)?;
        if !survivors.contains(&me) || !survivors.iter().all(|survivor| view.has(survivor)) {
            return Err(NotProposed::Senseless);
        }
        let others = survivors.iter().copied().filter(|survivor| *survivor != me);
        let group = Group(std::iter::once(me).chain(others).collect());
        turn.propose(name, &Change::Members(group), Some(survivors))?;
        Ok(turn.end())
    }

    /// Makes the forced view. If a survivor has voted for something, that may have been decided before, and is what is forced,
    /// unless this node would keep its content and has none of it: those who had it staged are gone, and what is left is here.
    pub fn force<S: Store>(&mut self, store: &mut S, now: Time, name: Name) -> Result<Step, NotForced> {
        let mut turn = Turn::new(self, store, now);
        let majority = turn.held(&name).map(|held| held.view.majority()).ok_or(NotForced::NotBegun)?;
        let proposal = turn.replica.proposals.get_mut(&name).ok_or(NotForced::NotBegun)?;
        let survivors = proposal.survivors.clone().ok_or(NotForced::NotBegun)?;
        let Phase::Preparing { promises, vote, .. } = &proposal.phase else { return Err(NotForced::NotBegun) };
        let (me, staged) = (turn.replica.durable.me, &turn.replica.durable.staged);
        if promises.union(&proposal.declined).count() >= majority {
            turn.replica.proposals.remove(&name);
            return Err(NotForced::Majority);
        }
        if !promises.is_superset(&survivors) {
            return Err(NotForced::Silent);
        }
        let has_staged = |value: &Value| {
            let is_staged = |view: &View| {
                let label = Label { name: value.by, origin: value.origin, range: view.range };
                !view.has(&me) || staged.contains_key(&label)
            };
            value.successors.iter().all(is_staged)
        };
        let adopted = vote.as_ref().map(|(_, value)| value.clone()).filter(has_staged);
        match adopted {
            Some(value) => turn.decide(value),
            None => {
                if let Phase::Preparing { vote, .. } = &mut proposal.phase {
                    *vote = None;
                }
                for view in &mut proposal.wanted.successors {
                    view.epoch = name.epoch + FORCED_EPOCH_STEP;
                    view.forced = true;
                }
                turn.go_on(&name);
            }
        }
        Ok(turn.end())
    }

    /// Ends a recovery that a person does not go on with. The members that have promised are sealed, and decide by themselves
    /// as soon as a majority of them answers.
    pub fn give_up(&mut self, name: &Name) {
        if self.proposals.get(name).is_some_and(|proposal| proposal.survivors.is_some()) {
            self.proposals.remove(name);
        }
    }
}

impl<S: Store> Turn<'_, S> {
    /// During a recovery nothing is done by itself, whoever answers.
    pub(super) fn count_survivors(&mut self, name: &Name, is_majority: bool) {
        if is_majority && self.is_preparing(name) {
            self.step.events.push(Event::MajorityAnswers(*name));
        }
    }
}
