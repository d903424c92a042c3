//! Views of several members, and what may follow them.

use serde::{Deserialize, Serialize};

use super::{Area, Ballot, Member};
use crate::{Id, Interval};

/// What a view is called, and with it the one decision about what follows it (rule 1). For any id epochs only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The ids that it covers.
    pub range: Interval,
    /// Its number.
    pub epoch: u64,
}

impl Name {
    /// Where the content of this view is.
    pub fn area(&self) -> Area {
        Area::View(*self)
    }

    /// Whether this one has decided if the other one has: they share ids, and it is no later. For any id epochs only grow, so
    /// it is the same view or an earlier one.
    pub fn is_over_with(&self, other: &Name) -> bool {
        self.epoch <= other.epoch && self.range.overlaps(&other.range)
    }

    /// Whether the other one stands for some of the same ids, later.
    pub fn is_before(&self, other: &Name) -> bool {
        self.epoch < other.epoch && self.range.overlaps(&other.range)
    }
}

/// Who keeps a range and who serves it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct View {
    /// The ids that it covers.
    pub range: Interval,
    /// Its number.
    pub epoch: u64,
    /// Those who keep the content, each once.
    pub members: Vec<Member>,
    /// The member that clients are served by.
    pub primary: Member,
    /// The view before it on the circle that decides its fate: it is frozen, and never serves.
    pub deferred: Option<Name>,
    /// Whether a person made it, without a majority of the view before. What that one had promised is void.
    pub forced: bool,
}

impl View {
    /// Its name.
    pub fn name(&self) -> Name {
        Name { range: self.range, epoch: self.epoch }
    }

    /// How many of its members are a majority.
    pub fn majority(&self) -> usize {
        super::ballot::majority(self.members.len())
    }

    /// Whether this node is a member.
    pub fn has(&self, member: &Member) -> bool {
        self.members.contains(member)
    }

    /// Whether those who have its content are enough for it to begin: the primary, and a majority (rule 5).
    pub(super) fn can_begin(&self, has: impl Fn(&Member) -> bool) -> bool {
        has(&self.primary) && self.members.iter().filter(|member| has(member)).count() >= self.majority()
    }

    /// Its members but this one.
    pub fn others(&self, me: &Member) -> impl Iterator<Item = Member> {
        let me = *me;
        self.members.iter().copied().filter(move |member| *member != me)
    }
}

/// What a view decides: who follows it, and whose promises their content was merged from (rule 4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Value {
    /// The view that decides.
    pub by: Name,
    /// The views that follow. Together they cover the range that decides, and that of the absorbed view.
    pub successors: Vec<View>,
    /// The ballot whose promises were merged. What is staged bears this label, and who adopts the value keeps it.
    pub origin: Ballot,
    /// The frozen view that becomes one with the deciding one. This decision is its own, too.
    pub absorbs: Option<Name>,
    /// The members of the view that decides: all of them must hear of it (rule 9).
    pub voters: Vec<Member>,
}

impl Value {
    /// All who are members before or after, some of them twice.
    pub(crate) fn names(&self) -> Vec<Member> {
        self.voters.iter().chain(self.successors.iter().flat_map(|view| &view.members)).copied().collect()
    }
}

/// Who shall keep a range, the first one serving it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group(pub Vec<Member>);

impl Group {
    /// The owner and those before it on the ring, nearest first, each once, `factor` of them if there are so many.
    pub fn of(owner: Member, before: &[Member], factor: usize) -> Group {
        let mut members = vec![owner];
        for member in before {
            if members.len() < factor && !members.contains(member) {
                members.push(*member);
            }
        }
        Group(members)
    }

    fn is_sound(&self) -> bool {
        !self.0.is_empty() && self.0.iter().enumerate().all(|(i, member)| !self.0[..i].contains(member))
    }
}

/// What somebody wants to follow a view. Join, leave, takeover, repair, growth and shrinking are all a change of members,
/// with or without a split.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Change {
    /// The same members, served by the one that proposes: after a restart (rule 10), or when what was wanted cannot be staged.
    Same,
    /// Other members.
    Members(Group),
    /// Two views: `[lo, at)` and `[at, hi)`.
    Split {
        /// Where the second one begins.
        at: Id,
        /// Who keeps the first.
        head: Group,
        /// Who keeps the second.
        tail: Group,
    },
    /// The same members, frozen until the view before it on the circle has decided: the first half of a merge.
    Defer {
        /// The view before it, which ends where this one begins.
        into: Name,
    },
    /// The same members over this range and that of the frozen view behind it: the second half of a merge.
    Absorb {
        /// The frozen view.
        deferred: Name,
    },
}

