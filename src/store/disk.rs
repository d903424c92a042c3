//! The store on disk: a redb file, a log in front of it, and in memory what is in the log only.
//!
//! Tables: `records` and `outcomes` under the number of their piece, `areas` with their pieces, `state` (name to bytes) and `about`
//! (the format of the file). Every transaction is durable when it returns: in the log, or, where that is full, in the file with
//! all that the log had. The file can be opened after a crash without being read through.
//!
//! After a failed read or write redb refuses everything until the file is opened again, and after a failed commit it
//! refuses to write. So whatever fails here gives up the open database, and the next call opens the file anew: a disk
//! that was full is in use again as soon as there is room, and a full disk can still be read. A transaction that failed is
//! not tried again here, because it may have happened.

use std::cell::RefCell;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use chordal_protocol::replica::{Area, Snapshot};
use chordal_protocol::{Id, Record, Version};
use redb::Database;

use super::areas::{Areas, Shelf};
use super::aside;
use super::codec::{self, Damaged, record_key};
use super::file::{self, DataDirectory};
use super::log::{self, Log};
use super::order::page;
use super::piece::{self, Piece};
use super::rows::Rows;
use super::snapshot::{Seen, decoded, first_outcome, outcomes_from, records_in};
use super::transaction::{Open, about_of, gone, name_of, transactions};
use super::{Store, StoreError, Transaction};

/// How often a read is tried while commits keep failing beside it.
const READ_ATTEMPTS: usize = 3;

/// How to open the database and its log, the first time and after each failure. It must keep others out for as long as it lives.
pub(super) type OpenFile = Box<dyn Fn() -> Result<(Database, log::Place), StoreError> + Send + Sync>;

/// A [`Store`] in a data directory, which it keeps to itself until it is dropped.
pub struct DiskStore {
    // First, so that the file is closed before `open` lets go of the directory.
    current: RwLock<Current>,
    open: OpenFile,
    /// Where files may be put beside the store.
    directory: Option<PathBuf>,
    /// Held by whoever changes something. Never taken while `areas` is held.
    writing: Mutex<()>,
    /// What is remembered of the areas as they are on disk. Held for a moment, and not while a transaction is made.
    areas: Mutex<Memory>,
}

/// What is remembered of the areas.
enum Memory {
    /// Nothing: they have to be read.
    Nothing,
    /// This is how they are.
    Known(Areas),
    /// A transaction has failed: they are as before it, or as after it.
    Doubtful(Areas, Option<Areas>),
}

/// The open database. Readers and the writer share it; opening and closing it excludes them.
struct Current {
    database: Option<Logged>,
    /// How many were opened before it: who found it broken gives up this one and no later one.
    number: u64,
}

