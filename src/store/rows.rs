//! The rows of the store: those of the database as it was made durable last, and over them those that the log has beyond it.
//!
//! What a transaction changes is written here, in memory, and goes to the database when the log is full, in the order of the keys
//! and each row once: a tree of pages costs far more for a row than this does. There is no more of it than the log is long, but
//! while a transaction is at work that is too large for the log.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter;
use std::ops::{Bound, RangeInclusive};

use chordal_protocol::{Id, RequestId};
use redb::{AccessGuard, Database, Durability, ReadOnlyTable, ReadableDatabase};

use super::codec::{self, outcome_key};
use super::file::{AREAS, OUTCOMES, RECORDS, STATE};
use super::log::{Change, Kept};
use super::piece::{self, Piece};

/// All rows.
pub(super) struct Rows {
    /// Open as long as nothing went wrong.
    disk: Option<Tables>,
    later: Later,
}

/// The tables of the database. As long as they are open the pages of their time are not used again.
struct Tables {
    records: ReadOnlyTable<&'static [u8; 40], &'static [u8]>,
    outcomes: ReadOnlyTable<&'static [u8; 56], &'static [u8; 16]>,
    areas: ReadOnlyTable<&'static [u8], &'static [u8]>,
    state: ReadOnlyTable<&'static str, &'static [u8]>,
}

/// What the rows of each table are now that are not as the database has them; nothing for those that are gone.
#[derive(Default)]
struct Later {
    records: BTreeMap<[u8; 40], Option<Vec<u8>>>,
    outcomes: BTreeMap<[u8; 56], Option<[u8; 16]>>,
    areas: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    state: BTreeMap<String, Option<Vec<u8>>>,
    /// Outcomes of the database that are gone and are too many to be named. Only until the end of the transaction: it is too large
    /// for the log.
    purged: Vec<Purged>,
}

/// The outcomes under a number that belong to these pieces, up to this request.
pub(super) struct Purged {
    pub(super) number: u64,
    pub(super) pieces: Vec<Piece>,
    pub(super) last: RequestId,
}

impl Purged {
    /// Between which keys they are, and others.
    fn keys(&self) -> (Bound<[u8; 56]>, Bound<[u8; 56]>) {
        let ends = [(RequestId(0), Id::ZERO), (self.last, Id::MAX)];
        ends.map(|(request, id)| Bound::Included(outcome_key(self.number, request, &id))).into()
    }

    fn has(&self, key: &[u8; 56]) -> bool {
        let (request, id) = codec::request_of(key);
        key.starts_with(&self.number.to_be_bytes())
            && request <= self.last
            && piece::number_of(&self.pieces, &id) == Some(self.number)
    }
}

/// A record as it is stored.
pub(super) enum Stored<'a> {
    Disk(AccessGuard<'static, &'static [u8]>),
    Later(&'a [u8]),
}

impl Stored<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Stored::Disk(bytes) => bytes.value(),
            Stored::Later(bytes) => bytes,
        }
    }
}

impl Tables {
    fn open(database: &Database) -> Result<Tables, redb::Error> {
        let transaction = database.begin_read()?;
        Ok(Tables {
            records: transaction.open_table(RECORDS)?,
            outcomes: transaction.open_table(OUTCOMES)?,
            areas: transaction.open_table(AREAS)?,
            state: transaction.open_table(STATE)?,
        })
    }
}

impl Rows {
    /// Those that the database has.
    pub(super) fn open(database: &Database) -> Result<Rows, redb::Error> {
        Ok(Rows { disk: Some(Tables::open(database)?), later: Later::default() })
    }

    /// Nobody sees anything any more: what is here is not what is durable.
    pub(super) fn close(&mut self) {
        self.disk = None;
    }

