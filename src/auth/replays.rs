//! Requests that were seen: none is taken twice.

use std::collections::{BTreeMap, HashSet};

/// By how many milliseconds the clocks of two machines may differ, and for how long a request may be under way.
pub(crate) const WINDOW: u64 = 60_000;

/// How many requests of one key are remembered. Above that the oldest second is forgotten, and with it all requests that
/// were signed by then are refused: nothing is ever taken twice, but who sends so much must have its clock right.
const MOST: usize = 1 << 19;

/// The nonces of the requests of one key that could still be taken, by the second in which they were signed.
#[derive(Debug)]
pub(crate) struct Replays {
    seconds: BTreeMap<u64, HashSet<[u8; 16]>>,
    count: usize,
    most: usize,
    /// What was signed before this may have been seen and forgotten.
    floor: u64,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its time is too far from ours: by so many milliseconds, negative if it lies in the past.
    Stale(i64),
    /// It was signed before this node started, or before the last that it has had to forget.
    Forgotten,
    /// It was seen.
    Replayed,
}

impl Replays {
    /// Takes what was signed from `now` on: what came earlier another run of this node may have seen.
    pub(crate) fn new(now: u64) -> Replays {
        Replays::bounded(now, MOST)
    }

    fn bounded(now: u64, most: usize) -> Replays {
        Replays { seconds: BTreeMap::new(), count: 0, most, floor: now }
    }

    /// Takes a request once. Times are milliseconds since 1970.
    pub(crate) fn take(&mut self, now: u64, signed: u64, nonce: [u8; 16]) -> Result<(), Refused> {
        if now.abs_diff(signed) > WINDOW {
            let by = i64::try_from(now.abs_diff(signed)).unwrap_or(i64::MAX);
            return Err(Refused::Stale(if signed < now { -by } else { by }));
        }
        if signed < self.floor {
            return Err(Refused::Forgotten);
        }
        while let Some(oldest) = self.seconds.first_entry()
            && (oldest.key() + 1) * 1000 + WINDOW <= now
        {
            self.count -= oldest.remove().len();
        }
        if !self.seconds.entry(signed / 1000).or_default().insert(nonce) {
            return Err(Refused::Replayed);
        }
        self.count += 1;
        if self.count > self.most
            && let Some((second, forgotten)) = self.seconds.pop_first()
        {
            self.count -= forgotten.len();
            self.floor = (second + 1) * 1000;
        }
        Ok(())
    }

    /// Whether nothing that was taken could still be sent again.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.seconds.last_key_value().is_none_or(|(second, _)| (second + 1) * 1000 + WINDOW <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000_000;

    fn nonce(number: u8) -> [u8; 16] {
        [number; 16]
    }

    #[test]
    fn nothing_is_taken_twice() {
        let mut replays = Replays::new(NOW - WINDOW);
        assert_eq!(replays.take(NOW, NOW, nonce(1)), Ok(()));
        assert_eq!(replays.take(NOW, NOW, nonce(1)), Err(Refused::Replayed));
        assert_eq!(replays.take(NOW, NOW, nonce(2)), Ok(()));
        assert_eq!(replays.take(NOW + WINDOW, NOW, nonce(1)), Err(Refused::Replayed), "at the end of its time");
        assert_eq!(replays.take(NOW + WINDOW + 1, NOW, nonce(1)), Err(Refused::Stale(-60_001)));
        // The clock of a sender that runs ahead: remembered until its time is over, too.
        assert_eq!(replays.take(NOW, NOW + WINDOW, nonce(3)), Ok(()));
        assert_eq!(replays.take(NOW + 2 * WINDOW, NOW + WINDOW, nonce(3)), Err(Refused::Replayed));
    }

    #[test]
    fn what_is_too_old_or_too_new_is_refused_with_the_difference() {
        let mut replays = Replays::new(0);
        assert_eq!(replays.take(NOW, NOW - 61_000, nonce(1)), Err(Refused::Stale(-61_000)));
        assert_eq!(replays.take(NOW, NOW + 61_000, nonce(1)), Err(Refused::Stale(61_000)));
        assert_eq!(replays.take(NOW, 0, nonce(1)), Err(Refused::Stale(-(NOW as i64))));
        assert!(matches!(replays.take(NOW, u64::MAX, nonce(1)), Err(Refused::Stale(late)) if late > 0));
    }

    #[test]
    fn what_was_signed_before_the_start_is_refused() {
        let mut replays = Replays::new(NOW);
        assert_eq!(replays.take(NOW + 5, NOW - 1, nonce(1)), Err(Refused::Forgotten));
        assert_eq!(replays.take(NOW + 5, NOW, nonce(1)), Ok(()));
    }

    #[test]
    fn a_full_memory_refuses_the_old_and_takes_nothing_twice() {
        let mut replays = Replays::bounded(NOW, 10);
        for number in 0..=10 {
            assert_eq!(replays.take(NOW + 3000, NOW + u64::from(number / 4) * 1000, nonce(number)), Ok(()));
        }
        for number in 0..=10 {
            let refused = if number < 4 { Refused::Forgotten } else { Refused::Replayed };
            assert_eq!(replays.take(NOW + 3000, NOW + u64::from(number / 4) * 1000, nonce(number)), Err(refused));
        }
        assert_eq!(replays.take(NOW + 3000, NOW + 1000, nonce(20)), Ok(()), "what is new enough is taken");
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut replays = Replays::bounded(NOW, 1000);
        for second in 0..1000 {
            let now = NOW + second * 1000;
            assert_eq!(replays.take(now, now, nonce(1)), Ok(()));
            assert!(replays.count <= 61 && replays.seconds.len() == replays.count);
        }
        let last = NOW + 999_000;
        assert!(!replays.is_over(last + WINDOW) && replays.is_over(last + WINDOW + 1000));
    }
}
