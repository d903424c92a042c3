//! A store in memory, for tests and simulations. It keeps records encoded, as the one on disk does.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chordal_protocol::{Id, Interval, Record};

use super::change::{Transaction, apply};
use super::codec::{self, Damaged};
use super::order::{page, stretches};
use super::{Change, Changed, Store, StoreError};

/// A [`Store`] that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// A std mutex: it is never held across an await, and only as long as one call takes.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, id: &Id) -> Result<Option<Record>, StoreError> {
        Ok(self.tables().record(id)?)
    }

    fn scan(&self, range: Interval, after: Option<Id>, limit: usize, bytes: usize) -> Result<Vec<Record>, StoreError> {
        let tables = self.tables();
        let stored = stretches(range, after).into_iter().flat_map(|stretch| tables.records.range(stretch));
        Ok(page(stored.map(|(id, stored)| codec::decode(*id, stored)), limit, bytes)?)
    }

    fn count(&self, range: Interval) -> Result<u64, StoreError> {
        let tables = self.tables();
        let stored = stretches(range, None).into_iter().flat_map(|stretch| tables.records.range(stretch));
        Ok(stored.filter(|(_, stored)| codec::is_value(stored)).count() as u64)
    }

    fn state(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables().state.get(name).cloned())
    }

    fn commit(&self, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        Ok(apply(changes, &mut *self.tables())?)
    }
}

impl From<Damaged> for StoreError {
    fn from(damaged: Damaged) -> StoreError {
        StoreError::Failed(damaged.to_string())
    }
}

#[derive(Debug, Default)]
struct Tables {
    records: BTreeMap<Id, Vec<u8>>,
    state: BTreeMap<&'static str, Vec<u8>>,
}

/// There is nothing to roll back: what was encoded here decodes, so that no change fails half-way.
impl Transaction for Tables {
    type Error = Damaged;

    fn record(&self, id: &Id) -> Result<Option<Record>, Damaged> {
        self.records.get(id).map(|stored| codec::decode(*id, stored)).transpose()
    }

    fn put_record(&mut self, record: &Record) -> Result<(), Damaged> {
        self.records.insert(record.id, codec::encode(record)?);
        Ok(())
    }

    fn remove(&mut self, range: Interval) -> Result<(), Damaged> {
        self.records.retain(|id, _| !range.contains(id));
        Ok(())
    }

    fn put_state(&mut self, name: &'static str, bytes: &[u8]) -> Result<(), Damaged> {
        self.state.insert(name, bytes.to_vec());
        Ok(())
    }
}
