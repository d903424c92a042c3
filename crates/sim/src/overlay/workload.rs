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
    /// How many nodes begin them, different ones drawn among the living; 0 stands for all, as does any number beyond.
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
        let mut some = living.to_vec();
        if (1..living.len()).contains(&self.initiators) {
            for at in 0..self.initiators {
                let drawn = rng.random_range(at..some.len());
                some.swap(at, drawn);
            }
            some.truncate(self.initiators);
        }
        (0..self.lookups).map(|_| some[rng.random_range(0..some.len())]).collect()
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

#[cfg(test)]
mod tests {
    use super::super::chord::{Ring, RingSettings};
    use super::super::conditions::{Conditions, DelayRange};
    use super::super::kademlia::{Network, NetworkSettings, Settings};
    use super::*;

    const SEED: u64 = 21;

    fn network(nodes: usize, alpha: usize, conditions: Conditions) -> Network {
        let kademlia = Settings { alpha, ..Settings::default() };
        Network::new(NetworkSettings { nodes, kademlia, conditions, seed: SEED, ..NetworkSettings::default() }).unwrap()
    }

    fn ring(nodes: usize) -> Ring {
        Ring::new(RingSettings { nodes, seed: SEED, ..RingSettings::default() }).unwrap()
    }

    fn rough() -> Conditions {
        Conditions {
            fast_error: 10.0,
            slow_error: 5.0,
            connect_delay: DelayRange::of_ms(10.0, 90.0).unwrap(),
            fast_delay: DelayRange::of_ms(1.0, 2.0).unwrap(),
            slow_delay: DelayRange::of_ms(200.0, 400.0).unwrap(),
            ..Conditions::default()
        }
    }

    fn work(lookups: usize) -> Workload {
        Workload { lookups, seed: SEED, ..Workload::default() }
    }

    #[test]
    fn the_same_on_any_number_of_threads() {
        let gamma = Conditions { gamma_us: 100, ..rough() };
        for (conditions, reset_every) in [(rough(), 0), (gamma, 0), (gamma, 100)] {
            let on = |threads| {
                on_threads(threads, || {
                    let network = network(2000, 3, conditions);
                    let tables: Vec<Vec<NodeId>> =
                        (0..2000).map(|node| network.table(node).unwrap().entries().to_vec()).collect();
                    (tables, Workload { reset_every, ..work(1500) }.run(&network, &|_| {}))
                })
            };
            let one = on(1);
            assert!(one == on(2) && one == on(7), "{conditions:?}, reset every {reset_every}");
        }
    }

