//! The store on disk: one redb file.
//!
//! Tables: `records` and `outcomes` under the number of their area, `areas`, `state` (name to bytes) and `about` (the format
//! of the file). Every transaction is durable when it returns, and leaves the file such that opening it after a crash needs no
//! repair.
//!
//! After a failed read or write redb refuses everything until the file is opened again, and after a failed commit it
//! refuses to write. So whatever fails here gives up the open database, and the next call opens the file anew: a disk
//! that was full is in use again as soon as there is room, and a full disk can still be read. A transaction that failed is
//! not tried again here, because it may have happened.

use std::cell::RefCell;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

use chordal_protocol::replica::{self, Area, Outcome, Parcel, minted};
use chordal_protocol::{Id, Record, RequestId, Version};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table};

use super::areas::{Areas, Shelf};
use super::codec::{self, Damaged};
use super::file::{self, AREAS, DataDirectory, OUTCOMES, RECORDS, STATE};
use super::order::page;
use super::{Store, StoreError, Transaction};

/// How often a read is tried while commits keep failing beside it.
const READ_ATTEMPTS: usize = 3;

/// How to open the database, the first time and after each failure. It must keep others out for as long as it lives.
pub(super) type OpenFile = Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>;

/// A [`Store`] in a data directory, which it keeps to itself until it is dropped.
pub struct DiskStore {
    // First, so that the file is closed before `open` lets go of the directory.
    current: RwLock<Current>,
    open: OpenFile,
    /// What is remembered of the areas; none where a transaction has failed, until they are read again.
    areas: Mutex<Option<Areas>>,
}

/// The open database. Readers and the writer share it; opening and closing it excludes them.
struct Current {
    database: Option<Database>,
    /// How many were opened before it: who found it broken gives up this one and no later one.
    number: u64,
}

/// Why something was not done.
enum Failure {
    /// It wasn't tried: the database can't be opened.
    Unopened(StoreError),
    /// The database failed, or had failed before.
    Database(redb::Error),
}

impl DiskStore {
    /// Opens the store in this directory, and creates both where there is none.
    ///
    /// A file that is damaged, newer than this program, in use by another node or not accessible is
    /// [`StoreError::Unusable`]; no room to create it is [`StoreError::Full`]. Either way nothing in it has changed.
    pub fn open(directory: impl AsRef<Path>) -> Result<DiskStore, StoreError> {
        let directory = DataDirectory::claim(directory.as_ref())?;
        DiskStore::over(Box::new(move || directory.open()))
    }

    /// Whether there is a store in this directory.
    pub fn exists(directory: impl AsRef<Path>) -> bool {
        file::store_in(directory.as_ref()).exists()
    }

    pub(super) fn over(open: OpenFile) -> Result<DiskStore, StoreError> {
        let database = open()?;
        let current = RwLock::new(Current { database: Some(database), number: 0 });
        let store = DiskStore { current, open, areas: Mutex::new(None) };
        store.with_areas(|_| ())?;
        Ok(store)
    }

    fn with_areas<T>(&self, look: impl FnOnce(&Areas) -> T) -> Result<T, StoreError> {
        let mut kept = self.areas.lock().unwrap_or_else(PoisonError::into_inner);
        let areas = match kept.take() {
            Some(areas) => areas,
            None => self.read(read_areas)?,
        };
        let seen = look(&areas);
        *kept = Some(areas);
        Ok(seen)
    }

    fn number_of(&self, area: &Area) -> Result<Option<u64>, StoreError> {
        self.with_areas(|areas| areas.shelves.get(area).map(|shelf| shelf.number))
    }

    /// Does something with the database, which is given up if that fails.
    fn attempt<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Failure> {
        self.ensure_open().map_err(Failure::Unopened)?;
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let number = current.number;
        let outcome = match &current.database {
            Some(database) => guarded(|| work(database)),
            None => Err(redb::Error::PreviousIo),
        };
        drop(current);
        outcome.map_err(|error| {
            self.give_up(number);
            Failure::Database(error)
        })
    }

    /// Reads, and again where a commit has just broken the database under the reader.
    fn read<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let mut outcome = self.attempt(&work);
        for _ in 1..READ_ATTEMPTS {
            match outcome {
                Err(Failure::Database(redb::Error::PreviousIo)) => outcome = self.attempt(&work),
                _ => break,
            }
        }
        outcome.map_err(StoreError::from)
    }

    fn ensure_open(&self) -> Result<(), StoreError> {
        if self.current.read().unwrap_or_else(PoisonError::into_inner).database.is_some() {
            return Ok(());
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.database.is_none() {
            current.database = Some((self.open)()?);
            current.number += 1;
        }
        Ok(())
    }

    fn give_up(&self, number: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.number == number {
            // Dropping closes it, and closing could stumble over the same damage.
            let database = current.database.take();
            let _ = guarded(|| {
                drop(database);
                Ok(())
            });
        }
    }
}

