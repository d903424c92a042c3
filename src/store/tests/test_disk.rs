//! A disk for tests: it can run full, and it can lose its power and with it what was not synced.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use chordal_protocol::Id;
use redb::StorageBackend;

use crate::store::DiskStore;
use crate::store::file::{builder, open_as, prepare};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// The disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct TestDisk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Step>,
    /// Blocks that something was written to: the others are holes, and take no room.
    used: BTreeSet<usize>,
    room: Option<usize>,
    steps_left: Option<usize>,
    refused: usize,
}

#[derive(Debug)]
enum Step {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl TestDisk {
    /// A disk with an empty store on it.
    pub(super) fn with_store() -> TestDisk {
        let disk = TestDisk::default();
        prepare(&builder().create_with_backend(disk.clone()).unwrap()).unwrap();
        disk
    }

    /// Opens the store that is on it, and does so again whenever that is needed.
    pub(super) fn open(&self) -> DiskStore {
        let disk = self.clone();
        let open = move || open_as("the test disk", || Ok(builder().create_with_backend(disk.clone())?));
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
        let mut image = std::mem::take(&mut platter.synced);
        let mut lost = 0;
        for (number, step) in std::mem::take(&mut platter.unsynced).into_iter().enumerate() {
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
        platter.steps_left = None;
        platter.now = image.clone();
        platter.synced = image;
        lost
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
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

impl StorageBackend for TestDisk {
    fn len(&self) -> Result<u64> {
        let platter = self.platter();
        platter.powered()?;
        Ok(platter.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let platter = self.platter();
        platter.powered()?;
        let offset = offset as usize;
        let bytes = platter.now.get(offset..offset + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        let length = length as usize;
        platter.now.resize(length, 0);
        platter.used.retain(|block| block * BLOCK < length);
        platter.unsynced.push(Step::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        platter.synced = platter.now.clone();
        platter.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        let offset = offset as usize;
        let blocks = offset / BLOCK..(offset + bytes.len()).div_ceil(BLOCK);
        let new: Vec<usize> = blocks.filter(|block| !platter.used.contains(block)).collect();
        if platter.room.is_some_and(|room| new.len() > room) {
            platter.refused += 1;
            return Err(ErrorKind::StorageFull.into());
        }
        platter.room = platter.room.map(|room| room - new.len());
        platter.used.extend(new);
        platter.now[offset..offset + bytes.len()].copy_from_slice(bytes);
        platter.unsynced.push(Step::Write(offset, bytes.to_vec()));
        Ok(())
    }
}