    #[test]
    fn as_many_nodes_begin_lookups_as_are_asked_for() {
        let network = network(100, 1, Conditions::default());
        let beginning = |initiators| {
            let rows = Workload { initiators, ..work(2000) }.run(&network, &|_| {}).rows;
            rows.iter().map(|row| row.from).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!([1, 7, 80, 100, usize::MAX, 0].map(beginning), [1, 7, 80, 100, 100, 100]);
    }

    #[test]
    fn another_seed_gives_something_else() {
        let network = network(500, 1, rough());
        let rows = |seed| Workload { seed, ..work(50) }.run(&network, &|_| {}).rows;
        assert_eq!(rows(1), rows(1));
        assert_ne!(rows(1), rows(2));
    }

    #[test]
    fn both_overlays_get_the_same_nodes_keys_and_initiators() {
        let (network, ring) = (network(800, 1, Conditions::default()), ring(800));
        assert_eq!(network.members().hashes(), ring.members().hashes());
        let (one, two) = (work(400).run(&network, &|_| {}), work(400).run(&ring, &|_| {}));
        let from = |report: &WorkloadReport| report.rows.iter().map(|row| row.from).collect::<Vec<_>>();
        assert_eq!(from(&one), from(&two));
        assert_eq!((one.failures(), two.failures()), (0, 0));
    }

    #[test]
    fn errors_and_delays_are_those_that_were_asked_for() {
        let report = work(4000).run(&network(2000, 1, rough()), &|_| {});
        let of = |count: u64| 100.0 * count as f64 / report.connections.attempts as f64;
        assert!((of(report.connections.fast_errors) - 10.0).abs() < 0.7, "{:?}", report.connections);
        assert!(
            (of(report.connections.slow_errors) - 4.5).abs() < 0.5,
            "5% of the other 90%: {:?}",
            report.connections
        );
        assert_eq!(report.connections.attempts, report.rows.iter().map(|row| u64::from(row.contacted)).sum::<u64>());
        // A question takes two base delays of 50 ms on average, a fast error 1.5 ms, a slow one 300 ms.
        let metrics = report.connections;
        let expected =
            metrics.successes as f64 * 100.0 + metrics.fast_errors as f64 * 1.5 + metrics.slow_errors as f64 * 300.0;
        let total: f64 = report.rows.iter().map(|row| row.delay_ms).sum();
        assert!((total / expected - 1.0).abs() < 0.01, "{total} {expected}");
        assert!(report.recall() > 0.999, "{}", report.recall());
    }

    #[test]
    fn gamma_makes_lookups_slower_until_it_is_reset() {
        let slow = Conditions { gamma_us: 1000, ..Conditions::default() };
        let network = network(300, 1, slow);
        let mean = |rows: &[LookupRow]| Distribution::of(rows.iter().map(|row| row.delay_ms)).mean;
        let never = work(600).run(&network, &|_| {}).rows;
        assert!(mean(&never[500..]) > 2.0 * mean(&never[..100]), "{} {}", mean(&never[500..]), mean(&never[..100]));
        let often = Workload { reset_every: 10, ..work(600) }.run(&network, &|_| {}).rows;
        assert!(mean(&often[500..]) < 1.3 * mean(&often[..100]));
    }

    #[test]
    fn values_are_found_sooner_than_the_closest_and_copies_outlive_their_nodes() {
        let mut network = network(2000, 1, Conditions::default());
        let mut ring = ring(2000);
        let values = Workload { values: true, ..work(1000) };
        let (sought, whole) = (values.run(&network, &|_| {}), work(1000).run(&network, &|_| {}));
        let contacted = |report: &WorkloadReport| report.distribution(|row| f64::from(row.contacted)).mean;
        assert!(contacted(&sought) < contacted(&whole) - 1.0);
        assert_eq!((sought.failures(), values.run(&ring, &|_| {}).failures()), (0, 0));
        for overlay in [&mut network as &mut dyn Simulated, &mut ring] {
            assert_eq!(overlay.kill(30.0, SEED), 600);
        }
        assert!(values.run(&network, &|_| {}).failures() <= 3, "twenty copies");
        let lost = values.run(&ring, &|_| {}).failures() as f64 / 1000.0;
        assert!((lost - 0.3).abs() < 0.07, "one copy: {lost}");
    }

    #[test]
    fn what_is_counted_for_nodes_adds_up() {
        let network = network(1000, 1, Conditions::default());
        let report = Workload { initiators: 3, ..work(700) }.run(&network, &|_| {});
        assert_eq!(report.asked.iter().map(|it| u64::from(*it)).sum::<u64>(), report.connections.successes);
        assert_eq!(report.keys.iter().sum::<u32>(), 700 * 20);
        assert_eq!(report.asked.len(), 1000);
        let starts: std::collections::BTreeSet<NodeId> = report.rows.iter().map(|row| row.from).collect();
        assert!(starts.len() <= 3);
    }

    #[test]
    fn what_happened_is_told_while_it_happens() {
        let network = network(100, 1, Conditions::default());
        let done = std::sync::atomic::AtomicU64::new(0);
        work(1000).run(&network, &|more| {
            done.fetch_add(more, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 1000);
        assert!(work(0).check().is_err());
    }
}
