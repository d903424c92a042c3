//! What must hold on a ring, a function each with its source. The simulator, the tests and the tools that look at running
//! rings call the same functions.
//!
//! The first six hold at all times, through joins, leaves and crashes, as long as no member loses its whole successor list
//! at once (Zave, "How to Make Chord Correct", section 4). The last one holds once changes and faults have stopped and
//! maintenance has had its rounds.
//!
//! Zave's theorem needs at least `r + 1` members, and every ring begins with fewer. For `N <= r` every list of an ideal ring
//! holds all `N - 1` others in order; that is what [`ideal_ring`] checks there, and [`enough_principals`] asks nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Contact, Id, between};

/// A node as it is seen from outside: it answered, and this is what it said.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// Who it is.
    pub contact: Contact,
    /// Its predecessor.
    pub predecessor: Option<Contact>,
    /// Its successor list, nearest first.
    pub successors: Vec<Contact>,
    /// Whether it is a member; a node that still joins or has lost its ring is none.
    pub joined: bool,
}

/// An invariant, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// What breaks it, if it is broken.
    pub verdict: Result<(), String>,
}

type Verdict = Result<(), String>;

/// A named invariant over the members and the length of successor lists.
type Invariant = (&'static str, &'static str, fn(&[Member], usize) -> Verdict);

/// Every invariant, those that always hold first.
pub const ALL: [Invariant; 7] = [
    ("live_successor", "Zave 2017, section 4: each member has a live entry in its list", live_successor),
    ("ordered_successor_lists", "Zave 2017, section 4: OrderedSuccessorLists", ordered_successor_lists),
    ("at_least_one_ring", "Zave 2017, section 4: AtLeastOneRing", at_least_one_ring),
    ("at_most_one_ring", "Zave 2017, section 4: AtMostOneRing", at_most_one_ring),
    ("ordered_ring", "Zave 2017, section 4: OrderedRing", ordered_ring),
    ("connected_appendages", "Zave 2017, section 4: ConnectedAppendages", connected_appendages),
    ("ideal_ring", "Zave 2017, section 2: the ideal state", ideal_ring),
];

/// Every invariant checked on these nodes, those that do not answer being left out. `list_length` is the ring's r.
pub fn check_all(nodes: &[Member], list_length: usize) -> Vec<Check> {
    let check = |(name, source, holds): &Invariant| Check { name, source, verdict: holds(nodes, list_length) };
    ALL.iter().map(check).collect()
}

/// Every member has a live member in its successor list, unless it is alone.
pub fn live_successor(nodes: &[Member], _: usize) -> Verdict {
    let ring = Ring::of(nodes);
    if ring.members.len() <= 1 {
        return Ok(());
    }
    match ring.members.values().find(|member| ring.best_successor(member).is_none()) {
        Some(member) => Err(format!("{} has no live successor", member.contact)),
        None => Ok(()),
    }
}

/// Successor lists go forward, without the member itself and without duplicates, and are not too long.
pub fn ordered_successor_lists(nodes: &[Member], list_length: usize) -> Verdict {
    for member in Ring::of(nodes).members.values() {
        let mut reached = Id::ZERO;
        for entry in &member.successors {
            let distance = member.contact.id.distance(&entry.id);
            if distance == Id::ZERO {
                return Err(format!("the list of {} holds itself", member.contact));
            }
            if distance <= reached {
                return Err(format!("the list of {} does not go forward at {entry}", member.contact));
            }
            reached = distance;
        }
        if member.successors.len() > list_length {
            return Err(format!("the list of {} is longer than {list_length}", member.contact));
        }
    }
    Ok(())
}

/// Some member can be reached from itself along the best successors.
pub fn at_least_one_ring(nodes: &[Member], _: usize) -> Verdict {
    let ring = Ring::of(nodes);
    if ring.members.is_empty() || ring.members.keys().any(|id| ring.on_cycle(id)) {
        return Ok(());
    }
    Err("no member can be reached from itself along the successors".to_owned())
}

/// All members that can be reached from themselves can be reached from each other.
pub fn at_most_one_ring(nodes: &[Member], _: usize) -> Verdict {
    let ring = Ring::of(nodes);
    let cycles: BTreeSet<BTreeSet<Id>> =
        ring.members.keys().filter(|id| ring.on_cycle(id)).map(|id| ring.walk(id)).collect();
    if cycles.len() <= 1 {
        return Ok(());
    }
    let sizes: Vec<String> = cycles.iter().map(|cycle| cycle.len().to_string()).collect();
    Err(format!("there are {} rings, of {} members", cycles.len(), sizes.join(" and ")))
}

