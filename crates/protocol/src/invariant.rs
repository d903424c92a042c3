//! What must hold on a ring, a function each with its source. The simulator, the tests and the tools that look at running
//! rings call the same functions.
//!
//! The first six hold at all times, through joins, leaves and crashes, as long as no member loses its whole successor list
//! at once (Zave, "How to Make Chord Correct", section 4). The last one holds once changes and faults have stopped and
//! maintenance has had its rounds.
//!
//! Zave's theorem needs at least `r + 1` members, and every ring begins with fewer. For `N <= r` every list of an ideal ring
//! holds all `N - 1` others in order; that is what [`ideal_ring`] checks there, and [`enough_principals`] asks nothing.

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

/// A named invariant of a ring whose successor lists have a certain length.
#[derive(Debug, Clone, Copy)]
pub struct Invariant {
    /// Its name.
    pub name: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// Says what breaks it.
    pub holds: fn(&Snapshot<'_>, usize) -> Verdict,
}

const fn invariant(name: &'static str, source: &'static str, holds: fn(&Snapshot<'_>, usize) -> Verdict) -> Invariant {
    Invariant { name, source, holds }
}

/// What holds at all times.
pub const ALWAYS: [Invariant; 6] = [
    invariant("live_successor", "Zave 2017, section 4: each member has a live entry in its list", live_successor),
    invariant("ordered_successor_lists", "Zave 2017, section 4: OrderedSuccessorLists", ordered_successor_lists),
    invariant("at_least_one_ring", "Zave 2017, section 4: AtLeastOneRing", at_least_one_ring),
    invariant("at_most_one_ring", "Zave 2017, section 4: AtMostOneRing", at_most_one_ring),
    invariant("ordered_ring", "Zave 2017, section 4: OrderedRing", ordered_ring),
    invariant("connected_appendages", "Zave 2017, section 4: ConnectedAppendages", connected_appendages),
];

/// What holds once changes and faults have stopped.
pub const IDEAL: Invariant = invariant("ideal_ring", "Zave 2017, section 2: the ideal state", ideal_ring);

/// Every invariant checked on these nodes, those that do not answer being left out. `list_length` is the ring's r.
pub fn check_all(nodes: &[Member], list_length: usize) -> Vec<Check> {
    let snapshot = Snapshot::of(nodes);
    let check =
        |it: &Invariant| Check { name: it.name, source: it.source, verdict: (it.holds)(&snapshot, list_length) };
    ALWAYS.iter().chain([&IDEAL]).map(check).collect()
}

/// Every member has a live member in its successor list, unless that is empty: then it is a ring of one.
pub fn live_successor(ring: &Snapshot<'_>, _: usize) -> Verdict {
    match ring.best.iter().position(Option::is_none) {
        Some(at) => Err(format!("{} has no live successor", ring.members[at].contact)),
        None => Ok(()),
    }
}

/// Successor lists go forward, without the member itself and without duplicates, and are not too long.
pub fn ordered_successor_lists(ring: &Snapshot<'_>, list_length: usize) -> Verdict {
    for member in &ring.members {
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
pub fn at_least_one_ring(ring: &Snapshot<'_>, _: usize) -> Verdict {
    if ring.members.is_empty() || !ring.cycles.is_empty() {
        return Ok(());
    }
    Err("no member can be reached from itself along the successors".to_owned())
}

/// All members that can be reached from themselves can be reached from each other.
pub fn at_most_one_ring(ring: &Snapshot<'_>, _: usize) -> Verdict {
    if ring.cycles.len() <= 1 {
        return Ok(());
    }
    let sizes: Vec<String> = ring.cycles.iter().map(|cycle| cycle.len().to_string()).collect();
    Err(format!("there are {} rings, of {} members", ring.cycles.len(), sizes.join(" and ")))
}

/// The ring goes once round: between a ring member and its best successor stands no other ring member.
pub fn ordered_ring(ring: &Snapshot<'_>, _: usize) -> Verdict {
    for cycle in &ring.cycles {
        // Members stand in the order of their ids, so those of a cycle must follow each other.
        for (place, at) in cycle.iter().enumerate() {
            let following = cycle[(place + 1) % cycle.len()];
            if ring.best[*at] != Some(following) {
                let (member, skipped) = (&ring.members[*at].contact, &ring.members[following].contact);
                return Err(format!("the successor of {member} passes over {skipped}"));
            }
        }
    }
    Ok(())
}

/// From every member the ring can be reached along the best successors.
pub fn connected_appendages(ring: &Snapshot<'_>, _: usize) -> Verdict {
    match ring.leads_to_a_ring.iter().position(|leads| !leads) {
        Some(at) => Err(format!("{} does not lead to the ring", ring.members[at].contact)),
        None => Ok(()),
    }
}

/// At least `r + 1` members are skipped by no successor list, in rings that have that many.
///
/// A principal is a member that no list, told from its owner, passes over (Zave 2017, section 4). Who joins becomes one in
/// time, so this is a condition for the theorem and not one of [`ALWAYS`].
pub fn enough_principals(ring: &Snapshot<'_>, list_length: usize) -> Verdict {
    let passed_over = |candidate: &Id| {
        ring.members.iter().any(|member| {
            let chain = std::iter::once(&member.contact).chain(&member.successors);
            chain.clone().zip(chain.skip(1)).any(|(a, b)| between(&a.id, candidate, &b.id))
        })
    };
    let principals = ring.members.iter().filter(|member| !passed_over(&member.contact.id)).count();
    let needed = (list_length + 1).min(ring.members.len());
    if ring.members.len() <= list_length || principals >= needed {
        return Ok(());
    }
    Err(format!("only {principals} members are passed over by no successor list, {needed} are needed"))
}

/// Every list holds exactly the next `min(r, N - 1)` members, and every predecessor is the member before.
pub fn ideal_ring(ring: &Snapshot<'_>, list_length: usize) -> Verdict {
    if let Some(node) = ring.outsider {
        return Err(format!("{} is no member", node.contact));
    }
    let order = &ring.members;
    let n = order.len();
    for (at, member) in order.iter().enumerate() {
        let expected = || (1..n).take(list_length).map(|step| &order[(at + step) % n].contact);
        if !member.successors.iter().eq(expected()) {
            let (is, should) = (describe(&member.successors), describe(expected()));
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

/// The nodes of a ring at one moment, with the walks along their best successors: the first entry of a list that is a live
/// member, or the node itself if its list is empty.
#[derive(Debug, Clone)]
pub struct Snapshot<'a> {
    /// The members in the order of their ids. Everything below names them by their places here.
    members: Vec<&'a Member>,
    /// A node that answered and is no member, if there is one.
    outsider: Option<&'a Member>,
    best: Vec<Option<usize>>,
    /// The members that can be reached from themselves, ring by ring, in the order of their ids.
    cycles: Vec<Vec<usize>>,
    leads_to_a_ring: Vec<bool>,
}

impl<'a> Snapshot<'a> {
    /// What these nodes make together.
    pub fn of(nodes: impl IntoIterator<Item = &'a Member>) -> Snapshot<'a> {
        let mut members: Vec<&Member> = Vec::new();
        let mut outsider = None;
        for node in nodes {
            if node.joined {
                members.push(node);
            } else {
                outsider = outsider.or(Some(node));
            }
        }
        members.sort_by_key(|member| member.contact.id);
        let place = |entry: &Contact| {
            let at = members.binary_search_by(|member| member.contact.id.cmp(&entry.id)).ok()?;
            (members[at].contact == *entry).then_some(at)
        };
        // Who has nobody after it is a ring of one, and its own successor.
        let best_of = |(at, member): (usize, &&Member)| match members.len() == 1 || member.successors.is_empty() {
            true => Some(at),
            false => member.successors.iter().find_map(place),
        };
        let best: Vec<Option<usize>> = members.iter().enumerate().map(best_of).collect();
        let (cycles, leads_to_a_ring) = cycles(&best);
        Snapshot { members, outsider, best, cycles, leads_to_a_ring }
    }
}

/// The cycles of a graph in which everybody points to one other at most, and who leads to one: walk from each until something
/// known is met; if that was met in this very walk, what lies from there on is a cycle.
fn cycles(best: &[Option<usize>]) -> (Vec<Vec<usize>>, Vec<bool>) {
    const UNSEEN: usize = usize::MAX;
    let mut walk_of = vec![UNSEEN; best.len()];
    let mut leads = vec![false; best.len()];
    let mut cycles = Vec::new();
    for start in 0..best.len() {
        let mut path = Vec::new();
        let mut at = Some(start);
        while let Some(here) = at.filter(|here| walk_of[*here] == UNSEEN) {
            walk_of[here] = start;
            path.push(here);
            at = best[here];
        }
        let Some(met) = at else { continue };
        let new = walk_of[met] == start && !path.is_empty();
        if new && let Some(from) = path.iter().position(|other| *other == met) {
            let mut cycle = path[from..].to_vec();
            cycle.sort_unstable();
            cycles.push(cycle);
        }
        let reaches = new || leads[met];
        for here in path {
            leads[here] = reaches;
        }
    }
    (cycles, leads)
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
        assert_eq!(enough_principals(&Snapshot::of(&ideal()), 2), Ok(()));
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
        assert!(enough_principals(&Snapshot::of(&nodes), 2).is_ok(), "1, 5 and 7 remain");
        nodes[1].successors = vec![node("7"), node("1")];
        assert!(enough_principals(&Snapshot::of(&nodes), 2).is_err());
    }
}
