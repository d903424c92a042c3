//! How long a sync takes.

use rand::{Rng, RngExt};

/// How long syncs take, in any unit: as a rule something within one range, and now and then something within another. Disks that
/// are shared, or collect their garbage, answer a thousand times later than they use to, without being broken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The shortest and the longest time.
    pub usual: (u64, u64),
    /// The shortest and the longest time of a slow one.
    pub slow: (u64, u64),
    /// How many are slow, as a share of all.
    pub slow_share: f64,
}

impl Pace {
    /// How long the next one takes.
    ///
    /// # Panics
    /// If a range ends before it begins, or the share is not between 0 and 1.
    pub fn draw(&self, chance: &mut impl Rng) -> u64 {
        let (shortest, longest) = if chance.random_bool(self.slow_share) { self.slow } else { self.usual };
        chance.random_range(shortest..=longest)
    }
}
