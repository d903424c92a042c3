//! What can be seen of the store on disk, in a transaction or without one.

use std::cell::RefCell;
use std::ops::{Bound, RangeInclusive};

use chordal_protocol::replica::{Area, Cursor, Outcome, Parcel, Snapshot};
use chordal_protocol::{Id, Interval, Record, RequestId, Version};

use super::areas::Areas;
use super::codec::{self, outcome_key, record_key};
use super::piece::{self, Piece};
use super::rows::{Rows, Stored};

/// What a row weighs in a page, in bytes, beside its content.
const ROW: usize = 96;

pub(super) fn decoded((key, stored): ([u8; 40], Stored<'_>)) -> Result<Record, redb::Error> {
    Ok(codec::decode(codec::id_of(&key), stored.bytes())?)
}

/// The keys of all records of a piece.
pub(super) fn records_of(piece: &Piece) -> RangeInclusive<[u8; 40]> {
    record_key(piece.number, &piece.first)..=record_key(piece.number, &piece.last)
}

/// The records of these pieces, in their order.
pub(super) fn records_in(
    rows: &Rows,
    pieces: Vec<Piece>,
) -> impl Iterator<Item = Result<([u8; 40], Stored<'_>), redb::Error>> {
    pieces.into_iter().flat_map(|piece| rows.records(records_of(&piece)))
}

/// The outcomes under this number, from this request on, or after it.
pub(super) fn outcomes_from(
    rows: &Rows,
    number: u64,
    first: Bound<[u8; 56]>,
) -> impl Iterator<Item = Result<([u8; 56], [u8; 16]), redb::Error>> {
    rows.outcomes((first, Bound::Included(outcome_key(number, RequestId(u128::MAX), &Id::MAX))))
}

/// The first key that an outcome under this number may have.
pub(super) fn first_outcome(number: u64) -> Bound<[u8; 56]> {
    Bound::Included(outcome_key(number, RequestId(0), &Id::ZERO))
}

/// The rows as they are, with the areas that they belong to.
pub(super) struct Seen<'a> {
    pub(super) rows: &'a Rows,
    pub(super) areas: &'a Areas,
    /// What went wrong first.
    pub(super) failed: &'a RefCell<Option<redb::Error>>,
}

impl Seen<'_> {
    fn tried<T>(&self, outcome: Result<T, redb::Error>) -> Option<T> {
        outcome.map_err(|error| self.failed.borrow_mut().get_or_insert(error).to_string()).ok()
    }

    fn pieces(&self, area: &Area) -> &[Piece] {
        self.areas.get(area).map_or(&[], |shelf| shelf.pieces.as_slice())
    }

    /// A page of outcomes under one number, and the last request that was looked at if that was not all.
    fn outcomes_under(
        &self,
        pieces: &[Piece],
        number: u64,
        after: Option<Cursor>,
        room: usize,
    ) -> Result<(Parcel, Option<Cursor>), redb::Error> {
        let first = match after {
            Some(Cursor::Outcome(request)) => Bound::Excluded(outcome_key(number, request, &Id::MAX)),
            _ => first_outcome(number),
        };
        let (mut page, mut looked_at, most) = (Parcel::default(), None, (room / ROW).max(1));
        for (seen, row) in outcomes_from(self.rows, number, first).enumerate() {
            let (key, version) = row?;
            let (request, id) = codec::request_of(&key);
            // All of one request are told together.
            if seen >= most && looked_at != Some(request) {
                return Ok((page, looked_at.map(Cursor::Outcome)));
            }
            looked_at = Some(request);
            if piece::number_of(pieces, &id) == Some(number) {
                let outcome = codec::outcome_of(id, &version);
                let kept = page.outcomes.entry(request).or_insert(outcome);
                *kept = (*kept).max(outcome);
            }
        }
        Ok((page, None))
    }

    fn read_page(
        &self,
        area: &Area,
        range: &Interval,
        after: Option<Cursor>,
        room: usize,
    ) -> Result<(Parcel, Option<Cursor>), redb::Error> {
        let (mut records, mut left, mut up_to) = (Parcel::default(), room, None);
        let pieces = piece::divide(self.pieces(area), &piece::spans(range)).0;
        let to_read = match after {
            None => pieces.clone(),
            Some(Cursor::Record(id)) => piece::beyond(&pieces, &id),
            Some(Cursor::Outcome(_)) => Vec::new(),
        };
        for row in records_in(self.rows, to_read) {
            let record = decoded(row?)?;
            let weight = ROW + record.weight();
            if up_to.is_some() && weight > left {
                return Ok((records, up_to));
            }
            left = left.saturating_sub(weight);
            up_to = Some(Cursor::Record(record.id));
            records.records.insert(record.id, record);
        }
        if up_to.is_some() && left < ROW {
            return Ok((records, up_to));
        }
        let numbers = piece::numbers(&pieces).into_iter();
        let outcomes = numbers.map(|number| self.outcomes_under(&pieces, number, after, left));
        let outcomes = outcomes.collect::<Result<Vec<_>, redb::Error>>()?;
        Ok(Parcel::overlaid(outcomes.into_iter().chain([(records, None)])))
    }
}

impl Snapshot for Seen<'_> {
    fn record(&self, area: &Area, id: &Id) -> Option<Record> {
        let number = piece::number_of(self.pieces(area), id)?;
        let read = || {
            let stored = self.rows.record(&record_key(number, id))?;
            Ok(stored.map(|stored| codec::decode(*id, stored.bytes())).transpose()?)
        };
        self.tried(read()).flatten()
    }

    fn outcome(&self, area: &Area, request: RequestId) -> Option<Outcome> {
        let pieces = self.pieces(area);
        let read = |number| {
            let keys = [Id::ZERO, Id::MAX].map(|id| Bound::Included(outcome_key(number, request, &id)));
            let mut latest: Option<Outcome> = None;
            for row in self.rows.outcomes(keys.into()) {
                let (key, version) = row?;
                let (_, id) = codec::request_of(&key);
                if piece::number_of(pieces, &id) == Some(number) {
                    latest = latest.max(Some(codec::outcome_of(id, &version)));
                }
            }
            Ok(latest)
        };
        // Where views were merged, somebody may have used one request id for two registers.
        piece::numbers(pieces).into_iter().filter_map(|number| self.tried(read(number)).flatten()).max()
    }

    fn purged(&self, area: &Area) -> u64 {
        self.areas.get(area).map_or(0, |shelf| shelf.purged)
    }

    fn since(&self, area: &Area, version: Version) -> Parcel {
        let Some(shelf) = self.areas.get(area) else { return Parcel::default() };
        let Some(written) = shelf.since(version) else {
            return self.page(area, &Interval::whole(Id::ZERO), None, usize::MAX).0.since(version);
        };
        let mut parcel = Parcel { purged: shelf.purged, ..Parcel::default() };
        for (id, request) in written {
            // An outcome may have been forgotten, or overwritten by an older one, and a tombstone collected.
            let outcome = self.outcome(area, request).filter(|outcome| outcome.version > version);
            parcel.outcomes.extend(outcome.map(|outcome| (request, outcome)));
            let record = self.record(area, &id).filter(|record| record.version > version);
            parcel.records.extend(record.map(|record| (id, record)));
        }
        parcel
    }

    fn page(&self, area: &Area, range: &Interval, after: Option<Cursor>, room: usize) -> (Parcel, Option<Cursor>) {
        let (mut page, next) = self.tried(self.read_page(area, range, after, room)).unwrap_or_default();
        page.purged = self.purged(area);
        (page, next)
    }
}