impl Store for DiskStore {
    fn state(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|database| {
            let state = database.begin_read()?.open_table(STATE)?;
            let bytes = state.get(name)?;
            Ok(bytes.map(|bytes| bytes.value().to_vec()))
        })
    }

    fn transact(&self, work: &mut dyn FnMut(&mut dyn Transaction)) -> Result<bool, StoreError> {
        let mut kept = self.areas.lock().unwrap_or_else(PoisonError::into_inner);
        // What a failed transaction did to it is not known to have happened.
        let known = kept.take();
        let mut work = Some(work);
        let (areas, outcome) = match known {
            Some(areas) => (areas, Ok(())),
            None => match self.attempt(read_areas) {
                Ok(areas) => (areas, Ok(())),
                Err(failure) => (Areas::default(), Err(failure)),
            },
        };
        outcome?;
        let mut areas = Some(areas);
        let (after, changed) = self.attempt(|database| {
            let (Some(work), Some(areas)) = (work.take(), areas.take()) else { return Err(redb::Error::PreviousIo) };
            transact(database, areas, work)
        })?;
        *kept = Some(after);
        Ok(changed)
    }

    fn transactions(&self) -> Result<u64, StoreError> {
        self.read(|database| {
            let state = database.begin_read()?.open_table(STATE)?;
            let bytes = state.get(TRANSACTIONS)?;
            Ok(bytes.map_or(0, |bytes| number(bytes.value())))
        })
    }

    fn get(&self, area: &Area, id: &Id) -> Result<Option<Record>, StoreError> {
        let Some(number) = self.number_of(area)? else { return Ok(None) };
        self.read(|database| {
            // Named, and so alive until the value is read: the value alone does not keep the writer from freeing its page.
            let records = database.begin_read()?.open_table(RECORDS)?;
            let stored = records.get(&record_key(number, id))?;
            Ok(stored.map(|stored| codec::decode(*id, stored.value())).transpose()?)
        })
    }

    fn page(&self, area: &Area, from: Bound<Id>, limit: usize, bytes: usize) -> Result<Vec<Record>, StoreError> {
        let Some(number) = self.number_of(area)? else { return Ok(Vec::new()) };
        let from = match from {
            Bound::Unbounded => Bound::Included(record_key(number, &Id::ZERO)),
            bound => bound.map(|id| record_key(number, &id)),
        };
        self.read(|database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let bounds = (from.as_ref(), Bound::Excluded(&record_key(number + 1, &Id::ZERO)));
            let stored = records.range::<&[u8; 40]>((bounds.0, bounds.1))?;
            page(stored.map(|entry| decoded(entry?)), limit, bytes)
        })
    }

    fn count(&self, area: &Area) -> Result<u64, StoreError> {
        self.with_areas(|areas| areas.shelves.get(area).map_or(0, |shelf| shelf.live))
    }
}

/// Under this name the number of transactions is kept.
const TRANSACTIONS: &str = "transactions";

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn transact(
    database: &Database,
    areas: Areas,
    work: &mut dyn FnMut(&mut dyn Transaction),
) -> Result<(Areas, bool), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    let (areas, changed) = {
        let mut open = Open {
            records: transaction.open_table(RECORDS)?,
            outcomes: transaction.open_table(OUTCOMES)?,
            names: transaction.open_table(AREAS)?,
            state: transaction.open_table(STATE)?,
            areas,
            changed: false,
            failed: RefCell::new(None),
        };
        work(&mut open);
        open.end()?
    };
    // What changes nothing rests on what is durable already.
    if changed {
        transaction.commit()?
    } else {
        transaction.abort()?
    }
    Ok((areas, changed))
}

/// All areas, with what is remembered of them: each record is looked at once.
fn read_areas(database: &Database) -> Result<Areas, redb::Error> {
    let transaction = database.begin_read()?;
    let (names, records) = (transaction.open_table(AREAS)?, transaction.open_table(RECORDS)?);
    let mut areas = Areas::default();
    for entry in names.iter()? {
        let (name, about) = entry?;
        let (number, purged) = about.value();
        let area: Area = postcard::from_bytes(name.value())
            .map_err(|error| redb::Error::Corrupted(format!("an area has no name that can be read: {error}")))?;
        let mut shelf = Shelf { purged, ..Shelf::new(number) };
        let bounds = record_key(number, &Id::ZERO)..record_key(number + 1, &Id::ZERO);
        for entry in records.range::<&[u8; 40]>(&bounds.start..&bounds.end)? {
            let record = decoded(entry?)?;
            shelf.floor = shelf.floor.max(record.version);
            shelf.holds(&record);
        }
        areas.next = areas.next.max(number);
        areas.shelves.insert(area, shelf);
    }
    Ok(areas)
}

