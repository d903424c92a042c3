//! What the primary of a view makes of it that a member keeps a write. It writes nothing: what a stable mark lets go is collected
//! with the next write or beat.

use super::lead::{Lead, Place, Progress};
use super::{Answer, Bug, Member, Name, Request, Snapshot, Turn};
use crate::Written;
use std::sync::Arc;

impl<S: Snapshot> Turn<'_, S> {
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

    /// The stable mark goes on, unless something is still to be told of what would be below it (`prefetch`).
    pub(super) fn settle_stable(&mut self, name: &Name) {
        let Some(before) = self.held(name).map(|held| held.stable) else { return };
        let Some(Progress { stable, .. }) = self.replica.leads.get(name).map(Lead::progress) else { return };
        let stable = self.held_back(name).map_or(stable, |held_back| held_back.min(stable));
        if stable > before
            && let Some(held) = self.replica.durable.held.get_mut(name)
        {
            held.stable = stable;
        }
    }
}
