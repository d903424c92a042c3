//! Figures for reports.

use std::collections::BTreeSet;

use chordal_protocol::Version;

use super::check::{by_key, check};
use super::{Digest, Kind, Operation, Outcome, Violation};

/// What has become of acknowledged writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survival {
    /// How many keys were read in the end.
    pub keys: u64,
    /// How many writes had been acknowledged.
    pub acknowledged: u64,
    /// How many of these are gone: neither they nor what has replaced them is there in the end.
    pub writes_lost: u64,
}

/// Whether every acknowledged write is there in the end, unless a later one has replaced it. The final reads are gets that
/// were invoked when all was over; keys that they don't read are not judged, and unknown or refused reads say nothing.
///
/// This only counts, and where nothing is there in the end but some delete had an unknown outcome, it counts nothing. Appended to
/// the history, the final reads are reads as all others, and [`check()`] refuses the history if a write is lost.
pub fn survives(history: &[Operation], final_reads: &[Operation]) -> Survival {
    let mut all: Vec<Operation> = history.to_vec();
    all.extend_from_slice(final_reads);
    let mut survival = Survival::default();
    for places in by_key(&all).chunk_by(|one, other| all[*one].key == all[*other].key) {
        let (early, late) = places.split_at(places.partition_point(|at| *at < history.len()));
        let Some(read) = late.iter().find_map(|at| match all[*at].outcome {
            Outcome::Read(read) => Some(read),
            _ => None,
        }) else {
            continue;
        };
        survival.keys += 1;
        let operations = early.iter().map(|at| &all[*at]);
        let done = acknowledged(operations.clone());
        survival.acknowledged += done.len() as u64;
        survival.writes_lost += lost(operations, &done, read);
    }
    survival
}

fn acknowledged<'a>(operations: impl Iterator<Item = &'a Operation>) -> BTreeSet<(Version, bool)> {
    let done = operations.filter_map(|operation| match operation.outcome {
        Outcome::Done(version) => Some((version, operation.kind == Kind::Delete)),
        _ => None,
    });
    done.collect()
}

/// How many of the acknowledged writes are later than what is there in the end.
fn lost<'a>(
    mut operations: impl Iterator<Item = &'a Operation>,
    done: &BTreeSet<(Version, bool)>,
    read: Option<(Version, Digest)>,
) -> u64 {
    let is_unknown_delete =
        |operation: &Operation| operation.kind == Kind::Delete && operation.outcome == Outcome::Unknown;
    let kept = match read {
        Some((version, _)) => Some(version),
        None if operations.any(is_unknown_delete) => return 0,
        None => done.iter().rev().find(|(_, is_delete)| *is_delete).map(|(version, _)| *version),
    };
    done.iter().filter(|(version, _)| Some(*version) > kept).count() as u64
}

/// What is said of a history in a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// How many operations there were, the final reads not counted.
    pub operations: u64,
    /// How many of them had an unknown outcome.
    pub unknown: u64,
    /// How many keys had a history.
    pub histories_checked: u64,
    /// How many acknowledged writes were gone in the end, as [`survives()`] counts.
    pub writes_lost: u64,
    /// How many answers that show what there is, failed conditions and final reads too, told of something older than what
    /// somebody had been told before they were asked for.
    pub stale_reads: u64,
    /// The first rule that was broken, if any, by the history and the final reads together.
    pub violation: Option<Violation>,
}

/// Checks and counts.
pub fn summarize(history: &[Operation], final_reads: &[Operation]) -> Summary {
    let mut all: Vec<Operation> = history.to_vec();
    all.extend_from_slice(final_reads);
    let places = by_key(&all);
    let keys = || places.chunk_by(|one, other| all[*one].key == all[*other].key);
    Summary {
        operations: history.len() as u64,
        unknown: history.iter().filter(|operation| operation.outcome == Outcome::Unknown).count() as u64,
        histories_checked: keys().count() as u64,
        writes_lost: survives(history, final_reads).writes_lost,
        stale_reads: keys().map(|places| stale(&all, places)).sum(),
        violation: check(&all).err(),
    }
}

/// How many answers of one key showed something older than what somebody had been told before they were asked for.
fn stale(history: &[Operation], places: &[usize]) -> u64 {
    let operations = || places.iter().map(|at| &history[*at]);
    // When what was told, as far as it goes beyond all that was told before.
    let mut told: Vec<(u64, Version)> =
        operations().filter_map(|operation| Some((operation.ended(), newest_told(operation)?))).collect();
    told.sort_unstable();
    let mut newest = Version::default();
    for (_, version) in &mut told {
        newest = newest.max(*version);
        *version = newest;
    }
    let is_delete = |operation: &&Operation| operation.kind == Kind::Delete;
    let unknown = operations().filter(is_delete).filter(|operation| operation.outcome == Outcome::Unknown);
    let first_unknown = unknown.map(|operation| operation.invoked).min().unwrap_or(u64::MAX);
    // Deletes by version, with the earliest invocation of each and of all later ones.
    let mut deletes: Vec<(Version, u64)> = operations()
        .filter(is_delete)
        .filter_map(|operation| Some((told_version(operation)?, operation.invoked)))
        .collect();
    deletes.sort_unstable();
    let mut earliest = u64::MAX;
    for (_, invoked) in deletes.iter_mut().rev() {
        earliest = earliest.min(*invoked);
        *invoked = earliest;
    }
    let is_stale = |operation: &&Operation| {
        let seen = match operation.outcome {
            Outcome::Read(read) => read.map(|(version, _)| version),
            Outcome::ConditionFailed(found) => found,
            Outcome::Done(_) | Outcome::Refused | Outcome::Unknown => return false,
        };
        let before = told.partition_point(|(ended, _)| *ended < operation.invoked);
        let Some((_, newest)) = before.checked_sub(1).map(|at| told[at]) else { return false };
        match seen {
            Some(version) => version < newest,
            None => {
                let from = deletes.partition_point(|(version, _)| *version < newest);
                let done = deletes.get(from).map_or(u64::MAX, |(_, invoked)| *invoked);
                done.min(first_unknown) > operation.ended()
            }
        }
    };
    operations().filter(is_stale).count() as u64
}

fn newest_told(operation: &Operation) -> Option<Version> {
    match operation.outcome {
        Outcome::Read(Some((version, _))) => Some(version),
        _ => told_version(operation),
    }
}

fn told_version(operation: &Operation) -> Option<Version> {
    match operation.outcome {
        Outcome::Done(version) => Some(version),
        Outcome::ConditionFailed(version) => version,
        _ => None,
    }
}

impl Summary {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.violation.is_none() && self.writes_lost == 0 && self.stale_reads == 0
    }
}
