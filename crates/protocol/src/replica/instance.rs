//! What a member does in the one decision of its view: promise and vote. Single-decree Paxos (Lamport, "Paxos Made Simple",
//! 2001), where the first promise also closes the view.

use super::{Ballot, Bug, Name, Reply, Store, Turn, Value};
use crate::{Time, Version};

impl<S: Store> Turn<'_, S> {
    /// Rule 3. The answer has all that this member was given in the view since `since`: what is stored after it is refused,
    /// for the view is sealed.
    pub(super) fn prepare(&mut self, name: Name, ballot: Ballot, since: u64, shown: Option<Value>) -> Reply {
        if let Some(value) = shown {
            self.decided(value);
        }
        if let Some(reply) = self.silence(name) {
            return reply;
        }
        let Some(held) = self.held(&name) else { return Reply::NotInstalled { name } };
        if let Some(promised) = held.promised.filter(|promised| *promised > ballot) {
            return Reply::Overtaken { name, ballot, promised };
        }
        if !self.may_thaw(&name) || (held.promised.is_none() && self.hears_primary(&name, ballot)) {
            return Reply::Declined { name, ballot };
        }
        if held.promised != Some(ballot) {
            self.seal(name, ballot);
        }
        let Some(held) = self.held(&name) else { return Reply::NotInstalled { name } };
        let (accepted, base) = (held.accepted.clone(), held.base);
        let tail = self.store.since(&name.area(), Version { epoch: name.epoch, sequence: since });
        Reply::Promised { name, ballot, accepted, base, tail }
    }

    /// Rule 6.
    pub(super) fn accept(&mut self, name: Name, ballot: Ballot, value: Value) -> Reply {
        if let Some(reply) = self.silence(name) {
            return reply;
        }
        let Some(held) = self.held(&name) else { return Reply::NotInstalled { name } };
        if let Some(promised) = held.promised.filter(|promised| *promised > ballot) {
            return Reply::Overtaken { name, ballot, promised };
        }
        if !self.has_bug(Bug::AcceptWithoutSealing) {
            self.seal(name, ballot);
        }
        if let Some(held) = self.durable().held.get_mut(&name) {
            held.accepted = Some((ballot, value));
        }
        Reply::Accepted { name, ballot }
    }

    pub(super) fn seal(&mut self, name: Name, ballot: Ballot) {
        let now = self.now;
        if let Some(held) = self.durable().held.get_mut(&name) {
            held.promised = Some(ballot);
        }
        self.replica.waits.insert(name, now);
        self.stop_leading(&name);
    }

    /// Whether a view is not frozen, or what it waits for has been decided otherwise: while the other view may still absorb
    /// it, nobody promises for it.
    pub(super) fn may_thaw(&self, name: &Name) -> bool {
        let Some(waits_for) = self.held(name).and_then(|held| held.view.deferred) else { return true };
        let decided = self.replica.durable.decided.get(&waits_for);
        self.has_bug(Bug::ThawFreely) || decided.is_some_and(|value| value.absorbs != Some(*name))
    }

    /// Suspicion asks first: a member that hears the primary does not seal the view for somebody else.
    pub(super) fn hears_primary(&self, name: &Name, ballot: Ballot) -> bool {
        let Some(held) = self.held(name) else { return false };
        if held.view.primary == ballot.proposer {
            return false;
        }
        let suspicion = self.replica.settings.suspicion;
        if held.view.primary == self.me() {
            return suspicion > 0 && self.replica.leads.contains_key(name);
        }
        let heard = self.replica.heard.get(name).copied().unwrap_or(Time::ZERO);
        self.now.since(heard) < suspicion
    }
}
