//! What a view keeps, and where.
//!
//! The machine holds in memory what it decides by: views, ballots, sequence numbers, marks. Records it reads and writes through
//! a [`Store`], which a model and a simulator keep in memory and a node on its disk (docs/decisions/0007-replicas.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Ballot, Cursor, Name};
use crate::{Id, Interval, Record, RequestId, Version};

/// What a row weighs, in bytes, beside its content.
pub(super) const ROW: usize = 96;

/// When a request id was minted: its upper half. Ids grow roughly with time, and nothing but the forgetting of old outcomes
/// depends on it (rule 13).
pub fn minted(request: RequestId) -> u64 {
    (request.0 >> 64) as u64
}

/// What became of a request that wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Outcome {
    /// The register, so that outcomes are split with their ranges.
    pub id: Id,
    /// The version that was written.
    pub version: Version,
}

/// The state of a range, or a part of it: what promises, stages and fetches carry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Parcel {
    /// The newest record of each register, tombstones too.
    pub records: BTreeMap<Id, Record>,
    /// What became of requests (rule 13).
    pub outcomes: BTreeMap<RequestId, Outcome>,
    /// Requests minted at or before this are refused; their outcomes have been forgotten.
    pub purged: u64,
}

impl Parcel {
    /// Takes in a write, unless a newer one is here: what is written twice is written once.
    pub fn put(&mut self, record: &Record) {
        let outcome = Outcome { id: record.id, version: record.version };
        if minted(record.request) > self.purged {
            self.outcomes.insert(record.request, outcome);
        }
        self.put_record(record.clone());
    }

    fn put_record(&mut self, record: Record) {
        if self.records.get(&record.id).is_none_or(|kept| kept.version < record.version) {
            self.records.insert(record.id, record);
        }
    }

    /// About how many bytes it has.
    pub fn weight(&self) -> usize {
        self.records.values().map(|record| ROW + record.weight()).sum::<usize>() + ROW * self.outcomes.len()
    }

    /// Merges another state of the same range into this one: the newest of each register, all outcomes, the later mark.
    pub fn merge(&mut self, other: Parcel) {
        for record in other.records.into_values() {
            self.put_record(record);
        }
        for (request, outcome) in other.outcomes.into_iter().filter(|(request, _)| minted(*request) > self.purged) {
            let kept = self.outcomes.entry(request).or_insert(outcome);
            *kept = (*kept).max(outcome);
        }
        self.purge(other.purged);
    }

    /// Takes out what belongs to this range. The mark stays, and goes with it.
    pub fn take(&mut self, range: &Interval) -> Parcel {
        let records = self.records.extract_if(.., |id, _| range.contains(id)).collect();
        let outcomes = self.outcomes.extract_if(.., |_, outcome| range.contains(&outcome.id)).collect();
        Parcel { records, outcomes, purged: self.purged }
    }

    /// Of the writes of this epoch, tells what became of their requests if and only if their records are here.
    pub(super) fn tie_outcomes(&mut self, epoch: u64) {
        self.outcomes.retain(|_, outcome| outcome.version.epoch < epoch);
        let written = self.records.values().filter(|record| record.version.epoch == epoch);
        let written = written.filter(|record| minted(record.request) > self.purged);
        self.outcomes
            .extend(written.map(|record| (record.request, Outcome { id: record.id, version: record.version })));
    }

    /// Drops what is later than this version.
    pub fn cut(&mut self, up_to: Version) {
        self.records.retain(|_, record| record.version <= up_to);
        self.outcomes.retain(|_, outcome| outcome.version <= up_to);
    }

    /// Forgets what became of requests up to this mark, which never goes back.
    pub fn purge(&mut self, mark: u64) {
        if mark > self.purged {
            self.purged = mark;
            self.outcomes.retain(|request, _| minted(*request) > mark);
        }
    }

    /// Forgets tombstones up to this version. Whether there were any.
    pub fn collect(&mut self, up_to: Version) -> bool {
        let before = self.records.len();
        self.records.retain(|_, record| record.is_live() || record.version > up_to);
        self.records.len() < before
    }

    /// What was written after this version. The mark is always in it.
    pub fn since(&self, version: Version) -> Parcel {
        let records = self.records.iter().filter(|(_, record)| record.version > version);
        let outcomes = self.outcomes.iter().filter(|(_, outcome)| outcome.version > version);
        Parcel {
            records: records.map(|(id, record)| (*id, record.clone())).collect(),
            outcomes: outcomes.map(|(request, outcome)| (*request, *outcome)).collect(),
            purged: self.purged,
        }
    }

