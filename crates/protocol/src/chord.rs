//! The state of a node, and what changes it in the same way everywhere.

use std::collections::VecDeque;

use crate::{
    Contact, Durable, Event, FingerTable, Flaw, Id, Interval, Lookup, Membership, Mode, NextHop, OwnerCache, Ring,
    Settings, SuccessorList, Table, Time, keeper::Around, next_hop,
};

/// How many goodbyes are remembered, and for how long, in milliseconds: until words that were under way have arrived, and
/// others have heard of it.
const DEPARTED: usize = 32;
const DEPARTED_FOR: u64 = 2_000;

/// A node of a Chord ring: state, answers and procedures, without I/O.
///
/// Source: Zave, "How to Make Chord Correct"; Stoica et al., "Chord". Where they differ, Zave is followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chord {
    pub(crate) me: Contact,
    pub(crate) settings: Settings,
    pub(crate) ring: Option<Ring>,
    pub(crate) membership: Membership,
    pub(crate) predecessor: Option<Contact>,
    /// Those before the predecessor, the nearest first, as it tells.
    pub(crate) earlier: Vec<Contact>,
    pub(crate) successors: SuccessorList,
    pub(crate) fingers: FingerTable,
    pub(crate) next_finger: u16,
    pub(crate) cache: OwnerCache,
    pub(crate) contacts: VecDeque<Contact>,
    /// Whether the successor said last time that this node is its predecessor.
    pub(crate) mutual: bool,
    /// Who has said goodbye, and when. Others may not know it yet, and words of the leaver may still be under way.
    pub(crate) departed: VecDeque<(Contact, Time)>,
    /// Whether it is telling its neighbours that it is gone: from here on it takes nothing over.
    pub(crate) departing: bool,
    /// A planted bug; none outside the simulator.
    pub(crate) flaw: Option<Flaw>,
    pub(crate) revision: u64,
    pub(crate) pointer_revision: u64,
}

impl Chord {
    /// A node that has no place on a ring yet.
    pub fn new(me: Contact, settings: Settings) -> Chord {
        Chord {
            ring: None,
            membership: Membership::Joining,
            predecessor: None,
            earlier: Vec::new(),
            successors: SuccessorList::new(me.id, settings.successors),
            fingers: FingerTable::new(me.id),
            next_finger: 0,
            cache: OwnerCache::new(settings.cached_owners),
            contacts: VecDeque::new(),
            mutual: false,
            departed: VecDeque::new(),
            departing: false,
            flaw: None,
            revision: 1,
            pointer_revision: 1,
            me,
            settings,
        }
    }

    /// A node that comes back with what it had not forgotten. It stands where it stood, with pointers that may be stale.
    pub fn restore(durable: Durable, settings: Settings) -> Chord {
        let mut chord = Chord::new(durable.me, settings);
        chord.ring = durable.ring;
        chord.membership = match durable.membership {
            Membership::Leaving => Membership::Joined,
            Membership::Left => Membership::Joining,
            other => other,
        };
        chord.predecessor = durable.predecessor;
        if let Some((head, tail)) = durable.successors.split_first() {
            chord.successors.adopt(head, tail);
        }
        chord.contacts = durable.contacts.into();
        chord
    }

    /// Gives this node a bug that the simulator must find. Nothing else may call this.
    pub fn plant(&mut self, flaw: Flaw) {
        self.flaw = Some(flaw);
        if flaw == Flaw::ListsItself {
            self.successors.list_owner();
        }
    }

    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// What it must not forget.
    pub fn durable(&self) -> Durable {
        Durable {
            me: self.me.clone(),
            ring: self.ring,
            membership: self.membership,
            predecessor: self.predecessor.clone(),
            successors: self.successors.entries().to_vec(),
            contacts: self.contacts.iter().cloned().collect(),
        }
    }

    /// Grows whenever [`Chord::durable`] changes in a way that must be on disk before any reply or call leaves the node.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Grows whenever a pointer changes. Pointers are hints, and it is enough to write them soon.
    pub fn pointer_revision(&self) -> u64 {
        self.pointer_revision
    }

    /// Who it is.
    pub fn me(&self) -> &Contact {
        &self.me
    }

    /// What it was told when it was made.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its ring.
    pub fn ring(&self) -> Option<Ring> {
        self.ring
    }

    /// Where it stands.
    pub fn membership(&self) -> Membership {
        self.membership
    }

    /// Its predecessor.
    pub fn predecessor(&self) -> Option<&Contact> {
        self.predecessor.as_ref()
    }

