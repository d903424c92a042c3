//! What is done again because nobody has answered, and what a member does by itself once it has waited long enough. Nothing
//! here is needed for safety, and everything here may be done at any time, twice or never.

use std::collections::BTreeSet;

use super::change::Phase;
use super::{Change, Event, Letter, Member, Name, Replica, Request, Step, Store, Turn, View};
use crate::Time;

/// How many suspicion times a change may stand still before it is begun anew, under a higher ballot. On a machine that is
/// overloaded each of its steps is slow, and to begin again only makes more of them.
pub(super) const CHANGE: u64 = 4;

/// What is asked is asked again when so much of the suspicion time has passed: by then an answer should have come.
pub(super) const AGAIN: u64 = 3;

/// How many suspicion times a decision is left to the primaries of the views that follow.
const PATIENCE: u64 = 8;

/// After how many suspicion times a decision is forgotten although somebody has not heard of it.
const MEMORY: u64 = 30;

impl Replica {
    /// Time has passed. To be called at an interval, some of it by chance, well below [`super::Settings::suspicion`].
    pub fn tick<S: Store>(&mut self, store: &mut S, now: Time) -> Step {
        let mut turn = Turn::new(self, store, now);
        let held: Vec<Name> = turn.replica.durable.held.keys().copied().collect();
        for name in held {
            turn.attend(name);
        }
        turn.spread_decisions();
        turn.inquire_after_staged();
        turn.inquire_after_copies();
        turn.end()
    }
}