type Stored<'a> = (redb::AccessGuard<'a, &'static [u8; 40]>, redb::AccessGuard<'a, &'static [u8]>);

fn decoded((key, stored): Stored<'_>) -> Result<Record, redb::Error> {
    let mut id = [0; 32];
    id.copy_from_slice(&key.value()[8..]);
    Ok(codec::decode(Id::from_bytes(id), stored.value())?)
}

fn record_key(number: u64, id: &Id) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(id.as_bytes());
    key
}

fn outcome_key(number: u64, request: RequestId) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&request.0.to_be_bytes());
    key
}

fn outcome_bytes(outcome: &Outcome) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[..32].copy_from_slice(outcome.id.as_bytes());
    bytes[32..40].copy_from_slice(&outcome.version.epoch.to_be_bytes());
    bytes[40..].copy_from_slice(&outcome.version.sequence.to_be_bytes());
    bytes
}

fn outcome_of(bytes: &[u8; 48]) -> Outcome {
    let part = |from: usize| {
        let mut part = [0; 8];
        part.copy_from_slice(&bytes[from..from + 8]);
        u64::from_be_bytes(part)
    };
    let mut id = [0; 32];
    id.copy_from_slice(&bytes[..32]);
    Outcome { id: Id::from_bytes(id), version: Version { epoch: part(32), sequence: part(40) } }
}

/// An open transaction.
struct Open<'a> {
    records: Table<'a, &'static [u8; 40], &'static [u8]>,
    outcomes: Table<'a, &'static [u8; 24], &'static [u8; 48]>,
    names: Table<'a, &'static [u8], (u64, u64)>,
    state: Table<'a, &'static str, &'static [u8]>,
    areas: Areas,
    changed: bool,
    /// What went wrong first. Nothing that was done is kept then.
    failed: RefCell<Option<redb::Error>>,
}

impl Open<'_> {
    /// What is to be remembered, and whether anything has changed; or what went wrong.
    fn end(mut self) -> Result<(Areas, bool), redb::Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.changed {
            let before = self.state.get(TRANSACTIONS)?.map_or(0, |bytes| number(bytes.value()));
            self.state.insert(TRANSACTIONS, (before + 1).to_le_bytes().as_slice())?;
        }
        Ok((self.areas, self.changed))
    }

    fn tried<T>(&self, outcome: Result<T, redb::Error>) -> Option<T> {
        outcome.map_err(|error| self.failed.borrow_mut().get_or_insert(error).to_string()).ok()
    }

    fn number(&self, area: &Area) -> Option<u64> {
        self.areas.shelves.get(area).map(|shelf| shelf.number)
    }

    fn read(&self, number: u64, id: &Id) -> Option<Record> {
        let read = || {
            let stored = self.records.get(&record_key(number, id))?;
            Ok(stored.map(|stored| codec::decode(*id, stored.value())).transpose()?)
        };
        self.tried(read()).flatten()
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
        let bytes = outcome_bytes(outcome);
        let written = self.outcomes.insert(&outcome_key(number, request), &bytes).map(|_| ()).map_err(Into::into);
        self.tried(written);
    }

    /// Writes down what an area is called, where it is and what of it is forgotten.
    fn name(&mut self, area: &Area) {
        self.changed = true;
        let Some((number, purged)) = self.areas.shelves.get(area).map(|shelf| (shelf.number, shelf.purged)) else {
            return;
        };
        let written = encoded(area).and_then(|name| {
            self.names.insert(name.as_slice(), (number, purged))?;
            Ok(())
        });
        self.tried(written);
    }

    fn unname(&mut self, area: &Area) {
        self.changed = true;
        let written = encoded(area).and_then(|name| {
            self.names.remove(name.as_slice())?;
            Ok(())
        });
        self.tried(written);
    }

    fn records_of(&self, number: u64) -> Vec<Record> {
        let read = || {
            let bounds = record_key(number, &Id::ZERO)..record_key(number + 1, &Id::ZERO);
            let stored = self.records.range::<&[u8; 40]>(&bounds.start..&bounds.end)?;
            stored.map(|entry| decoded(entry?)).collect::<Result<Vec<Record>, redb::Error>>()
        };
        self.tried(read()).unwrap_or_default()
    }

    fn outcomes_of(&self, number: u64) -> Vec<(RequestId, Outcome)> {
        let read = || {
            let bounds = outcome_key(number, RequestId(0))..outcome_key(number + 1, RequestId(0));
            let stored = self.outcomes.range::<&[u8; 24]>(&bounds.start..&bounds.end)?;
            let outcomes = stored.map(|entry| {
                let (key, outcome) = entry?;
                let mut request = [0; 16];
                request.copy_from_slice(&key.value()[8..]);
                Ok((RequestId(u128::from_be_bytes(request)), outcome_of(outcome.value())))
            });
            outcomes.collect::<Result<Vec<_>, redb::Error>>()
        };
        self.tried(read()).unwrap_or_default()
    }

    /// Removes all that lies under a number.
    fn clear(&mut self, number: u64) {
        self.changed = true;
        let removed = (|| {
            let bounds = record_key(number, &Id::ZERO)..record_key(number + 1, &Id::ZERO);
            self.records.retain_in::<&[u8; 40], _>(&bounds.start..&bounds.end, |_, _| false)?;
            let bounds = outcome_key(number, RequestId(0))..outcome_key(number + 1, RequestId(0));
            self.outcomes.retain_in::<&[u8; 24], _>(&bounds.start..&bounds.end, |_, _| false)?;
            Ok(())
        })();
        self.tried(removed);
    }
}