    /// Its predecessor and those before that, the nearest first, as far as it is known: never itself, nobody twice.
    pub fn predecessors(&self) -> impl Iterator<Item = &Contact> {
        self.predecessor.iter().chain(self.predecessor.iter().flat_map(|_| &self.earlier))
    }

    /// Whether this node has said goodbye a moment ago.
    pub fn has_departed(&self, contact: &Contact) -> bool {
        self.departed.iter().any(|(gone, _)| gone == contact)
    }

    /// Its successor list, nearest first.
    pub fn successors(&self) -> &[Contact] {
        self.successors.entries()
    }

    /// The distinct entries of its finger table.
    pub fn fingers(&self) -> &[crate::Finger] {
        self.fingers.entries()
    }

    /// The nodes that it remembers, the latest first.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.contacts.iter()
    }

    /// Whether it is a ring of one.
    pub fn is_alone(&self) -> bool {
        self.membership.is_member() && self.successors.is_empty()
    }

    /// Whether it is saying goodbye: it is a member until all have heard of it, but no neighbour any more.
    pub fn is_departing(&self) -> bool {
        self.departing
    }

    /// What it owns by its ring pointers: from itself to its successor.
    pub fn due(&self) -> Interval {
        Interval::half_open(self.me.id, self.successors.first().map_or(self.me.id, |contact| contact.id))
    }

    /// Who is around it, for those who keep content.
    pub fn around(&self) -> Around {
        Around {
            is_member: self.membership.is_member(),
            replication_factor: self.ring.map_or(0, |ring| ring.copies()),
            predecessors: self.predecessors().filter(|contact| !self.has_departed(contact)).cloned().collect(),
            successors: self.successors().iter().filter(|contact| !self.has_departed(contact)).cloned().collect(),
        }
    }

    /// Why it has no firm place on the ring, if it hasn't.
    pub fn not_ready(&self) -> Option<String> {
        match self.membership {
            Membership::Joined => {}
            Membership::Isolated => {
                return Some("isolated: it has lost all its successors and looks for the ring".to_owned());
            }
            other => return Some(other.to_string()),
        }
        let waits = !self.is_alone() && !self.mutual;
        waits.then(|| "joined, but its successor does not know it yet".to_owned())
    }

    /// Whom to ask next about an id.
    pub fn next_hop(&self, key: &Id, mode: Mode, excluding: Option<&Id>) -> NextHop {
        let cache = Some(&self.cache);
        next_hop(
            Table { me: &self.me, successors: &self.successors, fingers: &self.fingers, cache },
            key,
            mode,
            excluding,
        )
    }

    /// The other node that was last seen to own an id, if it is remembered.
    pub fn likely_owner(&self, id: &Id) -> Option<Contact> {
        self.cache.owner(id).filter(|owner| owner.id != self.me.id).cloned()
    }

    /// Notes an owner that was seen.
    pub fn learn_owner(&mut self, range: Interval, owner: &Contact) {
        self.cache.learn(range, owner);
    }

    /// Forgets who was thought to own this id.
    pub fn forget_owner(&mut self, id: &Id) {
        self.cache.forget(id);
    }

    /// Forgets a node that gave no answer wherever that is only a hint. The successor list is `stabilize`'s business.
    pub fn forget_node(&mut self, gone: &Contact) {
        self.cache.forget_node(gone);
        self.fingers.remove(gone);
    }

    /// A lookup from here; `None` if the id is this node's own.
    pub fn lookup(&self, key: Id, mode: Mode) -> Option<Lookup> {
        match self.next_hop(&key, mode, None) {
            NextHop::Owner { .. } => None,
            NextHop::Via(hops) => Some(Lookup::new(key, mode, None, self.settings.hop_budget, hops)),
        }
    }

    /// Who may serve an id that this node does not: the nearest node before it that is known, which in a small ring is the
    /// owner. Where that is this node itself it waits for the range, and whoever comes before it may have it still.
    pub fn hint(&self, id: &Id) -> Option<Contact> {
        if let NextHop::Via(hops) = self.next_hop(id, Mode::Fingers, None)
            && let Some(nearest) = hops.into_iter().next()
        {
            return Some(nearest.contact);
        }
        self.predecessor.clone()
    }

    // ---- changes that every procedure makes in the same way ----

    /// The state that others may build on has changed: it must be on disk first.
    pub(crate) fn touch(&mut self) {
        self.revision += 1;
    }

    /// Somebody has come to a ring of one. That is no hint like other pointers: if the first node forgot it in a crash, it would
    /// begin its ring a second time.
    fn no_longer_alone(&mut self) {
        if self.successors.is_empty() {
            self.touch();
        }
    }

    pub(crate) fn set_predecessor(&mut self, contact: Option<Contact>, events: &mut Vec<Event>) {
        if self.predecessor == contact {
            return;
        }
        self.pointer_revision += 1;
        if let Some(contact) = &contact {
            self.remember(contact);
            self.no_longer_alone();
            self.shift_earlier(contact);
        }
        self.predecessor = contact.clone();
        events.push(Event::Predecessor(contact));
    }

    /// What is known of those before the predecessor when it becomes this one.
    fn shift_earlier(&mut self, new: &Contact) {
        if let Some(place) = self.earlier.iter().position(|contact| contact == new) {
            self.earlier.drain(..=place);
        } else if let Some(old) = self.predecessor.take_if(|old| crate::between(&old.id, &new.id, &self.me.id)) {
            self.earlier.insert(0, old);
            self.earlier.truncate(self.settings.successors);
        } else {
            self.earlier.clear();
        }
    }

    /// The predecessor tells who comes before it. In a small ring the list comes round to this node, and ends there.
    pub(crate) fn hear_of_predecessors(&mut self, from: &Contact, before: Vec<Contact>) {
        if self.predecessor.as_ref() != Some(from) {
            return;
        }
        let mut earlier: Vec<Contact> = Vec::new();
        for contact in before.into_iter().take(self.settings.successors) {
            let is_behind = earlier.last().unwrap_or(from).id;
            if contact.id == self.me.id || !crate::between(&self.me.id, &contact.id, &is_behind) {
                break;
            }
            if !self.has_departed(&contact) {
                earlier.push(contact);
            }
        }
        self.earlier = earlier;
    }

    /// Adopts a successor that has answered, with its list. Who has said goodbye may still stand in that.
    pub(crate) fn set_successors(&mut self, head: &Contact, tail: &[Contact], events: &mut Vec<Event>) {
        self.no_longer_alone();
        let before = self.successors.first().cloned();
        let departed = &self.departed;
        let staying = tail.iter().filter(|contact| departed.iter().all(|(gone, _)| gone != *contact));
        if self.successors.adopt(head, staying) {
            self.pointer_revision += 1;
            for contact in self.successors.entries().to_vec().iter().rev() {
                self.remember(contact);
            }
        }
        if before.as_ref() != Some(head) {
            self.mutual = false;
            self.fingers.record(0, head);
            events.push(Event::Successor(Some(head.clone())));
        }
    }

    /// A successor has died or left.
    pub(crate) fn drop_successor(&mut self, gone: &Contact, events: &mut Vec<Event>) {
        let was_first = self.successors.first() == Some(gone);
        if self.successors.remove(gone) {
            self.pointer_revision += 1;
        }
        self.forget_node(gone);
        if was_first {
            self.mutual = false;
            events.push(Event::Successor(self.successors.first().cloned()));
        }
    }

    /// Notes that a node has said goodbye.
    pub(crate) fn departs(&mut self, now: Time, gone: &Contact) {
        self.departed.retain(|(known, _)| known != gone);
        self.earlier.retain(|known| known != gone);
        self.departed.push_front((gone.clone(), now));
        self.departed.truncate(DEPARTED);
    }

    /// Lets time pass: a goodbye of long ago means nothing for a node that is there now.
    pub(crate) fn pass(&mut self, now: Time) {
        self.departed.retain(|(_, when)| now.since(*when) < DEPARTED_FOR);
    }

    /// Notes a node for the day on which all successors are gone.
    pub fn remember(&mut self, contact: &Contact) {
        if contact.id == self.me.id {
            return;
        }
        self.contacts.retain(|known| known != contact);
        self.contacts.push_front(contact.clone());
        self.contacts.truncate(self.settings.contacts);
    }

    /// Takes in whom a leaver remembered, behind those that this node knows itself, as far as there is room.
    pub(crate) fn hear_of(&mut self, contacts: Vec<Contact>) {
        for contact in contacts {
            let gone = self.departed.iter().any(|(gone, _)| *gone == contact);
            let known = contact.id == self.me.id || self.contacts.contains(&contact);
            if !gone && !known && contact.is_well_formed() && self.contacts.len() < self.settings.contacts {
                self.contacts.push_back(contact);
                self.pointer_revision += 1;
            }
        }
    }
}
