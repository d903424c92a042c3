//! The log in front of the database: what a transaction has changed, in one place, so that one small write makes it durable.
//!
//! A commit of the database writes a page for each record and more. So what transactions have changed is appended here, and
//! stays in memory; the database gets it when the log is full, all at once. Opened after a crash, the database is as it was
//! then, and what the log has beyond that is read into memory again.
//!
//! ```text
//! store.log = entry*
//! entry     = length (u32), number of the transaction (u64), checksum (16 bytes), changes
//! changes   = (table (u8), length of the key (u16), key, length of the value (u32) or NONE, value)*
//! ```
//!
//! Entries begin at the beginning and follow each other with consecutive numbers. After the database has been made durable the
//! log begins anew over what is there: that has smaller numbers, and ends where they do not follow each other. An entry that
//! is not whole is one whose write was cut off, and the last; where a later one is there, it has been damaged since.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use redb::StorageBackend;
use sha2::{Digest as _, Sha256};

/// By how much its file grows. What is inside the file already needs no room, and its sync no look at the file's length.
const GROWTH: u64 = 64 << 10;

/// The largest entry. What is larger goes to the database at once.
pub(super) const LARGEST: usize = 256 << 10;

/// Length, number and checksum.
const HEAD: usize = 4 + 8 + CHECKSUM;
const CHECKSUM: usize = 16;

/// In the place of a value's length: there is none any more.
const NONE: u32 = u32::MAX;

/// A table of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Records,
    Outcomes,
    Areas,
    State,
}

/// A row that is there now, or is not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change<'a> {
    pub(super) table: Kept,
    pub(super) key: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
}

/// What a transaction has changed, in its order, unless that is too much for an entry.
#[derive(Debug, Default)]
pub(super) struct Changes {
    bytes: Vec<u8>,
    are_too_many: bool,
}

/// Where a log is, and how long it may get, in bytes: as much has to be done again after a crash.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) file: Box<dyn StorageBackend>,
    pub(super) longest: u64,
}

/// The log of an open database.
#[derive(Debug)]
pub(super) struct Log {
    place: Place,
    /// Where the next entry begins.
    at: u64,
    length: u64,
}

/// What was found in a log: entries that are beyond a database, in their order.
#[derive(Debug)]
pub(super) struct Found {
    bytes: Vec<u8>,
    /// Where the changes of each lie.
    entries: Vec<std::ops::Range<usize>>,
}

impl Changes {
    /// There are changes that are not noted here.
    pub(super) fn leave_the_log(&mut self) {
        self.are_too_many = true;
    }

    pub(super) fn note(&mut self, table: Kept, key: &[u8], value: Option<&[u8]>) {
        let weight = 1 + 2 + key.len() + 4 + value.map_or(0, <[u8]>::len);
        let (Ok(key_length), false) = (u16::try_from(key.len()), self.bytes.len() + weight > LARGEST - HEAD) else {
            self.are_too_many = true;
            return;
        };
        self.bytes.push(table as u8);
        self.bytes.extend(key_length.to_le_bytes());
        self.bytes.extend(key);
        // It is no longer than an entry.
        self.bytes.extend(value.map_or(NONE, |value| value.len() as u32).to_le_bytes());
        self.bytes.extend(value.unwrap_or_default());
    }
}

