//! Data-availability sampling: a block is cut into rows and columns of segments, its builder seeds them, and many nodes try
//! to have a few of them each. Those who get all that they asked for may believe that the block is there.

use rand::RngExt as _;
use rayon::prelude::*;
use serde::Serialize;

use super::SettingsError;
use super::conditions::{Micros, millis};
use super::connection::{Metrics, Traffic};
use super::hash::Hash;
use super::members::NodeId;
use super::rng::{Use, stream};
use super::settings_error::{percentage, within};
use super::simulated::{Simulated, Task};
use super::statistics::Distribution;

/// What is seeded and sampled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Availability {
    /// How many blocks, each with a builder of its own. They don't disturb one another.
    pub blocks: usize,
    /// Rows of a block.
    pub rows: usize,
    /// Columns of a block; rows times columns are its segments.
    pub columns: usize,
    /// Bytes of a segment, for the count of bytes.
    pub segment_bytes: usize,
    /// How many nodes sample each block.
    pub samplers: usize,
    /// How many different segments each of them asks for.
    pub samples: usize,
    /// How many segments a builder seeds, or a sampler asks for, at once.
    pub parallel: usize,
    /// Percentage of the segments that the builder withholds.
    pub withheld: f64,
    /// Percentage of the nodes that die after all blocks were seeded.
    pub dead: f64,
    /// What decides everything that is drawn.
    pub seed: u64,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AvailabilityReport {
    /// Segments of all blocks.
    pub segments: usize,
    /// Those that were withheld.
    pub withheld: usize,
    /// Those that were seeded and are stored nowhere: every store has failed.
    pub lost: usize,
    /// At how many nodes a seeded segment is stored.
    pub copies: Distribution,
    /// What seeding a block has taken, in ms.
    pub seeding_ms: Distribution,
    /// Samples asked for.
    pub samples: usize,
    /// Those that were got.
    pub samples_found: usize,
    /// Samplers of all blocks.
    pub samplers: usize,
    /// Those that got all their samples.
    pub samplers_satisfied: usize,
    /// What it took a satisfied sampler to have all samples, in ms.
    pub sampled_ms: Distribution,
    /// What a sample that was got has taken, in ms.
    pub sample_ms: Distribution,
    /// Connections begun for a sample.
    pub contacted: Distribution,
    /// Nodes asked in sequence for a sample that was got.
    pub hops: Distribution,
    /// Connections of the seeding.
    pub seeding_connections: Metrics,
    /// Connections of the sampling.
    pub sampling_connections: Metrics,
    /// For each satisfied sampler the time until it had all samples, in ms, in ascending order.
    #[serde(skip)]
    pub sampled_all_ms: Vec<f64>,
}

/// A segment as it was seeded.
struct Seeded {
    holders: Vec<NodeId>,
    withheld: bool,
    delay_us: Micros,
    connections: Metrics,
}

/// What a sampler has got.
struct Sampled {
    /// For each sample that was got: delay and hops.
    found: Vec<(Micros, u32)>,
    contacted: Vec<u32>,
    /// When all were answered, or given up.
    done_us: Micros,
    connections: Metrics,
}

