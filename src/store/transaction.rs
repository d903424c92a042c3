//! An open transaction of the store on disk.

use std::cell::RefCell;
use std::ops::Range;

use chordal_protocol::replica::{self, Area, Outcome, Parcel, minted};
use chordal_protocol::{Id, Record, RequestId, Version};
use redb::{AccessGuard, ReadableTable, Table, WriteTransaction};

use super::Transaction;
use super::areas::Areas;
use super::codec::{self, outcome_key, record_key};
use super::file::{AREAS, OUTCOMES, RECORDS, STATE};

/// Under this name the number of transactions is kept.
const TRANSACTIONS: &str = "transactions";

/// A row of records.
pub(super) type Stored<'a> = (AccessGuard<'a, &'static [u8; 40]>, AccessGuard<'a, &'static [u8]>);

pub(super) fn decoded((key, stored): Stored<'_>) -> Result<Record, redb::Error> {
    Ok(codec::decode(codec::id_of(key.value()), stored.value())?)
}

/// The keys of all records under a number.
pub(super) fn records_under(number: u64) -> Range<[u8; 40]> {
    record_key(number, &Id::ZERO)..record_key(number + 1, &Id::ZERO)
}

/// The keys of all outcomes under a number.
pub(super) fn outcomes_under(number: u64) -> Range<[u8; 24]> {
    outcome_key(number, RequestId(0))..outcome_key(number + 1, RequestId(0))
}

/// How an area is named on disk.
pub(super) fn name_of(area: &Area) -> Result<Vec<u8>, redb::Error> {
    postcard::to_stdvec(area).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// How many transactions that changed something a file has seen.
pub(super) fn transactions(state: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<u64, redb::Error> {
    let bytes = state.get(TRANSACTIONS)?;
    Ok(bytes.map_or(0, |bytes| bytes.value().try_into().map_or(0, u64::from_le_bytes)))
}

/// An open transaction. It works on its own copy of what is remembered of the areas.
pub(super) struct Open<'a> {
    records: Table<'a, &'static [u8; 40], &'static [u8]>,
    outcomes: Table<'a, &'static [u8; 24], &'static [u8; 48]>,
    names: Table<'a, &'static [u8], (u64, u64)>,
    state: Table<'a, &'static str, &'static [u8]>,
    areas: Areas,
    changed: bool,
    /// What went wrong first. Nothing that was done is kept then.
    failed: RefCell<Option<redb::Error>>,
}

impl<'a> Open<'a> {
    pub(super) fn begin(transaction: &'a WriteTransaction, areas: Areas) -> Result<Open<'a>, redb::Error> {
        Ok(Open {
            records: transaction.open_table(RECORDS)?,
            outcomes: transaction.open_table(OUTCOMES)?,
            names: transaction.open_table(AREAS)?,
            state: transaction.open_table(STATE)?,
            areas,
            changed: false,
            failed: RefCell::new(None),
        })
    }

    /// What is to be remembered, and whether anything has changed; or what went wrong.
    pub(super) fn end(mut self) -> Result<(Areas, bool), redb::Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.changed {
            self.areas.transactions = transactions(&self.state)? + 1;
            self.state.insert(TRANSACTIONS, self.areas.transactions.to_le_bytes().as_slice())?;
        }
        Ok((self.areas, self.changed))
    }

    fn tried<T>(&self, outcome: Result<T, redb::Error>) -> Option<T> {
        outcome.map_err(|error| self.failed.borrow_mut().get_or_insert(error).to_string()).ok()
    }

    fn number(&self, area: &Area) -> Option<u64> {
        self.areas.get(area).map(|shelf| shelf.number)
    }

    fn read(&self, number: u64, id: &Id) -> Option<Record> {
        let read = || {
            let stored = self.records.get(&record_key(number, id))?;
            Ok(stored.map(|stored| codec::decode(*id, stored.value())).transpose()?)
        };
        self.tried(read()).flatten()
    }

    fn read_outcome(&self, number: u64, request: RequestId) -> Option<Outcome> {
        let stored = self.tried(self.outcomes.get(&outcome_key(number, request)).map_err(Into::into))?;
        stored.map(|stored| codec::outcome_of(stored.value()))
    }

    fn write(&mut self, number: u64, record: &Record) {
        self.changed = true;
        let written = codec::encode(record).map_err(redb::Error::from).and_then(|bytes| {
            self.records.insert(&record_key(number, &record.id), bytes.as_slice())?;
            Ok(())
        });
        self.tried(written);
    }

    fn write_outcome(&mut self, number: u64, request: RequestId, outcome: &Outcome) {
        self.changed = true;
        let bytes = codec::outcome_bytes(outcome);
        let written = self.outcomes.insert(&outcome_key(number, request), &bytes).map(|_| ()).map_err(Into::into);
        self.tried(written);
    }

    /// Writes down what an area is called, where it is and what of it is forgotten.
    fn name(&mut self, area: &Area) {
        self.changed = true;
        let Some((number, purged)) = self.areas.get(area).map(|shelf| (shelf.number, shelf.purged)) else { return };
        let written = name_of(area).and_then(|name| {
            self.names.insert(name.as_slice(), (number, purged))?;
            Ok(())
        });
        self.tried(written);
    }

    fn unname(&mut self, area: &Area) {
        self.changed = true;
        let written = name_of(area).and_then(|name| {
            self.names.remove(name.as_slice())?;
            Ok(())
        });
        self.tried(written);
    }

    fn records_of(&self, number: u64) -> Vec<Record> {
        let read = || {
            let bounds = records_under(number);
            let stored = self.records.range::<&[u8; 40]>(&bounds.start..&bounds.end)?;
            stored.map(|entry| decoded(entry?)).collect::<Result<Vec<Record>, redb::Error>>()
        };
        self.tried(read()).unwrap_or_default()
    }

    fn outcomes_of(&self, number: u64) -> Vec<(RequestId, Outcome)> {
        let read = || {
            let bounds = outcomes_under(number);
            let stored = self.outcomes.range::<&[u8; 24]>(&bounds.start..&bounds.end)?;
            let outcomes = stored.map(|entry| {
                let (key, outcome) = entry?;
                Ok((codec::request_of(key.value()), codec::outcome_of(outcome.value())))
            });
            outcomes.collect::<Result<Vec<_>, redb::Error>>()
        };
        self.tried(read()).unwrap_or_default()
    }

    /// Removes all that lies under a number.
    fn clear(&mut self, number: u64) {
        self.changed = true;
        let removed = (|| {
            let bounds = records_under(number);
            self.records.retain_in::<&[u8; 40], _>(&bounds.start..&bounds.end, |_, _| false)?;
            let bounds = outcomes_under(number);
            self.outcomes.retain_in::<&[u8; 24], _>(&bounds.start..&bounds.end, |_, _| false)?;
            Ok(())
        })();
        self.tried(removed);
    }
}

impl Transaction for Open<'_> {
    fn put_state(&mut self, name: &'static str, bytes: &[u8]) {
        self.changed = true;
        let written = self.state.insert(name, bytes).map(|_| ()).map_err(Into::into);
        self.tried(written);
    }
}

