//! An open transaction of the store on disk.

use std::cell::RefCell;
use std::ops::Bound;

use chordal_protocol::replica::{self, Area, Cursor, Outcome, Parcel, Snapshot, minted};
use chordal_protocol::{Id, Interval, Record, RequestId, Version};

use super::Transaction;
use super::areas::{Areas, Swept};
use super::codec::{self, outcome_key, record_key};
use super::log::{Change, Changes, Kept};
use super::piece::{self, Piece};
use super::rows::{Purged, Rows};
use super::snapshot::{Seen, first_outcome, outcomes_from, records_in};
use super::tally::{Tally, stretch};

/// Under this name the number of transactions is kept.
const TRANSACTIONS: &str = "transactions";

/// Under this name are the pieces that belong to nobody any more.
const GONE: &str = "gone";

/// How many rows that belong to nobody are removed, or looked at for that, with each transaction: a range that is given away is
/// not to hold up what is kept.
const SWEPT: usize = 256;

/// How many outcomes that are forgotten together are named one by one. There may be a million, after a restart.
const NAMED: usize = 1024;

/// How an area is named on disk.
pub(super) fn name_of(area: &Area) -> Result<Vec<u8>, redb::Error> {
    written(area)
}

/// What is told of an area on disk: its purge mark and its pieces.
pub(super) fn about_of(bytes: &[u8]) -> Result<(u64, Vec<Piece>), redb::Error> {
    postcard::from_bytes(bytes).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

fn written(value: &impl serde::Serialize) -> Result<Vec<u8>, redb::Error> {
    postcard::to_stdvec(value).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// How many transactions that changed something there were.
pub(super) fn transactions(rows: &Rows) -> Result<u64, redb::Error> {
    let bytes = rows.state(TRANSACTIONS)?;
    Ok(bytes.map_or(0, |bytes| bytes.try_into().map_or(0, u64::from_le_bytes)))
}

/// The pieces that belong to nobody.
pub(super) fn gone(rows: &Rows) -> Result<Vec<Piece>, redb::Error> {
    let Some(bytes) = rows.state(GONE)? else { return Ok(Vec::new()) };
    postcard::from_bytes(&bytes).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// An open transaction. It works on its own copy of what is remembered of the areas, and on the rows themselves: if it fails,
/// nobody may see them any more.
pub(super) struct Open<'a> {
    rows: &'a mut Rows,
    areas: Areas,
    changed: bool,
    /// Whether other pieces belong to nobody than before.
    has_swept: bool,
    /// The rows that are others now.
    changes: Changes,
    /// What went wrong first. Nothing that was done is kept then.
    failed: RefCell<Option<redb::Error>>,
}

impl<'a> Open<'a> {
    pub(super) fn begin(rows: &'a mut Rows, areas: Areas) -> Open<'a> {
        let (changes, failed) = (Changes::default(), RefCell::new(None));
        Open { rows, areas, changed: false, has_swept: false, changes, failed }
    }

    /// What is to be remembered, and the rows that have changed if there are any; or what went wrong.
    pub(super) fn end(mut self) -> Result<(Areas, Option<Changes>), redb::Error> {
        if self.changed {
            let swept = self.sweep();
            self.tried(swept);
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.changed {
            self.areas.transactions = transactions(self.rows)? + 1;
            self.change(Kept::State, TRANSACTIONS.as_bytes(), Some(&self.areas.transactions.to_le_bytes()))?;
        }
        if self.has_swept {
            self.change(Kept::State, GONE.as_bytes(), Some(&written(&self.areas.gone)?))?;
        }
        Ok((self.areas, self.changed.then_some(self.changes)))
    }

    /// A row is another one now, or is not there any more.
    fn change(&mut self, table: Kept, key: &[u8], value: Option<&[u8]>) -> Result<(), redb::Error> {
        self.changed = true;
        self.changes.note(table, key, value);
        self.rows.change(Change { table, key, value })
    }

    fn tried<T>(&self, outcome: Result<T, redb::Error>) -> Option<T> {
        outcome.map_err(|error| self.failed.borrow_mut().get_or_insert(error).to_string()).ok()
    }

    fn seen(&self) -> Seen<'_> {
        Seen { rows: self.rows, areas: &self.areas, failed: &self.failed }
    }

    fn pieces(&self, area: &Area) -> &[Piece] {
        self.areas.get(area).map_or(&[], |shelf| shelf.pieces.as_slice())
    }

    /// Under which number an id of this area lies, from now on if it has none yet.
    fn place(&mut self, area: &Area, id: &Id) -> u64 {
        if self.areas.make_room(area, id) {
            self.name(area);
        }
        piece::number_of(self.pieces(area), id).unwrap_or_default()
    }

    fn write(&mut self, area: &Area, record: &Record) {
        let number = self.place(area, &record.id);
        let stored = codec::encode(record).map_err(redb::Error::from);
        let written =
            stored.and_then(|stored| self.change(Kept::Records, &record_key(number, &record.id), Some(&stored)));
        self.tried(written);
    }

    fn remove(&mut self, area: &Area, id: &Id) {
        let Some(number) = piece::number_of(self.pieces(area), id) else { return };
        let removed = self.change(Kept::Records, &record_key(number, id), None);
        self.tried(removed);
    }

    fn write_outcome(&mut self, area: &Area, request: RequestId, outcome: &Outcome) {
        let number = self.place(area, &outcome.id);
        let (key, version) = (outcome_key(number, request, &outcome.id), codec::version_bytes(outcome.version));
        let written = self.change(Kept::Outcomes, &key, Some(&version));
        self.tried(written);
    }

    fn remove_outcome(&mut self, area: &Area, request: RequestId, outcome: &Outcome) {
        let Some(number) = piece::number_of(self.pieces(area), &outcome.id) else { return };
        let removed = self.change(Kept::Outcomes, &outcome_key(number, request, &outcome.id), None);
        self.tried(removed);
    }

    /// Writes down what an area is called, where it is and what of it is forgotten.
    fn name(&mut self, area: &Area) {
        let Some(about) = self.areas.get(area).map(|shelf| written(&(shelf.purged, &shelf.pieces))) else { return };
        let named = name_of(area).and_then(|name| self.change(Kept::Areas, &name, Some(&about?)));
        self.tried(named);
    }

    fn unname(&mut self, area: &Area) {
        let unnamed = name_of(area).and_then(|name| self.change(Kept::Areas, &name, None));
        self.tried(unnamed);
    }

    /// What is known of an area that holds a new write, or an old one in a new place.
    fn note(&mut self, area: &Area, version: Version, id: Id, request: RequestId) {
        self.areas.open(area).0.written(version, id, request);
    }

    /// Nobody asks what came into a view before it began.
    fn forget_before(&mut self, area: &Area) {
        let (shelf, _) = self.areas.open(area);
        match area {
            Area::View(name) => shelf.forgets(Version { epoch: name.epoch, sequence: 0 }),
            Area::Staged(_) => shelf.forgets_oldest(),
        }
    }

    fn purge_rows(&mut self, area: &Area, mark: u64) {
        let pieces = self.pieces(area).to_vec();
        let last = RequestId((u128::from(mark) << 64) | u128::from(u64::MAX));
        for number in piece::numbers(&pieces) {
            let purged = Purged { number, pieces: pieces.clone(), last };
            let removed = self.rows.outcomes_to_purge(&purged, NAMED).and_then(|found| match found {
                Some(keys) => keys.iter().try_for_each(|key| self.change(Kept::Outcomes, key, None)),
                None => {
                    self.changed = true;
                    self.changes.leave_the_log();
                    self.rows.purge(purged);
                    Ok(())
                }
            });
            self.tried(removed);
        }
    }

    /// Where the live values are that an area holds of a range. Only those at its ends have to be looked at.
    fn live_within(&self, area: &Area, range: &Interval) -> Tally {
        let Some(shelf) = self.areas.get(area) else { return Tally::default() };
        let spans = piece::spans(range);
        if piece::divide(&shelf.pieces, &spans).1.is_empty() {
            return shelf.live.clone();
        }
        let mut live = Tally::default();
        for (first, last) in spans {
            let ends = [stretch(&first), stretch(&last)];
            for inner in ends[0] + 1..ends[1] {
                live.add_at(inner, shelf.live.at(inner));
            }
            let mut at_the_ends = vec![super::tally::end_of(ends[0], &first, &last)];
            if ends[0] != ends[1] {
                at_the_ends.push(super::tally::end_of(ends[1], &first, &last));
            }
            let pieces = piece::divide(&shelf.pieces, &at_the_ends).0;
            let counted = records_in(self.rows, pieces).try_for_each(|row| {
                let (key, stored) = row?;
                let id = codec::id_of(&key);
                live.add(&id, u64::from(codec::glance(id, stored.bytes())?.2));
                Ok(())
            });
            self.tried(counted);
        }
        live
    }

    /// What an area holds of a range belongs to nobody any more.
    fn give_up(&mut self, area: &Area, range: &Interval) {
        let live = self.live_within(area, range);
        let Some(shelf) = self.areas.get_mut(area) else { return };
        let given_up = shelf.take(range, live);
        if !given_up.pieces.is_empty() {
            self.abandon(given_up.pieces);
            self.name(area);
        }
    }

    fn abandon(&mut self, pieces: Vec<Piece>) {
        self.changed = true;
        self.has_swept = true;
        self.areas.abandon(pieces);
    }

    /// Removes some of what belongs to nobody.
    fn sweep(&mut self) -> Result<(), redb::Error> {
        let mut left = SWEPT;
        while let Some(piece) = self.areas.gone.last().copied().filter(|_| left > 0) {
            left -= self.sweep_records(&piece, left)?;
            if left == 0 {
                break;
            }
            let seen = self.sweep_outcomes(&piece, left)?;
            left -= seen.min(left);
            if left > 0 {
                self.areas.gone.pop();
                self.areas.swept = None;
                self.has_swept = true;
            }
        }
        Ok(())
    }

    /// Removes so many records of this piece. How many there were.
    fn sweep_records(&mut self, piece: &Piece, most: usize) -> Result<usize, redb::Error> {
        let left = match self.areas.swept {
            None => vec![*piece],
            Some(Swept::Records(id)) => piece::beyond(&[*piece], &id),
            Some(Swept::Outcomes(..)) => Vec::new(),
        };
        let rows = records_in(self.rows, left).take(most);
        let found = rows.map(|row| Ok(row?.0)).collect::<Result<Vec<[u8; 40]>, redb::Error>>()?;
        for key in &found {
            self.change(Kept::Records, key, None)?;
            self.areas.swept = Some(Swept::Records(codec::id_of(key)));
        }
        Ok(found.len())
    }

    /// Looks at so many outcomes, and removes those that lie in this piece. How many there were.
    fn sweep_outcomes(&mut self, piece: &Piece, most: usize) -> Result<usize, redb::Error> {
        let first = match self.areas.swept {
            Some(Swept::Outcomes(request, id)) => Bound::Excluded(outcome_key(piece.number, request, &id)),
            _ => first_outcome(piece.number),
        };
        let (mut seen, mut found) = (0, Vec::new());
        for row in outcomes_from(self.rows, piece.number, first).take(most) {
            let (key, _) = row?;
            let (request, id) = codec::request_of(&key);
            seen += 1;
            self.areas.swept = Some(Swept::Outcomes(request, id));
            if piece.contains(&id) {
                found.push(key);
            }
        }
        for key in found {
            self.change(Kept::Outcomes, &key, None)?;
        }
        Ok(seen)
    }
}

impl Transaction for Open<'_> {
    fn put_state(&mut self, name: &'static str, bytes: &[u8]) {
        let written = self.change(Kept::State, name.as_bytes(), Some(bytes));
        self.tried(written);
    }
}

impl Snapshot for Open<'_> {
    fn record(&self, area: &Area, id: &Id) -> Option<Record> {
        self.seen().record(area, id)
    }

    fn outcome(&self, area: &Area, request: RequestId) -> Option<Outcome> {
        self.seen().outcome(area, request)
    }

    fn purged(&self, area: &Area) -> u64 {
        self.seen().purged(area)
    }

    fn since(&self, area: &Area, version: Version) -> Parcel {
        self.seen().since(area, version)
    }

    fn page(&self, area: &Area, range: &Interval, after: Option<Cursor>, room: usize) -> (Parcel, Option<Cursor>) {
        self.seen().page(area, range, after, room)
    }
}

impl replica::Store for Open<'_> {
    fn put(&mut self, area: &Area, record: &Record) {
        let (shelf, is_new) = self.areas.open(area);
        let purged = shelf.purged;
        shelf.written(record.version, record.id, record.request);
        if is_new {
            self.name(area);
        }
        let outcome = Outcome { id: record.id, version: record.version };
        // What is sent again because its answer was lost changes nothing, and costs no sync.
        if minted(record.request) > purged && self.outcome(area, record.request) != Some(outcome) {
            self.write_outcome(area, record.request, &outcome);
        }
        let old = self.record(area, &record.id);
        if old.as_ref().is_none_or(|old| old.version < record.version) {
            self.write(area, record);
            self.areas.open(area).0.replaced(old.as_ref(), record);
        }
    }

    fn purge(&mut self, area: &Area, mark: u64) {
        if mark <= self.purged(area) {
            return;
        }
        self.areas.open(area).0.purged = mark;
        self.name(area);
        self.purge_rows(area, mark);
    }

    fn collect(&mut self, area: &Area, up_to: Version) -> bool {
        let Some(shelf) = self.areas.get_mut(area) else { return false };
        let gone = shelf.stable(up_to);
        let collects = !gone.is_empty();
        for id in gone {
            self.remove(area, &id);
        }
        collects
    }

    fn extend(&mut self, area: &Area, parcel: Parcel) {
        let (shelf, is_new) = self.areas.open(area);
        let purged = shelf.purged;
        if is_new {
            self.name(area);
        }
        for record in parcel.records.values() {
            let old = self.record(area, &record.id);
            if old.as_ref().is_none_or(|old| old.version < record.version) {
                self.write(area, record);
                self.areas.open(area).0.replaced(old.as_ref(), record);
                self.note(area, record.version, record.id, record.request);
            }
        }
        for (request, outcome) in parcel.outcomes.iter().filter(|(request, _)| minted(**request) > purged) {
            let before = self.outcome(area, *request);
            if before.is_none_or(|before| before < *outcome) {
                self.write_outcome(area, *request, outcome);
                self.note(area, outcome.version, outcome.id, *request);
            }
        }
        self.purge(area, parcel.purged);
        self.forget_before(area);
    }

    fn derive(&mut self, from: &Area, to: &Area, range: &Interval, up_to: Version) {
        if from == to {
            return;
        }
        self.give_up(to, range);
        let Some(shelf) = self.areas.get(from) else { return };
        let later: Vec<(Id, RequestId)> = match shelf.since(up_to) {
            Some(later) => later.collect(),
            None => {
                let later = self.since(from, up_to);
                let records = later.records.values().map(|record| (record.id, record.request));
                records.chain(later.outcomes.iter().map(|(request, outcome)| (outcome.id, *request))).collect()
            }
        };
        for (id, request) in later {
            if let Some(record) = self.record(from, &id).filter(|record| range.contains(&id) && record.version > up_to)
            {
                self.remove(from, &id);
                self.areas.open(from).0.lost(&record);
            }
            let outcome = self.outcome(from, request).filter(|outcome| range.contains(&outcome.id));
            if let Some(outcome) = outcome.filter(|outcome| outcome.version > up_to) {
                self.remove_outcome(from, request, &outcome);
            }
        }
        let live = self.live_within(from, range);
        let Some(shelf) = self.areas.get_mut(from) else { return };
        let taken = shelf.take(range, live);
        let (shelf, _) = self.areas.open(to);
        let marks = [shelf.purged, taken.purged];
        let has_rows = !shelf.pieces.is_empty() || marks[0] > marks[1];
        shelf.join(taken);
        let mark = shelf.purged;
        if has_rows && marks[0] != marks[1] {
            self.purge_rows(to, mark);
        }
        self.name(from);
        self.name(to);
        self.forget_before(to);
    }

    fn discard(&mut self, area: &Area) {
        if let Some(shelf) = self.areas.remove(area) {
            self.abandon(shelf.pieces.clone());
            self.unname(area);
        }
    }
}