impl Availability {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        let most = u32::MAX as usize;
        within("the number of blocks", self.blocks, most)?;
        within("the number of rows", self.rows, 1 << 15)?;
        within("the number of columns", self.columns, 1 << 15)?;
        within("the number of segments", self.rows * self.columns * self.blocks, most)?;
        within("the size of a segment", self.segment_bytes, 1 << 30)?;
        within("the number of samplers", self.samplers, most)?;
        within("the number of samples", self.samples, self.rows * self.columns)?;
        within("the number of segments at once", self.parallel, most)?;
        percentage("the share of segments that are withheld", self.withheld)?;
        percentage("the share of nodes that die", self.dead)
    }

    /// How many segments and samplers there are to go through.
    pub fn steps(&self) -> u64 {
        (self.blocks * (self.rows * self.columns + self.samplers)) as u64
    }

    /// Seeds all blocks, lets nodes die, and samples all blocks. `progress` is called with the number of segments seeded and
    /// samplers done, from any thread. Overheads (gamma) are those of one segment or one sampler each.
    pub fn run(
        &self,
        overlay: &mut dyn Simulated,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<AvailabilityReport, SettingsError> {
        self.check()?;
        let seeded: Vec<Vec<Seeded>> = (0..self.blocks).map(|block| self.seed(overlay, block, progress)).collect();
        if self.dead > 0.0 {
            overlay.kill(self.dead, self.seed);
        }
        let overlay = &*overlay;
        let sampled: Vec<Sampled> = (0..self.blocks * self.samplers)
            .into_par_iter()
            .map(|i| {
                progress(1);
                self.sample(overlay, i, &seeded[i / self.samplers])
            })
            .collect();
        Ok(self.report(&seeded, sampled))
    }

    fn segments(&self) -> usize {
        self.rows * self.columns
    }

    fn key(&self, block: usize, segment: usize) -> Hash {
        let (row, column) = (segment / self.columns, segment % self.columns);
        let numbers = [self.seed, block as u64, row as u64, column as u64].map(u64::to_be_bytes);
        Hash::of([b"segment ".as_slice(), &numbers.concat()].concat())
    }

    fn seed(&self, overlay: &dyn Simulated, block: usize, progress: &(dyn Fn(u64) + Sync)) -> Vec<Seeded> {
        let living = overlay.members().in_order();
        let mut rng = stream(self.seed, Use::Availability, block as u64);
        let builder = living[rng.random_range(0..living.len())];
        let segments = 0..self.segments();
        let seeded = segments.into_par_iter().map(|segment| {
            progress(1);
            self.provide(overlay, builder, block, segment)
        });
        seeded.collect()
    }

    /// Looks for where a segment belongs and stores it there, at all places at once.
    fn provide(&self, overlay: &dyn Simulated, builder: NodeId, block: usize, segment: usize) -> Seeded {
        let mut rng = stream(self.seed, Use::Seeding, (block * self.segments() + segment) as u64);
        let withheld = rng.random::<f64>() * 100.0 < self.withheld;
        let mut traffic = Traffic::new(overlay.conditions(), rng);
        let mut seeded = Seeded { holders: Vec::new(), withheld, delay_us: 0, connections: Metrics::default() };
        if withheld {
            return seeded;
        }
        let task = Task { from: builder, key: self.key(block, segment), holders: None };
        let found = overlay.find(&task, &mut traffic);
        let overhead = traffic.begin(builder);
        let mut slowest = 0;
        for node in found.closest {
            if node == builder {
                seeded.holders.push(node);
                continue;
            }
            traffic.metrics.bytes += self.segment_bytes as u64;
            slowest = slowest.max(match traffic.connect(overlay.members(), builder, node, overhead) {
                Ok(connection) => {
                    seeded.holders.push(node);
                    traffic.metrics.question_answered(0);
                    connection.connect_delay_us() + connection.question_delay_us()
                }
                Err(error) => error.summary.total_delay_us(),
            });
        }
        seeded.delay_us = found.delay_us + slowest;
        seeded.connections = traffic.metrics;
        seeded
    }

    fn sample(&self, overlay: &dyn Simulated, sampler: usize, block: &[Seeded]) -> Sampled {
        let rng = stream(self.seed, Use::Sampling, sampler as u64);
        let mut traffic = Traffic::new(overlay.conditions(), rng);
        let living = overlay.members().in_order();
        let from = living[traffic.rng.random_range(0..living.len())];
        let mut segments: Vec<u32> = (0..self.segments() as u32).collect();
        let (mut sampled, mut delays) = (Vec::new(), Vec::new());
        let mut contacted = Vec::new();
        for drawn in 0..self.samples {
            let other = traffic.rng.random_range(drawn..segments.len());
            segments.swap(drawn, other);
            let segment = segments[drawn] as usize;
            let key = self.key(sampler / self.samplers, segment);
            let outcome = overlay.find(&Task { from, key, holders: Some(&block[segment].holders) }, &mut traffic);
            contacted.push(outcome.contacted);
            delays.push(outcome.delay_us);
            if outcome.found {
                traffic.metrics.bytes += self.segment_bytes as u64;
                sampled.push((outcome.delay_us, outcome.hops));
            }
        }
        let done_us = makespan(&delays, self.parallel);
        Sampled { found: sampled, contacted, done_us, connections: traffic.metrics }
    }

    fn report(&self, seeded: &[Vec<Seeded>], sampled: Vec<Sampled>) -> AvailabilityReport {
        let all = || seeded.iter().flatten();
        let (mut seeding_connections, mut sampling_connections) = (Metrics::default(), Metrics::default());
        all().for_each(|segment| seeding_connections.add(&segment.connections));
        sampled.iter().for_each(|sampler| sampling_connections.add(&sampler.connections));
        let seeding = |block: &Vec<Seeded>| {
            millis(makespan(&block.iter().map(|segment| segment.delay_us).collect::<Vec<_>>(), self.parallel))
        };
        let satisfied = sampled.iter().filter(|sampler| sampler.found.len() == self.samples);
        let mut sampled_all_ms: Vec<f64> = satisfied.map(|sampler| millis(sampler.done_us)).collect();
        sampled_all_ms.sort_by(f64::total_cmp);
        let found = || sampled.iter().flat_map(|sampler| &sampler.found);
        AvailabilityReport {
            segments: all().count(),
            withheld: all().filter(|segment| segment.withheld).count(),
            lost: all().filter(|segment| !segment.withheld && segment.holders.is_empty()).count(),
            copies: Distribution::of(all().filter(|it| !it.withheld).map(|segment| segment.holders.len() as f64)),
            seeding_ms: Distribution::of(seeded.iter().map(seeding)),
            samples: self.samples * sampled.len(),
            samples_found: found().count(),
            samplers: sampled.len(),
            samplers_satisfied: sampled_all_ms.len(),
            sampled_ms: Distribution::of(sampled_all_ms.iter().copied()),
            sample_ms: Distribution::of(found().map(|(delay, _)| millis(*delay))),
            contacted: Distribution::of(sampled.iter().flat_map(|it| &it.contacted).map(|it| f64::from(*it))),
            hops: Distribution::of(found().map(|(_, hops)| f64::from(*hops))),
            seeding_connections,
            sampling_connections,
            sampled_all_ms,
        }
    }
}

