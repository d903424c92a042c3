//! Content in pages: what a range holds may be more than fits into one letter, or than one step should read.
//!
//! Rows stand in one order, records by their ids and then outcomes by their requests, so that a place in it says what has
//! been told and what has not.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::content::ROW;
use super::{Area, Parcel, Store};
use crate::{Id, Interval, RequestId};

/// A place among the rows of an area: up to this one, and with it, all have been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cursor {
    /// The record of this id.
    Record(Id),
    /// All records, and the outcome of this request.
    Outcome(RequestId),
}

/// A part of what somebody is to keep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Page {
    /// The place that it begins after; none at the beginning.
    pub after: Option<Cursor>,
    /// All rows between the two places.
    pub parcel: Parcel,
    /// The place that it goes up to; none if nothing follows.
    pub next: Option<Cursor>,
}

impl Parcel {
    /// What belongs to this range and comes after this place: about `room` bytes, but one row in any case. And the place that
    /// it goes up to, unless that is all.
    pub fn page(&self, range: &Interval, after: Option<Cursor>, room: usize) -> (Parcel, Option<Cursor>) {
        let mut page = Parcel { purged: self.purged, ..Parcel::default() };
        let (mut left, mut up_to) = (room, None);
        let ids = match after {
            None => (Bound::Unbounded, Bound::Unbounded),
            Some(Cursor::Record(id)) => (Bound::Excluded(id), Bound::Unbounded),
            Some(Cursor::Outcome(_)) => (Bound::Excluded(Id::MAX), Bound::Unbounded),
        };
        for (id, record) in self.records.range(ids).filter(|(id, _)| range.contains(id)) {
            let weight = ROW + record.weight();
            if up_to.is_some() && weight > left {
                return (page, up_to);
            }
            left = left.saturating_sub(weight);
            up_to = Some(Cursor::Record(*id));
            page.records.insert(*id, record.clone());
        }
        let requests = match after {
            Some(Cursor::Outcome(request)) => (Bound::Excluded(request), Bound::Unbounded),
            _ => (Bound::Unbounded, Bound::Unbounded),
        };
        for (request, outcome) in self.outcomes.range(requests).filter(|(_, outcome)| range.contains(&outcome.id)) {
            if up_to.is_some() && ROW > left {
                return (page, up_to);
            }
            left = left.saturating_sub(ROW);
            up_to = Some(Cursor::Outcome(*request));
            page.outcomes.insert(*request, *outcome);
        }
        (page, None)
    }

    /// One page of several that begin at the same place. It goes no farther than any of them.
    pub fn overlaid(pages: impl IntoIterator<Item = (Parcel, Option<Cursor>)>) -> (Parcel, Option<Cursor>) {
        let pages: Vec<(Parcel, Option<Cursor>)> = pages.into_iter().collect();
        let up_to = pages.iter().filter_map(|(_, next)| *next).min();
        let mut merged = Parcel::default();
        for (mut page, _) in pages {
            if let Some(up_to) = up_to {
                page.records.retain(|id, _| Cursor::Record(*id) <= up_to);
                page.outcomes.retain(|request, _| Cursor::Outcome(*request) <= up_to);
            }
            merged.merge(page);
        }
        (merged, up_to)
    }
}

/// A page of what these areas hold together under what is laid upon them.
pub(super) fn page_of<S: Store>(
    store: &S,
    areas: &[Area],
    upon: &Parcel,
    range: &Interval,
    after: Option<Cursor>,
    room: usize,
) -> Page {
    let below = areas.iter().map(|area| store.page(area, range, after, room));
    let (parcel, next) = Parcel::overlaid(below.chain([upon.page(range, after, room)]));
    Page { after, parcel, next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Record, Version};

    fn parcel(ids: &[u8], sequence: u64) -> Parcel {
        let mut parcel = Parcel::default();
        for id in ids {
            let content = Content::Value { bytes: vec![*id; 10], content_type: String::new() };
            let request = RequestId((u128::from(sequence) << 64) + u128::from(*id));
            let version = Version { epoch: 1, sequence };
            parcel.put(&Record { id: point(*id), key: None, content, version, request });
        }
        parcel
    }

    fn point(x: u8) -> Id {
        let mut bytes = [0; 32];
        bytes[0] = x;
        Id::from_bytes(bytes)
    }

    fn walked(of: impl Fn(Option<Cursor>) -> (Parcel, Option<Cursor>)) -> (Parcel, usize) {
        let (mut all, mut pages, mut after) = (Parcel::default(), 0, None);
        loop {
            let (page, next) = of(after);
            pages += 1;
            all.merge(page);
            let Some(next) = next else { return (all, pages) };
            assert!(Some(next) > after, "every page goes on");
            after = Some(next);
        }
    }

    #[test]
    fn pages_of_any_size_are_together_the_whole() {
        let content = parcel(&[1, 2, 3, 200, 201], 1);
        for range in [Interval::whole(point(7)), Interval::half_open(point(200), point(3))] {
            for (room, most) in [(1, 10), (250, 5), (usize::MAX, 1)] {
                let (all, pages) = walked(|after| content.page(&range, after, room));
                assert_eq!(all, content.within(&range));
                assert!(pages <= most, "{pages} pages of {room} bytes");
            }
        }
    }

    #[test]
    fn pages_that_are_laid_upon_each_other_are_the_merge_of_both() {
        let (below, above) = (parcel(&[1, 2, 3, 200, 201], 1), parcel(&[2, 100, 201, 202], 2));
        let mut merged = below.clone();
        merged.merge(above.clone());
        let range = Interval::whole(point(7));
        for room in [1, 150, 250, 1_000] {
            let both = |after| Parcel::overlaid([&below, &above].map(|of| of.page(&range, after, room)));
            assert_eq!(walked(both).0, merged, "{room} bytes");
        }
    }
}