fn encoded(area: &Area) -> Result<Vec<u8>, redb::Error> {
    postcard::to_stdvec(area).map_err(|error| redb::Error::Corrupted(error.to_string()))
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
        let number = self.number(area)?;
        let stored = self.tried(self.outcomes.get(&outcome_key(number, request)).map_err(Into::into))?;
        stored.map(|stored| outcome_of(stored.value()))
    }

    fn purged(&self, area: &Area) -> u64 {
        self.areas.shelves.get(area).map_or(0, |shelf| shelf.purged)
    }

    fn since(&self, area: &Area, version: Version) -> Parcel {
        let Some(shelf) = self.areas.shelves.get(area) else { return Parcel::default() };
        let Some(written) = shelf.since(version) else { return self.all(area).since(version) };
        let mut parcel = Parcel { purged: shelf.purged, ..Parcel::default() };
        for (version, id, request) in written {
            if minted(request) > shelf.purged {
                parcel.outcomes.insert(request, Outcome { id, version });
            }
            if let Some(record) = self.read(shelf.number, &id) {
                parcel.records.insert(id, record);
            }
        }
        parcel
    }

    fn all(&self, area: &Area) -> Parcel {
        let Some(shelf) = self.areas.shelves.get(area) else { return Parcel::default() };
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
        if minted(record.request) > purged {
            self.write_outcome(number, record.request, &Outcome { id: record.id, version: record.version });
        }
        let old = self.read(number, &record.id);
        if old.as_ref().is_none_or(|old| old.version < record.version) {
            self.write(number, record);
            self.areas.open(area).0.replaced(old.as_ref(), record);
        }
    }

    fn purge(&mut self, area: &Area, mark: u64) {
        let (shelf, _) = self.areas.open(area);
        if mark <= shelf.purged {
            return;
        }
        shelf.purged = mark;
        let number = shelf.number;
        self.name(area);
        let last = outcome_key(number, RequestId((u128::from(mark) << 64) | u128::from(u64::MAX)));
        let first = outcome_key(number, RequestId(0));
        let removed = self.outcomes.retain_in::<&[u8; 24], _>(&first..=&last, |_, _| false).map_err(Into::into);
        self.tried(removed);
    }

    fn collect(&mut self, area: &Area, up_to: Version) {
        let Some(shelf) = self.areas.shelves.get_mut(area) else { return };
        let (number, gone) = (shelf.number, shelf.stable(up_to));
        for id in gone {
            self.changed = true;
            let removed = self.records.remove(&record_key(number, &id)).map(|_| ()).map_err(Into::into);
            self.tried(removed);
        }
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
        self.discard(to);
        let Some(shelf) = self.areas.shelves.remove(from) else { return };
        self.unname(from);
        self.areas.shelves.insert(*to, shelf);
        self.name(to);
    }

    fn discard(&mut self, area: &Area) {
        if let Some(shelf) = self.areas.shelves.remove(area) {
            self.clear(shelf.number);
            self.unname(area);
        }
    }
}

/// On a damaged file redb may panic. That must not take the writer's thread, or a request, with it.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("the database could not make sense of its file".to_owned())))
}

impl From<Damaged> for redb::Error {
    fn from(damaged: Damaged) -> redb::Error {
        redb::Error::Corrupted(damaged.to_string())
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> StoreError {
        match failure {
            Failure::Unopened(error) => error,
            Failure::Database(redb::Error::PreviousIo) => {
                StoreError::Failed("the disk has just failed; try again".to_owned())
            }
            Failure::Database(error) => file::no_room(&error).unwrap_or_else(|| StoreError::Failed(error.to_string())),
        }
    }
}
