//! How long a primary may be silent, by what was heard of primaries so far, and how much time has passed for this node itself.
//!
//! A time-out that is set once is too short on a machine that is overloaded, and too long on one that is not. As in decision
//! 0006 it follows what is measured: the mean time between two beats of a primary and four times their mean deviation
//! (RFC 6298), within bounds. And a node that stood still has heard nobody: the time in which it had no beat itself does not
//! count.

use std::collections::BTreeMap;

use crate::{Id, Time};

/// How much longer than usual, at least, and than the shortest, at most, a primary may be silent: factors of the setting.
const CEILING: u64 = 8;

/// Two beats of a node that runs are no farther apart than this, in milliseconds.
const BEAT: u64 = 250;

/// How many primaries are remembered.
const PRIMARIES: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Pulse {
    primaries: BTreeMap<Id, Interval>,
    last_tick: Option<Time>,
    stood_still: u64,
}

/// Of the time between two beats, in eighths of a millisecond the mean, and in quarters the deviation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Interval {
    last: Time,
    mean8: u64,
    deviation4: u64,
}

impl Pulse {
    /// The time as it has passed for this node.
    pub(super) fn time(&self, now: Time) -> Time {
        Time(now.0.saturating_sub(self.stood_still))
    }

    /// This node has a beat.
    pub(super) fn beats(&mut self, now: Time) {
        if let Some(last) = self.last_tick.replace(now) {
            self.stood_still += now.since(last).saturating_sub(BEAT);
        }
    }

    /// A primary has a beat.
    pub(super) fn heard(&mut self, now: Time, primary: Id) {
        let now = self.time(now);
        let Some(known) = self.primaries.get_mut(&primary) else {
            if self.primaries.len() >= PRIMARIES {
                self.primaries.pop_first();
            }
            self.primaries.insert(primary, Interval { last: now, mean8: 8 * BEAT / 2, deviation4: 0 });
            return;
        };
        let interval = now.since(known.last);
        known.last = now;
        let mean = known.mean8 / 8;
        known.deviation4 = known.deviation4 - known.deviation4 / 4 + interval.abs_diff(mean);
        known.mean8 = known.mean8 - mean + interval;
    }

    /// After how many milliseconds without a beat a primary is suspected: those of the setting, or more.
    pub(super) fn suspicion(&self, setting: u64, primaries: impl Iterator<Item = Id>) -> u64 {
        let late = |id: Id| self.primaries.get(&id).map_or(0, |known| known.mean8 / 8 + known.deviation4);
        primaries.map(late).max().unwrap_or(0).clamp(setting, setting * CEILING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Id = Id::ZERO;

    fn beating(every: &[u64]) -> (Pulse, u64) {
        let (mut pulse, mut now) = (Pulse::default(), 0);
        for pause in every {
            now += pause;
            pulse.beats(Time(now));
            pulse.heard(Time(now), WHO);
        }
        (pulse, now)
    }

    #[test]
    fn a_primary_that_beats_evenly_is_suspected_after_the_setting() {
        let (pulse, _) = beating(&[100; 40]);
        assert_eq!(pulse.suspicion(500, [WHO].into_iter()), 500);
        assert_eq!(pulse.suspicion(500, [].into_iter()), 500);
    }

    #[test]
    fn one_that_is_often_late_gets_more_time_within_bounds() {
        let (mut pulse, mut now) = beating(&[100; 4]);
        for round in 0..40 {
            for _ in 0..4 + round % 2 * 8 {
                now += 100;
                pulse.beats(Time(now));
            }
            pulse.heard(Time(now), WHO);
        }
        let suspicion = pulse.suspicion(500, [WHO].into_iter());
        assert!((1_500..=4_000).contains(&suspicion), "{suspicion}");
        for _ in 0..60 {
            now += 100;
            pulse.beats(Time(now));
            pulse.heard(Time(now), WHO);
        }
        assert_eq!(pulse.suspicion(500, [WHO].into_iter()), 500, "and less again when it has recovered");
    }

    #[test]
    fn the_time_in_which_this_node_stood_still_does_not_count() {
        let (mut pulse, now) = beating(&[100; 4]);
        let before = pulse.time(Time(now));
        pulse.beats(Time(now + 9_000));
        assert_eq!(pulse.time(Time(now + 9_000)).since(before), BEAT);
        assert_eq!(pulse.suspicion(500, [WHO].into_iter()), 500);
    }
}
