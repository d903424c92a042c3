//! What can be seen of the store on disk, in a transaction or without one.

use std::cell::RefCell;
use std::ops::{Bound, RangeInclusive};

use chordal_protocol::replica::{Area, Cursor, Outcome, Parcel, Snapshot};
use chordal_protocol::{Id, Interval, Record, RequestId, Version};
use redb::{AccessGuard, ReadableTable};

use super::areas::Areas;
use super::codec::{self, outcome_key, record_key};
use super::piece::{self, Piece};

/// What a row weighs in a page, in bytes, beside its content.
const ROW: usize = 96;

/// A row of records.
pub(super) type Stored<'a> = (AccessGuard<'a, &'static [u8; 40]>, AccessGuard<'a, &'static [u8]>);

pub(super) fn decoded((key, stored): Stored<'_>) -> Result<Record, redb::Error> {
    Ok(codec::decode(codec::id_of(key.value()), stored.value())?)
}

/// The keys of all records of a piece.
pub(super) fn records_of(piece: &Piece) -> RangeInclusive<[u8; 40]> {
    record_key(piece.number, &piece.first)..=record_key(piece.number, &piece.last)
}

/// The rows of these pieces, in their order.
pub(super) fn rows<'a>(
    records: &'a impl ReadableTable<&'static [u8; 40], &'static [u8]>,
    pieces: Vec<Piece>,
) -> impl Iterator<Item = Result<Stored<'a>, redb::Error>> + 'a {
    pieces.into_iter().flat_map(|piece| -> Box<dyn Iterator<Item = Result<Stored<'a>, redb::Error>> + 'a> {
        let keys = records_of(&piece);
        match records.range::<&[u8; 40]>(keys.start()..=keys.end()) {
            Ok(rows) => Box::new(rows.map(|row| row.map_err(redb::Error::from))),
            Err(error) => Box::new(std::iter::once(Err(error.into()))),
        }
    })
}

/// The tables of a transaction that writes or of one that reads, with the areas as they are in it.
pub(super) struct Seen<'a, R, O> {
    pub(super) records: &'a R,
    pub(super) outcomes: &'a O,
    pub(super) areas: &'a Areas,
    /// What went wrong first.
    pub(super) failed: &'a RefCell<Option<redb::Error>>,
}

impl<R, O> Seen<'_, R, O>
where
    R: ReadableTable<&'static [u8; 40], &'static [u8]>,
    O: ReadableTable<&'static [u8; 56], &'static [u8; 16]>,
{
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
            _ => Bound::Included(outcome_key(number, RequestId(0), &Id::ZERO)),
        };
        let last = outcome_key(number, RequestId(u128::MAX), &Id::MAX);
        let (mut page, mut looked_at, most) = (Parcel::default(), None, (room / ROW).max(1));
        for (seen, row) in self.outcomes.range::<&[u8; 56]>((first.as_ref(), Bound::Included(&last)))?.enumerate() {
            let (key, version) = row?;
            let (request, id) = codec::request_of(key.value());
            // All of one request are told together.
            if seen >= most && looked_at != Some(request) {
                return Ok((page, looked_at.map(Cursor::Outcome)));
            }
            looked_at = Some(request);
            if piece::number_of(pieces, &id) == Some(number) {
                let outcome = codec::outcome_of(id, version.value());
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
        for row in rows(self.records, to_read) {
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

impl<R, O> Snapshot for Seen<'_, R, O>
where
    R: ReadableTable<&'static [u8; 40], &'static [u8]>,
    O: ReadableTable<&'static [u8; 56], &'static [u8; 16]>,
{
    fn record(&self, area: &Area, id: &Id) -> Option<Record> {
        let number = piece::number_of(self.pieces(area), id)?;
        let read = || {
            let stored = self.records.get(&record_key(number, id))?;
            Ok(stored.map(|stored| codec::decode(*id, stored.value())).transpose()?)
        };
        self.tried(read()).flatten()
    }

    fn outcome(&self, area: &Area, request: RequestId) -> Option<Outcome> {
        let pieces = self.pieces(area);
        let read = |number| {
            let keys = outcome_key(number, request, &Id::ZERO)..=outcome_key(number, request, &Id::MAX);
            let mut latest: Option<Outcome> = None;
            for row in self.outcomes.range::<&[u8; 56]>(keys.start()..=keys.end())? {
                let (key, version) = row?;
                let (_, id) = codec::request_of(key.value());
                if piece::number_of(pieces, &id) == Some(number) {
                    latest = latest.max(Some(codec::outcome_of(id, version.value())));
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
