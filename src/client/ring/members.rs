//! What a client knows of a ring: nodes that it can ask, who of them was silent, and who was seen to own what. All of it is a
//! hint that an answer may correct.

use std::time::{Duration, Instant};

use chordal_protocol::{Contact, Id, Interval, OwnerCache};
use rand::seq::IndexedRandom;

use crate::api::{NodeInfo, NodeRef};

/// How many nodes are remembered.
const MOST: usize = 64;

/// How many stretches of the circle are remembered with their owners.
const OWNED: usize = 4096;

/// For how long a silent node is passed over, at first and at most.
const SILENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Whom to ask, and whether it shall do it itself.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) contact: Contact,
    pub(super) direct: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Members {
    known: Vec<Known>,
    owners: OwnerCache,
}

#[derive(Debug, Clone)]
struct Known {
    contact: Contact,
    /// Whether the program named it: it is not forgotten.
    named: bool,
    /// Until when it is passed over, and for how long that was.
    silent: Option<(Instant, Duration)>,
}

impl Known {
    fn is_silent(&self, now: Instant) -> bool {
        self.silent.is_some_and(|(until, _)| until > now)
    }
}

impl Members {
    pub(super) fn new() -> Members {
        Members { known: Vec::new(), owners: OwnerCache::new(OWNED) }
    }

    /// Whom to ask about an id: its owner where that is known, else anybody; nobody if all known were silent.
    pub(super) fn target(&self, id: &Id, now: Instant) -> Option<Target> {
        self.owner(id, now).or_else(|| self.any(now)).map(|contact| Target { contact, direct: true })
    }

    /// The target has done what concerned this id.
    pub(super) fn did(&mut self, target: &Target, id: &Id) {
        self.answered(&target.contact);
        if target.direct {
            self.owns(&target.contact, id);
        }
    }

    /// The target does not own this id. Whoever is better is asked; where that is unknown or silent, any node is asked to see to
    /// it by itself.
    pub(super) fn redirected(&mut self, target: &Target, id: &Id, hint: Option<&NodeRef>, follows: bool) -> Target {
        self.answered(&target.contact);
        self.disowned(id);
        let hint = hint.map(NodeRef::contact).filter(|hint| hint.addr != target.contact.addr);
        if let Some(hint) = &hint {
            self.learn(hint);
        }
        let now = Instant::now();
        match hint.filter(|hint| follows && !self.is_silent(hint, now)) {
            Some(contact) => Target { contact, direct: true },
            None => Target { contact: self.any(now).unwrap_or_else(|| target.contact.clone()), direct: false },
        }
    }

    /// Remembers a node that the program named.
    pub(super) fn name(&mut self, addr: &str) {
        self.add(&Contact::at(addr, ""), true);
    }

    /// Remembers a node of which another has told.
    pub(super) fn learn(&mut self, contact: &Contact) {
        if contact.is_well_formed() && contact.port() != 0 {
            self.add(contact, false);
        }
    }

    fn add(&mut self, contact: &Contact, named: bool) {
        if let Some(known) = self.known.iter_mut().find(|known| known.contact.addr == contact.addr) {
            known.named |= named;
            if !contact.name.is_empty() {
                known.contact = contact.clone();
            }
            return;
        }
        if self.known.len() >= MOST {
            // One that was silent makes room, or else the one that was learned first.
            let strangers = || self.known.iter().enumerate().filter(|(_, known)| !known.named);
            let leaves = strangers().find(|(_, known)| known.silent.is_some()).or_else(|| strangers().next());
            let Some(index) = leaves.map(|(index, _)| index) else { return };
            self.known.remove(index);
        }
        self.known.push(Known { contact: contact.clone(), named, silent: None });
    }

    /// Remembers what a node tells of itself: its successors, and with them who owns what between them.
    pub(super) fn learn_from(&mut self, info: &NodeInfo) {
        let me = info.itself().contact();
        let row: Vec<Contact> = std::iter::once(me).chain(info.successors.iter().map(|node| node.contact())).collect();
        row.iter().for_each(|contact| self.learn(contact));
        for pair in row.windows(2) {
            self.owners.learn(Interval::half_open(pair[0].id, pair[1].id), &pair[0]);
        }
    }

    /// All that are remembered.
    pub(super) fn all(&self) -> impl Iterator<Item = &Contact> {
        self.known.iter().map(|known| &known.contact)
    }

    /// Who was last seen to own this id, unless it is passed over.
    fn owner(&self, id: &Id, now: Instant) -> Option<Contact> {
        self.owners.owner(id).filter(|owner| !self.is_silent(owner, now)).cloned()
    }