/// A database and the log in front of it.
struct Logged {
    /// Changed by transactions. Whoever reads waits while one is at work or goes to the database, and not while one is made durable in
    /// the log; and a transaction waits for who reads.
    rows: RwLock<Rows>,
    database: Database,
    /// Locked by whoever changes something.
    log: Mutex<Log>,
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
        let name = file::store_in(directory.as_ref()).display().to_string();
        let claimed = DataDirectory::claim(directory.as_ref())?;
        let store = DiskStore::over(&name, Box::new(move || claimed.open()))?;
        Ok(DiskStore { directory: Some(directory.as_ref().to_owned()), ..store })
    }

    /// Whether there is a store in this directory.
    pub fn exists(directory: impl AsRef<Path>) -> bool {
        file::store_in(directory.as_ref()).exists()
    }

    /// Over what this opens; `name` is what people know it by.
    pub(super) fn over(name: &str, open: OpenFile) -> Result<DiskStore, StoreError> {
        let (database, log) = open()?;
        let database = guarded(|| Logged::open(database, log)).map_err(|error| file::unopened(name, &error))?;
        let current = RwLock::new(Current { database: Some(database), number: 0 });
        let (writing, areas) = (Mutex::new(()), Mutex::new(Memory::Nothing));
        let store = DiskStore { current, open, directory: None, writing, areas };
        match store.attempt(|logged| read_areas(&*logged.rows()?)) {
            Ok(areas) => *store.areas.lock().unwrap_or_else(PoisonError::into_inner) = Memory::Known(areas),
            Err(Failure::Unopened(error)) => return Err(error),
            Err(Failure::Database(error)) => return Err(file::unopened(name, &error)),
        }
        Ok(store)
    }

    /// How many records and outcomes there are, whoever they belong to.
    #[cfg(test)]
    pub(super) fn rows(&self) -> Result<u64, StoreError> {
        self.read(|rows| {
            let records = rows.records([0; 40]..=[u8::MAX; 40]).map(|row| row.map(|_| 1));
            let outcomes = rows.outcomes((Bound::Unbounded, Bound::Unbounded)).map(|row| row.map(|_| 1));
            records.chain(outcomes).sum()
        })
    }

    /// Looks at the areas as they are on disk.
    fn with_areas<T>(&self, look: impl FnOnce(&Areas) -> T) -> Result<T, StoreError> {
        let mut memory = self.areas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Memory::Known(areas) = &*memory {
            return Ok(look(areas));
        }
        let areas = match &mut *memory {
            Memory::Doubtful(before, after) => {
                let durable = self.read(transactions)?;
                let known = std::iter::once(&*before).chain(after.as_ref());
                known.into_iter().find(|areas| areas.transactions == durable).cloned()
            }
            _ => None,
        };
        let areas = match areas {
            Some(areas) => areas,
            None => self.read(read_areas)?,
        };
        let seen = look(&areas);
        *memory = Memory::Known(areas);
        Ok(seen)
    }

    /// Does something with the database, which is given up if that fails.
    fn attempt<T>(&self, work: impl FnOnce(&Logged) -> Result<T, redb::Error>) -> Result<T, Failure> {
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
    fn read<T>(&self, work: impl Fn(&Rows) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let work = |logged: &Logged| work(&*logged.rows()?);
        let mut outcome = self.attempt(work);
        for _ in 1..READ_ATTEMPTS {
            match outcome {
                Err(Failure::Database(redb::Error::PreviousIo)) => outcome = self.attempt(work),
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
            let (database, log) = (self.open)()?;
            let opened = guarded(|| Logged::open(database, log));
            current.database = Some(opened.map_err(|error| StoreError::from(Failure::Database(error)))?);
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
        self.read(|rows| rows.state(name))
    }

    fn transact(&self, work: &mut dyn FnMut(&mut dyn Transaction)) -> Result<bool, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.with_areas(Areas::clone)?;
        let mut after = None;
        let outcome = self.attempt(|logged| logged.transact(before.clone(), work, &mut after));
        let mut memory = self.areas.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, after) {
            (Ok(changed), Some(after)) => {
                *memory = Memory::Known(after);
                Ok(changed)
            }
            (Ok(changed), None) => Ok(changed),
            (Err(failure), after) => {
                *memory = Memory::Doubtful(before, after);
                Err(failure.into())
            }
        }
    }

    fn look(&self, work: &mut dyn FnMut(&dyn Snapshot)) -> Result<(), StoreError> {
        let areas = self.with_areas(Areas::clone)?;
        Ok(self.attempt(|logged| logged.look(&areas, work))?)
    }

    fn transactions(&self) -> Result<u64, StoreError> {
        self.read(transactions)
    }

    fn get(&self, area: &Area, id: &Id) -> Result<Option<Record>, StoreError> {
        self.read(|rows| {
            let Some(number) = piece::number_of(&pieces_of(rows, area)?, id) else { return Ok(None) };
            let stored = rows.record(&record_key(number, id))?;
            Ok(stored.map(|stored| codec::decode(*id, stored.bytes())).transpose()?)
        })
    }

    fn page(&self, area: &Area, from: Bound<Id>, limit: usize, bytes: usize) -> Result<Vec<Record>, StoreError> {
        self.read(|rows| {
            let pieces = pieces_of(rows, area)?;
            let pieces = match from {
                Bound::Unbounded => pieces,
                Bound::Included(id) => piece::divide(&pieces, &[(id, Id::MAX)]).0,
                Bound::Excluded(id) => piece::beyond(&pieces, &id),
            };
            page(records_in(rows, pieces).map(|row| decoded(row?)), limit, bytes)
        })
    }

    fn count(&self, area: &Area) -> Result<u64, StoreError> {
        self.with_areas(|areas| areas.get(area).map_or(0, |shelf| shelf.live.sum()))
    }

    fn areas(&self) -> Result<Vec<Area>, StoreError> {
        self.with_areas(Areas::names)
    }

    fn put_aside(&self, area: &Area, name: &str) -> Result<Option<(PathBuf, u64)>, StoreError> {
        let Some(directory) = &self.directory else { return Ok(None) };
        aside::put_aside(self, area, &directory.join(name)).map(Some)
    }
}

