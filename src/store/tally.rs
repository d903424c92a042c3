//! How many live values there are, by where they lie, so that a part of them can be counted without looking at each.

use chordal_protocol::Id;

/// In how many stretches of one size the circle is counted.
const STRETCHES: usize = 1 << 10;

/// So many values in each stretch.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    counts: Vec<u64>,
}

/// In which stretch an id lies.
pub(super) fn stretch(id: &Id) -> usize {
    let bytes = id.as_bytes();
    (usize::from(bytes[0]) << 8 | usize::from(bytes[1])) >> 6
}

/// The ids of a stretch between these two.
pub(super) fn end_of(stretch: usize, first: &Id, last: &Id) -> (Id, Id) {
    let edge = |low: u8| {
        let mut bytes = [low; 32];
        bytes[0] = (stretch >> 2) as u8;
        bytes[1] = (stretch << 6) as u8 | (low & 0x3f);
        Id::from_bytes(bytes)
    };
    (edge(0).max(*first), edge(0xff).min(*last))
}

impl Tally {
    pub(super) fn add(&mut self, id: &Id, count: u64) {
        self.add_at(stretch(id), count);
    }

    pub(super) fn add_at(&mut self, stretch: usize, count: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; STRETCHES];
        }
        self.counts[stretch] += count;
    }

    pub(super) fn take(&mut self, id: &Id, count: u64) {
        if let Some(counted) = self.counts.get_mut(stretch(id)) {
            *counted -= count;
        }
    }

    pub(super) fn at(&self, stretch: usize) -> u64 {
        self.counts.get(stretch).copied().unwrap_or(0)
    }

    pub(super) fn join(&mut self, other: &Tally) {
        for (stretch, count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.add_at(stretch, *count);
        }
    }

    pub(super) fn remove(&mut self, other: &Tally) {
        for (counted, count) in self.counts.iter_mut().zip(&other.counts) {
            *counted -= count;
        }
    }

    pub(super) fn sum(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_cover_the_circle_without_overlapping() {
        for n in [0, 1, 3, 4, 511, 1_023] {
            let (first, last) = end_of(n, &Id::ZERO, &Id::MAX);
            assert_eq!([stretch(&first), stretch(&last)], [n, n]);
            assert_eq!(stretch(&last.wrapping_add(&Id::power_of_two(0))), (n + 1) % STRETCHES);
        }
    }
}