impl Log {
    /// Reads what is beyond a database of so many transactions, and goes on behind it.
    pub(super) fn open(place: Place, durable: u64) -> io::Result<(Log, Found)> {
        let file = &place.file;
        let length = file.len()?.min(place.longest);
        let mut bytes = vec![0; length as usize];
        file.read(0, &mut bytes)?;
        let (mut entries, mut at, mut last, mut wanted) = (Vec::new(), 0, 0, None);
        while let Some((number, changes)) =
            entry(&bytes, at).filter(|(number, _)| wanted.is_none_or(|it| *number == it))
        {
            (last, at, wanted) = (at, changes.end, Some(number + 1));
            if number == durable + entries.len() as u64 + 1 {
                entries.push(changes);
            }
        }
        if let Some(later) = lies_beyond(&bytes, at, wanted.unwrap_or(durable + 1)) {
            let reason = format!("entry {later} of its log is there, and one before it is damaged");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        if entries.is_empty() {
            at = 0;
        } else {
            // The write of the last one may have failed, and only seem to be there.
            file.write(last as u64, &bytes[last..at])?;
            file.sync_data()?;
        }
        Ok((Log { place, at: at as u64, length }, Found { bytes, entries }))
    }

    /// Whether these changes fit into it now.
    pub(super) fn has_room(&self, changes: &Changes) -> bool {
        !changes.are_too_many && self.at + (HEAD + changes.bytes.len()) as u64 <= self.place.longest
    }

    /// Makes them durable under the number of their transaction, which follows that of the last one. After an error they may be so
    /// or not; the database has to be made durable then.
    pub(super) fn append(&mut self, number: u64, changes: &Changes) -> io::Result<()> {
        let mut entry = Vec::with_capacity(HEAD + changes.bytes.len());
        entry.extend((changes.bytes.len() as u32).to_le_bytes());
        entry.extend(number.to_le_bytes());
        entry.extend(checksum(number, &changes.bytes));
        entry.extend(&changes.bytes);
        let end = self.at + entry.len() as u64;
        self.grow(end)?;
        self.place.file.write(self.at, &entry)?;
        self.place.file.sync_data()?;
        self.at = end;
        Ok(())
    }

    /// The database is durable: the log begins anew.
    pub(super) fn begin_anew(&mut self) {
        self.at = 0;
    }

    /// Sees that there is room up to here, durably.
    fn grow(&mut self, end: u64) -> io::Result<()> {
        if end <= self.length {
            return Ok(());
        }
        let length = end.next_multiple_of(GROWTH).min(self.place.longest);
        let zeros = vec![0; (length - self.length) as usize];
        let file = &self.place.file;
        let grown = file.set_len(length).and_then(|()| file.write(self.length, &zeros));
        if let Err(error) = grown.and_then(|()| file.sync_data()) {
            // Somebody else may have more use for what room there was.
            let _ = file.set_len(self.length);
            return Err(error);
        }
        self.length = length;
        Ok(())
    }
}

impl Found {
    /// All changes, the first first.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let entries = self.entries.iter().filter_map(|range| self.bytes.get(range.clone()));
        entries.flat_map(|mut rest| std::iter::from_fn(move || change(&mut rest)))
    }
}

/// The entry that begins here, if a whole one does: its number, and where its changes are.
fn entry(bytes: &[u8], at: usize) -> Option<(u64, std::ops::Range<usize>)> {
    let mut head = bytes.get(at..at + HEAD)?;
    let length = u32::from_le_bytes(*take(&mut head)?) as usize;
    let number = u64::from_le_bytes(*take(&mut head)?);
    let range = at + HEAD..(at + HEAD).checked_add(length)?;
    let changes = bytes.get(range.clone())?;
    (length > 0 && *take::<CHECKSUM>(&mut head)? == checksum(number, changes)).then_some((number, range))
}

/// An entry behind this place that was written after the one of this number.
fn lies_beyond(bytes: &[u8], at: usize, missing: u64) -> Option<u64> {
    let next = (missing + 1).to_le_bytes();
    let begins = |place: &usize| entry(bytes, *place).is_some_and(|(number, _)| number == missing + 1);
    let numbers = bytes.windows(next.len()).enumerate().skip(at).filter(|(_, it)| **it == next);
    let mut places = numbers.filter_map(|(place, _)| place.checked_sub(size_of::<u32>()));
    places.find(begins).map(|_| missing + 1)
}

fn change<'a>(rest: &mut &'a [u8]) -> Option<Change<'a>> {
    let [table] = *take(rest)?;
    let table = [Kept::Records, Kept::Outcomes, Kept::Areas, Kept::State].into_iter().find(|it| *it as u8 == table)?;
    let key_length = u16::from_le_bytes(*take(rest)?);
    let key = rest.split_off(..usize::from(key_length))?;
    let value = match u32::from_le_bytes(*take(rest)?) {
        NONE => None,
        length => Some(rest.split_off(..length as usize)?),
    };
    Some(Change { table, key, value })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(taken)
}

fn checksum(number: u64, changes: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(number.to_le_bytes()).chain_update(changes).finalize();
    let mut checksum = [0; CHECKSUM];
    checksum.copy_from_slice(&digest[..CHECKSUM]);
    checksum
}

/// The file of a log in a data directory, which has a lock of its own.
#[derive(Debug)]
pub(super) struct LogFile(pub(super) File);

