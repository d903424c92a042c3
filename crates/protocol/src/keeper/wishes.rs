//! What the ring wants of the views that this node serves.
//!
//! A view's range belongs to the last node at or before its beginning, and its members shall be that node and those before
//! it. So the primary of a view looks at its own pointers, with each beat, and proposes
//! - to **split** it where another node stands within its range: that one has joined;
//! - other **members**, where the ring has others: after a crash, a leave, a join nearby, or a takeover by whoever was first;
//! - to **merge** it with the view before it, when both have had the same members and the same primary for a while.
//!
//! A crash never shrinks a view: who is missing stays a member until somebody can take the place. Only a leave shrinks.

use std::collections::BTreeMap;

use super::circle::Circle;
use super::{Age, Around, Keeper, Request, Settings, Step};
use crate::replica::{Change, Group, Member, Name, Store, View};
use crate::{Contact, Id, Time};

/// The first and the longest pause after a wish that did not come true, in milliseconds.
const PAUSES: (u64, u64) = (1_000, 30_000);

/// How many merges are begun in one beat. They are never urgent.
const MERGES: usize = 1;

/// What was wished before, by the beginning of the range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Wishes {
    open: BTreeMap<Id, Wish>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wish {
    change: Change,
    /// Since when the ring has wanted just this.
    since: Time,
    /// How often it was proposed, and when next.
    proposed: u32,
    next: Time,
}

/// A change, and whether somebody waits for it.
struct Wanted {
    change: Change,
    is_urgent: bool,
}

impl Keeper {
    /// Proposes what the ring wants, where it is time for it.
    pub(super) fn wish<S: Store>(&mut self, store: &mut S, now: Time, around: &Around, step: &mut Step) {
        if !around.is_member {
            return;
        }
        let circle = self.circle(now, around);
        let views: Vec<View> = self.leads().cloned().collect();
        let mut to_meet: Vec<Contact> = Vec::new();
        let mut due: Vec<(Name, Change)> = Vec::new();
        self.wishes.open.retain(|lo, _| views.iter().any(|view| view.range.lo == *lo));
        let mut at_rest: Vec<&View> = Vec::new();
        for view in &views {
            match self.wanted(now, &circle, view) {
                Ok(None) => {
                    self.wishes.open.remove(&view.range.lo);
                    at_rest.push(view);
                }
                // It is on its way, and what it needs takes long to send.
                Ok(Some(wanted)) if self.replica.sends_ahead(&view.name(), &wanted.change) => {}
                Ok(Some(wanted)) => {
                    if self.wishes.is_due(now, view, &wanted, &self.settings) {
                        due.push((view.name(), wanted.change));
                    }
                }
                Err(unmet) => to_meet.extend(unmet),
            }
        }
        due.extend(self.merges(&at_rest));
        to_meet.sort_by_key(|contact| contact.id);
        to_meet.dedup();
        let me = self.me();
        step.calls.extend(to_meet.into_iter().map(|contact| (contact, Request::Introduce(me))));
        for (name, change) in due {
            self.propose(store, now, name, &change, step);
        }
    }

    /// The nodes that may keep something, by this node's pointers: those that are leaving are not counted any more.
    fn circle(&self, now: Time, around: &Around) -> Circle {
        let known = around.predecessors.iter().chain(&around.successors).cloned();
        let staying = known.filter(|contact| contact.id != self.me.id && !self.book.is_leaving(now, &contact.id));
        let me = (!self.leaving).then(|| self.me.clone());
        Circle::of(staying.chain(me))
    }

    /// What the ring wants of a view, nothing if it is as it should be; or whom this node must meet before it can say.
    fn wanted(&self, now: Time, circle: &Circle, view: &View) -> Result<Option<Wanted>, Vec<Contact>> {
        let Some(owner) = circle.owner(&view.range.lo) else { return Ok(None) };
        let factor = self.settings.replication_factor;
        let head = circle.group(owner, factor);
        let Some(next) = circle.first_within(&view.range) else {
            let group = self.filled(now, view, self.members(now, view, &head)?);
            let is_same = group.0.first() == Some(&view.primary) && group.0.len() == view.members.len();
            if is_same && group.0.iter().all(|member| view.has(member)) {
                return Ok(None);
            }
            let moves = group.0.first() != Some(&view.primary);
            let somebody_leaves = view.members.iter().any(|member| self.goes(now, member));
            let grows = group.0.len() > view.members.len();
            let is_urgent = moves || somebody_leaves || grows;
            return Ok(Some(Wanted { change: Change::Members(group), is_urgent }));
        };
        let at = circle.at(next).map_or(view.range.lo, |node| node.id);
        let tail = circle.group(next, factor);
        let members = self.members(now, view, &head).and_then(|head| Ok((head, self.members(now, view, &tail)?)));
        let (head, tail) = members?;
        let (head, tail) = (self.filled(now, view, head), self.filled(now, view, tail));
        Ok(Some(Wanted { change: Change::Split { at, head, tail }, is_urgent: true }))
    }

