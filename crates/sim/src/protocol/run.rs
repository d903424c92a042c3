//! One seed, from its first step to its verdict.

use super::check::Violation;
use super::faults::FaultCounts;
use super::setup::{ROUND, Setup};
use super::trace::Sink;
use super::world::{FATE, MS, World};
use crate::history;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed that repeats it.
    pub seed: u64,
    /// How many nodes the ring was to have.
    pub nodes: usize,
    /// How many events happened.
    pub steps: u64,
    /// How many times the invariants were looked at: after each step that changed what they speak of.
    pub looks: u64,
    /// How much time has passed in the simulation, in milliseconds.
    pub simulated: u64,
    /// What was done to the ring.
    pub faults: FaultCounts,
    /// What must not happen and did; the run ends with it.
    pub violation: Option<Violation>,
    /// Why the run was outside the assumptions of the theorem, if it was: it counts neither as a pass nor, unless something
    /// happened that must never happen, as a failure.
    pub outside: Option<String>,
    /// After how many rounds without faults the ring was ideal; none if that was not asked for, or it never was.
    pub rounds_to_ideal: Option<u64>,
    /// After how many rounds all its nodes served what they owned, too.
    pub rounds_to_ready: Option<u64>,
    /// How many nodes the lookups of clients asked.
    pub hops: Vec<u32>,
    /// What clients were told of registers, and whether that can be.
    pub content: history::Summary,
    /// How many changes of views were decided.
    pub view_changes: u64,
    /// For how long ranges were not served although a majority of their members ran and could reach each other, in simulated
    /// milliseconds, summed over ranges.
    pub without_service: u64,
    /// The longest such time of one key without a break, in simulated milliseconds.
    pub longest_without_service: u64,
    /// The greatest number of views that a node knew to be over in the end: such names must not pile up.
    pub most_over: u64,
    /// How many reads and writes came to their end, and how many got no answer.
    pub operations: (u64, u64),
}

/// Runs one seed. The sink is told all that happens.
pub fn run(setup: &Setup, seed: u64, sink: Option<Sink<'_>>) -> Outcome {
    let mut world = World::new(setup, seed, sink);
    let end = (setup.seconds * 1e6) as u64;
    go_on_until(&mut world, end);
    let mut rounds = (None, None);
    if world.wants_liveness() && world.checker.violation.is_none() {
        rounds = recover(&mut world);
    }
    outcome(world, seed, rounds)
}

pub(crate) fn go_on_until(world: &mut World<'_>, end: u64) {
    while world.checker.violation.is_none() && world.step(end) {}
}

/// The faults stop; after how many rounds the ring is ideal, and ready.
pub(crate) fn recover(world: &mut World<'_>) -> (Option<u64>, Option<u64>) {
    world.calm();
    let begin = world.now;
    let rounds = |world: &World<'_>| (world.now - begin).div_ceil(ROUND * MS);
    let (mut ideal, mut ready) = (None, None);
    while world.checker.violation.is_none() && ready.is_none() {
        if ideal.is_none() && world.not_ideal().is_ok() {
            ideal = Some(rounds(world));
        }
        match world.unfinished() {
            Ok(()) => ready = Some(rounds(world)),
            Err(_) if rounds(world) >= world.setup.rounds && world.is_stranded() => break,
            Err(why) if rounds(world) >= world.setup.rounds => {
                let text = format!("after {} rounds without faults: {why}", world.setup.rounds);
                world.checker.violated(if ideal.is_some() { "ready_ring" } else { "ideal_ring" }, text);
                world.check();
            }
            Err(_) => {
                let next = world.now + FATE;
                go_on_until(world, next);
            }
        }
    }
    if ready.is_some() {
        world.read_all();
        world.check();
    }
    (ideal, ready)
}

pub(crate) fn outcome(mut world: World<'_>, seed: u64, rounds: (Option<u64>, Option<u64>)) -> Outcome {
    let content = world.judge();
    world.print();
    Outcome {
        content,
        seed,
        nodes: world.wanted,
        steps: world.steps,
        looks: world.checker.looks,
        simulated: world.now / MS,
        faults: world.counts,
        violation: world.checker.violation,
        outside: world.checker.broken,
        rounds_to_ideal: rounds.0,
        rounds_to_ready: rounds.1,
        hops: world.hops,
        view_changes: world.service.changes(),
        without_service: world.service.missed / MS,
        longest_without_service: world.service.longest / MS,
        most_over: world.service.most_over,
        operations: (world.register.done, world.register.given_up),
    }
}
