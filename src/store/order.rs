//! Clockwise order over keys that are stored in the order of their numbers.

use std::ops::Bound;

use chordal_protocol::{Id, Interval, Record};

use super::codec;

/// Bounds for a range of an ordered map.
pub(super) type Stretch = (Bound<Id>, Bound<Id>);

/// The part of `range` behind `after` (all of it without one), clockwise, as at most two ranges of an ordered map: a
/// range that wraps past zero has two. Nothing lies behind a point that is not in the range.
pub(super) fn stretches(range: Interval, after: Option<Id>) -> Vec<Stretch> {
    let (start, from) = match after {
        None => (range.lo, Bound::Included(range.lo)),
        Some(after) if range.contains(&after) => (after, Bound::Excluded(after)),
        Some(_) => return Vec::new(),
    };
    let to = Bound::Excluded(range.hi);
    let wraps = range.hi <= range.lo;
    if wraps && range.lo <= start { vec![(from, Bound::Unbounded), (Bound::Unbounded, to)] } else { vec![(from, to)] }
}

/// The first of `records`: at most `limit`, and no more than weigh `bytes` together, but the first in any case.
pub(super) fn page<E>(
    records: impl Iterator<Item = Result<Record, E>>,
    limit: usize,
    bytes: usize,
) -> Result<Vec<Record>, E> {
    let mut page = Vec::new();
    let mut total: usize = 0;
    for record in records.take(limit) {
        let record = record?;
        total = total.saturating_add(codec::size(&record));
        if total > bytes && !page.is_empty() {
            break;
        }
        page.push(record);
    }
    Ok(page)
}