    fn goes(&self, now: Time, member: &Member) -> bool {
        (self.leaving && *member == self.me()) || self.book.is_leaving(now, &member.id)
    }

    /// The nodes as members. Who shall become one must have been heard a moment ago, as this very incarnation; whoever is one
    /// already needs not.
    fn members(&self, now: Time, view: &View, nodes: &[&Contact]) -> Result<Vec<Member>, Vec<Contact>> {
        let (mut members, mut unmet) = (Vec::new(), Vec::new());
        for node in nodes {
            let present = view.members.iter().find(|member| member.id == node.id);
            let any_time = present.map_or(self.settings.freshness, |_| u64::MAX);
            let met = if node.id == self.me.id { Some(self.me()) } else { self.book.fresh(now, &node.id, any_time) };
            match met.or(present.copied()) {
                Some(member) => members.push(member),
                None => unmet.push((*node).clone()),
            }
        }
        if unmet.is_empty() { Ok(members) } else { Err(unmet) }
    }

    /// A crash never shrinks a view: who is missing on the ring stays a member while there are not enough others.
    fn filled(&self, now: Time, view: &View, mut members: Vec<Member>) -> Group {
        let stays = |member: &&Member| !self.goes(now, member);
        let size = view.members.iter().filter(stays).count().min(self.settings.replication_factor);
        for member in view.members.iter().filter(stays) {
            if members.len() < size && members.iter().all(|other| other.id != member.id) {
                members.push(*member);
            }
        }
        Group(members)
    }

    /// Two views that lie side by side and have the same members and the same primary become one: the second one is frozen, and
    /// then the first absorbs it.
    fn merges(&self, at_rest: &[&View]) -> Vec<(Name, Change)> {
        let alike = |a: &View, b: &View| {
            a.members.len() == b.members.len() && a.members.iter().all(|member| b.has(member)) && a.primary == b.primary
        };
        let mut changes = Vec::new();
        for held in self.replica.durable().held.values().filter(|held| held.installed) {
            let frozen = &held.view;
            if let Some(into) = frozen.deferred
                && at_rest.iter().any(|view| view.name() == into && alike(view, frozen))
                && self.replica.proposing_since(&into).is_none()
            {
                changes.push((into, Change::Absorb { deferred: frozen.name() }));
            }
        }
        if !changes.is_empty() || self.leaving {
            return changes;
        }
        // A range begins where its owner stands. Alone on its ring, a node is the owner of what lies before it, too, and must not
        // take that for the beginning of what it owns: it would have to be split again.
        for second in at_rest.iter().filter(|view| view.range.lo != self.me.id) {
            let before = |first: &&&View| first.range.hi == second.range.lo && first.name() != second.name();
            if let Some(first) = at_rest.iter().find(before)
                && alike(first, second)
                && changes.len() < MERGES
            {
                changes.push((second.name(), Change::Defer { into: first.name() }));
            }
        }
        changes
    }

    /// While this node is leaving, those who may make it a member of something are told, and those whom it is a member with. If it
    /// remembers a decision whose followers may all be gone for good, its neighbours are asked, who may keep what came after them.
    pub(super) fn ask_for_release(&mut self, now: Time, around: &Around, step: &mut Step) {
        let me = self.me();
        let held = self.replica.durable().held.values();
        let primaries: Vec<Member> = held.map(|held| held.view.primary).filter(|primary| *primary != me).collect();
        let mut told: Vec<Contact> = self.addresses(&primaries);
        for contact in around.predecessors.iter().chain(&around.successors) {
            if contact.id != self.me.id && !told.contains(contact) {
                told.push(contact.clone());
            }
        }
        let unsettled = self.replica.unsettled();
        for contact in &told {
            let Some(member) = self.book.fresh(now, &contact.id, u64::MAX).filter(|_| !unsettled.is_empty()) else {
                continue;
            };
            let letters = unsettled.iter().map(|name| self.replica.inquire_of(member, *name)).collect();
            let (contacts, age) = (Vec::new(), Age::default());
            step.calls.push((contact.clone(), Request::Letters { letters, contacts, age }));
        }
        step.calls.extend(told.into_iter().map(|contact| (contact, Request::Release(me))));
    }
}

impl Wishes {
    /// Whether this is to be proposed now. What was proposed and did not come true waits longer and longer.
    fn is_due(&mut self, now: Time, view: &View, wanted: &Wanted, settings: &Settings) -> bool {
        let fresh = || Wish { change: wanted.change.clone(), since: now, proposed: 0, next: now };
        let wish = self.open.entry(view.range.lo).or_insert_with(fresh);
        if wish.change != wanted.change {
            *wish = fresh();
        }
        let patience = if wanted.is_urgent { 0 } else { settings.repair_delay };
        if now.since(wish.since) < patience || now < wish.next {
            return false;
        }
        let pause = PAUSES.0.saturating_mul(1 << wish.proposed.min(5)).min(PAUSES.1);
        wish.proposed += 1;
        wish.next = Time(now.0 + pause);
        true
    }
}
