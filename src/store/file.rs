//! The data directory: who may use it, what is in it, and what to tell people about it.
//!
//! - `store.redb`: the store. It appears complete or not at all.
//! - `store.log`: what is durable and not in the store's file yet (`log`). The two belong together.
//! - `store.lock`: empty, and locked by the node that uses the directory. The lock is on a file of its own so that the
//!   store can be closed and opened again with nobody slipping in between.
//! - `store.redb.new`: a store that was being created when its node ended. It is overwritten.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, TableDefinition};

use super::StoreError;
use super::disk::guarded;
use super::log::{self, LogFile};

/// Number and id to encoded record.
pub(super) const RECORDS: TableDefinition<'_, &[u8; 40], &[u8]> = TableDefinition::new("records");
/// Number, request and id to the version that it wrote.
pub(super) const OUTCOMES: TableDefinition<'_, &[u8; 56], &[u8; 16]> = TableDefinition::new("outcomes");
/// Encoded name of an area to its purge mark and its pieces, encoded.
pub(super) const AREAS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("areas");
/// Name to bytes.
pub(super) const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
/// What the file says about itself: `format`.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// The format that this program writes. A program that changes the layout raises it, and says what to do with older files.
const FORMAT: u64 = 4;

/// Redb's own default is 1 GiB for each database. Half of this is for a commit's pages, and more than fits goes to
/// disk before the commit ends.
const CACHE_BYTES: usize = 8 << 20;

/// How long the log may get, in bytes.
const LONGEST_LOG: u64 = 2 << 20;

/// A data directory that is this node's alone until this is dropped.
pub(super) struct DataDirectory {
    store: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Takes the directory, which is created where there is none, and creates a store in it where there is none.
    pub(super) fn claim(directory: &Path) -> Result<DataDirectory, StoreError> {
        let shown = directory.display();
        fs::create_dir_all(directory).map_err(|error| inaccessible(directory, &error))?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("store.lock"))
            .map_err(|error| inaccessible(directory, &error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::Unusable(format!(
                "{shown} is in use by another node. Stop that one, or give this one a data directory of its own"
            )),
            TryLockError::Error(error) => StoreError::Unusable(format!(
                "{shown} cannot be locked ({error}). Choose a data directory on a disk of this machine"
            )),
        })?;
        let store = store_in(directory);
        if !store.try_exists().map_err(|error| inaccessible(directory, &error))? {
            create(directory, &store)?;
        }
        Ok(DataDirectory { store, _lock: lock })
    }

    /// Opens the store and its log. A store that has vanished since is not replaced by an empty one.
    pub(super) fn open(&self) -> Result<(Database, log::Place), StoreError> {
        let name = self.store.display().to_string();
        let database = open_as(&name, || Ok(builder().open(&self.store)?))?;
        let log = self.store.with_extension("log");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&log);
        let opened = opened.map_err(|error| unopened(&log.display().to_string(), &redb::Error::Io(error)))?;
        Ok((database, log::Place { file: Box::new(LogFile(opened)), longest: LONGEST_LOG }))
    }
}

/// Where the store of a data directory is.
pub(super) fn store_in(directory: &Path) -> PathBuf {
    directory.join("store.redb")
}

/// What every database is opened with.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens a database and looks whether this program can use it; `name` is what people know it by.
pub(super) fn open_as(
    name: &str,
    open: impl FnOnce() -> Result<Database, redb::Error>,
) -> Result<Database, StoreError> {
    let opened = guarded(|| {
        let database = open()?;
        let format = database.begin_read()?.open_table(ABOUT)?.get("format")?.map_or(0, |format| format.value());
        Ok((database, format))
    });
    match opened {
        Ok((database, FORMAT)) => Ok(database),
        Ok((_, format)) if format > FORMAT => Err(StoreError::Unusable(format!(
            "{name} was written by a newer version of this program (format {format}; this one reads {FORMAT}). \
             Start that version, or choose another data directory"
        ))),
        Ok((_, 1)) => Err(StoreError::Unusable(format!(
            "{name} was written by a version of this program that kept one copy of each value (format 1; this one reads \
             {FORMAT}). Start the node with a new data directory and store its values again"
        ))),
        Ok((_, format @ (2 | 3))) => Err(StoreError::Unusable(format!(
            "{name} was written by an earlier version of this program (format {format}; this one reads {FORMAT}). Export the values of \
             its ring with that version, start the node with a new data directory and import them"
        ))),
        Ok((_, format)) => Err(damaged(name, &format!("format {format}"))),
        Err(error) => Err(unopened(name, &error)),
    }
}

/// Makes an empty database a store.
pub(super) fn prepare(database: &Database) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(RECORDS)?;
    transaction.open_table(OUTCOMES)?;
    transaction.open_table(AREAS)?;
    transaction.open_table(STATE)?;
    transaction.open_table(ABOUT)?.insert("format", FORMAT)?;
    Ok(transaction.commit()?)
}

/// The words of the system, if they say that there is no room left.
pub(super) fn no_room(error: &redb::Error) -> Option<StoreError> {
    match error {
        redb::Error::Io(error) => no_room_in(error),
        _ => None,
    }
}

/// Under another name until it is complete and durable: a node that ends half-way must not leave a file that stops
/// the next one.
fn create(directory: &Path, store: &Path) -> Result<(), StoreError> {
    let new = store.with_extension("redb.new");
    let created = guarded(|| {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        prepare(&builder().create(&new)?)?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, store)?;
        Ok(File::open(directory)?.sync_all()?)
    });
    created.map_err(|error| unopened(&store.display().to_string(), &error))
}

/// Why a store of this name cannot be used.
pub(super) fn unopened(name: &str, error: &redb::Error) -> StoreError {
    if let Some(full) = no_room(error) {
        return full;
    }
    match error {
        redb::Error::Io(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            damaged(name, &error.to_string())
        }
        redb::Error::Io(error) => StoreError::Unusable(format!(
            "{name} cannot be opened: {error}. See that it is there, that this user may read and write it, and that \
             its disk is well"
        )),
        redb::Error::DatabaseAlreadyOpen => {
            StoreError::Unusable(format!("{name} is in use by another program. Stop that one first"))
        }
        error => damaged(name, &error.to_string()),
    }
}

fn damaged(name: &str, reason: &str) -> StoreError {
    StoreError::Unusable(format!(
        "{name} is damaged, or not the store of a node ({reason}). Move it away, or choose another data directory: the \
         node then starts without content, as a new one, without what it held"
    ))
}

fn inaccessible(directory: &Path, error: &io::Error) -> StoreError {
    no_room_in(error).unwrap_or_else(|| {
        StoreError::Unusable(format!(
            "the data directory {} cannot be used: {error}. Choose one that this user may write to",
            directory.display()
        ))
    })
}

fn no_room_in(error: &io::Error) -> Option<StoreError> {
    let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    full.then(|| StoreError::Full(error.to_string()))
}
