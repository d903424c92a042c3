//! The store on disk: one redb file.
//!
//! Three tables: `records` (id to encoded record), `state` (name to bytes) and `about` (the format of the file). Every
//! commit is durable when it returns, and leaves the file such that opening it after a crash needs no repair.
//!
//! After a failed read or write redb refuses everything until the file is opened again, and after a failed commit it
//! refuses to write. So whatever fails here gives up the open database, and the next call opens the file anew: a disk
//! that was full is in use again as soon as there is room, and a full disk can still be read. A commit that failed is
//! not tried again here, because it may have happened.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use chordal_protocol::{Id, Interval, Record};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table};

use super::change::{Transaction, apply};
use super::codec::{self, Damaged};
use super::file::{self, DataDirectory, RECORDS, STATE};
use super::order::{Stretch, page, stretches};
use super::{Change, Changed, Store, StoreError};

/// How often a read is tried while commits keep failing beside it.
const READ_ATTEMPTS: usize = 3;

/// How to open the database, the first time and after each failure. It must keep others out for as long as it lives.
pub(super) type Open = Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>;

/// A [`Store`] in a data directory, which it keeps to itself until it is dropped.
pub struct DiskStore {
    // First, so that the file is closed before `open` lets go of the directory.
    current: RwLock<Current>,
    open: Open,
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

    pub(super) fn over(open: Open) -> Result<DiskStore, StoreError> {
        let database = open()?;
        Ok(DiskStore { current: RwLock::new(Current { database: Some(database), number: 0 }), open })
    }

    /// Does something with the database, which is given up if that fails.
    fn attempt<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, Failure> {
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
    fn get(&self, id: &Id) -> Result<Option<Record>, StoreError> {
        self.read(|database| {
            // Named, and so alive until the value is read: the value alone does not keep the writer from freeing its page.
            let records = database.begin_read()?.open_table(RECORDS)?;
            let stored = records.get(id.as_bytes())?;
            Ok(stored.map(|stored| codec::decode(*id, stored.value())).transpose()?)
        })
    }

    fn scan(&self, range: Interval, after: Option<Id>, limit: usize, bytes: usize) -> Result<Vec<Record>, StoreError> {
        let stretches = stretches(range, after);
        self.read(|database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let mut parts = Vec::new();
            for stretch in &stretches {
                parts.push(records.range::<&[u8; 32]>(bounds(stretch))?);
            }
            let decoded = parts.into_iter().flatten().map(|entry| {
                let (id, stored) = entry?;
                Ok(codec::decode(Id::from_bytes(*id.value()), stored.value())?)
            });
            page(decoded, limit, bytes)
        })
    }

    fn count(&self, range: Interval) -> Result<u64, StoreError> {
        self.read(|database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let mut count = 0;
            for stretch in stretches(range, None) {
                for entry in records.range::<&[u8; 32]>(bounds(&stretch))? {
                    count += u64::from(codec::is_value(entry?.1.value()));
                }
            }
            Ok(count)
        })
    }

    fn state(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|database| {
            let state = database.begin_read()?.open_table(STATE)?;
            let bytes = state.get(name)?;
            Ok(bytes.map(|bytes| bytes.value().to_vec()))
        })
    }

    fn commit(&self, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        Ok(self.attempt(|database| commit(database, changes))?)
    }
}

fn commit(database: &Database, changes: &[Change]) -> Result<Vec<Changed>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    let mut tables =
        Tables { records: transaction.open_table(RECORDS)?, state: transaction.open_table(STATE)?, changed: false };
    let outcome = apply(changes, &mut tables)?;
    let changed = tables.changed;
    drop(tables);
    // What changes nothing (a refusal, a repeated request, records that are known) rests on what is durable already.
    if changed {
        transaction.commit()?
    } else {
        transaction.abort()?
    }
    Ok(outcome)
}

struct Tables<'a> {
    records: Table<'a, &'static [u8; 32], &'static [u8]>,
    state: Table<'a, &'static str, &'static [u8]>,
    changed: bool,
}

impl Transaction for Tables<'_> {
    type Error = redb::Error;

    fn record(&self, id: &Id) -> Result<Option<Record>, redb::Error> {
        let stored = self.records.get(id.as_bytes())?;
        Ok(stored.map(|stored| codec::decode(*id, stored.value())).transpose()?)
    }

    fn put_record(&mut self, record: &Record) -> Result<(), redb::Error> {
        self.changed = true;
        self.records.insert(record.id.as_bytes(), codec::encode(record)?.as_slice())?;
        Ok(())
    }

    fn remove(&mut self, range: Interval) -> Result<(), redb::Error> {
        for stretch in stretches(range, None) {
            self.records.retain_in::<&[u8; 32], _>(bounds(&stretch), |_, _| {
                self.changed = true;
                false
            })?;
        }
        Ok(())
    }

    fn put_state(&mut self, name: &'static str, bytes: &[u8]) -> Result<(), redb::Error> {
        self.changed = true;
        self.state.insert(name, bytes)?;
        Ok(())
    }
}

fn bounds((from, to): &Stretch) -> (std::ops::Bound<&[u8; 32]>, std::ops::Bound<&[u8; 32]>) {
    (from.as_ref().map(Id::as_bytes), to.as_ref().map(Id::as_bytes))
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
