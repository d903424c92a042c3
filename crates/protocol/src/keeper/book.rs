//! Which data directory a node has now, when it was last heard, and where it can be asked.

use std::collections::{BTreeMap, BTreeSet};

use super::Around;
use crate::replica::Member;
use crate::{Contact, Id, Time};

/// How many nodes are remembered beside those who are members of something here.
const STRANGERS: usize = 256;

/// For how long a node is left out of new groups after it last said that it is leaving, in milliseconds.
const LEAVING_FOR: u64 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Book {
    known: BTreeMap<Id, Known>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Known {
    contact: Contact,
    /// As which member it was met last, and when.
    met: Option<(Member, Time)>,
    /// When it last said that it is leaving.
    leaving: Option<Time>,
}

impl Book {
    pub(super) fn of(contacts: Vec<Contact>) -> Book {
        let mut book = Book::default();
        book.learn(contacts);
        book
    }

    /// Somebody has told where these can be asked. It is a hint: whoever was met speaks for itself.
    pub(super) fn learn(&mut self, contacts: Vec<Contact>) {
        for contact in contacts.into_iter().filter(Contact::is_well_formed) {
            self.known.entry(contact.id).or_insert(Known { contact, met: None, leaving: None });
        }
    }

    /// This node has been heard, as this member.
    pub(super) fn meet(&mut self, now: Time, contact: &Contact, member: Member) {
        if contact.id != member.id {
            return;
        }
        let fresh = || Known { contact: contact.clone(), met: None, leaving: None };
        let known = self.known.entry(contact.id).or_insert_with(fresh);
        known.contact = contact.clone();
        if known.met.is_some_and(|(as_before, _)| as_before != member) {
            known.leaving = None;
        }
        known.met = Some((member, now));
    }

    pub(super) fn lets_go(&mut self, now: Time, contact: &Contact) {
        if let Some(known) = self.known.get_mut(&contact.id) {
            known.leaving = Some(now);
        }
    }

    pub(super) fn contact(&self, id: &Id) -> Option<&Contact> {
        self.known.get(id).map(|known| &known.contact)
    }

    pub(super) fn contacts_of(&self, members: &BTreeSet<Member>) -> Vec<Contact> {
        members.iter().filter_map(|member| self.contact(&member.id)).cloned().collect()
    }

    /// The member that this node is, if it was heard within so many milliseconds.
    pub(super) fn fresh(&self, now: Time, id: &Id, within: u64) -> Option<Member> {
        let (member, at) = self.known.get(id)?.met?;
        (now.since(at) <= within).then_some(member)
    }

    pub(super) fn is_leaving(&self, now: Time, id: &Id) -> bool {
        let leaving = self.known.get(id).and_then(|known| known.leaving);
        leaving.is_some_and(|at| now.since(at) <= LEAVING_FOR)
    }

    /// Forgets those whom nobody here has to ask, the longest unheard first, if they are too many.
    pub(super) fn prune(&mut self, members: &BTreeSet<Member>, around: &Around) {
        if self.known.len() <= STRANGERS {
            return;
        }
        let mut needed: BTreeSet<Id> = members.iter().map(|member| member.id).collect();
        needed.extend(around.predecessors.iter().chain(&around.successors).map(|contact| contact.id));
        let mut strangers: Vec<(Time, Id)> = self
            .known
            .iter()
            .filter(|(id, _)| !needed.contains(id))
            .map(|(id, known)| (known.met.map_or(Time::ZERO, |(_, at)| at), *id))
            .collect();
        strangers.sort_unstable();
        for (_, id) in strangers.iter().take(self.known.len() - STRANGERS) {
            self.known.remove(id);
        }
    }
}
