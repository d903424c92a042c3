//! A lookup in simulated time: `alpha` questions really are under way at once.

use super::Settings;
use super::table::{Near, RoutingTable};
use crate::overlay::conditions::{ErrorKind, Micros};
use crate::overlay::connection::Traffic;
use crate::overlay::hash::Hash;
use crate::overlay::members::{Members, NodeId};

/// What a lookup walks through.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) members: &'a Members,
    pub(crate) tables: &'a [RoutingTable],
    pub(crate) settings: &'a Settings,
}

/// What is looked for.
pub(crate) struct Search<'a> {
    pub(crate) from: NodeId,
    pub(crate) key: Hash,
    /// Whether a node has the value; none if only the closest nodes are of interest.
    pub(crate) holds: Option<&'a dyn Fn(NodeId) -> bool>,
    /// Whether the first value ends the lookup.
    pub(crate) stop_at_value: bool,
}

/// How a lookup went. Delays in microseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// The closest nodes seen, at most beta, the closest first; the one who asks may be among them.
    pub(crate) closest: Vec<NodeId>,
    /// Who answered with the value first.
    pub(crate) value_from: Option<NodeId>,
    /// How many nodes were asked in sequence until the value or, without one, the closest node was reached, that node
    /// included.
    pub(crate) hops: u32,
    /// Connections begun; those still under way at the end are neither successes nor failures.
    pub(crate) attempts: u32,
    pub(crate) successes: u32,
    pub(crate) failures: u32,
    /// Nodes seen, the one who asks left out.
    pub(crate) seen: u32,
    pub(crate) delay_us: Micros,
    /// Those that were not there.
    pub(crate) dead: Vec<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Answered,
    Failed,
    /// It is not there.
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    near: Near,
    /// How many nodes have to be asked in sequence to have asked this one.
    depth: u32,
    state: State,
}

/// A question under way.
struct Flight {
    done_us: Micros,
    near: Near,
    outcome: Result<(), ErrorKind>,
}

/// Runs a lookup to its end.
pub(crate) fn run(world: World<'_>, search: &Search<'_>, traffic: &mut Traffic<'_>) -> Found {
    let mut lookup = Running::new(world, search);
    let held = |node| search.holds.is_some_and(|holds| holds(node));
    if held(search.from) {
        lookup.found.value_from = Some(search.from);
        if search.stop_at_value {
            return lookup.end();
        }
    }
    let origin_overhead_us = traffic.begin(search.from);
    let mut flights: Vec<Flight> = Vec::with_capacity(world.settings.alpha);
    loop {
        while flights.len() < world.settings.alpha
            && let Some(near) = lookup.next()
        {
            flights.push(lookup.ask(near, origin_overhead_us, traffic));
        }
        // The first to come back; of those that come at the same time the one that was sent first.
        let Some(first) = (0..flights.len()).min_by_key(|i| flights[*i].done_us) else { break };
        let flight = flights.remove(first);
        lookup.found.delay_us = flight.done_us;
        lookup.take(&flight, traffic);
        if flight.outcome.is_ok() && held(flight.near.node) && lookup.found.value_from.is_none() {
            lookup.found.value_from = Some(flight.near.node);
            lookup.found.hops = lookup.depth_of(flight.near);
            if search.stop_at_value {
                break;
            }
        }
        if lookup.steps >= world.settings.steps_to_stop {
            break;
        }
    }
    lookup.end()
}

struct Running<'a> {
    world: World<'a>,
    from: NodeId,
    key: Hash,
    /// All nodes seen, the closest first.
    candidates: Vec<Candidate>,
    /// Answers in a row that named nobody new among the beta closest.
    steps: u32,
    answer: Vec<Near>,
    merged: Vec<Candidate>,
    found: Found,
}

