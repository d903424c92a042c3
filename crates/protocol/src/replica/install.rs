//! From a decision to a view that serves, and how a decision reaches everybody.

use super::recover::FORCED_EPOCH_STEP;
use super::{
    Area, Bug, Cursor, Event, Held, Label, Lead, Member, Name, Page, Reply, Request, Store, Turn, Upon, Value, View,
};
use crate::{Record, Version};

impl<S: Store> Turn<'_, S> {
    /// This node learns what follows a view. It installs what it is a member of, and gives up the old one, with the content:
    /// that is staged at a majority of each view that follows (rules 5, 7 and 9).
    pub(super) fn decided(&mut self, value: Value) {
        let name = value.by;
        match self.replica.durable.decided.get(&name) {
            Some(known) if *known == value || !is_forced(&value) => return,
            _ => {}
        }
        let me = self.me();
        let is_new = |view: &&View| {
            let name = view.name();
            let durable = &self.replica.durable;
            // A later view here says that this one is over, too.
            view.has(&me) && self.later_than(&name).is_none() && !durable.held.contains_key(&name)
        };
        let new: Vec<View> = value.successors.iter().filter(is_new).cloned().collect();
        let is_over = self.later_than(&name).is_some() && !self.replica.durable.held.contains_key(&name);
        if is_over && new.is_empty() && !is_forced(&value) {
            // It was known here and has been forgotten, or this node has no part in it: it is only late.
            return;
        }
        let durable = self.durable();
        durable.decided.insert(name, value.clone());
        // The frozen view's fate is this decision.
        if let Some(absorbed) = value.absorbs {
            durable.decided.insert(absorbed, value.clone());
        }
        for view in new {
            let (successor, base) = (view.name(), Some((name, value.origin)));
            let held = Held { view, base, installed: false, promised: None, accepted: None, stable: 0, fetched: None };
            self.durable().held.insert(successor, held);
            self.install_staged(successor);
        }
        for over in [Some(name), value.absorbs].into_iter().flatten() {
            self.close(over, &value.successors, is_forced(&value));
        }
        self.fence(&value);
    }

    /// Rule 7: installs what was staged under the decided label, or fetches it.
    pub(super) fn install_staged(&mut self, name: Name) {
        let Some((parent, origin)) = self.held(&name).and_then(|held| held.base) else { return };
        let label = Label { name: parent, origin, range: name.range };
        let Some(staged) = self.replica.durable.staged.get(&label).cloned() else {
            self.fetch_from_others(name);
            return;
        };
        self.durable().staged.remove(&label);
        let own = self.own_records(&parent, &name);
        let all = Version { epoch: u64::MAX, sequence: u64::MAX };
        match staged.upon {
            // It is what this node has, and upon that what is staged.
            Some(upon) if staged.is_complete => {
                let range = if upon.absorbed.is_some() { parent.range } else { name.range };
                self.store.derive(&parent.area(), &name.area(), &range, parent.version(upon.since));
                if let Some(absorbed) = upon.absorbed {
                    self.store.derive(&absorbed.area(), &name.area(), &absorbed.range, absorbed.version(0));
                }
                self.lay_upon(&label, &name);
            }
            None => self.store.derive(&Area::Staged(label), &name.area(), &name.range, all),
            Some(_) => {}
        }
        self.store.discard(&Area::Staged(label));
        if !staged.is_complete {
            // As far as it has come, if it is all of it that has come.
            let fetched = staged.after.filter(|_| staged.upon.is_none());
            if let Some(held) = self.durable().held.get_mut(&name) {
                held.fetched = fetched;
            }
            self.fetch_from_others(name);
            return;
        }
        for record in own {
            self.store.put(&name.area(), &record);
        }
        self.installed(name);
    }

    /// Moves what is later than what this node had to that.
    fn lay_upon(&mut self, label: &Label, name: &Name) {
        let (area, room) = (Area::Staged(*label), self.replica.settings.page_bytes);
        let mut after = None;
        loop {
            let (parcel, next) = self.store.page(&area, &label.range, after, room);
            self.store.extend(&name.area(), parcel);
            if next.is_none() {
                return;
            }
            after = next;
        }
    }

    fn own_records(&self, parent: &Name, name: &Name) -> Vec<Record> {
        if !self.has_bug(Bug::KeepOwnRecords) {
            return Vec::new();
        }
        self.store.page(&parent.area(), &name.range, None, usize::MAX).0.records.into_values().collect()
    }

    fn fetch_from_others(&mut self, name: Name) {
        let me = self.me();
        let Some(held) = self.held(&name) else { return };
        let (others, after): (Vec<Member>, _) = (held.view.others(&me).collect(), held.fetched);
        let value = held.base.and_then(|(parent, _)| self.replica.durable.decided.get(&parent)).cloned();
        self.replica.fetches.insert(name, self.now);
        for member in others {
            self.ask(member, Request::Fetch { name, after, value: value.clone() });
        }
    }

    /// Rule 7, for a member that missed the staging: a part of the state of a member that has installed.
    ///
    /// That one may serve the view meanwhile, so that the parts are not of one moment. But no write of the view is stable before
    /// the asker has installed, so each is sent to the asker again after that, and no tombstone is collected. What matters is
    /// that a write and its outcome never come apart: those of this view go together with the record.
    pub(super) fn fetch(&mut self, name: Name, after: Option<Cursor>, value: Option<Value>) -> Reply {
        if let Some(value) = value {
            self.decided(value);
        }
        if let Some(reply) = self.silence(name) {
            return reply;
        }
        let room = self.replica.settings.page_bytes;
        let (mut parcel, next) = self.store.page(&name.area(), &name.range, after, room);
        parcel.tie_outcomes(name.epoch);
        Reply::Content { name, page: Page { after, parcel, next } }
    }

    pub(super) fn fetched(&mut self, from: Member, name: Name, page: Page) {
        let Some(held) = self.held(&name) else { return };
        if held.installed || held.fetched != page.after {
            return;
        }
        self.store.extend(&name.area(), page.parcel);
        let after = page.next;
        if after.is_none() {
            self.installed(name);
            return;
        }
        if let Some(held) = self.durable().held.get_mut(&name) {
            held.fetched = after;
        }
        self.replica.fetches.insert(name, self.now);
        self.ask(from, Request::Fetch { name, after, value: None });
    }

    /// The content is here. A primary begins to serve; it counts its writes from one, for nobody else counts in this epoch.
    fn installed(&mut self, name: Name) {
        let me = self.me();
        let Some(held) = self.durable().held.get_mut(&name) else { return };
        held.installed = true;
        held.fetched = None;
        let view = held.view.clone();
        if view.primary == me && view.deferred.is_none() && held.promised.is_none() {
            self.replica.leads.insert(name, Lead::default());
        }
        self.replica.fetches.remove(&name);
        self.replica.heard.insert(name, self.now);
        self.step.events.push(Event::Installed(view));
    }

    /// What was held under this name is over. What was staged for other decisions than the one that was made is of no use;
    /// what belongs to it has been installed by now.
    fn close(&mut self, name: Name, successors: &[View], by_force: bool) {
        let over = &mut self.durable().over;
        over.retain(|earlier| !(earlier.is_over_with(&name) && name.range.covers(&earlier.range)));
        over.push(name);
        over.sort_unstable();
        self.stop_leading(&name);
        self.replica.proposals.remove(&name);
        self.replica.heard.remove(&name);
        self.replica.waits.remove(&name);
        self.replica.fetches.remove(&name);
        self.replica.rounds.remove(&name);
        if self.replica.durable.held.contains_key(&name) {
            self.durable().held.remove(&name);
            let survives = successors.iter().any(|view| view.has(&self.replica.durable.me));
            if by_force && !survives {
                self.step.events.push(Event::Fenced(name));
            } else {
                self.store.discard(&name.area());
            }
            self.step.events.push(Event::Followed(name, successors.to_vec()));
        }
        // What is laid upon the content of this view is gone with it.
        self.discard_staged(|label, upon| label.name == name || upon.is_some_and(|upon| upon.absorbed == Some(name)));
    }

    /// A forced view stands against whatever an older view, or what followed that, may believe (recover.rs). The content of
    /// those stays where it is, for a person.
    fn fence(&mut self, value: &Value) {
        for forced in value.successors.iter().filter(|view| view.forced) {
            let forced = forced.name();
            let over: Vec<Name> =
                self.replica.durable.held.keys().filter(|held| held.is_before(&forced)).copied().collect();
            for name in over {
                self.durable().decided.insert(name, value.clone());
                self.close(name, &value.successors, true);
            }
        }
    }

    pub(super) fn discard_staged(&mut self, is_over: impl Fn(&Label, Option<Upon>) -> bool) {
        let staged = self.replica.durable.staged.iter();
        let over: Vec<Label> =
            staged.filter(|(label, staged)| is_over(label, staged.upon)).map(|(label, _)| *label).collect();
        for label in over {
            self.durable().staged.remove(&label);
            self.store.discard(&Area::Staged(label));
        }
    }

    /// Rule 9: somebody has something staged and hears nothing of the decision.
    pub(super) fn inquire(&mut self, name: Name) -> Reply {
        match self.replica.durable.decided.get(&name) {
            Some(value) => Reply::Decided { value: value.clone() },
            None => Reply::Elsewhere { name, later: self.later_than(&name) },
        }
    }

    /// A later view stands where this one stood, so it has decided, and those who follow have its content. What was staged for
    /// it has no part in that, and a member that was never told what follows gives it up. Those who know the decision go on
    /// telling it.
    pub(super) fn elsewhere(&mut self, name: Name, later: Option<Name>) {
        let Some(later) = later.filter(|later| name.is_over_with(later)) else { return };
        if !self.replica.durable.decided.contains_key(&name) {
            self.close(name, &[], later.epoch - name.epoch >= FORCED_EPOCH_STEP);
        }
    }

    pub(super) fn told(&mut self, from: Member, name: Name) {
        // Of an absorbed view the same decision is kept under its own name, too: who has been told of one knows both.
        let decided = self.replica.durable.decided.iter().filter(|(_, value)| value.by == name);
        for (known, _) in decided {
            self.replica.told.entry(*known).or_default().insert(from);
        }
    }

    pub(super) fn forgotten(&mut self, from: Member, name: Name) {
        if self.replica.durable.decided.contains_key(&name) {
            self.replica.forgotten.entry(name).or_default().insert(from);
        }
    }

    /// All have been told: the decision needs not be kept, unless a frozen view here waits for it.
    pub(super) fn forget(&mut self, name: Name) -> Reply {
        let durable = &self.replica.durable;
        let mut frozen =
            durable.held.values().map(|held| &held.view).chain(durable.staged.values().map(|kept| &kept.view));
        if frozen.any(|view| view.deferred == Some(name)) {
            return Reply::Told { name };
        }
        if durable.decided.contains_key(&name) {
            self.durable().decided.remove(&name);
            self.replica.told.remove(&name);
            self.replica.forgotten.remove(&name);
            self.replica.waits.remove(&name);
        }
        Reply::Forgotten { name }
    }
}

impl Name {
    /// The version of the last write of this view that is known to be at all members.
    pub(super) fn version(&self, sequence: u64) -> Version {
        Version { epoch: self.epoch, sequence }
    }
}

fn is_forced(value: &Value) -> bool {
    value.successors.iter().any(|view| view.forced)
}