    /// What belongs to this range.
    pub fn within(&self, range: &Interval) -> Parcel {
        let records = self.records.iter().filter(|(id, _)| range.contains(id));
        let outcomes = self.outcomes.iter().filter(|(_, outcome)| range.contains(&outcome.id));
        Parcel {
            records: records.map(|(id, record)| (*id, record.clone())).collect(),
            outcomes: outcomes.map(|(request, outcome)| (*request, *outcome)).collect(),
            purged: self.purged,
        }
    }
}

/// A place for content. What a view serves and what is staged for one that may follow never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Area {
    /// The content of an installed view.
    View(Name),
    /// What is staged for a view that may follow.
    Staged(Label),
}

/// What staged content is known by: which decision it waits for, whose merge it is, and for which part (rules 5 and 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Label {
    /// The view that decides.
    pub name: Name,
    /// The ballot whose promises were merged.
    pub origin: Ballot,
    /// The range of the view that it would be the content of.
    pub range: Interval,
}

/// Content, to be looked at.
pub trait Snapshot {
    /// A register.
    fn record(&self, area: &Area, id: &Id) -> Option<Record>;
    /// What became of a request.
    fn outcome(&self, area: &Area, request: RequestId) -> Option<Outcome>;
    /// Up to where outcomes have been forgotten.
    fn purged(&self, area: &Area) -> u64;
    /// What was written after this version, as [`Parcel::since`] says.
    fn since(&self, area: &Area, version: Version) -> Parcel;
    /// What it holds of this range after this place, as [`Parcel::page`] says. The pages of two stores need not be alike; all
    /// pages together are.
    fn page(&self, area: &Area, range: &Interval, after: Option<Cursor>, room: usize) -> (Parcel, Option<Cursor>);
}

/// Where content is kept. What is written is read back at once, and is durable together with, and in the order of, the state
/// that the same step changes.
pub trait Store: Snapshot {
    /// Takes in a write, as [`Parcel::put`] says.
    fn put(&mut self, area: &Area, record: &Record);
    /// As [`Parcel::purge`] says.
    fn purge(&mut self, area: &Area, mark: u64);
    /// As [`Parcel::collect`] says.
    fn collect(&mut self, area: &Area, up_to: Version) -> bool;
    /// Adds this to what the area holds, as [`Parcel::merge`] says.
    fn extend(&mut self, area: &Area, parcel: Parcel);
    /// Makes what one area holds of this range, up to this version, what the other holds there; the first has nothing of the range
    /// any more, and what was later is gone. The later of the two marks counts for the second. It costs no more than what was
    /// later, whatever the range holds.
    fn derive(&mut self, from: &Area, to: &Area, range: &Interval, up_to: Version);
    /// Empties an area.
    fn discard(&mut self, area: &Area);
}

macro_rules! look_through {
    ($reference:ty) => {
        impl<S: Snapshot + ?Sized> Snapshot for $reference {
            fn record(&self, area: &Area, id: &Id) -> Option<Record> {
                (**self).record(area, id)
            }

            fn outcome(&self, area: &Area, request: RequestId) -> Option<Outcome> {
                (**self).outcome(area, request)
            }

            fn purged(&self, area: &Area) -> u64 {
                (**self).purged(area)
            }

            fn since(&self, area: &Area, version: Version) -> Parcel {
                (**self).since(area, version)
            }

            fn page(
                &self,
                area: &Area,
                range: &Interval,
                after: Option<Cursor>,
                room: usize,
            ) -> (Parcel, Option<Cursor>) {
                (**self).page(area, range, after, room)
            }
        }
    };
}

look_through!(&S);
look_through!(&mut S);

impl<S: Store + ?Sized> Store for &mut S {
    fn put(&mut self, area: &Area, record: &Record) {
        (**self).put(area, record);
    }

    fn purge(&mut self, area: &Area, mark: u64) {
        (**self).purge(area, mark);
    }

    fn collect(&mut self, area: &Area, up_to: Version) -> bool {
        (**self).collect(area, up_to)
    }

    fn extend(&mut self, area: &Area, parcel: Parcel) {
        (**self).extend(area, parcel);
    }

    fn derive(&mut self, from: &Area, to: &Area, range: &Interval, up_to: Version) {
        (**self).derive(from, to, range, up_to);
    }

    fn discard(&mut self, area: &Area) {
        (**self).discard(area);
    }
}

/// A store in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MemoryStore {
    areas: BTreeMap<Area, Parcel>,
}

