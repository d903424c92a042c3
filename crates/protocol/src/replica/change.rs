//! How a member changes its view: prepare, stage (`stage`), accept. Wedge, copy, decide; to install is for those who follow.

use std::collections::{BTreeMap, BTreeSet};

use super::prefetch::Copying;
use super::stage::Sending;
use super::{Ballot, Bug, Change, Member, Name, Parcel, Replica, Request, Step, Store, Turn, Value, View};
use crate::Time;

/// Why nothing was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotProposed {
    /// This node is not an installed member of the view (rules 1 and 8).
    #[error("this node does not speak for the view")]
    NotAMember,
    /// The view is frozen, and the decision that it waits for is not known here, or has absorbed it.
    #[error("the view is frozen")]
    Frozen,
    /// The primary has been heard, and it is for the primary to propose.
    #[error("the primary is there: ask it")]
    PrimaryHeard,
    /// The change does not fit the view.
    #[error("the change does not fit the view")]
    Senseless,
}

/// A proposal on its way. It is not durable: whoever restarts takes a new ballot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Proposal {
    pub(super) ballot: Ballot,
    /// When it was begun.
    pub(super) begun: Time,
    /// When it last got any further.
    pub(super) moved: Time,
    /// When the others were asked last.
    pub(super) asked: Time,
    /// The highest round that others have promised instead.
    overtaken: u64,
    /// This member's stable mark: of what is later the promises tell.
    pub(super) since: u64,
    shown: Option<Value>,
    /// What was wanted, if nothing has to be adopted.
    pub(super) wanted: Value,
    /// Those who must promise and stage, if a person has named them; a majority if not.
    pub(super) survivors: Option<BTreeSet<Member>>,
    /// Those who would not promise, for they hear the primary: they live.
    pub(super) declined: BTreeSet<Member>,
    /// How far those are who are sent the content ahead.
    pub(super) copies: BTreeMap<(Name, Member), Copying>,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// The view serves, and its content is on the way to those without whom nothing could follow.
    Prefetching,
    /// Who has promised, the vote with the highest ballot among them, and what they had.
    Preparing { promises: BTreeSet<Member>, vote: Option<(Ballot, Value)>, tail: Parcel },
    /// What the promises had on top of what all have, and how far each member of the views that may follow is.
    Staging { value: Value, tail: Parcel, sent: BTreeMap<(Name, Member), Sending> },
    /// Who has voted.
    Voting { value: Value, votes: BTreeSet<Member> },
}

impl Phase {
    pub(super) fn preparing() -> Phase {
        Phase::Preparing { promises: BTreeSet::new(), vote: None, tail: Parcel::default() }
    }
}

impl Replica {
    /// Proposes what shall follow a view. One proposal of a view is under way here at a time: a new one takes its place, with
    /// a higher ballot. It may end in another decision than the wanted one; [`super::Event::Followed`] tells.
    pub fn propose<S: Store>(
        &mut self,
        store: &mut S,
        now: Time,
        name: Name,
        change: &Change,
    ) -> Result<Step, NotProposed> {
        let mut turn = Turn::new(self, store, now);
        turn.propose(name, change, None)?;
        Ok(turn.end())
    }
}

