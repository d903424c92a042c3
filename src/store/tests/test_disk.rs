//! A disk for tests: it can run full, and it can lose its power and with it what was not synced.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use chordal_protocol::Id;
use redb::StorageBackend;

use crate::store::DiskStore;
use crate::store::file::{builder, open_as, prepare};
use crate::store::log::Place;

/// Some transactions of the tests, so that the database is made durable now and then.
const LONGEST_LOG: u64 = 40 << 10;

const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// The disk, and how long the log of the store on it gets. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct TestDisk(Arc<Mutex<Platter>>, u64);

/// A file on it, by its number: the database, or its log.
#[derive(Debug, Clone)]
struct OnDisk(TestDisk, usize);

#[derive(Debug, Default)]
struct Platter {
    files: [Bytes; 2],
    room: Option<usize>,
    steps_left: Option<usize>,
    refused: usize,
}

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Step>,
    /// Blocks that something was written to: the others are holes, and take no room.
    used: BTreeSet<usize>,
}

#[derive(Debug)]
enum Step {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl TestDisk {
    /// A disk with an empty store on it.
    pub(super) fn with_store() -> TestDisk {
        TestDisk::with_log(LONGEST_LOG)
    }

    /// The same with a log of this length, in bytes.
    pub(super) fn with_log(longest: u64) -> TestDisk {
        let disk = TestDisk(Arc::default(), longest);
        prepare(&builder().create_with_backend(OnDisk(disk.clone(), 0)).unwrap()).unwrap();
        disk
    }

    /// Opens the store that is on it, and does so again whenever that is needed.
    pub(super) fn open(&self) -> DiskStore {
        let disk = self.clone();
        let open = move || {
            let on_disk = |file| OnDisk(disk.clone(), file);
            let database = open_as("the test disk", || Ok(builder().create_with_backend(on_disk(0))?))?;
            Ok((database, Place { file: Box::new(on_disk(1)), longest: disk.1 }))
        };
        DiskStore::over("the test disk", Box::new(open)).unwrap()
    }

    /// From now on only this many more blocks fit on it.
    pub(super) fn leave_room(&self, blocks: usize) {
        self.platter().room = Some(blocks);
    }

    /// How many writes it had no room for.
    pub(super) fn refused(&self) -> usize {
        self.platter().refused
    }

    /// The power goes after this many more changes.
    pub(super) fn cut_power_after(&self, steps: usize) {
        self.platter().steps_left = Some(steps);
    }

    /// The power is back. Of each write since the last sync some first sectors are on the disk, all or none of them
    /// included: which ones, the seed tells. Returns how many writes are not wholly there.
    pub(super) fn restore_power(&self, seed: u64) -> usize {
        let mut platter = self.platter();
        platter.steps_left = None;
        let files = platter.files.iter_mut().enumerate();
        files.map(|(number, file)| file.lose_some(&format!("{seed}/{number}"))).sum()
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }
}

impl Bytes {
    fn lose_some(&mut self, seed: &str) -> usize {
        let mut image = std::mem::take(&mut self.synced);
        let mut lost = 0;
        for (number, step) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            let dice = usize::from(Id::of(format!("{seed}/{number}")).as_bytes()[0]);
            match step {
                Step::Length(length) if dice % 2 == 0 => image.resize(length, 0),
                Step::Length(_) => lost += 1,
                Step::Write(offset, mut bytes) => {
                    let all = bytes.len().div_ceil(SECTOR);
                    let kept = [0, dice % all, all, all][dice % 4];
                    lost += usize::from(kept < all);
                    bytes.truncate(kept * SECTOR);
                    image.resize(image.len().max(offset + bytes.len()), 0);
                    image[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        self.now = image.clone();
        self.synced = image;
        lost
    }
}

impl Platter {
    fn powered(&self) -> Result<()> {
        if self.steps_left == Some(0) { Err(Error::other("the power is off")) } else { Ok(()) }
    }

    fn step(&mut self) -> Result<()> {
        self.powered()?;
        self.steps_left = self.steps_left.map(|steps| steps - 1);
        Ok(())
    }
}

impl StorageBackend for OnDisk {
    fn len(&self) -> Result<u64> {
        let platter = self.0.platter();
        platter.powered()?;
        Ok(platter.files[self.1].now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let platter = self.0.platter();
        platter.powered()?;
        let offset = offset as usize;
        let bytes = platter.files[self.1].now.get(offset..offset + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        let mut platter = self.0.platter();
        platter.step()?;
        let length = length as usize;
        let file = &mut platter.files[self.1];
        file.now.resize(length, 0);
        let (before, first_gone) = (file.used.len(), length.div_ceil(BLOCK));
        file.used.retain(|block| *block < first_gone);
        let freed = before - file.used.len();
        file.unsynced.push(Step::Length(length));
        platter.room = platter.room.map(|room| room + freed);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut platter = self.0.platter();
        platter.step()?;
        let file = &mut platter.files[self.1];
        file.synced = file.now.clone();
        file.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut platter = self.0.platter();
        platter.step()?;
        let offset = offset as usize;
        let blocks = offset / BLOCK..(offset + bytes.len()).div_ceil(BLOCK);
        let new: Vec<usize> = blocks.filter(|block| !platter.files[self.1].used.contains(block)).collect();
        if platter.room.is_some_and(|room| new.len() > room) {
            platter.refused += 1;
            return Err(ErrorKind::StorageFull.into());
        }
        platter.room = platter.room.map(|room| room - new.len());
        let file = &mut platter.files[self.1];
        file.used.extend(new);
        file.now[offset..offset + bytes.len()].copy_from_slice(bytes);
        file.unsynced.push(Step::Write(offset, bytes.to_vec()));
        Ok(())
    }
}
