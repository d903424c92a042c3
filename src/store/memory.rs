//! A store in memory: for nodes that keep nothing on disk, and for tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chordal_protocol::replica::{self, Area, Cursor, Outcome, Parcel, Snapshot};
use chordal_protocol::{Id, Interval, Record, RequestId, Version};

use super::order::page;
use super::{Store, StoreError, Transaction};

/// A [`Store`] that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    content: replica::MemoryStore,
    state: BTreeMap<&'static str, Vec<u8>>,
    transactions: u64,
    /// Whether the transaction under way has changed anything.
    changed: bool,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Another store with the same content.
    #[cfg(test)]
    pub(crate) fn fork(&self) -> MemoryStore {
        MemoryStore { kept: Mutex::new(self.kept().clone()) }
    }

    /// A std mutex: it is never held across an await, and only as long as one call takes.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn state(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.kept().state.get(name).cloned())
    }

    fn transact(&self, work: &mut dyn FnMut(&mut dyn Transaction)) -> Result<bool, StoreError> {
        let mut kept = self.kept();
        kept.changed = false;
        work(&mut *kept);
        let changed = kept.changed;
        kept.transactions += u64::from(changed);
        Ok(changed)
    }

    fn look(&self, work: &mut dyn FnMut(&dyn Snapshot)) -> Result<(), StoreError> {
        work(&self.kept().content);
        Ok(())
    }

    fn transactions(&self) -> Result<u64, StoreError> {
        Ok(self.kept().transactions)
    }

    fn get(&self, area: &Area, id: &Id) -> Result<Option<Record>, StoreError> {
        Ok(self.kept().content.record(area, id))
    }

    fn page(&self, area: &Area, from: Bound<Id>, limit: usize, bytes: usize) -> Result<Vec<Record>, StoreError> {
        let kept = self.kept();
        let Some(parcel) = kept.content.areas().get(area) else { return Ok(Vec::new()) };
        page(parcel.records.range((from, Bound::Unbounded)).map(|(_, record)| Ok(record.clone())), limit, bytes)
    }

    fn count(&self, area: &Area) -> Result<u64, StoreError> {
        let kept = self.kept();
        let records = kept.content.areas().get(area).into_iter().flat_map(|parcel| parcel.records.values());
        Ok(records.filter(|record| record.is_live()).count() as u64)
    }

    fn areas(&self) -> Result<Vec<Area>, StoreError> {
        Ok(self.kept().content.areas().keys().copied().collect())
    }

    fn put_aside(&self, _: &Area, _: &str) -> Result<Option<(PathBuf, u64)>, StoreError> {
        Ok(None)
    }
}

impl Kept {
    fn holds(&self, area: &Area) -> bool {
        self.content.areas().contains_key(area)
    }
}

impl Transaction for Kept {
    fn put_state(&mut self, name: &'static str, bytes: &[u8]) {
        self.changed = true;
        self.state.insert(name, bytes.to_vec());
    }
}

impl Snapshot for Kept {
    fn record(&self, area: &Area, id: &Id) -> Option<Record> {
        self.content.record(area, id)
    }

    fn outcome(&self, area: &Area, request: RequestId) -> Option<Outcome> {
        self.content.outcome(area, request)
    }

    fn purged(&self, area: &Area) -> u64 {
        self.content.purged(area)
    }

    fn since(&self, area: &Area, version: Version) -> Parcel {
        self.content.since(area, version)
    }

    fn page(&self, area: &Area, range: &Interval, after: Option<Cursor>, room: usize) -> (Parcel, Option<Cursor>) {
        self.content.page(area, range, after, room)
    }
}

impl replica::Store for Kept {
    fn put(&mut self, area: &Area, record: &Record) {
        self.changed = true;
        self.content.put(area, record);
    }

    fn purge(&mut self, area: &Area, mark: u64) {
        self.changed |= mark > self.content.purged(area);
        self.content.purge(area, mark);
    }

    fn collect(&mut self, area: &Area, up_to: Version) -> bool {
        let collects = self.content.collect(area, up_to);
        self.changed |= collects;
        collects
    }

    fn extend(&mut self, area: &Area, parcel: Parcel) {
        self.changed = true;
        self.content.extend(area, parcel);
    }

    fn derive(&mut self, from: &Area, to: &Area, range: &Interval, up_to: Version) {
        self.changed |= from != to && (self.holds(from) || self.holds(to));
        self.content.derive(from, to, range, up_to);
    }

    fn discard(&mut self, area: &Area) {
        self.changed |= self.holds(area);
        self.content.discard(area);
    }
}
