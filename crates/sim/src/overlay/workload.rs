//! The same lookups for either overlay, on any number of threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::RngExt as _;
use rayon::prelude::*;
use serde::Serialize;

use super::SettingsError;
use super::conditions::millis;
use super::connection::{Metrics, Traffic};
use super::hash::Hash;
use super::members::{Members, NodeId};
use super::rng::{Use, stream};
use super::settings_error::within;
use super::simulated::{Simulated, Task};
use super::statistics::Distribution;

/// How many lookups are done in one go where they don't depend on one another.
const BATCH: usize = 256;

/// Many lookups of random keys. Each draws from a stream of its own, so that they are the same in whatever order and on
/// however many threads they are done, and the same for both overlays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Workload {
    /// How many.
    pub lookups: usize,
    /// How many nodes begin them, drawn among the living; 0 stands for all.
    pub initiators: usize,
    /// Whether each key has a value, stored before anybody died at once, and the lookup ends with it.
    pub values: bool,
    /// After how many lookups the overheads (gamma) are reset: those in between go on at the same time. 0 stands for never.
    pub reset_every: usize,
    /// What decides keys, initiators, errors and delays.
    pub seed: u64,
}

/// One lookup as it went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LookupRow {
    /// Its number, from 0.
    pub lookup: u64,
    /// Who began it.
    pub from: NodeId,
    /// Whether it succeeded.
    pub found: bool,
    /// Nodes asked in sequence.
    pub hops: u32,
    /// Connections begun.
    pub contacted: u32,
    /// Those that failed.
    pub failed: u32,
    /// Those that failed because the other side is dead.
    pub dead_met: u32,
    /// The share of the true closest that was found.
    pub recall: f32,
    /// What it has taken, in ms.
    pub delay_ms: f64,
}

/// How a workload went.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadReport {
    /// Each lookup, by number.
    pub rows: Vec<LookupRow>,
    /// All connections together.
    pub connections: Metrics,
    /// How many questions each machine that lives has answered.
    pub asked: Vec<u32>,
    /// For how many of the keys each machine that lives is responsible: as the owner, or as one of the closest.
    pub keys: Vec<u32>,
}

impl WorkloadReport {
    /// How a column of the rows is distributed.
    pub fn distribution(&self, column: impl Fn(&LookupRow) -> f64) -> Distribution {
        Distribution::of(self.rows.iter().map(column))
    }

    /// How many nodes were asked in sequence, by the lookups that succeeded: those that failed have no last one.
    pub fn hops(&self) -> Distribution {
        Distribution::of(self.rows.iter().filter(|row| row.found).map(|row| f64::from(row.hops)))
    }

    /// Lookups that failed.
    pub fn failures(&self) -> usize {
        self.rows.iter().filter(|row| !row.found).count()
    }

    /// The mean share of the true closest that was found.
    pub fn recall(&self) -> f64 {
        self.distribution(|row| f64::from(row.recall)).mean
    }
}

/// Runs something on so many threads; 0 stands for one for each processor.
///
/// # Panics
/// If the system gives no threads.
pub fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("the system gives threads").install(work)
}