impl Change {
    /// The views that would follow, if the change makes sense for this view. `proposer` serves where nothing else is said.
    pub(crate) fn successors(&self, view: &View, proposer: Member) -> Option<Vec<View>> {
        let epoch = view.epoch + 1;
        let made = |range, epoch, group: &Group| {
            group.is_sound().then(|| View {
                range,
                epoch,
                members: group.0.clone(),
                primary: group.0[0],
                deferred: None,
                forced: false,
            })
        };
        match self {
            Change::Same => {
                let same = View { epoch, primary: proposer, deferred: None, forced: false, ..view.clone() };
                Some(vec![same])
            }
            Change::Members(group) => Some(vec![made(view.range, epoch, group)?]),
            Change::Split { at, head, tail } => {
                if *at == view.range.lo || !view.range.contains(at) {
                    return None;
                }
                let first = made(Interval::half_open(view.range.lo, *at), epoch, head)?;
                let second = made(Interval::half_open(*at, view.range.hi), epoch, tail)?;
                Some(vec![first, second])
            }
            Change::Defer { into } => {
                if into.range.hi != view.range.lo || into.range.overlaps(&view.range) {
                    return None;
                }
                Some(vec![View { epoch, deferred: Some(*into), forced: false, ..view.clone() }])
            }
            Change::Absorb { deferred } => {
                if view.range.hi != deferred.range.lo || view.range.overlaps(&deferred.range) {
                    return None;
                }
                let range = Interval::half_open(view.range.lo, deferred.range.hi);
                let epoch = 1 + view.epoch.max(deferred.epoch);
                Some(vec![View { range, epoch, deferred: None, forced: false, ..view.clone() }])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(prefix: &str) -> Id {
        Id::from_hex_prefix(prefix).unwrap()
    }

    fn member(prefix: &str) -> Member {
        Member { id: point(prefix), incarnation: 1 }
    }

    fn view(lo: &str, hi: &str, epoch: u64) -> View {
        let members = vec![member("1"), member("2"), member("3")];
        let range = Interval::half_open(point(lo), point(hi));
        View { range, epoch, primary: members[0], members, deferred: None, forced: false }
    }

    #[test]
    fn a_group_is_the_owner_and_those_before_it_each_once() {
        let ring = [member("3"), member("1"), member("2")];
        assert_eq!(Group::of(member("1"), &[], 3).0, [member("1")]);
        assert_eq!(Group::of(member("1"), &ring[..2], 3).0, [member("1"), member("3")]);
        assert_eq!(Group::of(member("1"), &ring, 3).0, [member("1"), member("3"), member("2")]);
        assert_eq!(Group::of(member("1"), &ring, 2).0, [member("1"), member("3")]);
    }

    #[test]
    fn a_split_covers_the_range_and_must_lie_in_it() {
        let whole = View { range: Interval::whole(point("1")), ..view("1", "1", 4) };
        let group = Group(vec![member("1")]);
        let split = |at| Change::Split { at: point(at), head: group.clone(), tail: group.clone() };
        let parts = split("8").successors(&whole, member("1")).unwrap();
        assert_eq!(
            parts.iter().map(|part| part.range).collect::<Vec<_>>(),
            [Interval::half_open(point("1"), point("8")), Interval::half_open(point("8"), point("1")),]
        );
        assert!(parts.iter().all(|part| part.epoch == 5));
        assert_eq!(split("1").successors(&whole, member("1")), None);
        assert_eq!(split("9").successors(&view("1", "8", 1), member("1")), None);
    }

    #[test]
    fn only_neighbours_merge_and_the_epoch_passes_both() {
        let (a, b) = (view("1", "4", 7), view("4", "8", 2));
        let frozen = Change::Defer { into: a.name() }.successors(&b, member("2")).unwrap().remove(0);
        assert_eq!((frozen.deferred, frozen.epoch), (Some(a.name()), 3));
        let merged = Change::Absorb { deferred: frozen.name() }.successors(&a, member("2")).unwrap().remove(0);
        assert_eq!(merged.name(), Name { range: Interval::half_open(point("1"), point("8")), epoch: 8 });
        assert_eq!(Change::Defer { into: b.name() }.successors(&view("9", "a", 1), member("1")), None);
        assert_eq!(Change::Absorb { deferred: a.name() }.successors(&a, member("1")), None);
    }

    #[test]
    fn a_group_names_nobody_twice_and_somebody() {
        let twice = Group(vec![member("1"), member("1")]);
        assert_eq!(Change::Members(twice).successors(&view("1", "8", 1), member("1")), None);
        assert_eq!(Change::Members(Group(Vec::new())).successors(&view("1", "8", 1), member("1")), None);
    }
}