impl<S: Store> Turn<'_, S> {
    pub(super) fn propose(
        &mut self,
        name: Name,
        change: &Change,
        survivors: Option<BTreeSet<Member>>,
    ) -> Result<(), NotProposed> {
        let me = self.me();
        let held = self.held(&name).filter(|held| held.installed).ok_or(NotProposed::NotAMember)?;
        let view = held.view.clone();
        let absorbs = match change {
            Change::Absorb { deferred } => Some(*deferred),
            _ => None,
        };
        if absorbs.is_some_and(|deferred| !self.can_absorb(&view, &deferred)) {
            return Err(NotProposed::Senseless);
        }
        let successors = change.successors(&view, me).ok_or(NotProposed::Senseless)?;
        let overtaken = self.replica.proposals.get(&name).map_or(0, |proposal| proposal.overtaken);
        let used = self.replica.rounds.get(&name).copied().unwrap_or_default();
        let round = 1 + held.promised.map_or(0, |promised| promised.round).max(overtaken).max(used);
        let ballot = Ballot { round, proposer: me, boot: self.replica.durable.boot };
        if !self.may_thaw(&name) {
            return Err(NotProposed::Frozen);
        }
        if held.promised.is_none() && self.hears_primary(&name, ballot) {
            return Err(NotProposed::PrimaryHeard);
        }
        let shown = view.deferred.and_then(|waits_for| self.replica.durable.decided.get(&waits_for).cloned());
        let since = held.stable;
        let wanted = Value { by: name, successors, origin: ballot, absorbs, voters: view.members.clone() };
        let copies = if survivors.is_none() { self.to_send_ahead(&name, &wanted) } else { BTreeMap::new() };
        let phase = if copies.is_empty() { Phase::preparing() } else { Phase::Prefetching };
        if !copies.is_empty() {
            self.replica.rounds.insert(name, round);
        }
        let (begun, moved, asked) = (self.now, self.now, self.now);
        let declined = BTreeSet::new();
        let proposal = Proposal {
            ballot,
            begun,
            moved,
            asked,
            overtaken: 0,
            since,
            shown,
            wanted,
            survivors,
            declined,
            copies,
            phase,
        };
        self.replica.proposals.insert(name, proposal);
        self.ask_again(&name);
        Ok(())
    }

    /// The state of the frozen view is needed for the merge, and it has the same members.
    fn can_absorb(&self, view: &View, deferred: &Name) -> bool {
        self.held(deferred).is_some_and(|held| {
            let alike = held.view.members.iter().all(|member| view.has(member));
            held.installed
                && held.view.deferred == Some(view.name())
                && alike
                && held.view.majority() == view.majority()
        })
    }

    /// Asks those who have not answered what the proposal is at. This node itself is asked, too, and in the same step: its
    /// promise is durable before anybody hears of the ballot (rule 2).
    pub(super) fn ask_again(&mut self, name: &Name) {
        let now = self.now;
        let Some(proposal) = self.replica.proposals.get_mut(name) else { return };
        proposal.asked = now;
        let Proposal { ballot, since, ref shown, ref wanted, .. } = *proposal;
        match &proposal.phase {
            Phase::Prefetching => self.send_ahead(*name),
            Phase::Preparing { promises, .. } => {
                let silent: Vec<Member> =
                    wanted.voters.iter().filter(|member| !promises.contains(member)).copied().collect();
                let shown = shown.clone();
                for member in silent {
                    self.ask(member, Request::Prepare { name: *name, ballot, since, shown: shown.clone() });
                }
            }
            Phase::Staging { .. } => self.ask_to_stage(*name),
            Phase::Voting { value, votes } => {
                let silent: Vec<Member> =
                    wanted.voters.iter().filter(|member| !votes.contains(member)).copied().collect();
                let value = value.clone();
                for member in silent {
                    self.ask(member, Request::Accept { name: *name, ballot, value: value.clone() });
                }
            }
        }
    }

    pub(super) fn promised(
        &mut self,
        from: Member,
        name: Name,
        ballot: Ballot,
        accepted: Option<(Ballot, Value)>,
        base: Option<(Name, Ballot)>,
        more: Parcel,
    ) {
        let now = self.now;
        let own_base = self.held(&name).and_then(|held| held.base);
        if base != own_base && self.replica.settings.planted.is_none() {
            return;
        }
        let Some(proposal) = self.replica.proposals.get_mut(&name).filter(|proposal| proposal.ballot == ballot) else {
            return;
        };
        let Phase::Preparing { promises, vote, tail } = &mut proposal.phase else { return };
        if promises.insert(from) {
            proposal.moved = now;
        }
        tail.merge(more);
        if accepted.as_ref().map(|(ballot, _)| ballot) > vote.as_ref().map(|(ballot, _)| ballot) {
            *vote = accepted;
        }
        self.count_promises(&name);
    }

    fn count_promises(&mut self, name: &Name) {
        let Some(view) = self.held(name).map(|held| held.view.clone()) else { return };
        let Some(proposal) = self.replica.proposals.get(name) else { return };
        let Phase::Preparing { promises, .. } = &proposal.phase else { return };
        if proposal.survivors.is_some() {
            self.count_survivors(name, promises.len() >= view.majority());
            return;
        }
        let needed = if self.has_bug(Bug::PrepareByMinority) { 1 } else { view.majority() };
        if promises.len() >= needed && promises.contains(&self.me()) {
            self.go_on(name);
        }
    }

    /// Enough have promised. A value that any of them has voted for may have been decided: it is adopted as it is, with its
    /// origin, and has been staged by whoever proposed it first (rule 4). If there is none, what was wanted is staged (rule 5).
    pub(super) fn go_on(&mut self, name: &Name) {
        let merges_again = self.has_bug(Bug::MergeAgain);
        let votes_at_once = self.has_bug(Bug::AcceptBeforeStage);
        let Some(proposal) = self.replica.proposals.get_mut(name) else { return };
        let Phase::Preparing { vote, tail, .. } = &mut proposal.phase else { return };
        let tail = std::mem::take(tail);
        let adopted = vote.as_ref().map(|(_, value)| value.clone());
        let voting = |value| Phase::Voting { value, votes: BTreeSet::new() };
        let staging = |value| Phase::Staging { value, tail, sent: BTreeMap::new() };
        proposal.phase = match adopted {
            Some(value) if merges_again => staging(Value { origin: proposal.ballot, ..value }),
            Some(value) => voting(value),
            None => staging(proposal.wanted.clone()),
        };
        self.ask_again(name);
        if votes_at_once && let Some(proposal) = self.replica.proposals.get_mut(name) {
            if let Phase::Staging { value, .. } = &proposal.phase {
                proposal.phase = Phase::Voting { value: value.clone(), votes: BTreeSet::new() };
            }
            self.ask_again(name);
        }
    }

    pub(super) fn accepted(&mut self, from: Member, name: Name, ballot: Ballot) {
        let now = self.now;
        let Some(majority) = self.held(&name).map(|held| held.view.majority()) else { return };
        let Some(proposal) = self.replica.proposals.get_mut(&name).filter(|proposal| proposal.ballot == ballot) else {
            return;
        };
        let Phase::Voting { value, votes } = &mut proposal.phase else { return };
        if votes.insert(from) {
            proposal.moved = now;
        }
        if votes.len() >= majority {
            let value = value.clone();
            self.decide(value);
        }
    }

    /// It is decided, and all whom it concerns are told.
    pub(super) fn decide(&mut self, value: Value) {
        self.decided(value.clone());
        let new = value.successors.iter().flat_map(|view| &view.members);
        let concerned: BTreeSet<Member> = value.voters.iter().chain(new).copied().collect();
        let me = self.me();
        for member in concerned.into_iter().filter(|member| *member != me) {
            self.ask(member, Request::Decide { value: value.clone() });
        }
    }

    /// A member hears the primary.
    pub(super) fn declined(&mut self, from: Member, name: Name, ballot: Ballot) {
        if let Some(proposal) = self.replica.proposals.get_mut(&name).filter(|proposal| proposal.ballot == ballot) {
            proposal.declined.insert(from);
        }
    }

    /// Somebody has proposed higher. What was asked for under the lower ballot finds no majority any more, or has found it
    /// already; the next proposal passes both.
    pub(super) fn overtaken(&mut self, name: Name, ballot: Ballot, promised: Ballot) {
        let Some(proposal) = self.replica.proposals.get_mut(&name).filter(|proposal| proposal.ballot == ballot) else {
            return;
        };
        // Votes under the ballot may still come; no other proposal of this node is begun before the caller wants one.
        proposal.overtaken = proposal.overtaken.max(promised.round);
    }
}
