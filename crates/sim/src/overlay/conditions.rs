//! What connections meet with: errors and delays, as they are asked for.

use rand::RngExt as _;
use serde::Serialize;

use super::SettingsError;
use super::rng::Rng;

/// Microseconds of simulated time.
pub type Micros = u64;

/// The longest delay that can be asked for: an hour.
const LONGEST_MS: f64 = 3_600_000.0;

/// Delays from `lo` to `hi` microseconds, both included, all equally likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DelayRange {
    lo_us: Micros,
    hi_us: Micros,
}

impl DelayRange {
    /// No delay at all.
    pub const NONE: DelayRange = DelayRange { lo_us: 0, hi_us: 0 };

    /// The range from `lo` to `hi` milliseconds; an error unless `0 <= lo <= hi` and `hi` is at most an hour.
    pub fn of_ms(lo: f64, hi: f64) -> Result<DelayRange, SettingsError> {
        if !(0.0..=LONGEST_MS).contains(&lo) || !(lo..=LONGEST_MS).contains(&hi) {
            return Err(SettingsError::Delay { lo, hi });
        }
        Ok(DelayRange { lo_us: micros(lo), hi_us: micros(hi) })
    }

    /// The mean, in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        (self.lo_us + self.hi_us) as f64 / 2000.0
    }

    fn draw(&self, rng: &mut Rng) -> Micros {
        if self.lo_us == self.hi_us { self.lo_us } else { rng.random_range(self.lo_us..=self.hi_us) }
    }
}

/// Milliseconds as microseconds.
pub fn micros(ms: f64) -> Micros {
    (ms * 1000.0).round() as Micros
}

/// Microseconds as milliseconds.
pub fn millis(us: Micros) -> f64 {
    us as f64 / 1000.0
}

/// What connections meet with. The default is a perfect network: no errors and no delays.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Conditions {
    /// How many percent of the connections fail fast: the other side refuses. Drawn for each connection.
    pub fast_error: f64,
    /// How many percent of those that did not fail fast fail slowly: a time-out. Drawn for each connection.
    pub slow_error: f64,
    /// The base delay of a connection, and again of each question asked over it.
    pub connect_delay: DelayRange,
    /// The base delay of a fast error.
    pub fast_delay: DelayRange,
    /// The base delay of a slow error.
    pub slow_delay: DelayRange,
    /// What it takes to notice that a node is not there.
    pub timeout_us: Micros,
    /// By how much each contact that a node has handled delays those that follow, until the overheads are reset.
    pub gamma_us: Micros,
}

/// How a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It was refused at once.
    Fast,
    /// It was waited for in vain.
    Slow,
    /// There is no such node, or it has left or died.
    NotFound,
}

impl Conditions {
    /// Refuses rates that are no percentages.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (name, rate) in [("fast", self.fast_error), ("slow", self.slow_error)] {
            if !(0.0..=100.0).contains(&rate) {
                return Err(SettingsError::ErrorRate { name, rate });
            }
        }
        Ok(())
    }

    /// What a connection to a node comes to: the fast error is drawn first, then independently the slow one, and then the
    /// other side has to be there. The delay is the base delay of the outcome.
    pub(crate) fn draw(&self, is_there: bool, rng: &mut Rng) -> (Result<(), ErrorKind>, Micros) {
        let errs = |rate: f64, rng: &mut Rng| rate > 0.0 && rng.random::<f64>() * 100.0 < rate;
        if errs(self.fast_error, rng) {
            (Err(ErrorKind::Fast), self.fast_delay.draw(rng))
        } else if errs(self.slow_error, rng) {
            (Err(ErrorKind::Slow), self.slow_delay.draw(rng))
        } else if !is_there {
            (Err(ErrorKind::NotFound), self.timeout_us)
        } else {
            (Ok(()), self.connect_delay.draw(rng))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::{Use, stream};
    use super::*;

    #[test]
    fn errors_come_as_often_and_delays_are_as_long_as_asked() {
        let conditions = Conditions {
            fast_error: 20.0,
            slow_error: 25.0,
            connect_delay: DelayRange::of_ms(10.0, 20.0).unwrap(),
            fast_delay: DelayRange::of_ms(1.0, 1.0).unwrap(),
            slow_delay: DelayRange::of_ms(100.0, 300.0).unwrap(),
            ..Conditions::default()
        };
        conditions.check().unwrap();
        let mut rng = stream(5, Use::Clients, 0);
        let draws = 200_000;
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..draws {
            let (outcome, delay) = conditions.draw(true, &mut rng);
            let (count, total, least, most) = seen.entry(outcome.err()).or_insert((0, 0, u64::MAX, 0));
            (*count, *total) = (*count + 1, *total + delay);
            (*least, *most) = (delay.min(*least), delay.max(*most));
        }
        let share = |kind| f64::from(seen[&kind].0) / f64::from(draws);
        let mean = |kind| millis(seen[&kind].1) / f64::from(seen[&kind].0);
        // Slow errors hit a quarter of the four fifths that did not fail fast.
        for (kind, expected, delay) in
            [(Some(ErrorKind::Fast), 0.2, 1.0), (Some(ErrorKind::Slow), 0.2, 200.0), (None, 0.6, 15.0)]
        {
            assert!((share(kind) - expected).abs() < 0.005, "{kind:?}: {}", share(kind));
            assert!((mean(kind) / delay - 1.0).abs() < 0.01, "{kind:?}: {}", mean(kind));
        }
        assert!(seen[&None].2 < 10_010 && seen[&None].3 > 19_990, "the whole range is used: {:?}", seen[&None]);
    }

    #[test]
    fn certain_errors_are_certain_and_the_fast_one_comes_first() {
        let mut rng = stream(5, Use::Clients, 0);
        let both = Conditions { fast_error: 100.0, slow_error: 100.0, ..Conditions::default() };
        let slow = Conditions { fast_error: 0.0, timeout_us: 7, ..both };
        let none = Conditions { slow_error: 0.0, ..slow };
        for _ in 0..100 {
            assert_eq!(both.draw(false, &mut rng).0, Err(ErrorKind::Fast));
            assert_eq!(slow.draw(false, &mut rng).0, Err(ErrorKind::Slow));
            assert_eq!(none.draw(false, &mut rng), (Err(ErrorKind::NotFound), 7));
            assert_eq!(none.draw(true, &mut rng), (Ok(()), 0));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (lo, hi) in [(-1.0, 2.0), (3.0, 2.0), (0.0, f64::INFINITY), (f64::NAN, 1.0), (0.0, f64::NAN)] {
            assert!(DelayRange::of_ms(lo, hi).is_err(), "{lo}..{hi}");
        }
        for rate in [-0.1, 100.1, f64::NAN] {
            assert!(Conditions { fast_error: rate, ..Conditions::default() }.check().is_err());
            assert!(Conditions { slow_error: rate, ..Conditions::default() }.check().is_err());
        }
    }
}
