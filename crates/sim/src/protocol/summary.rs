//! Many seeds, and what they have in common.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::check::Violation;
use super::faults::{FaultCounts, Kind};
use super::run::{Outcome, run};
use super::setup::Setup;

/// How many seeds run before their outcomes are added up: so many at most are kept.
const AT_A_TIME: u64 = 256;

/// Of many numbers: their mean, the 99th percentile (99 of 100 are not greater) and the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The 99th percentile.
    pub p99: u64,
    /// The greatest.
    pub max: u64,
}

/// How often each number was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram(Vec<u64>);

impl Histogram {
    /// Notes a number.
    pub fn note(&mut self, value: u64) {
        let at = value as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] += 1;
    }

    /// What was noted; nothing if nothing was.
    pub fn spread(&self) -> Option<Spread> {
        let all: u64 = self.0.iter().sum();
        let sum: u64 = self.0.iter().enumerate().map(|(value, times)| value as u64 * times).sum();
        let mut seen = 0;
        let rank = (all * 99).div_ceil(100);
        let p99 = self.0.iter().position(|times| {
            seen += times;
            seen >= rank
        });
        (all > 0).then(|| Spread {
            mean: sum as f64 / all as f64,
            p99: p99.unwrap_or(0) as u64,
            max: self.0.len() as u64 - 1,
        })
    }
}

/// What a number of seeds have shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// How many seeds were run.
    pub runs: u64,
    /// How many of them ended as they should, within the assumptions of the theorem.
    pub passed: u64,
    /// How many were outside those assumptions, and did nothing wrong all the same.
    pub assumption_broken: u64,
    /// How many events happened in all of them.
    pub steps: u64,
    /// How many times the invariants were looked at.
    pub looks: u64,
    /// How much time passed in all simulations together, in milliseconds.
    pub simulated: u64,
    /// What was done to the rings.
    pub faults: FaultCounts,
    /// The seeds in which something happened that must not, with the first such thing.
    pub failures: Vec<(u64, Violation)>,
    /// Rounds of stabilizing until the ring was ideal, of those runs that passed.
    pub rounds_to_ideal: Histogram,
    /// Rounds until everybody served what it owned, too.
    pub rounds_to_ready: Histogram,
    /// How many nodes each lookup of a client asked.
    pub hops: Histogram,
    /// Reads and writes that came to their end.
    pub operations: u64,
    /// Reads and writes that got no answer.
    pub unavailable: u64,
    /// Writes whose outcome no client knew, and reads without an answer.
    pub unknown: u64,
    /// Histories of registers that were judged.
    pub histories_checked: u64,
    /// Acknowledged writes that were gone in the end.
    pub writes_lost: u64,
    /// Changes of views that were decided.
    pub view_changes: u64,
    /// For how long ranges were not served although a majority of their members ran and could reach each other, in simulated
    /// milliseconds, summed over ranges.
    pub without_service: u64,
    /// The longest such time of one key without a break, of each run, in simulated milliseconds.
    pub longest_without_service: Histogram,
    /// The greatest number of views that a node knew to be over in the end of a run.
    pub most_over: u64,
    /// Reads of something older than what somebody had been told before.
    pub stale_reads: u64,
}

impl Summary {
    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.looks += outcome.looks;
        self.simulated += outcome.simulated;
        self.faults.add(&outcome.faults);
        self.operations += outcome.operations.0;
        self.unavailable += outcome.operations.1;
        self.unknown += outcome.content.unknown;
        self.histories_checked += outcome.content.histories_checked;
        self.writes_lost += outcome.content.writes_lost;
        self.stale_reads += outcome.content.stale_reads;
        self.view_changes += outcome.view_changes;
        self.without_service += outcome.without_service;
        self.longest_without_service.note(outcome.longest_without_service);
        self.most_over = self.most_over.max(outcome.most_over);
        outcome.hops.iter().for_each(|hops| self.hops.note(u64::from(*hops)));
        match (outcome.violation, outcome.outside) {
            (Some(violation), _) => self.failures.push((outcome.seed, violation)),
            (None, Some(_)) => self.assumption_broken += 1,
            (None, None) => {
                self.passed += 1;
                outcome.rounds_to_ideal.into_iter().for_each(|rounds| self.rounds_to_ideal.note(rounds));
                outcome.rounds_to_ready.into_iter().for_each(|rounds| self.rounds_to_ready.note(rounds));
            }
        }
    }

    /// Of a single outcome.
    pub fn of(outcome: Outcome) -> Summary {
        let mut summary = Summary::default();
        summary.add(outcome);
        summary
    }

    /// The faults that were asked for and never happened: such runs prove less than they were meant to.
    pub fn missing(&self, setup: &Setup) -> Vec<Kind> {
        if self.runs == 0 {
            return Vec::new();
        }
        let can_happen = |kind: &Kind| setup.content.is_some() || !matches!(kind, Kind::Full | Kind::Unsynced);
        let requested = setup.faults.requested().into_iter().filter(can_happen);
        requested.filter(|kind| self.faults.of(*kind) == 0).collect()
    }
}

/// Runs seeds on all processors. `ran` hears of each that has ended, in no order; the summary is the same in any. Ends early
/// when `stop` is set.
pub fn simulate(setup: &Setup, seeds: Range<u64>, ran: impl Fn(&Outcome) + Sync, stop: &AtomicBool) -> Summary {
    let mut summary = Summary::default();
    let mut from = seeds.start;
    while from < seeds.end && !stop.load(Ordering::Relaxed) {
        let to = seeds.end.min(from + AT_A_TIME);
        let outcomes: Vec<Option<Outcome>> = (from..to)
            .into_par_iter()
            .map(|seed| {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let outcome = run(setup, seed, None);
                ran(&outcome);
                Some(outcome)
            })
            .collect();
        outcomes.into_iter().flatten().for_each(|outcome| summary.add(outcome));
        from = to;
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_all_that_was_noted() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.spread(), None);
        (0..100).for_each(|_| histogram.note(2));
        histogram.note(9);
        let Spread { mean, p99, max } = histogram.spread().unwrap();
        assert!((mean - 209.0 / 101.0).abs() < 1e-9);
        assert_eq!((p99, max), (2, 9));
    }
}