impl Workload {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        within("the number of lookups", self.lookups, u32::MAX as usize)
    }

    /// The key of the `i`-th lookup.
    pub fn key(&self, i: u64) -> Hash {
        Hash::of([b"key ".as_slice(), &self.seed.to_be_bytes(), &i.to_be_bytes()].concat())
    }

    /// Does the lookups. `progress` is called with the number of lookups done, now and then, from any thread.
    pub fn run(&self, overlay: &dyn Simulated, progress: &(dyn Fn(u64) + Sync)) -> WorkloadReport {
        let members = overlay.members();
        let from = self.starts(members);
        let counters = || (0..members.len()).map(|_| AtomicU32::new(0)).collect::<Vec<_>>();
        let (asked, keys) = (counters(), counters());
        let done: Vec<(Vec<LookupRow>, Metrics)> = self
            .batches(overlay, &from)
            .into_par_iter()
            .map(|batch| {
                let rng = stream(self.seed, Use::Lookup, 0);
                let mut traffic = Traffic::new(overlay.conditions(), rng).counting(&asked);
                let rows = batch
                    .iter()
                    .map(|i| {
                        traffic.rng = stream(self.seed, Use::Lookup, *i);
                        self.one(overlay, *i, from[*i as usize], &mut traffic, Some(&keys)).0
                    })
                    .collect();
                progress(batch.len() as u64);
                (rows, traffic.metrics)
            })
            .collect();
        let mut connections = Metrics::default();
        let mut rows: Vec<LookupRow> = Vec::with_capacity(self.lookups);
        for (batch, metrics) in done {
            rows.extend(batch);
            connections.add(&metrics);
        }
        rows.sort_by_key(|row| row.lookup);
        WorkloadReport { rows, connections, asked: by_machine(&asked, members), keys: by_machine(&keys, members) }
    }

    /// Does one lookup; also returns the dead nodes that it met. `keys` counts who is responsible.
    pub(super) fn one(
        &self,
        overlay: &dyn Simulated,
        i: u64,
        from: NodeId,
        traffic: &mut Traffic<'_>,
        keys: Option<&[AtomicU32]>,
    ) -> (LookupRow, Vec<NodeId>) {
        let key = self.key(i);
        let holders = self.values.then(|| overlay.holders(&key));
        let outcome = overlay.find(&Task { from, key, holders: holders.as_deref() }, traffic);
        let truth = overlay.truth(&key);
        for (keys, node) in keys.iter().flat_map(|keys| truth.iter().map(move |node| (keys, node))) {
            keys[*node as usize].fetch_add(1, Ordering::Relaxed);
        }
        let right = truth.iter().filter(|node| outcome.closest.contains(node)).count();
        let row = LookupRow {
            lookup: i,
            from,
            found: outcome.found,
            hops: outcome.hops,
            contacted: outcome.contacted,
            failed: outcome.failed,
            dead_met: outcome.dead.len() as u32,
            recall: right as f32 / truth.len().max(1) as f32,
            delay_ms: millis(outcome.delay_us),
        };
        (row, outcome.dead)
    }

    /// Who begins each lookup.
    fn starts(&self, members: &Members) -> Vec<NodeId> {
        let living = members.in_order();
        let mut rng = stream(self.seed, Use::Initiators, 0);
        let mut draw = |from: &[NodeId]| from[rng.random_range(0..from.len())];
        if self.initiators == 0 {
            return (0..self.lookups).map(|_| draw(living)).collect();
        }
        let some: Vec<NodeId> = (0..self.initiators).map(|_| draw(living)).collect();
        (0..self.lookups).map(|_| draw(&some)).collect()
    }

    /// The lookups by what they share: overheads, what an initiator remembers, or nothing.
    fn batches(&self, overlay: &dyn Simulated, from: &[NodeId]) -> Vec<Vec<u64>> {
        let all: Vec<u64> = (0..self.lookups as u64).collect();
        if overlay.conditions().gamma_us > 0 {
            let together = if self.reset_every == 0 { self.lookups } else { self.reset_every };
            return all.chunks(together).map(<[u64]>::to_vec).collect();
        }
        if overlay.remembers() {
            let mut by_start: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
            all.iter().for_each(|i| by_start.entry(from[*i as usize]).or_default().push(*i));
            return by_start.into_values().collect();
        }
        all.chunks(BATCH).map(<[u64]>::to_vec).collect()
    }
}

/// What was counted for nodes, added up for the machines that have a living node.
fn by_machine(counts: &[AtomicU32], members: &Members) -> Vec<u32> {
    let mut machines: Vec<Option<u32>> = vec![None; members.machines()];
    for node in members.in_order() {
        let sum = machines[members.host(*node) as usize].get_or_insert(0);
        *sum += counts[*node as usize].load(Ordering::Relaxed);
    }
    machines.into_iter().flatten().collect()
}