impl<'a> Running<'a> {
    /// Begins with oneself and the closest of one's own table.
    fn new(world: World<'a>, search: &Search<'_>) -> Running<'a> {
        let own = Near::new(search.from, &search.key, world.members.hashes());
        let me = Candidate { near: own, depth: 0, state: State::Answered };
        let mut lookup = Running {
            world,
            from: search.from,
            key: search.key,
            candidates: vec![me],
            steps: 0,
            answer: Vec::with_capacity(4 * world.settings.k),
            merged: Vec::new(),
            found: Found::default(),
        };
        lookup.merge_closest_of(search.from, 1);
        lookup
    }

    /// The closest node that has not been tried, as long as not all of the beta closest have answered. One that failed makes
    /// room for another question.
    fn next(&self) -> Option<Near> {
        let mut answering = self
            .candidates
            .iter()
            .filter(|it| !matches!(it.state, State::Failed | State::Gone))
            .take(self.world.settings.beta);
        answering.find(|candidate| candidate.state == State::New).map(|candidate| candidate.near)
    }

    /// Sends a question. What comes of it is drawn now and known when it is back: connecting takes the base delay, the
    /// question the base delay and the overheads.
    fn ask(&mut self, near: Near, origin_overhead_us: Micros, traffic: &mut Traffic<'_>) -> Flight {
        self.set(near, State::Asked);
        self.found.attempts += 1;
        let now = self.found.delay_us;
        match traffic.connect(self.world.members, self.from, near.node, origin_overhead_us) {
            Ok(connection) => {
                let done_us = now + connection.connect_delay_us() + connection.question_delay_us();
                Flight { done_us, near, outcome: Ok(()) }
            }
            Err(error) => Flight { done_us: now + error.summary.total_delay_us(), near, outcome: Err(error.kind) },
        }
    }

    fn take(&mut self, flight: &Flight, traffic: &mut Traffic<'_>) {
        match flight.outcome {
            Ok(()) => {
                self.found.successes += 1;
                let depth = self.depth_of(flight.near) + 1;
                self.set(flight.near, State::Answered);
                let news = self.merge_closest_of(flight.near.node, depth);
                self.steps = if news { 0 } else { self.steps + 1 };
                traffic.metrics.question_answered(self.answer.len());
            }
            Err(kind) => {
                self.found.failures += 1;
                let is_gone = kind == ErrorKind::NotFound;
                self.set(flight.near, if is_gone { State::Gone } else { State::Failed });
                if is_gone {
                    self.found.dead.push(flight.near.node);
                }
            }
        }
    }

    /// Adds the closest nodes that a node knows. Returns whether one of them is new among the beta closest.
    fn merge_closest_of(&mut self, node: NodeId, depth: u32) -> bool {
        let hashes = self.world.members.hashes();
        self.world.tables[node as usize].closest(&self.key, self.world.settings.k, hashes, &mut self.answer);
        let mut known = self.candidates.iter().copied().peekable();
        let mut news = false;
        self.merged.clear();
        for near in &self.answer {
            while let Some(before) = known.next_if(|it| it.near.compare(near, &self.key, hashes).is_lt()) {
                self.merged.push(before);
            }
            if known.peek().is_some_and(|it| it.near.node == near.node) {
                continue;
            }
            news |= self.merged.len() < self.world.settings.beta;
            self.merged.push(Candidate { near: *near, depth, state: State::New });
        }
        self.merged.extend(known);
        std::mem::swap(&mut self.candidates, &mut self.merged);
        news
    }

    fn place(&self, near: Near) -> usize {
        let hashes = self.world.members.hashes();
        self.candidates.partition_point(|it| it.near.compare(&near, &self.key, hashes).is_lt())
    }

    fn set(&mut self, near: Near, state: State) {
        let at = self.place(near);
        self.candidates[at].state = state;
    }

    fn depth_of(&self, near: Near) -> u32 {
        self.candidates[self.place(near)].depth
    }

    /// The result: a connection that failed doesn't take a node out of it, unless the node is not there.
    fn end(self) -> Found {
        let mut found = self.found;
        let mut there =
            self.candidates.iter().filter(|it| it.state != State::Gone).take(self.world.settings.beta).peekable();
        if found.value_from.is_none() {
            found.hops = there.peek().map_or(0, |closest| closest.depth);
        }
        found.closest = there.map(|it| it.near.node).collect();
        found.seen = self.candidates.len() as u32 - 1;
        found
    }
}