impl<S: Store> Turn<'_, S> {
    fn attend(&mut self, name: Name) {
        let Some(held) = self.held(&name) else { return };
        let is_installed = held.installed;
        if let Some(later) = self.later_than(&name) {
            // It has decided, and this node was never told, or two views were founded over each other by hand.
            self.elsewhere(name, Some(later));
            return;
        }
        if !is_installed {
            let now = self.now;
            let last = self.replica.fetches.get(&name);
            if last.is_none_or(|last| now.since(*last) >= self.replica.settings.suspicion) {
                self.install_staged(name);
            }
            return;
        }
        let Some(held) = self.held(&name) else { return };
        let suspicion = self.replica.settings.suspicion;
        if self.replica.leads.contains_key(&name) {
            self.lead_again(&name);
            self.attend_prefetch(name);
            if self.replica.waits.get(&name).is_some_and(|since| self.now.since(*since) >= 2 * suspicion) {
                self.propose_same(name);
            }
            return;
        }
        let me = self.me();
        let is_sealed = held.promised.is_some();
        let is_primary = held.view.primary == me;
        let is_frozen = held.view.deferred.is_some();
        // Members take turns by their place, so that stale suspicions cost time and not ballots.
        let primary = held.view.primary;
        let place = 1 + held.view.others(&primary).position(|member| member == me).unwrap_or_default() as u64;
        let patience = CHANGE * suspicion * place;
        if let Some(proposal) = self.replica.proposals.get(&name)
            && self.now.since(proposal.moved) < patience
        {
            if self.now.since(proposal.asked) >= suspicion / AGAIN {
                self.ask_again(&name);
                self.tell_of_progress(name);
            }
            return;
        }
        let waits = *self.replica.waits.entry(name).or_insert(self.now);
        let heard = self.replica.heard.get(&name).copied().unwrap_or(Time::ZERO);
        let silent_for = self.now.since(waits.max(heard));
        if is_primary && !is_sealed && !is_frozen {
            // Rule 10: it has restarted.
            self.propose_same(name);
        } else if (is_sealed || is_frozen) && silent_for >= patience {
            // Sealed, and no decision has come: whoever sealed it may be gone.
            self.replica.waits.insert(name, self.now);
            self.propose_same(name);
        } else if !is_sealed && !is_frozen && silent_for >= suspicion * place {
            self.replica.waits.insert(name, self.now);
            self.step.events.push(Event::Silent(name));
        }
    }

    fn propose_same(&mut self, name: Name) {
        if self.replica.proposals.get(&name).is_some_and(|proposal| proposal.survivors.is_some()) {
            return;
        }
        // A frozen view says no until the other decision is known: then that one is what must be driven.
        if self.propose(name, &Change::Same, None).is_err()
            && let Some(waits_for) = self.held(&name).and_then(|held| held.view.deferred)
        {
            if let Some(other) = self.held(&waits_for) {
                // Only its own primary serves what it absorbs; anybody else can at least let it decide something.
                let is_primary = other.view.primary == self.me();
                let change = if is_primary { Change::Absorb { deferred: name } } else { Change::Same };
                let _ = self.propose(waits_for, &change, None);
            } else {
                let others: Vec<Member> =
                    self.held(&name).map(|held| held.view.others(&self.me()).collect()).unwrap_or_default();
                for member in others {
                    self.ask(member, Request::Inquire { name: waits_for });
                    // That one may have been forgotten, and this one with it.
                    self.ask(member, Request::Inquire { name });
                }
            }
        }
    }

    /// Rule 9: the primary of a view that follows repeats the decision until all old members have heard it, and all new ones;
    /// then all forget it, this node last. If the decision is still remembered after a while, others do the same: whoever was to
    /// may be gone, and while a member is gone for good its peers remember what it has not heard.
    fn spread_decisions(&mut self) {
        let me = self.me();
        let decided: Vec<(Name, super::Value)> =
            self.replica.durable.decided.iter().map(|(name, value)| (*name, value.clone())).collect();
        for (name, value) in decided {
            let waits = *self.replica.waits.entry(name).or_insert(self.now);
            let is_late = self.now.since(waits) >= PATIENCE * self.replica.settings.suspicion;
            let is_mine = value.successors.iter().any(|view| view.primary == me);
            if !is_late && !is_mine {
                self.tell_successors(&name, &value);
                continue;
            }
            let is_old = self.now.since(waits) >= MEMORY * self.replica.settings.suspicion;
            if is_old && self.replica.has_told(&name, &value) {
                // Somebody who should know is gone, perhaps for good. The bare name stays, and tells whoever comes back.
                self.ask(me, Request::Forget { name });
                continue;
            }
            if is_old {
                self.ask_what_became_of(&name, &value);
            }
            let new = value.successors.iter().flat_map(|view| &view.members);
            let concerned: BTreeSet<Member> =
                value.voters.iter().chain(new).copied().filter(|member| *member != me).collect();
            let none = BTreeSet::new();
            let told = self.replica.told.get(&name).unwrap_or(&none);
            let forgotten = self.replica.forgotten.get(&name).unwrap_or(&none);
            let untold: Vec<Member> = concerned.difference(told).copied().collect();
            let remember: Vec<Member> = concerned.difference(forgotten).copied().collect();
            for member in &untold {
                self.ask(*member, Request::Decide { value: value.clone() });
            }
            if untold.is_empty() {
                for member in &remember {
                    self.ask(*member, Request::Forget { name });
                }
                if remember.is_empty() {
                    self.ask(me, Request::Forget { name });
                }
            }
        }
    }

    /// Most of those who follow may be gone for good, and never say that they know the decision. Those who have been told it may know
    /// that what follows is over in its turn: then it has been known.
    fn ask_what_became_of(&mut self, name: &Name, value: &super::Value) {
        let told: Vec<Member> = self.replica.told.get(name).into_iter().flatten().copied().collect();
        let open: Vec<Name> =
            value.successors.iter().map(View::name).filter(|view| self.later_than(view).is_none()).collect();
        for view in open {
            for member in &told {
                self.ask(*member, Request::Inquire { name: view });
            }
        }
    }

    /// Whoever is to repeat a decision must know it first. As long as one who decided it has not heard that a majority of each view
    /// that follows does, all may have missed it.
    fn tell_successors(&mut self, name: &Name, value: &super::Value) {
        let me = self.me();
        if !value.voters.contains(&me) || self.replica.has_told(name, value) {
            return;
        }
        let none = BTreeSet::new();
        let told = self.replica.told.get(name).unwrap_or(&none);
        let members: BTreeSet<Member> = value.successors.iter().flat_map(|view| view.others(&me)).collect();
        let untold: Vec<Member> = members.difference(told).copied().collect();
        for member in untold {
            self.ask(member, Request::Decide { value: value.clone() });
        }
    }

    /// Something is staged here, and nothing was heard of the decision since.
    fn inquire_after_staged(&mut self) {
        let me = self.me();
        let waiting: Vec<(Name, Vec<Member>)> =
            self.replica.durable.staged.iter().map(|(label, staged)| (label.name, staged.voters.clone())).collect();
        for (name, voters) in waiting {
            for member in voters.into_iter().filter(|member| *member != me) {
                self.ask(member, Request::Inquire { name });
            }
        }
    }

    /// Whether a proposal of this node is under way, and has not begun to ask for votes.
    pub(super) fn is_preparing(&self, name: &Name) -> bool {
        self.replica.proposals.get(name).is_some_and(|proposal| matches!(proposal.phase, Phase::Preparing { .. }))
    }
}