impl StorageBackend for LogFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    const LONGEST: u64 = 1 << 20;

    fn changes(n: u8) -> Changes {
        let mut changes = Changes::default();
        changes.note(Kept::Records, &[n; 40], Some(&[n; 100]));
        changes.note(Kept::State, b"name", None);
        changes
    }

    fn values(found: &Found) -> Vec<u8> {
        let records = found.changes().filter(|change| change.table == Kept::Records);
        records.filter_map(|change| change.value?.first().copied()).collect()
    }

    /// The bytes of a log.
    #[derive(Debug, Clone, Default)]
    struct Shared(std::sync::Arc<InMemoryBackend>);

    impl StorageBackend for Shared {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, length: u64) -> io::Result<()> {
            self.0.set_len(length)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write(offset, bytes)
        }
    }

    fn opened(file: &Shared, durable: u64) -> (Log, Vec<u8>) {
        let (log, found) = Log::open(Place { file: Box::new(file.clone()), longest: LONGEST }, durable).unwrap();
        let values = values(&found);
        (log, values)
    }

    #[test]
    fn what_is_beyond_the_database_is_found_and_the_log_goes_on_behind_it() {
        let file = Shared::default();
        let (mut log, _) = opened(&file, 4);
        for n in 5..10 {
            log.append(u64::from(n), &changes(n)).unwrap();
        }
        assert_eq!(opened(&file, 4).1, [5, 6, 7, 8, 9]);
        let (mut log, found) = opened(&file, 7);
        assert_eq!(found, [8, 9]);
        log.append(10, &changes(10)).unwrap();
        assert_eq!(opened(&file, 7).1, [8, 9, 10]);
        assert_eq!(opened(&file, 10).1, [0; 0], "the database has all of it");
        assert_eq!(opened(&file, 2).1, [0; 0], "what lies between is missing");
    }

    #[test]
    fn what_lies_behind_its_end_is_of_no_account() {
        let file = Shared::default();
        let (mut log, _) = opened(&file, 0);
        for n in 1..10 {
            log.append(u64::from(n), &changes(n)).unwrap();
        }
        log.begin_anew();
        log.append(10, &changes(10)).unwrap();
        assert_eq!(opened(&file, 9).1, [10]);
        let (mut log, _) = opened(&file, 9);
        log.append(11, &changes(11)).unwrap();
        assert_eq!(opened(&file, 9).1, [10, 11]);
    }

    #[test]
    fn an_entry_that_is_not_whole_ends_the_log() {
        let file = Shared::default();
        let (mut log, _) = opened(&file, 0);
        for n in 1..4 {
            let begins = log.at;
            log.append(n, &changes(n as u8)).unwrap();
            for at in begins..log.at {
                let mut byte = [0];
                file.read(at, &mut byte).unwrap();
                file.write(at, &[byte[0] ^ 1]).unwrap();
                assert_eq!(opened(&file, 0).1, (1..n as u8).collect::<Vec<u8>>(), "byte {at}");
                file.write(at, &byte).unwrap();
            }
        }
        assert_eq!(opened(&file, 0).1, [1, 2, 3]);
    }

    #[test]
    fn damage_in_front_of_a_later_entry_is_told() {
        let file = Shared::default();
        let (mut log, _) = opened(&file, 0);
        let mut ends = vec![0];
        for n in 1..4 {
            log.append(n, &changes(n as u8)).unwrap();
            ends.push(log.at);
        }
        for at in 0..ends[2] {
            let mut byte = [0];
            file.read(at, &mut byte).unwrap();
            file.write(at, &[byte[0] ^ 1]).unwrap();
            let place = Place { file: Box::new(file.clone()), longest: LONGEST };
            assert_eq!(Log::open(place, 0).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
            file.write(at, &byte).unwrap();
        }
    }

    #[test]
    fn it_takes_what_fits_and_says_what_does_not() {
        let (mut log, _) = opened(&Shared::default(), 0);
        let mut large = Changes::default();
        large.note(Kept::Records, &[0; 40], Some(&vec![0; LARGEST - 100]));
        let mut number = 0;
        while log.has_room(&large) {
            number += 1;
            log.append(number, &large).unwrap();
        }
        assert_eq!(number, LONGEST / LARGEST as u64);
        log.begin_anew();
        assert!(log.has_room(&large));
        large.note(Kept::Records, &[0; 40], Some(&[0; 100]));
        assert!(!log.has_room(&large), "not even in an empty one");
    }
}
