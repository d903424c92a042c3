//! Pauses between attempts: each twice as long as the one before, up to a longest one, and none of them exact, so that those
//! who failed together do not come back together.

use std::time::Duration;

use rand::RngExt;

/// The pauses of one who tries again and again.
#[derive(Debug, Clone)]
pub(crate) struct Pauses {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Pauses {
    /// From `shortest` to `longest`.
    pub(crate) fn new(shortest: Duration, longest: Duration) -> Pauses {
        Pauses { shortest, longest, next: shortest }
    }

    /// The next one: between half and all of what is due.
    pub(crate) fn next(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.longest);
        due.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    /// Begins with the shortest one again.
    pub(crate) fn reset(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_again() {
        let ms = Duration::from_millis;
        let mut pauses = Pauses::new(ms(100), ms(350));
        for due in [100, 200, 350, 350] {
            let pause = pauses.next();
            assert!((ms(due / 2)..=ms(due)).contains(&pause), "{pause:?} of {due} ms");
        }
        pauses.reset();
        assert!(pauses.next() <= ms(100));
    }
}