impl Replica {
    /// Whether a majority of each view that follows has said that it knows this decision, or must have known it.
    fn has_told(&self, name: &Name, value: &super::Value) -> bool {
        let me = self.me();
        let told = self.told.get(name);
        let knows = |member: &&Member| **member == me || told.is_some_and(|told| told.contains(*member));
        let durable = &self.durable;
        // Who has decided in its turn has known it.
        let is_over = |view: &View| {
            let name = view.name();
            durable.over.iter().any(|over| name.is_over_with(over))
                || durable.held.keys().any(|held| name.is_before(held))
        };
        let is_known = |view: &View| view.members.iter().filter(knows).count() >= view.majority();
        value.successors.iter().all(|view| is_over(view) || is_known(view))
    }

    /// Whether enough of those who follow know what this node has had a part in, as far as it remembers.
    pub fn has_told_all(&self) -> bool {
        self.durable.decided.iter().all(|(name, value)| self.has_told(name, value))
    }

    /// What follows decisions that this node remembers, where it cannot tell whether they have been known by enough.
    pub fn unsettled(&self) -> Vec<Name> {
        let open = self.durable.decided.iter().filter(|(name, value)| !self.has_told(name, value));
        open.flat_map(|(_, value)| value.successors.iter().map(View::name)).collect()
    }

    /// Asks anybody what has become of a view.
    pub fn inquire_of(&self, to: Member, name: Name) -> Letter<Request> {
        Letter { from: self.durable.me, boot: self.durable.boot, to, body: Request::Inquire { name } }
    }

    /// When a proposal of this node for this view was begun, if one is under way.
    pub fn proposing_since(&self, name: &Name) -> Option<Time> {
        self.proposals.get(name).map(|proposal| proposal.begun)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Ballot, MemoryStore, Reply, Settings, Value};
    use super::*;
    use crate::{Id, Interval};

    fn member(name: &str) -> Member {
        Member { id: Id::of(name), incarnation: 1 }
    }

    fn view(epoch: u64, members: &[&str]) -> View {
        let members: Vec<Member> = members.iter().map(|name| member(name)).collect();
        let (range, primary) = (Interval::whole(Id::ZERO), members[0]);
        View { range, epoch, members, primary, deferred: None, forced: false }
    }

    /// Found by the soak test: a node that was asked to leave never did, for it remembered a decision of long ago. Of those who
    /// followed, one was left.
    #[test]
    fn a_decision_is_forgotten_though_most_who_followed_are_gone_once_somebody_knows_that_they_have_been_followed() {
        let (before, after) = (view(1, &["me", "gone"]), view(2, &["gone", "also gone", "there"]));
        let origin = Ballot { round: 1, proposer: member("me"), boot: 1 };
        let (by, voters) = (before.name(), before.members.clone());
        let value = Value { by, successors: vec![after], origin, absorbs: None, voters };
        let settings = Settings::default();
        let new = Replica::new(member("me"), settings.clone());
        let durable =
            super::super::Durable { decided: BTreeMap::from([(by, value)]), over: vec![by], ..new.durable().clone() };
        let (mut me, mut there) =
            (Replica::restored(durable, settings.clone()), Replica::new(member("there"), settings));
        let (mut mine, mut theirs) = (MemoryStore::default(), MemoryStore::default());
        let tick =
            |me: &mut Replica, there: &mut Replica, mine: &mut MemoryStore, theirs: &mut MemoryStore, now: u64| {
                let calls = me.tick(mine, Time(now)).calls;
                for letter in calls.into_iter().filter(|letter| letter.to == member("there")) {
                    let reply: Letter<Reply> = there.serve(theirs, Time(now), letter).0;
                    me.hear(mine, Time(now), reply);
                }
            };
        for now in (0..60_000).step_by(150) {
            tick(&mut me, &mut there, &mut mine, &mut theirs, now);
        }
        assert!(!me.has_told_all(), "all who decided may have missed what most of those who follow were to know");
        let _ = there.found(view(5, &["there"]));
        for now in (60_000..62_000).step_by(150) {
            tick(&mut me, &mut there, &mut mine, &mut theirs, now);
        }
        assert!(me.has_told_all() && me.durable().decided.is_empty());
    }
}