    /// Any node that is not passed over.
    pub(super) fn any(&self, now: Instant) -> Option<Contact> {
        let awake: Vec<&Known> = self.known.iter().filter(|known| !known.is_silent(now)).collect();
        awake.choose(&mut rand::rng()).map(|known| known.contact.clone())
    }

    /// Where all were silent, whoever has to be passed over for the shortest time.
    pub(super) fn least_silent(&self) -> Option<Target> {
        let least = self.known.iter().min_by_key(|known| known.silent.map(|(until, _)| until));
        least.map(|known| Target { contact: known.contact.clone(), direct: true })
    }

    /// Whether this node is passed over now.
    fn is_silent(&self, contact: &Contact, now: Instant) -> bool {
        self.known.iter().any(|known| known.contact.addr == contact.addr && known.is_silent(now))
    }

    /// It has answered.
    pub(super) fn answered(&mut self, contact: &Contact) {
        if let Some(known) = self.known.iter_mut().find(|known| known.contact.addr == contact.addr) {
            known.silent = None;
        }
    }

    /// It has not answered: it is passed over, each time for longer.
    pub(super) fn was_silent(&mut self, contact: &Contact, now: Instant) {
        self.owners.forget_node(contact);
        if let Some(known) = self.known.iter_mut().find(|known| known.contact.addr == contact.addr) {
            let time = known.silent.map_or(SILENCE.0, |(_, last)| (last * 2).min(SILENCE.1));
            known.silent = Some((now + time, time));
        }
    }

    /// It has done, as the owner, what concerned this id: it owns all from itself up to that.
    fn owns(&mut self, contact: &Contact, id: &Id) {
        // Of a node that was only named it is not known where it stands.
        if !contact.name.is_empty() && self.owners.owner(id) != Some(contact) {
            self.owners.learn(Interval::half_open(contact.id, id.finger_start(0)), contact);
        }
    }

    /// Whoever was thought to own this id does not.
    fn disowned(&mut self, id: &Id) {
        self.owners.forget(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(prefix: &str) -> Contact {
        let id = Id::from_hex_prefix(prefix).unwrap();
        Contact { id, addr: format!("127.0.0.1:{}", 1 + u16::from(id.as_bytes()[0])), name: format!("node-{prefix}") }
    }

    fn id(prefix: &str) -> Id {
        Id::from_hex_prefix(prefix).unwrap()
    }

    #[test]
    fn an_answer_tells_who_owns_all_up_to_the_id() {
        let (mut members, now) = (Members::new(), Instant::now());
        members.owns(&placed("20"), &id("30"));
        assert_eq!(members.owner(&id("28"), now), Some(placed("20")));
        assert_eq!(members.owner(&id("30"), now), Some(placed("20")));
        assert_eq!(members.owner(&id("31"), now), None);
        members.owns(&placed("20"), &id("38"));
        members.owns(&placed("34"), &id("35"));
        assert_eq!(members.owner(&id("35"), now), Some(placed("34")), "what was seen last counts");
        members.disowned(&id("35"));
        assert_eq!(members.owner(&id("35"), now), None);
    }

    #[test]
    fn the_silent_are_passed_over_for_a_while() {
        let (mut members, now) = (Members::new(), Instant::now());
        members.learn(&placed("20"));
        members.learn(&placed("40"));
        members.owns(&placed("20"), &id("30"));
        members.was_silent(&placed("20"), now);
        assert_eq!((members.owner(&id("28"), now), members.any(now)), (None, Some(placed("40"))));
        members.was_silent(&placed("40"), now + SILENCE.0 / 2);
        assert_eq!(members.any(now + SILENCE.0 / 2), None);
        assert_eq!(members.least_silent().map(|target| target.contact), Some(placed("20")));
        assert_eq!(members.any(now + SILENCE.0), Some(placed("20")));
        members.was_silent(&placed("20"), now + SILENCE.0);
        assert!(members.is_silent(&placed("20"), now + SILENCE.0 * 2), "longer the second time");
        members.answered(&placed("20"));
        assert!(!members.is_silent(&placed("20"), now + SILENCE.0));
    }

    #[test]
    fn no_more_are_remembered_than_fit_and_the_named_stay() {
        let mut members = Members::new();
        members.name("localhost:1");
        for port in 1..=200 {
            members.learn(&Contact::at(format!("127.0.0.1:{port}"), "node"));
        }
        members.learn(&Contact::at("two\nlines:1", "node"));
        assert_eq!(members.all().count(), MOST);
        assert!(members.all().any(|contact| contact.addr == "localhost:1"));
        assert!(members.all().any(|contact| contact.addr == "127.0.0.1:200"));
    }
}
