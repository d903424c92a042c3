//! From a decision to a view that serves, and how a decision reaches everybody.

use super::recover::FORCED_EPOCH_STEP;
use super::{Area, Bug, Event, Held, Label, Lead, Member, Name, Parcel, Reply, Request, Store, Turn, Value, View};
use crate::Version;

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
            let held = Held { view, base, installed: false, promised: None, accepted: None, stable: 0 };
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
        let Some(held) = self.held(&name) else { return };
        let Some((parent, origin)) = held.base else { return };
        let label = Label { name: parent, origin, range: name.range };
        if self.replica.durable.staged.contains_key(&label) {
            self.store.rename(&Area::Staged(label), &name.area());
            self.durable().staged.remove(&label);
            self.installed(name, parent);
            return;
        }
        let others: Vec<Member> = held.view.others(&self.me()).collect();
        for member in others {
            self.ask(member, Request::Fetch { parent, origin, name });
        }
    }

    /// Rule 7, for a member that missed the staging: what was staged elsewhere, or the state of a member that has installed.
    pub(super) fn fetch(&mut self, parent: Name, origin: super::Ballot, name: Name) -> Reply {
        let label = Label { name: parent, origin, range: name.range };
        if self.replica.durable.staged.contains_key(&label) {
            return Reply::Content { name, parcel: self.store.all(&Area::Staged(label)) };
        }
        match self.silence(name) {
            Some(reply) => reply,
            None => Reply::Content { name, parcel: self.store.all(&name.area()) },
        }
    }

    pub(super) fn fetched(&mut self, name: Name, parcel: Parcel) {
        let Some(held) = self.held(&name).filter(|held| !held.installed) else { return };
        let Some((parent, _)) = held.base else { return };
        self.store.replace(&name.area(), parcel);
        self.installed(name, parent);
    }

    /// The content is here. A primary begins to serve; it counts its writes from one, for nobody else counts in this epoch.
    fn installed(&mut self, name: Name, parent: Name) {
        if self.has_bug(Bug::KeepOwnRecords) {
            for record in self.store.all(&parent.area()).within(&name.range).records.values() {
                self.store.put(&name.area(), record);
            }
        }
        let me = self.me();
        let Some(held) = self.durable().held.get_mut(&name) else { return };
        held.installed = true;
        let view = held.view.clone();
        if view.primary == me && view.deferred.is_none() && held.promised.is_none() {
            self.replica.leads.insert(name, Lead::default());
        }
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
        self.replica.slack.remove(&name);
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
        self.discard_staged(|label| label.name == name);
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

    pub(super) fn discard_staged(&mut self, is_over: impl Fn(&Label) -> bool) {
        let over: Vec<Label> = self.replica.durable.staged.keys().filter(|label| is_over(label)).copied().collect();
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
