//! Pieces: what lies under a number, between two ids.

use chordal_protocol::{Id, Interval};
use serde::{Deserialize, Serialize};

/// What lies under a number between two ids, both of them with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) number: u64,
    pub(super) first: Id,
    pub(super) last: Id,
}

impl Piece {
    pub(super) fn contains(&self, id: &Id) -> bool {
        self.first <= *id && *id <= self.last
    }

    /// What of it lies between these ids.
    pub(super) fn within(&self, first: &Id, last: &Id) -> Option<Piece> {
        let (first, last) = (self.first.max(*first), self.last.min(*last));
        (first <= last).then_some(Piece { first, last, ..*self })
    }
}

/// The stretches of a range, from its first id to its last one: two if it goes past zero.
pub(super) fn spans(range: &Interval) -> Vec<(Id, Id)> {
    let end = before(&range.hi);
    match range.lo.cmp(&range.hi) {
        std::cmp::Ordering::Less => vec![(range.lo, end)],
        _ if range.is_whole() || range.hi == Id::ZERO => {
            let first = if range.is_whole() { Id::ZERO } else { range.lo };
            vec![(first, Id::MAX)]
        }
        _ => vec![(Id::ZERO, end), (range.lo, Id::MAX)],
    }
}

/// What of these pieces lies within these stretches, and what does not.
pub(super) fn divide(pieces: &[Piece], spans: &[(Id, Id)]) -> (Vec<Piece>, Vec<Piece>) {
    let (mut within, mut rest) = (Vec::new(), pieces.to_vec());
    for (first, last) in spans {
        let mut left = Vec::new();
        for piece in rest {
            let Some(part) = piece.within(first, last) else {
                left.push(piece);
                continue;
            };
            if piece.first < part.first {
                left.push(Piece { last: before(&part.first), ..piece });
            }
            if part.last < piece.last {
                left.push(Piece { first: after(&part.last), ..piece });
            }
            within.push(part);
        }
        rest = left;
    }
    tidy(&mut within);
    tidy(&mut rest);
    (within, rest)
}

/// Puts pieces in order, and makes one of those that belong together.
pub(super) fn tidy(pieces: &mut Vec<Piece>) {
    pieces.sort_unstable_by_key(|piece| piece.first);
    pieces.dedup_by(|next, piece| {
        let is_one = next.number == piece.number && piece.last < next.first && after(&piece.last) == next.first;
        if is_one {
            piece.last = next.last;
        }
        is_one
    });
}

/// Under which number an id lies.
pub(super) fn number_of(pieces: &[Piece], id: &Id) -> Option<u64> {
    let at = pieces.partition_point(|piece| piece.last < *id);
    pieces.get(at).filter(|piece| piece.contains(id)).map(|piece| piece.number)
}

/// What of these pieces follows this id.
pub(super) fn beyond(pieces: &[Piece], id: &Id) -> Vec<Piece> {
    if *id == Id::MAX { Vec::new() } else { divide(pieces, &[(after(id), Id::MAX)]).0 }
}

/// The numbers of these pieces, each once.
pub(super) fn numbers(pieces: &[Piece]) -> Vec<u64> {
    let mut numbers: Vec<u64> = pieces.iter().map(|piece| piece.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// A piece for all that lies around this id and in none of these pieces, as far as it belongs to the range if the id does.
pub(super) fn gap(pieces: &[Piece], id: &Id, number: u64, range: &Interval) -> Piece {
    let below = pieces.iter().filter(|piece| piece.last < *id).map(|piece| after(&piece.last)).max();
    let above = pieces.iter().filter(|piece| piece.first > *id).map(|piece| before(&piece.first)).min();
    let gap = Piece { number, first: below.unwrap_or(Id::ZERO), last: above.unwrap_or(Id::MAX) };
    let mut parts = spans(range).into_iter().filter_map(|(first, last)| gap.within(&first, &last));
    parts.find(|part| part.contains(id)).unwrap_or(gap)
}

fn one() -> Id {
    Id::power_of_two(0)
}

/// The next id.
fn after(id: &Id) -> Id {
    id.wrapping_add(&one())
}

/// The one before it.
fn before(id: &Id) -> Id {
    id.wrapping_add(&Id::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: u8) -> Id {
        let mut bytes = [0; 32];
        bytes[31] = x;
        Id::from_bytes(bytes)
    }

    fn piece(number: u64, first: u8, last: u8) -> Piece {
        Piece { number, first: point(first), last: point(last) }
    }

    #[test]
    fn ranges_are_one_stretch_or_two() {
        let range = |lo, hi| spans(&Interval::half_open(lo, hi));
        assert_eq!(range(point(1), point(5)), [(point(1), point(4))]);
        assert_eq!(range(point(5), point(1)), [(point(0), point(0)), (point(5), Id::MAX)]);
        assert_eq!(range(point(5), Id::ZERO), [(point(5), Id::MAX)]);
        assert_eq!(range(point(5), point(5)), [(Id::ZERO, Id::MAX)]);
    }

    #[test]
    fn what_is_divided_and_joined_again_is_as_before() {
        let whole = vec![piece(1, 0, 9), piece(2, 10, 20)];
        let (within, mut rest) = divide(&whole, &[(point(5), point(12)), (point(18), Id::MAX)]);
        assert_eq!(within, [piece(1, 5, 9), piece(2, 10, 12), piece(2, 18, 20)]);
        assert_eq!(rest, [piece(1, 0, 4), piece(2, 13, 17)]);
        rest.extend(within);
        tidy(&mut rest);
        assert_eq!(rest, whole);
    }

    #[test]
    fn an_id_lies_in_one_piece_or_in_a_gap() {
        let pieces = [piece(1, 2, 4), piece(2, 8, 9)];
        assert_eq!(number_of(&pieces, &point(4)), Some(1));
        assert_eq!(number_of(&pieces, &point(5)), None);
        assert_eq!(beyond(&pieces, &point(3)), [piece(1, 4, 4), piece(2, 8, 9)]);
        assert_eq!(beyond(&pieces, &Id::MAX), []);
        let whole = Interval::whole(point(7));
        assert_eq!(gap(&pieces, &point(5), 3, &whole), piece(3, 5, 7));
        assert_eq!(gap(&pieces, &point(0), 3, &whole), piece(3, 0, 1));
        assert_eq!(gap(&[], &point(0), 3, &whole), Piece { number: 3, first: Id::ZERO, last: Id::MAX });
        assert_eq!(gap(&pieces, &point(6), 3, &Interval::half_open(point(6), point(9))), piece(3, 6, 7));
    }
}