/// The ring goes once round: between a ring member and its best successor stands no other ring member.
pub fn ordered_ring(nodes: &[Member], _: usize) -> Verdict {
    let ring = Ring::of(nodes);
    let on_ring: Vec<Id> = ring.members.keys().copied().filter(|id| ring.on_cycle(id)).collect();
    for id in &on_ring {
        let member = &ring.members[id];
        let Some(next) = ring.best_successor(member) else { continue };
        if let Some(skipped) = ring.walk(id).iter().find(|other| between(id, other, &next)) {
            let skipped = &ring.members[skipped].contact;
            return Err(format!("the successor of {} passes over {skipped}", member.contact));
        }
    }
    Ok(())
}

/// From every member the ring can be reached along the best successors.
pub fn connected_appendages(nodes: &[Member], _: usize) -> Verdict {
    let ring = Ring::of(nodes);
    for (id, member) in &ring.members {
        if !ring.on_cycle(id) && !ring.walk(id).iter().any(|reached| ring.on_cycle(reached)) {
            return Err(format!("{} does not lead to the ring", member.contact));
        }
    }
    Ok(())
}

/// At least `r + 1` members are skipped by no successor list, in rings that have that many.
///
/// A principal is a member that no list, told from its owner, passes over (Zave 2017, section 4). Who joins becomes one in
/// time, so this is a condition for the theorem and no line of [`check_all`].
pub fn enough_principals(nodes: &[Member], list_length: usize) -> Verdict {
    let ring = Ring::of(nodes);
    let passed_over = |candidate: &Id| {
        ring.members.values().any(|member| {
            let chain = std::iter::once(&member.contact).chain(&member.successors);
            chain.clone().zip(chain.skip(1)).any(|(a, b)| between(&a.id, candidate, &b.id))
        })
    };
    let principals = ring.members.keys().filter(|id| !passed_over(id)).count();
    let needed = (list_length + 1).min(ring.members.len());
    if ring.members.len() <= list_length || principals >= needed {
        return Ok(());
    }
    Err(format!("only {principals} members are passed over by no successor list, {needed} are needed"))
}

/// Every list holds exactly the next `min(r, N - 1)` members, and every predecessor is the member before.
pub fn ideal_ring(nodes: &[Member], list_length: usize) -> Verdict {
    let ring = Ring::of(nodes);
    if let Some(node) = nodes.iter().find(|node| !node.joined) {
        return Err(format!("{} is no member", node.contact));
    }
    let order: Vec<&Member> = ring.members.values().copied().collect();
    let n = order.len();
    for (at, member) in order.iter().enumerate() {
        let expected: Vec<&Contact> = (1..n).take(list_length).map(|step| &order[(at + step) % n].contact).collect();
        if !member.successors.iter().eq(expected.iter().copied()) {
            let (is, should) = (describe(&member.successors), describe(expected));
            return Err(format!("the successors of {} are {is}; they should be {should}", member.contact));
        }
        let before = (n > 1).then(|| &order[(at + n - 1) % n].contact);
        if member.predecessor.as_ref() != before {
            let (is, should) = (describe(&member.predecessor), describe(before));
            return Err(format!("the predecessor of {} is {is}; it should be {should}", member.contact));
        }
    }
    Ok(())
}

fn describe<'a>(contacts: impl IntoIterator<Item = &'a Contact>) -> String {
    let names: Vec<String> = contacts.into_iter().map(ToString::to_string).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

/// The members by id, with the walks along their best successors: the first entry of the list that is a live member.
struct Ring<'a> {
    members: BTreeMap<Id, &'a Member>,
    best: BTreeMap<Id, Id>,
    cyclic: BTreeSet<Id>,
}

