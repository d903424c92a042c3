//! What a member does for the primary of its view.

use super::{Bug, Marks, Member, Name, Reply, Store, Turn};
use crate::Record;

impl<S: Store> Turn<'_, S> {
    /// Keeps a write of the primary. A member that has sealed the view keeps nothing more for it: what it had is in its
    /// promise (rule 3).
    pub(super) fn keep(&mut self, from: Member, name: Name, record: &Record, marks: Marks) -> Reply {
        if self.is_being_sent(&from, &name) {
            self.store.put(&name.area(), record);
            return Reply::Kept { name, sequence: record.version.sequence };
        }
        let open = !self.has_bug(Bug::StoreWhenSealed);
        if let Some(reply) = self.refuses(from, name, open) {
            return reply;
        }
        let sequence = record.version.sequence;
        // Rule 15: it is here already, or its successor is, or a tombstone that has been collected.
        let is_below = self.held(&name).is_some_and(|held| sequence <= held.stable);
        if !is_below || self.has_bug(Bug::NoFloor) {
            self.store.put(&name.area(), record);
        }
        self.advance(name, marks);
        Reply::Stored { name, sequence }
    }

    /// Whether this member still waits for content of the view. What it is given to keep meanwhile it keeps, and no page that comes
    /// late takes its place. It collects nothing, for such a page may have what a tombstone has deleted (rules 8 and 15).
    fn is_being_sent(&self, from: &Member, name: &Name) -> bool {
        let is_open = !self.replica.durable.decided.contains_key(name) && !self.has_bug(Bug::SpeakBeforeInstall);
        is_open && self.held(name).is_some_and(|held| !held.installed && held.view.primary == *from)
    }

    /// Rule 11: says that the view stands here, to the question that was asked.
    pub(super) fn confirm(&mut self, from: Member, name: Name, boot: u64, round: u64, marks: Marks) -> Reply {
        let open = !self.has_bug(Bug::ConfirmWhenSealed);
        if let Some(reply) = self.refuses(from, name, open) {
            return reply;
        }
        self.advance(name, marks);
        Reply::Confirmed { name, boot, round }
    }

    fn refuses(&mut self, from: Member, name: Name, heeds_seal: bool) -> Option<Reply> {
        if let Some(reply) = self.silence(name) {
            return Some(reply);
        }
        let held = self.held(&name)?;
        if held.view.primary != from || (held.promised.is_some() && heeds_seal) {
            return Some(Reply::Sealed { name });
        }
        self.replica.heard.insert(name, self.now);
        None
    }

    /// Takes over the primary's marks, which only go forward. All members have what is at or below the stable mark, so nobody
    /// can bring back what a tombstone at or below it has deleted, once none of it is stored any more (rule 15).
    pub(super) fn advance(&mut self, name: Name, marks: Marks) {
        if marks.purged > self.store.purged(&name.area()) {
            self.store.purge(&name.area(), marks.purged);
        }
        if let Some(held) = self.replica.durable.held.get_mut(&name)
            && held.stable < marks.stable
        {
            held.stable = marks.stable;
            self.collect(&name);
        }
    }

    /// The tombstones below the stable mark go. The mark alone may be lost with a crash, and costs no disk: without a tombstone that
    /// went because of it, whatever comes again from below it finds its successor here.
    pub(super) fn collect(&mut self, name: &Name) {
        let Some(stable) = self.held(name).map(|held| held.stable) else { return };
        if self.store.collect(&name.area(), name.version(stable)) {
            self.durable();
        }
    }
}