/// When the last of these is done, if so many go on at once and each begins as soon as there is room, in this order.
fn makespan(delays: &[Micros], parallel: usize) -> Micros {
    let mut free = std::collections::BinaryHeap::from(vec![std::cmp::Reverse(0); parallel.min(delays.len())]);
    let mut last = 0;
    for delay in delays {
        let std::cmp::Reverse(begin) = free.pop().unwrap_or_default();
        last = last.max(begin + delay);
        free.push(std::cmp::Reverse(begin + delay));
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::chord::{Ring, RingSettings};
    use crate::overlay::conditions::{Conditions, DelayRange, micros};
    use crate::overlay::kademlia::{Network, NetworkSettings};
    use crate::overlay::on_threads;

    const SMALL: Availability = Availability {
        blocks: 2,
        rows: 8,
        columns: 16,
        segment_bytes: 100,
        samplers: 40,
        samples: 20,
        parallel: 4,
        withheld: 0.0,
        dead: 0.0,
        seed: 3,
    };

    fn conditions() -> Conditions {
        let connect_delay = DelayRange::of_ms(10.0, 10.0).unwrap();
        Conditions { connect_delay, timeout_us: micros(500.0), ..Conditions::default() }
    }

    fn network() -> Network {
        let settings = NetworkSettings { nodes: 500, conditions: conditions(), ..NetworkSettings::default() };
        Network::new(settings).unwrap()
    }

    fn ring() -> Ring {
        Ring::new(RingSettings { nodes: 500, conditions: conditions(), ..RingSettings::default() }).unwrap()
    }

    fn run(what: Availability, overlay: &mut dyn Simulated) -> AvailabilityReport {
        what.run(overlay, &|_| {}).unwrap()
    }

    #[test]
    fn what_was_seeded_is_sampled() {
        for (overlay, copies) in [(&mut network() as &mut dyn Simulated, 20.0), (&mut ring(), 1.0)] {
            let report = run(SMALL, overlay);
            assert_eq!((report.segments, report.withheld, report.lost), (256, 0, 0));
            assert_eq!((report.copies.mean, report.copies.min), (copies, copies));
            assert_eq!((report.samplers, report.samplers_satisfied), (80, 80));
            assert_eq!((report.samples, report.samples_found), (1600, 1600));
            // Twenty samples, four at once: five rounds of at most the slowest.
            assert!(
                report.sampled_ms.max <= 5.0 * report.sample_ms.max && report.sampled_ms.max > report.sample_ms.max
            );
        }
    }

    #[test]
    fn what_is_withheld_is_missed_and_what_dies_only_where_there_are_no_copies() {
        let withheld = run(Availability { withheld: 10.0, ..SMALL }, &mut network());
        assert!((10..45).contains(&withheld.withheld), "{}", withheld.withheld);
        let missed = (withheld.samples - withheld.samples_found) as f64 / withheld.samples as f64;
        let share = withheld.withheld as f64 / withheld.segments as f64;
        assert!((missed - share).abs() < 0.04, "{missed} {share}");
        assert!(withheld.samplers_satisfied < withheld.samplers / 2, "twenty samples nearly always show it");
        let half = Availability { dead: 50.0, ..SMALL };
        assert!(run(half, &mut network()).samples_found > 1590, "twenty copies outlive half of the nodes");
        let one_copy = run(half, &mut ring()).samples_found;
        assert!((650..950).contains(&one_copy), "{one_copy}");
    }

    #[test]
    fn the_same_on_any_number_of_threads() {
        let what = Availability { withheld: 5.0, dead: 5.0, ..SMALL };
        let on = |threads| on_threads(threads, || run(what, &mut network()));
        assert!(on(1) == on(3));
    }

    #[test]
    fn as_many_go_on_at_once_as_are_allowed() {
        assert_eq!(makespan(&[5, 1, 1, 1], 1), 8);
        assert_eq!(makespan(&[5, 1, 1, 1], 2), 5);
        assert_eq!(makespan(&[1, 1, 1, 5], 2), 6);
        assert_eq!(makespan(&[2, 3], 9), 3);
        assert_eq!(makespan(&[], 9), 0);
    }

    #[test]
    fn nonsense_is_refused() {
        let nonsense = [
            Availability { rows: 0, ..SMALL },
            Availability { columns: usize::MAX, ..SMALL },
            Availability { samples: 129, ..SMALL },
            Availability { samplers: 0, ..SMALL },
            Availability { parallel: 0, ..SMALL },
            Availability { withheld: 101.0, ..SMALL },
            Availability { dead: -1.0, ..SMALL },
        ];
        for what in nonsense {
            assert!(what.check().is_err(), "{what:?}");
        }
    }
}