/// Where the records of an area are. Asked together with them: the next transaction may have moved them.
fn pieces_of(rows: &Rows, area: &Area) -> Result<Vec<Piece>, redb::Error> {
    let about = rows.area(&name_of(area)?)?;
    Ok(about.map(|about| about_of(&about)).transpose()?.unwrap_or_default().1)
}

impl Logged {
    /// The database with all that the log has beyond it.
    fn open(database: Database, log: log::Place) -> Result<Logged, redb::Error> {
        let mut rows = Rows::open(&database)?;
        let (log, found) = Log::open(log, transactions(&rows)?)?;
        found.changes().try_for_each(|change| rows.change(change))?;
        Ok(Logged { rows: RwLock::new(rows), database, log: Mutex::new(log) })
    }

    /// What is there, unless somebody has panicked while he changed it.
    fn rows(&self) -> Result<RwLockReadGuard<'_, Rows>, redb::Error> {
        self.rows.read().map_err(|_| redb::Error::PreviousIo)
    }

    fn rows_to_change(&self) -> Result<RwLockWriteGuard<'_, Rows>, redb::Error> {
        self.rows.write().map_err(|_| redb::Error::PreviousIo)
    }

    /// Shows what is there.
    fn look(&self, areas: &Areas, work: &mut dyn FnMut(&dyn Snapshot)) -> Result<(), redb::Error> {
        let failed = RefCell::new(None);
        work(&Seen { rows: &*self.rows()?, areas, failed: &failed });
        failed.into_inner().map_or(Ok(()), Err)
    }

    /// Does the work. What is to be remembered is told before it is durable, which may fail and have happened.
    fn transact(
        &self,
        areas: Areas,
        work: &mut dyn FnMut(&mut dyn Transaction),
        after: &mut Option<Areas>,
    ) -> Result<bool, redb::Error> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = self.rows_to_change()?;
        let mut open = Open::begin(&mut rows, areas);
        work(&mut open);
        // What has failed must not be seen by others until the database has been given up.
        let (areas, changes) = open.end().inspect_err(|_| rows.close())?;
        let number = areas.transactions;
        *after = Some(areas);
        // What changes nothing rests on what is durable already.
        let Some(changes) = changes else { return Ok(false) };
        if log.has_room(&changes) {
            drop(rows);
            if log.append(number, &changes).is_ok() {
                return Ok(true);
            }
            rows = self.rows_to_change()?;
        }
        rows.settle(&self.database)?;
        log.begin_anew();
        Ok(true)
    }
}

/// All areas, with what is remembered of them: each row is looked at once.
fn read_areas(rows: &Rows) -> Result<Areas, redb::Error> {
    let mut areas = Areas::default();
    areas.transactions = transactions(rows)?;
    areas.abandon(gone(rows)?);
    for entry in rows.areas() {
        let (name, about) = entry?;
        let (purged, pieces) = about_of(&about)?;
        let area: Area = postcard::from_bytes(&name)
            .map_err(|error| redb::Error::Corrupted(format!("an area has no name that can be read: {error}")))?;
        let mut shelf = Shelf::new(pieces.clone(), purged);
        if let Area::View(name) = &area {
            shelf.forgets(Version { epoch: name.epoch, sequence: 0 });
        }
        for row in records_in(rows, pieces.clone()) {
            let (key, stored) = row?;
            let id = codec::id_of(&key);
            let (version, request, is_live) = codec::glance(id, stored.bytes())?;
            shelf.holds(id, version, is_live);
            shelf.written(version, id, request);
            shelf.forgets_oldest();
        }
        // An outcome may be later than all records: that of a delete whose tombstone has been collected.
        for number in piece::numbers(&pieces) {
            for row in outcomes_from(rows, number, first_outcome(number)) {
                let (key, version) = row?;
                let (request, id) = codec::request_of(&key);
                if piece::number_of(&pieces, &id) == Some(number) {
                    shelf.written(codec::outcome_of(id, &version).version, id, request);
                    shelf.forgets_oldest();
                }
            }
        }
        areas.insert(area, shelf);
    }
    Ok(areas)
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
