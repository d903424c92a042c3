//! Stretches of the circle, clockwise, that may wrap past zero.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::Id;

/// Whether `x` lies strictly between `from` and `to`, clockwise. From a point to itself is once round the whole circle:
/// everything but that point.
pub fn between(from: &Id, x: &Id, to: &Id) -> bool {
    match from.cmp(to) {
        Ordering::Less => from < x && x < to,
        Ordering::Equal => x != from,
        Ordering::Greater => from < x || x < to,
    }
}

/// The half-open stretch `[lo, hi)`, clockwise; `[x, x)` is the whole circle. There is no empty interval.
///
/// A node serves such stretches, and owns `[n, successor(n))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// The first point.
    pub lo: Id,
    /// The first point after it.
    pub hi: Id,
}

impl Interval {
    /// `[lo, hi)`.
    pub const fn half_open(lo: Id, hi: Id) -> Interval {
        Interval { lo, hi }
    }

    /// The whole circle, told from `start`.
    pub const fn whole(start: Id) -> Interval {
        Interval { lo: start, hi: start }
    }

    /// Whether this is the whole circle.
    pub fn is_whole(&self) -> bool {
        self.lo == self.hi
    }

    /// Whether the point lies in it.
    pub fn contains(&self, x: &Id) -> bool {
        match self.lo.cmp(&self.hi) {
            Ordering::Less => self.lo <= *x && *x < self.hi,
            Ordering::Equal => true,
            Ordering::Greater => self.lo <= *x || *x < self.hi,
        }
    }

    /// Whether all of `other` lies in it.
    pub fn covers(&self, other: &Interval) -> bool {
        other.minus(self).is_empty()
    }

    /// Whether the two share a point.
    pub fn overlaps(&self, other: &Interval) -> bool {
        self.contains(&other.lo) || other.contains(&self.lo)
    }

    /// What both share: nothing, one stretch, or two (each may begin in the other).
    pub fn intersection(&self, other: &Interval) -> Vec<Interval> {
        match other.complement() {
            Some(outside) => self.minus(&outside),
            None => vec![*self],
        }
    }

    /// What of this lies outside `other`, in clockwise order.
    pub fn minus(&self, other: &Interval) -> Vec<Interval> {
        if other.is_whole() {
            return Vec::new();
        }
        if self.is_whole() {
            return vec![Interval::half_open(other.hi, other.lo)];
        }
        // Measured from self.lo, self is [0, end) and other is [a, b), which wraps where b <= a.
        let end = self.lo.distance(&self.hi);
        let (a, b) = (self.lo.distance(&other.lo), self.lo.distance(&other.hi));
        let mut rest = Vec::new();
        let mut keep = |from: Id, to: Id| {
            let to = to.min(end);
            if from < to {
                rest.push(Interval::half_open(self.lo.wrapping_add(&from), self.lo.wrapping_add(&to)));
            }
        };
        if b == Id::ZERO {
            keep(Id::ZERO, a);
        } else if a < b {
            keep(Id::ZERO, a);
            keep(b, end);
        } else {
            keep(b, a);
        }
        rest
    }

    /// The rest of the circle: nothing if this is all of it.
    pub fn complement(&self) -> Option<Interval> {
        (!self.is_whole()).then(|| Interval::half_open(self.hi, self.lo))
    }

    /// The share of the circle, in `(0, 1]`.
    pub fn share(&self) -> f64 {
        if self.is_whole() { 1.0 } else { self.lo.distance(&self.hi).as_fraction() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A circle of sixteen points, spread over the big one, so that cases can be counted out.
    fn point(x: u8) -> Id {
        Id::from_hex_prefix(&format!("{:x}", x % 16)).unwrap()
    }

    fn interval(lo: u8, hi: u8) -> Interval {
        Interval::half_open(point(lo), point(hi))
    }

    /// The points of `[lo, hi)` by walking.
    fn walk(lo: u8, hi: u8) -> Vec<u8> {
        let mut points = vec![lo % 16];
        let mut x = (lo + 1) % 16;
        while x != hi % 16 {
            points.push(x);
            x = (x + 1) % 16;
        }
        points
    }

    fn points_of(parts: &[Interval]) -> Vec<u8> {
        (0..16).filter(|x| parts.iter().any(|part| part.contains(&point(*x)))).collect()
    }

    #[test]
    fn between_leaves_out_both_ends() {
        for from in 0..16 {
            for to in 0..16 {
                let inside = walk(from, to);
                for x in 0..16 {
                    let expected = x != from && inside.contains(&x);
                    assert_eq!(between(&point(from), &point(x), &point(to)), expected, "{from} {x} {to}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn intervals_agree_with_walking(a in 0u8..16, b in 0u8..16, c in 0u8..16, d in 0u8..16) {
            let (one, two) = (interval(a, b), interval(c, d));
            let (walk_one, walk_two) = (walk(a, b), walk(c, d));
            let both: Vec<u8> = (0..16).filter(|x| walk_one.contains(x) && walk_two.contains(x)).collect();
            let only_one: Vec<u8> = (0..16).filter(|x| walk_one.contains(x) && !walk_two.contains(x)).collect();
            prop_assert_eq!(points_of(&one.intersection(&two)), both.clone());
            prop_assert_eq!(points_of(&one.minus(&two)), only_one.clone());
            prop_assert_eq!(one.overlaps(&two), !both.is_empty());
            prop_assert_eq!(two.covers(&one), only_one.is_empty());
        }

        #[test]
        fn an_interval_and_its_complement_share_out_the_circle(lo: [u8; 32], hi: [u8; 32], x: [u8; 32]) {
            let (lo, hi, x) = (Id::from_bytes(lo), Id::from_bytes(hi), Id::from_bytes(x));
            let interval = Interval::half_open(lo, hi);
            let outside = interval.complement().is_some_and(|rest| rest.contains(&x));
            prop_assert!(interval.contains(&x) != outside);
        }
    }

    #[test]
    fn shares_are_told_of_the_whole_circle() {
        assert_eq!(interval(0, 8).share(), 0.5);
        assert_eq!(interval(12, 4).share(), 0.5);
        assert_eq!(interval(3, 3).share(), 1.0);
    }
}