impl MemoryStore {
    /// The areas that hold something.
    pub fn areas(&self) -> &BTreeMap<Area, Parcel> {
        &self.areas
    }
}

impl Snapshot for MemoryStore {
    fn record(&self, area: &Area, id: &Id) -> Option<Record> {
        self.areas.get(area)?.records.get(id).cloned()
    }

    fn outcome(&self, area: &Area, request: RequestId) -> Option<Outcome> {
        self.areas.get(area)?.outcomes.get(&request).copied()
    }

    fn purged(&self, area: &Area) -> u64 {
        self.areas.get(area).map_or(0, |parcel| parcel.purged)
    }

    fn since(&self, area: &Area, version: Version) -> Parcel {
        self.areas.get(area).map(|parcel| parcel.since(version)).unwrap_or_default()
    }

    fn page(&self, area: &Area, range: &Interval, after: Option<Cursor>, room: usize) -> (Parcel, Option<Cursor>) {
        self.areas.get(area).map(|parcel| parcel.page(range, after, room)).unwrap_or_default()
    }
}

impl Store for MemoryStore {
    fn put(&mut self, area: &Area, record: &Record) {
        self.areas.entry(*area).or_default().put(record);
    }

    fn purge(&mut self, area: &Area, mark: u64) {
        if mark > self.purged(area) {
            self.areas.entry(*area).or_default().purge(mark);
        }
    }

    fn collect(&mut self, area: &Area, up_to: Version) -> bool {
        self.areas.get_mut(area).is_some_and(|parcel| parcel.collect(up_to))
    }

    fn extend(&mut self, area: &Area, parcel: Parcel) {
        self.areas.entry(*area).or_default().merge(parcel);
    }

    fn derive(&mut self, from: &Area, to: &Area, range: &Interval, up_to: Version) {
        if from == to {
            return;
        }
        let mut moved = self.areas.get_mut(from).map(|parcel| parcel.take(range)).unwrap_or_default();
        moved.cut(up_to);
        let there = self.areas.entry(*to).or_default();
        there.take(range);
        there.merge(moved);
    }

    fn discard(&mut self, area: &Area) {
        self.areas.remove(area);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Content;

    fn record(id: &str, sequence: u64, request: u128, live: bool) -> Record {
        let value = Content::Value { bytes: vec![sequence as u8], content_type: String::new() };
        let content = if live { value } else { Content::Tombstone };
        let version = Version { epoch: 1, sequence };
        Record { id: Id::of(id), key: None, content, version, request: RequestId(request << 64) }
    }

    #[test]
    fn the_newest_record_stands_whatever_the_order() {
        let writes = [record("a", 1, 5, true), record("a", 2, 6, false), record("b", 3, 7, true)];
        let (mut forth, mut back) = (Parcel::default(), Parcel::default());
        writes.iter().for_each(|write| forth.put(write));
        writes.iter().rev().for_each(|write| back.put(write));
        assert_eq!(forth, back);
        assert_eq!(forth.records[&Id::of("a")].version.sequence, 2);
        assert_eq!(forth.outcomes.len(), 3);
        let tail = forth.since(Version { epoch: 1, sequence: 1 });
        assert_eq!((tail.records.len(), tail.outcomes.len()), (2, 2));
        let mut merged = Parcel::default();
        merged.put(&writes[0]);
        merged.merge(tail);
        assert_eq!(merged, forth);
    }

    #[test]
    fn what_is_purged_does_not_come_back_by_merging() {
        let (mut purged, mut other) = (Parcel::default(), Parcel::default());
        for parcel in [&mut purged, &mut other] {
            parcel.put(&record("a", 1, 5, true));
        }
        purged.purge(5);
        assert!(purged.outcomes.is_empty());
        other.merge(purged.clone());
        assert_eq!(other, purged);
        purged.merge({
            let mut late = Parcel::default();
            late.put(&record("a", 1, 5, true));
            late
        });
        assert!(purged.outcomes.is_empty(), "an id at the mark is refused, whatever others remember of it");
    }

    #[test]
    fn only_tombstones_up_to_the_mark_are_collected() {
        let mut parcel = Parcel::default();
        for write in [record("a", 1, 5, false), record("b", 2, 6, true), record("c", 3, 7, false)] {
            parcel.put(&write);
        }
        parcel.collect(Version { epoch: 1, sequence: 2 });
        assert_eq!(
            parcel.records.keys().copied().collect::<std::collections::BTreeSet<_>>(),
            [Id::of("b"), Id::of("c")].into()
        );
    }
}