    /// Brings to the database, durably, what it does not have, so that the file can be opened after a crash without being read
    /// through. If this fails nothing can be seen any more.
    pub(super) fn settle(&mut self, database: &Database) -> Result<(), redb::Error> {
        self.disk = None;
        let mut transaction = database.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for (key, stored) in &self.later.records {
                match stored {
                    Some(stored) => drop(records.insert(key, stored.as_slice())?),
                    None => drop(records.remove(key)?),
                }
            }
            let mut outcomes = transaction.open_table(OUTCOMES)?;
            for purged in &self.later.purged {
                let (first, last) = purged.keys();
                outcomes.retain_in::<&[u8; 56], _>((first.as_ref(), last.as_ref()), |key, _| !purged.has(key))?;
            }
            for (key, version) in &self.later.outcomes {
                match version {
                    Some(version) => drop(outcomes.insert(key, version)?),
                    None => drop(outcomes.remove(key)?),
                }
            }
            let mut areas = transaction.open_table(AREAS)?;
            for (name, about) in &self.later.areas {
                match about {
                    Some(about) => drop(areas.insert(name.as_slice(), about.as_slice())?),
                    None => drop(areas.remove(name.as_slice())?),
                }
            }
            let mut state = transaction.open_table(STATE)?;
            for (name, bytes) in &self.later.state {
                match bytes {
                    Some(bytes) => drop(state.insert(name.as_str(), bytes.as_slice())?),
                    None => drop(state.remove(name.as_str())?),
                }
            }
        }
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        transaction.commit()?;
        *self = Rows::open(database)?;
        Ok(())
    }

    /// A row is another one now, or is not there any more.
    pub(super) fn change(&mut self, change: Change<'_>) -> Result<(), redb::Error> {
        let Change { table, key, value } = change;
        let bytes = || value.map(<[u8]>::to_vec);
        match table {
            Kept::Records => drop(self.later.records.insert(array(key)?, bytes())),
            Kept::Outcomes => drop(self.later.outcomes.insert(array(key)?, value.map(array).transpose()?)),
            Kept::Areas => drop(self.later.areas.insert(key.to_vec(), bytes())),
            Kept::State => {
                let name = std::str::from_utf8(key).map_err(|_| strange_entry())?;
                drop(self.later.state.insert(name.to_owned(), bytes()));
            }
        }
        Ok(())
    }

    /// All of these that there are now, and no more than so many; otherwise nothing.
    pub(super) fn outcomes_to_purge(&self, purged: &Purged, most: usize) -> Result<Option<Vec<[u8; 56]>>, redb::Error> {
        let keys = self.outcomes(purged.keys()).map(|row| row.map(|(key, _)| key));
        let found = keys.filter(|key| key.as_ref().map_or(true, |key| purged.has(key))).take(most + 1);
        let found = found.collect::<Result<Vec<_>, redb::Error>>()?;
        Ok((found.len() <= most).then_some(found))
    }

    /// These outcomes are gone, however many they are. The transaction has to be brought to the database at its end.
    pub(super) fn purge(&mut self, purged: Purged) {
        self.later.outcomes.extract_if(purged.keys(), |key, _| purged.has(key)).for_each(drop);
        self.later.purged.push(purged);
    }

    pub(super) fn record(&self, key: &[u8; 40]) -> Result<Option<Stored<'_>>, redb::Error> {
        let disk = &self.tables()?.records;
        match self.later.records.get(key) {
            Some(later) => Ok(later.as_deref().map(Stored::Later)),
            None => Ok(disk.get(key)?.map(Stored::Disk)),
        }
    }

    /// The records under these keys, in their order.
    pub(super) fn records(
        &self,
        keys: RangeInclusive<[u8; 40]>,
    ) -> impl Iterator<Item = Result<([u8; 40], Stored<'_>), redb::Error>> {
        let disk = || Ok(self.tables()?.records.range::<&[u8; 40]>(keys.start()..=keys.end())?);
        let disk = each(disk(), |(key, stored)| (*key.value(), Stored::Disk(stored)));
        let later = self.later.records.range(keys);
        merged(disk, later.map(|(key, stored)| (*key, stored.as_deref().map(Stored::Later))))
    }

    /// The outcomes between these keys, in their order.
    pub(super) fn outcomes(
        &self,
        keys: (Bound<[u8; 56]>, Bound<[u8; 56]>),
    ) -> impl Iterator<Item = Result<([u8; 56], [u8; 16]), redb::Error>> {
        let disk = || Ok(self.tables()?.outcomes.range::<&[u8; 56]>((keys.0.as_ref(), keys.1.as_ref()))?);
        let disk = each(disk(), |(key, version)| (*key.value(), *version.value()));
        let is_there = |(key, _): &([u8; 56], [u8; 16])| !self.later.purged.iter().any(|purged| purged.has(key));
        let disk = disk.filter(move |row| row.as_ref().map_or(true, is_there));
        let later = self.later.outcomes.range(keys);
        merged(disk, later.map(|(key, version)| (*key, *version)))
    }

    /// What is told of the area of this name.
    pub(super) fn area(&self, name: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
        let disk = &self.tables()?.areas;
        match self.later.areas.get(name) {
            Some(later) => Ok(later.clone()),
            None => Ok(disk.get(name)?.map(|about| about.value().to_vec())),
        }
    }

    /// All areas: their names, and what is told of them.
    pub(super) fn areas(&self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), redb::Error>> {
        let disk = || Ok(self.tables()?.areas.range::<&[u8]>(..)?);
        let disk = each(disk(), |(name, about)| (name.value().to_vec(), about.value().to_vec()));
        let later = self.later.areas.iter();
        merged(disk, later.map(|(name, about)| (name.clone(), about.clone())))
    }

    /// A piece of state.
    pub(super) fn state(&self, name: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        let disk = &self.tables()?.state;
        match self.later.state.get(name) {
            Some(later) => Ok(later.clone()),
            None => Ok(disk.get(name)?.map(|bytes| bytes.value().to_vec())),
        }
    }

    fn tables(&self) -> Result<&Tables, redb::Error> {
        self.disk.as_ref().ok_or(redb::Error::PreviousIo)
    }
}