impl<'a> Ring<'a> {
    fn of(nodes: &'a [Member]) -> Ring<'a> {
        let members: BTreeMap<Id, &Member> =
            nodes.iter().filter(|node| node.joined).map(|node| (node.contact.id, node)).collect();
        let live = |entry: &&Contact| members.get(&entry.id).is_some_and(|member| member.contact == **entry);
        let mut best: BTreeMap<Id, Id> = members
            .iter()
            .filter_map(|(id, member)| member.successors.iter().find(live).map(|entry| (*id, entry.id)))
            .collect();
        if let (1, Some(only)) = (members.len(), members.keys().next()) {
            best.insert(*only, *only);
        }
        let mut ring = Ring { members, best, cyclic: BTreeSet::new() };
        ring.cyclic = ring.find_cycles();
        ring
    }

    /// The ids that can be reached from themselves: walk from each unseen id until something seen is met; if that was met in
    /// this very walk, what lies from there on is a cycle.
    fn find_cycles(&self) -> BTreeSet<Id> {
        let mut seen = BTreeSet::new();
        let mut cyclic = BTreeSet::new();
        for start in self.members.keys() {
            let mut path = Vec::new();
            let mut at = Some(start);
            while let Some(id) = at {
                if !seen.insert(*id) {
                    if let Some(from) = path.iter().position(|other| *other == id) {
                        cyclic.extend(path[from..].iter().map(|id: &&Id| **id));
                    }
                    break;
                }
                path.push(id);
                at = self.best.get(id);
            }
        }
        cyclic
    }

    fn best_successor(&self, member: &Member) -> Option<Id> {
        self.best.get(&member.contact.id).copied()
    }

    fn on_cycle(&self, id: &Id) -> bool {
        self.cyclic.contains(id)
    }

    /// All that is met on the way from `id`, itself included.
    fn walk(&self, id: &Id) -> BTreeSet<Id> {
        let mut met = BTreeSet::new();
        let mut at = Some(*id);
        while let Some(id) = at.filter(|id| met.insert(*id)) {
            at = self.best.get(&id).copied();
        }
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(prefix: &str) -> Contact {
        Contact { id: Id::from_hex_prefix(prefix).unwrap(), addr: prefix.into(), name: String::new() }
    }

    fn member(id: &str, predecessor: &str, successors: &[&str]) -> Member {
        Member {
            contact: node(id),
            predecessor: Some(node(predecessor)),
            successors: successors.iter().map(|entry| node(entry)).collect(),
            joined: true,
        }
    }

    fn violated(nodes: &[Member]) -> Vec<&'static str> {
        check_all(nodes, 2).into_iter().filter(|check| check.verdict.is_err()).map(|check| check.name).collect()
    }

    fn ideal() -> Vec<Member> {
        vec![
            member("1", "7", &["3", "5"]),
            member("3", "1", &["5", "7"]),
            member("5", "3", &["7", "1"]),
            member("7", "5", &["1", "3"]),
        ]
    }

    #[test]
    fn an_ideal_ring_violates_nothing() {
        assert_eq!(violated(&ideal()), [""; 0]);
        assert_eq!(enough_principals(&ideal(), 2), Ok(()));
        let alone = Member { predecessor: None, ..member("1", "1", &[]) };
        assert_eq!(violated(&[alone]), [""; 0]);
        assert_eq!(violated(&[]), [""; 0]);
    }

    #[test]
    fn a_member_that_has_just_joined_is_an_appendage() {
        let mut nodes = ideal();
        nodes.push(member("4", "3", &["5", "7"]));
        assert_eq!(violated(&nodes), ["ideal_ring"]);
    }

    #[test]
    fn each_invariant_can_be_violated() {
        let mut lost = ideal();
        lost[0].successors = vec![node("4"), node("6")];
        assert_eq!(violated(&lost), ["live_successor", "at_least_one_ring", "connected_appendages", "ideal_ring"]);

        let mut own = ideal();
        own[0].successors = vec![node("3"), node("1")];
        assert_eq!(violated(&own), ["ordered_successor_lists", "ideal_ring"]);

        let mut back = ideal();
        back[0].successors = vec![node("5"), node("3")];
        assert!(violated(&back).contains(&"ordered_successor_lists"));

        let two =
            [member("1", "5", &["5"]), member("5", "1", &["1"]), member("3", "7", &["7"]), member("7", "3", &["3"])];
        assert_eq!(violated(&two), ["at_most_one_ring", "ideal_ring"]);

        // Round and round again: 1 -> 5 -> 3 -> 7 -> 1.
        let loopy =
            [member("1", "7", &["5"]), member("5", "1", &["3"]), member("3", "5", &["7"]), member("7", "3", &["1"])];
        assert_eq!(violated(&loopy), ["ordered_ring", "ideal_ring"]);
    }

    #[test]
    fn dead_entries_are_passed_over() {
        let mut nodes = ideal();
        nodes.remove(1);
        assert_eq!(violated(&nodes), ["ideal_ring"]);
    }

    #[test]
    fn principals_are_passed_over_by_nobody() {
        let mut nodes = ideal();
        nodes[0].successors = vec![node("5"), node("7")];
        assert!(enough_principals(&nodes, 2).is_ok(), "1, 5 and 7 remain");
        nodes[1].successors = vec![node("7"), node("1")];
        assert!(enough_principals(&nodes, 2).is_err());
    }
}