impl replica::Store for Open<'_> {
    fn record(&self, area: &Area, id: &Id) -> Option<Record> {
        self.read(self.number(area)?, id)
    }

    fn outcome(&self, area: &Area, request: RequestId) -> Option<Outcome> {
        self.read_outcome(self.number(area)?, request)
    }

    fn purged(&self, area: &Area) -> u64 {
        self.areas.get(area).map_or(0, |shelf| shelf.purged)
    }

    fn since(&self, area: &Area, version: Version) -> Parcel {
        let Some(shelf) = self.areas.get(area) else { return Parcel::default() };
        let Some(written) = shelf.since(version) else { return self.all(area).since(version) };
        let mut parcel = Parcel { purged: shelf.purged, ..Parcel::default() };
        for (id, request) in written {
            // An outcome may have been forgotten, or overwritten by an older one, and a tombstone collected.
            let outcome = self.read_outcome(shelf.number, request).filter(|outcome| outcome.version > version);
            parcel.outcomes.extend(outcome.map(|outcome| (request, outcome)));
            let record = self.read(shelf.number, &id).filter(|record| record.version > version);
            parcel.records.extend(record.map(|record| (id, record)));
        }
        parcel
    }

    fn all(&self, area: &Area) -> Parcel {
        let Some(shelf) = self.areas.get(area) else { return Parcel::default() };
        Parcel {
            records: self.records_of(shelf.number).into_iter().map(|record| (record.id, record)).collect(),
            outcomes: self.outcomes_of(shelf.number).into_iter().collect(),
            purged: shelf.purged,
        }
    }

    fn put(&mut self, area: &Area, record: &Record) {
        let (shelf, is_new) = self.areas.open(area);
        let (number, purged) = (shelf.number, shelf.purged);
        shelf.written(record);
        if is_new {
            self.name(area);
        }
        let outcome = Outcome { id: record.id, version: record.version };
        // What is sent again because its answer was lost changes nothing, and costs no sync.
        if minted(record.request) > purged && self.read_outcome(number, record.request) != Some(outcome) {
            self.write_outcome(number, record.request, &outcome);
        }
        let old = self.read(number, &record.id);
        if old.as_ref().is_none_or(|old| old.version < record.version) {
            self.write(number, record);
            self.areas.open(area).0.replaced(old.as_ref(), record);
        }
    }

    fn purge(&mut self, area: &Area, mark: u64) {
        if mark <= self.purged(area) {
            return;
        }
        let (shelf, _) = self.areas.open(area);
        shelf.purged = mark;
        let number = shelf.number;
        self.name(area);
        let last = outcome_key(number, RequestId((u128::from(mark) << 64) | u128::from(u64::MAX)));
        let first = outcome_key(number, RequestId(0));
        let removed = self.outcomes.retain_in::<&[u8; 24], _>(&first..=&last, |_, _| false).map_err(Into::into);
        self.tried(removed);
    }

    fn collect(&mut self, area: &Area, up_to: Version) -> bool {
        let Some(shelf) = self.areas.get_mut(area) else { return false };
        let (number, gone) = (shelf.number, shelf.stable(up_to));
        let collects = !gone.is_empty();
        for id in gone {
            self.changed = true;
            let removed = self.records.remove(&record_key(number, &id)).map(|_| ()).map_err(Into::into);
            self.tried(removed);
        }
        collects
    }

    fn replace(&mut self, area: &Area, parcel: Parcel) {
        self.discard(area);
        let (shelf, _) = self.areas.open(area);
        shelf.filled(&parcel);
        let number = shelf.number;
        self.name(area);
        for record in parcel.records.values() {
            self.write(number, record);
        }
        for (request, outcome) in &parcel.outcomes {
            self.write_outcome(number, *request, outcome);
        }
    }

    fn rename(&mut self, from: &Area, to: &Area) {
        if from == to {
            return;
        }
        self.discard(to);
        let Some(shelf) = self.areas.remove(from) else { return };
        self.unname(from);
        self.areas.insert(*to, shelf);
        self.name(to);
    }

    fn discard(&mut self, area: &Area) {
        if let Some(shelf) = self.areas.remove(area) {
            self.clear(shelf.number);
            self.unname(area);
        }
    }
}