/// Each row of a range that could be read, or why it could not.
fn each<R, T, U, E: Into<redb::Error>>(
    range: Result<R, redb::Error>,
    of: impl Fn(T) -> U,
) -> impl Iterator<Item = Result<U, redb::Error>>
where
    R: Iterator<Item = Result<T, E>>,
{
    let (range, error) = match range {
        Ok(range) => (Some(range), None),
        Err(error) => (None, Some(error)),
    };
    let rows = range.into_iter().flatten().map(move |row| row.map(&of).map_err(Into::into));
    error.map(Err).into_iter().chain(rows)
}

/// Rows in the order of their keys: those of the database, but where there is something later.
fn merged<K: Ord, V>(
    disk: impl Iterator<Item = Result<(K, V), redb::Error>>,
    later: impl Iterator<Item = (K, Option<V>)>,
) -> impl Iterator<Item = Result<(K, V), redb::Error>> {
    let (mut disk, mut later) = (disk.peekable(), later.peekable());
    iter::from_fn(move || {
        loop {
            let order = match (disk.peek(), later.peek()) {
                (Some(Ok((on_disk, _))), Some((key, _))) => on_disk.cmp(key),
                (Some(_), _) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            if order == Ordering::Less {
                return disk.next();
            }
            if order == Ordering::Equal {
                disk.next();
            }
            let (key, value) = later.next()?;
            if let Some(value) = value {
                return Some(Ok((key, value)));
            }
        }
    })
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], redb::Error> {
    bytes.try_into().map_err(|_| strange_entry())
}

fn strange_entry() -> redb::Error {
    redb::Error::Corrupted("an entry of its log is of another form".to_owned())
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::store::file::{builder, prepare};

    #[test]
    fn what_is_closed_shows_nothing_of_what_has_failed() {
        let database = builder().create_with_backend(InMemoryBackend::new()).unwrap();
        prepare(&database).unwrap();
        let mut rows = Rows::open(&database).unwrap();
        let keys: [(Kept, &[u8]); 4] =
            [(Kept::Records, &[1; 40]), (Kept::Outcomes, &[1; 56]), (Kept::Areas, b"area"), (Kept::State, b"state")];
        for (table, key) in keys {
            rows.change(Change { table, key, value: Some(&[7; 16]) }).unwrap();
        }
        assert_eq!(rows.record(&[1; 40]).unwrap().map(|stored| stored.bytes().to_vec()), Some(vec![7; 16]));
        assert_eq!((rows.area(b"area").unwrap(), rows.state("state").unwrap()), (Some(vec![7; 16]), Some(vec![7; 16])));
        rows.close();
        assert!(rows.record(&[1; 40]).is_err() && rows.area(b"area").is_err() && rows.state("state").is_err());
        assert!(rows.records([0; 40]..=[9; 40]).next().is_some_and(|row| row.is_err()));
        assert!(rows.outcomes((Bound::Unbounded, Bound::Unbounded)).next().is_some_and(|row| row.is_err()));
        assert!(rows.areas().next().is_some_and(|row| row.is_err()));
    }

    #[test]
    fn what_is_later_takes_the_place_of_what_the_database_has() {
        let rows = |disk: &[(u8, u8)], later: &[(u8, Option<u8>)]| {
            let disk = disk.iter().copied().map(Ok);
            merged(disk, later.iter().copied()).map(|row| row.expect("a row")).collect::<Vec<_>>()
        };
        assert_eq!(rows(&[(1, 1), (3, 3)], &[]), [(1, 1), (3, 3)]);
        assert_eq!(rows(&[], &[(1, None), (2, Some(9))]), [(2, 9)]);
        assert_eq!(rows(&[(1, 1), (3, 3), (5, 5)], &[(3, None), (4, Some(9)), (5, Some(9))]), [(1, 1), (4, 9), (5, 9)]);
        assert_eq!(rows(&[(2, 2)], &[(1, None), (2, None), (3, None)]), []);
    }

    #[test]
    fn what_cannot_be_read_is_told_in_its_place() {
        let disk = [Ok((2, 2)), Err(redb::Error::PreviousIo), Ok((4, 4))];
        let rows: Vec<_> = merged(disk.into_iter(), [(1, Some(1)), (3, None)].into_iter()).collect();
        let kinds: Vec<_> = rows.iter().map(|row| row.as_ref().ok()).collect();
        assert_eq!(kinds, [Some(&(1, 1)), Some(&(2, 2)), None, Some(&(4, 4))]);
    }
}
