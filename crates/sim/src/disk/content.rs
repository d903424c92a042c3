//! What is on a disk, the newest of it, and its changes. Each returns what undoes it, or nothing if nothing has changed.

use std::collections::{BTreeMap, BTreeSet};

use chordal_protocol::replica::{Area, Durable, Outcome, Parcel, minted};
use chordal_protocol::{Id, Interval, Record, RequestId, Version};

use super::undo::Undo;

/// The newest content, and the newest state that goes with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Newest {
    areas: BTreeMap<Area, Shelf>,
    pub(super) durable: Option<Durable>,
}

/// What an area holds. Tombstones can be found by their versions, for they are collected with almost every write. Where two views
/// were merged, two registers may have one version.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    parcel: Parcel,
    tombstones: BTreeSet<(Version, Id)>,
}

impl Shelf {
    fn of(parcel: Parcel) -> Shelf {
        let dead = parcel.records.values().filter(|record| !record.is_live());
        let tombstones = dead.map(|record| (record.version, record.id)).collect();
        Shelf { parcel, tombstones }
    }

    fn is_empty(&self) -> bool {
        self.parcel == Parcel::default()
    }

    /// Puts a record in place of what is there, or takes that away. Returns what was there.
    fn set(&mut self, id: Id, record: Option<Record>) -> Option<Record> {
        let is_tombstone = record.as_ref().filter(|record| !record.is_live()).map(|record| record.version);
        let before = match record {
            Some(record) => self.parcel.records.insert(id, record),
            None => self.parcel.records.remove(&id),
        };
        if let Some(before) = &before
            && !before.is_live()
        {
            self.tombstones.remove(&(before.version, id));
        }
        self.tombstones.extend(is_tombstone.map(|version| (version, id)));
        before
    }

    fn set_outcome(&mut self, request: RequestId, outcome: Option<Outcome>) -> Option<Outcome> {
        match outcome {
            Some(outcome) => self.parcel.outcomes.insert(request, outcome),
            None => self.parcel.outcomes.remove(&request),
        }
    }
}

impl Newest {
    pub(super) fn parcel(&self, area: &Area) -> Option<&Parcel> {
        self.areas.get(area).map(|shelf| &shelf.parcel)
    }

    pub(super) fn areas(&self) -> impl Iterator<Item = &Area> {
        self.areas.iter().filter(|(_, shelf)| !shelf.is_empty()).map(|(area, _)| area)
    }

    pub(super) fn put(&mut self, area: &Area, record: &Record) -> Option<Undo> {
        let shelf = self.areas.entry(*area).or_default();
        let outcome = Outcome { id: record.id, version: record.version };
        let request = record.request;
        let is_told = minted(request) > shelf.parcel.purged && shelf.parcel.outcomes.get(&request) != Some(&outcome);
        let outcome = is_told.then(|| (request, shelf.set_outcome(request, Some(outcome))));
        let is_newer = shelf.parcel.records.get(&record.id).is_none_or(|kept| kept.version < record.version);
        let record = is_newer.then(|| (record.id, shelf.set(record.id, Some(record.clone())).map(Box::new)));
        let has_changed = outcome.is_some() || record.is_some();
        has_changed.then_some(Undo::Put { area: *area, record, outcome })
    }

    /// Requests are in order of their minting, so those to forget stand together.
    pub(super) fn purge(&mut self, area: &Area, mark: u64) -> Option<Undo> {
        if mark <= self.parcel(area).map_or(0, |parcel| parcel.purged) {
            return None;
        }
        let parcel = &mut self.areas.entry(*area).or_default().parcel;
        let after = mark.checked_add(1).map(|next| RequestId(u128::from(next) << 64));
        let kept = after.map(|after| parcel.outcomes.split_off(&after)).unwrap_or_default();
        let forgotten = std::mem::replace(&mut parcel.outcomes, kept);
        let purged = std::mem::replace(&mut parcel.purged, mark);
        Some(Undo::Purge { area: *area, forgotten, purged })
    }

    pub(super) fn collect(&mut self, area: &Area, up_to: Version) -> Option<Undo> {
        let shelf = self.areas.get_mut(area)?;
        let mut collected = Vec::new();
        while let Some((version, id)) = shelf.tombstones.pop_first() {
            if version > up_to {
                shelf.tombstones.insert((version, id));
                break;
            }
            collected.extend(shelf.parcel.records.remove(&id));
        }
        (!collected.is_empty()).then_some(Undo::Collect { area: *area, collected })
    }

    pub(super) fn extend(&mut self, area: &Area, parcel: Parcel) -> Undo {
        let before = self.areas.remove(area);
        let mut after = before.as_ref().map(|shelf| shelf.parcel.clone()).unwrap_or_default();
        after.merge(parcel);
        self.areas.insert(*area, Shelf::of(after));
        Undo::Areas(vec![(*area, before)])
    }

    pub(super) fn derive(&mut self, from: &Area, to: &Area, range: &Interval, up_to: Version) -> Option<Undo> {
        if from == to {
            return None;
        }
        let before = [from, to].map(|area| (*area, self.areas.get(area).cloned()));
        let mut parcels = [from, to].map(|area| self.areas.remove(area).map(|shelf| shelf.parcel));
        let mut moved = parcels[0].as_mut().map(|parcel| parcel.take(range)).unwrap_or_default();
        moved.cut(up_to);
        let has_changed = parcels.iter().any(Option::is_some);
        let [left, there] = parcels;
        let mut there = there.unwrap_or_default();
        there.take(range);
        there.merge(moved);
        self.set_area(*from, left.map(Shelf::of));
        self.set_area(*to, Some(Shelf::of(there)));
        has_changed.then(|| Undo::Areas(before.into()))
    }

    pub(super) fn discard(&mut self, area: &Area) -> Option<Undo> {
        let before = self.areas.remove(area)?;
        Some(Undo::Areas(vec![(*area, Some(before))]))
    }

    /// Takes back the last change that has not been taken back.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Put { area, record, outcome } => {
                let shelf = self.areas.entry(area).or_default();
                if let Some((id, before)) = record {
                    shelf.set(id, before.map(|before| *before));
                }
                if let Some((request, before)) = outcome {
                    shelf.set_outcome(request, before);
                }
            }
            Undo::Purge { area, mut forgotten, purged } => {
                let parcel = &mut self.areas.entry(area).or_default().parcel;
                parcel.outcomes.append(&mut forgotten);
                parcel.purged = purged;
            }
            Undo::Collect { area, collected } => {
                let shelf = self.areas.entry(area).or_default();
                for record in collected {
                    shelf.set(record.id, Some(record));
                }
            }
            Undo::Areas(before) => before.into_iter().for_each(|(area, shelf)| self.set_area(area, shelf)),
            Undo::Durable(before) => self.durable = before.map(|before| *before),
        }
    }

    fn set_area(&mut self, area: Area, shelf: Option<Shelf>) {
        match shelf {
            Some(shelf) => self.areas.insert(area, shelf),
            None => self.areas.remove(&area),
        };
    }

    /// Forgets areas that have become empty by undoing.
    pub(super) fn tidy(&mut self) {
        self.areas.retain(|_, shelf| !shelf.is_empty());
    }
}
