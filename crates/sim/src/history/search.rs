//! The search for a linearization, for short histories.
//!
//! Wing & Gong, "Testing and verifying concurrent objects" (J. Parallel Distrib. Comput. 1993): take any operation that is not
//! after the end of another one, do it on a register, and go on; back if the answer is another one. With Lowe's memory of the
//! configurations that have been seen ("Testing for linearizability", Concurrency Computat. 2017).

use std::collections::{BTreeMap, BTreeSet};

use chordal_protocol::{RequestId, Version};

use super::check::by_key;
use super::order::Following;
use super::{Digest, Kind, Operation, Outcome};

/// In which order writes may be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In any. A version is but a name for a value, by which conditions speak of it.
    Any,
    /// With growing versions, as [`super::check()`] wants it.
    ByVersion,
}

/// Whether the history is linearizable. It takes exponential time, and at most 64 operations of a key.
///
/// # Panics
/// If a key has more than 64 operations that matter.
pub fn search(history: &[Operation], order: Order) -> bool {
    by_key(history).chunk_by(|one, other| history[*one].key == history[*other].key).all(|places| {
        let says = |operation: &Operation| {
            !matches!((operation.kind, operation.outcome), (_, Outcome::Refused) | (Kind::Get, Outcome::Unknown))
        };
        let operations: Vec<Operation> = places.iter().map(|at| history[*at]).filter(says).collect();
        assert!(operations.len() <= 64, "{} operations of a key are too many for a search", operations.len());
        Search::of(operations, order).is_some_and(|mut search| search.goes_on(&Configuration::default()))
    })
}

/// What has been done so far, and what the register holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Configuration {
    /// The operations that have been done, a bit for each.
    done: u64,
    applied: BTreeSet<RequestId>,
    holds: Option<Digest>,
    /// The least version that the last write can have; none before the first.
    least: Option<Version>,
    /// Versions that no answer joins to a value, each with the value it was taken for.
    taken: BTreeMap<Version, Digest>,
}

struct Search {
    operations: Vec<Operation>,
    order: Order,
    versions: BTreeMap<Digest, Version>,
    values: BTreeMap<Version, Option<Digest>>,
    deletes: BTreeMap<RequestId, Version>,
    seen: BTreeSet<Configuration>,
}

impl Search {
    /// Learns which values have which versions. None if the answers contradict each other in that.
    fn of(operations: Vec<Operation>, order: Order) -> Option<Search> {
        let (mut versions, mut values, mut deletes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut agree = true;
        for operation in &operations {
            let (version, value) = match (operation.kind, operation.outcome) {
                (Kind::Get, Outcome::Read(Some((version, value)))) => (version, Some(value)),
                (_, Outcome::Done(version)) => (version, operation.kind.value()),
                _ => continue,
            };
            agree &= *values.entry(version).or_insert(value) == value;
            agree &= match value {
                Some(value) => *versions.entry(value).or_insert(version) == version,
                None => *deletes.entry(operation.request).or_insert(version) == version,
            };
        }
        let several_deletes = {
            let mut all: Vec<&Version> = deletes.values().collect();
            all.sort_unstable();
            all.array_windows().any(|[one, other]| one == other)
        };
        let is_fit = order == Order::Any || (agree && !several_deletes);
        is_fit.then_some(Search { operations, order, versions, values, deletes, seen: BTreeSet::new() })
    }

    fn goes_on(&mut self, from: &Configuration) -> bool {
        let open = |at: &usize| from.done & (1 << at) == 0;
        let all = 0..self.operations.len();
        let first_end = all.clone().filter(open).map(|at| self.operations[at].ended()).min();
        let Some(first_end) = first_end.filter(|end| *end != u64::MAX) else {
            // What is left may never happen.
            return true;
        };
        if !self.seen.insert(from.clone()) {
            return false;
        }
        all.filter(open).any(|at| {
            let operation = self.operations[at];
            let next = if operation.invoked > first_end { None } else { self.after(from, &operation) };
            next.is_some_and(|mut next| {
                next.done |= 1 << at;
                self.goes_on(&next)
            })
        })
    }

    /// What is if this is done next, and if its answer is right.
    fn after(&self, from: &Configuration, operation: &Operation) -> Option<Configuration> {
        match (operation.kind, operation.outcome) {
            (Kind::Get, Outcome::Read(seen)) => (seen.map(|(_, value)| value) == from.holds).then(|| from.clone()),
            (Kind::Delete | Kind::Cas { .. }, Outcome::ConditionFailed(None)) => {
                let fails =
                    operation.kind == Kind::Delete || !matches!(operation.kind, Kind::Cas { expected: None, .. });
                (fails && from.holds.is_none()).then(|| from.clone())
            }
            (Kind::Cas { expected, .. }, Outcome::ConditionFailed(Some(found))) if expected != Some(found) => {
                self.holding(from, found)
            }
            (Kind::Put(_) | Kind::Delete | Kind::Cas { .. }, Outcome::Done(_) | Outcome::Unknown) => {
                self.written(from, operation)
            }
            _ => None,
        }
    }

    fn written(&self, from: &Configuration, operation: &Operation) -> Option<Configuration> {
        if from.applied.contains(&operation.request) {
            return Some(from.clone());
        }
        let mut next = match operation.kind {
            Kind::Put(_) => from.clone(),
            Kind::Delete => from.holds.map(|_| from.clone())?,
            Kind::Cas { expected: Some(version), .. } => self.holding(from, version)?,
            Kind::Cas { expected: None, .. } if from.holds.is_none() => from.clone(),
            Kind::Cas { .. } | Kind::Get => return None,
        };
        next.applied.insert(operation.request);
        next.holds = operation.kind.value();
        let version = match next.holds {
            Some(value) => self.versions.get(&value),
            None => self.deletes.get(&operation.request),
        };
        let grows = version.is_none_or(|version| next.least.is_none_or(|least| least < *version));
        let following = next.least.map_or(Version::default(), |least| least.following());
        next.least = Some(version.copied().unwrap_or(following));
        (grows || self.order == Order::Any).then_some(next)
    }

    /// What is if the register holds the value of this version.
    fn holding(&self, from: &Configuration, version: Version) -> Option<Configuration> {
        let held = from.holds?;
        match self.values.get(&version).copied().or_else(|| from.taken.get(&version).map(|value| Some(*value))) {
            Some(value) => (value == Some(held)).then(|| from.clone()),
            // Nobody has read it: it may be this one, if that has no other version.
            None if self.versions.contains_key(&held) || from.taken.values().any(|value| *value == held) => None,
            None if self.order == Order::ByVersion && from.least.is_some_and(|least| least > version) => None,
            None => {
                let mut next = from.clone();
                next.taken.insert(version, held);
                next.least = Some(version);
                Some(next)
            }
        }
    }
}
