//! Nodes that come and go while lookups are made.
//!
//! A node that goes says nothing. Those who list it find out when they ask it, which costs a time-out, and take it out; at
//! intervals each node puts its near neighbours right (`stabilize`) and refreshes what it knows of far ones (`refresh`). A
//! node that joins learns whom it should know, and is known to its nearest neighbours (Kademlia), or to its predecessor
//! when that stabilizes the next time (Chord).
//!
//! Events happen one after the other. A lookup sees the network as it is when it begins.

mod sessions;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::RngExt as _;
use serde::Serialize;

use self::sessions::micros_of_s;
use super::SettingsError;
use super::conditions::Micros;
use super::connection::Traffic;
use super::members::{MOST_NODES, NodeId};
use super::rng::{Rng, Use, stream};
use super::settings_error::positive;
use super::simulated::Simulated;
use super::workload::{LookupRow, Workload, WorkloadReport};

pub use sessions::Sessions;

/// Into how many parts of equal length the time is cut for [`Window`]s.
const WINDOWS: usize = 60;

/// How nodes come and go, and how the others keep up.
#[derive(Debug, Clone, PartialEq)]
pub struct Churn {
    /// How long nodes stay. Those that are there at the start stay as long as those that come.
    pub sessions: Sessions,
    /// How many nodes join per second, at random times; none stands for one for each that goes, at that moment.
    pub join_rate: Option<f64>,
    /// How many nodes go per second besides those whose session ends, drawn among all; 0 for none.
    pub leave_rate: f64,
    /// How long it goes on. The lookups of the workload are spread evenly over it.
    pub duration_s: f64,
    /// How often each node refreshes what it knows of far nodes.
    pub refresh_s: f64,
    /// How often each node puts its near neighbours right.
    pub stabilize_s: f64,
}

/// A part of the time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Window {
    /// When it ends, in seconds.
    pub until_s: f64,
    /// Living nodes at its last lookup.
    pub living: usize,
    /// Lookups begun in it.
    pub lookups: usize,
    /// Those that failed.
    pub failures: usize,
    /// How many dead nodes a lookup asked, on average.
    pub dead_met: f64,
    /// The mean share of the true closest that was found.
    pub recall: f64,
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub struct ChurnReport {
    /// The lookups. Loads are not counted: the nodes are not the same throughout.
    pub lookups: WorkloadReport,
    /// When each lookup was begun, in seconds.
    pub begun_s: Vec<f64>,
    /// How many nodes have joined.
    pub joined: usize,
    /// How many have gone.
    pub gone: usize,
    /// How many live at the end.
    pub living: usize,
    /// How things changed in time.
    pub windows: Vec<Window>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A node of a trace joins and goes at that time.
    Replay(Micros),
    /// A node joins; the next one is drawn.
    Join,
    /// This node's session ends.
    End(NodeId),
    /// Somebody goes; the next one is drawn.
    Leave,
    Stabilize(NodeId),
    Refresh(NodeId),
    Lookup(u64),
}

impl Churn {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        positive("the duration", self.duration_s)?;
        positive("the interval of refreshing", self.refresh_s)?;
        positive("the interval of stabilizing", self.stabilize_s)?;
        self.join_rate.map_or(Ok(()), |rate| positive("the join rate", rate))?;
        if self.leave_rate == 0.0 { Ok(()) } else { positive("the leave rate", self.leave_rate) }
    }

    /// How many nodes join in a network of so many, a little too many rather than too few.
    pub fn joins(&self, nodes: usize) -> f64 {
        if let Sessions::Replayed(rows) = &self.sessions {
            return rows.len() as f64;
        }
        // Sessions that go on when all is over count as having ended: one more for each node.
        let ends = nodes as f64 * (self.duration_s / self.sessions.mean_within(self.duration_s) + 1.0);
        self.join_rate.map_or(ends + self.leave_rate * self.duration_s, |rate| rate * self.duration_s)
    }

    /// By how many nodes a network grows at most, about: they join at a rate of their own or as a trace says.
    pub fn growth(&self) -> f64 {
        match (&self.sessions, self.join_rate) {
            (Sessions::Replayed(rows), None) => rows.len() as f64,
            (Sessions::Replayed(rows), Some(rate)) => rows.len() as f64 + rate * self.duration_s,
            (sessions, Some(rate)) => rate * sessions.mean_within(self.duration_s),
            (_, None) => 0.0,
        }
    }

    /// Refuses what makes no sense in a network of so many nodes: more that join than can be numbered.
    pub fn check_in(&self, nodes: usize) -> Result<(), SettingsError> {
        self.check()?;
        let (asked, most) = (self.joins(nodes) as usize, MOST_NODES.saturating_sub(nodes));
        let name = "the number of nodes that join";
        if asked > most { Err(SettingsError::TooMany { name, asked, most }) } else { Ok(()) }
    }

    /// Lets nodes come and go and does the lookups of the workload meanwhile. `progress` is called with the number of
    /// lookups done.
    pub fn run(
        &self,
        overlay: &mut dyn Simulated,
        workload: &Workload,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<ChurnReport, SettingsError> {
        self.check_in(overlay.members().living())?;
        workload.check()?;
        let traffic = Traffic::new(overlay.conditions(), stream(workload.seed, Use::Lookup, 0));
        let rng = stream(workload.seed, Use::Churn, 0);
        let mut running = Running {
            churn: self,
            workload,
            overlay,
            traffic,
            rng,
            now: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            rows: Vec::new(),
            begun: Vec::new(),
            living: Vec::new(),
            joined: 0,
            gone: 0,
        };
        running.prepare();
        while let Some(Reverse((at, _, event))) = running.events.pop() {
            if at > micros_of_s(self.duration_s) {
                break;
            }
            running.now = at;
            running.happens(event);
            if matches!(event, Event::Lookup(_)) {
                progress(1);
            }
        }
        Ok(running.report())
    }
}

struct Running<'a> {
    churn: &'a Churn,
    workload: &'a Workload,
    overlay: &'a mut dyn Simulated,
    traffic: Traffic<'a>,
    rng: Rng,
    now: Micros,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    /// Orders what happens at the same time.
    sequence: u64,
    rows: Vec<LookupRow>,
    begun: Vec<f64>,
    living: Vec<usize>,
    joined: usize,
    gone: usize,
}

impl Running<'_> {
    fn prepare(&mut self) {
        let initial = self.overlay.members().in_order().to_vec();
        let replayed = match &self.churn.sessions {
            Sessions::Replayed(rows) => rows.clone(),
            _ => Vec::new(),
        };
        let mut ends = replayed.iter().filter(|(start, _)| *start <= 0.0).map(|(_, end)| micros_of_s(*end));
        for node in initial {
            let stays = ends.next().unwrap_or_else(|| self.churn.sessions.draw(&mut self.rng));
            self.settle(node, stays);
        }
        for (start, end) in replayed.iter().filter(|(start, _)| *start > 0.0) {
            self.at(micros_of_s(*start), Event::Replay(micros_of_s(*end)));
        }
        self.draw_next(Event::Join, self.churn.join_rate.unwrap_or(0.0));
        self.draw_next(Event::Leave, self.churn.leave_rate);
        let lookups = self.workload.lookups as u64;
        for i in 0..lookups {
            let share = (i as f64 + 0.5) / lookups as f64;
            self.at(micros_of_s(self.churn.duration_s * share), Event::Lookup(i));
        }
    }

    fn at(&mut self, time: Micros, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    /// The end of a node's session and its first rounds of maintenance, which are not in step with those of others.
    fn settle(&mut self, node: NodeId, stays: Micros) {
        self.at(self.now.saturating_add(stays), Event::End(node));
        let phase: f64 = self.rng.random();
        self.at(self.now + micros_of_s(self.churn.refresh_s * phase), Event::Refresh(node));
        if self.overlay.stabilizes() {
            self.at(self.now + micros_of_s(self.churn.stabilize_s * phase), Event::Stabilize(node));
        }
    }

    /// The next of events that come at random with this rate.
    fn draw_next(&mut self, event: Event, rate: f64) {
        if rate > 0.0 {
            let pause = -(1.0 - self.rng.random::<f64>()).ln() / rate;
            self.at(self.now + micros_of_s(pause), event);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Replay(until) => self.join(until.saturating_sub(self.now)),
            Event::Join => {
                let stays = self.churn.sessions.draw(&mut self.rng);
                self.join(stays);
                self.draw_next(event, self.churn.join_rate.unwrap_or(0.0));
            }
            Event::End(node) => self.go(node),
            Event::Leave => {
                let living = self.overlay.members().in_order();
                let node = living[self.rng.random_range(0..living.len())];
                self.go(node);
                self.draw_next(event, self.churn.leave_rate);
            }
            Event::Stabilize(node) if self.overlay.members().is_alive(node) => {
                self.overlay.stabilize(node);
                self.at(self.now + micros_of_s(self.churn.stabilize_s), event);
            }
            Event::Refresh(node) if self.overlay.members().is_alive(node) => {
                self.overlay.refresh(node);
                self.at(self.now + micros_of_s(self.churn.refresh_s), event);
            }
            Event::Stabilize(_) | Event::Refresh(_) => {}
            Event::Lookup(i) => self.lookup(i),
        }
    }

    fn join(&mut self, stays: Micros) {
        let node = self.overlay.join();
        self.joined += 1;
        self.settle(node, stays);
    }

    /// A node goes, unless it has gone already or is the last.
    fn go(&mut self, node: NodeId) {
        if !self.overlay.members().is_alive(node) || self.overlay.members().living() == 1 {
            return;
        }
        self.overlay.leave(node);
        self.gone += 1;
        let replayed = matches!(self.churn.sessions, Sessions::Replayed(_));
        if self.churn.join_rate.is_none() && !replayed {
            let stays = self.churn.sessions.draw(&mut self.rng);
            self.join(stays);
        }
    }

    fn lookup(&mut self, i: u64) {
        let mut rng = stream(self.workload.seed, Use::Lookup, i);
        let living = self.overlay.members().in_order();
        let from = living[rng.random_range(0..living.len())];
        self.living.push(living.len());
        self.traffic.rng = rng;
        if self.workload.reset_every > 0 && i.is_multiple_of(self.workload.reset_every as u64) {
            self.traffic.reset_overheads();
        }
        let (row, dead) = self.workload.one(&*self.overlay, i, from, &mut self.traffic, None);
        self.overlay.forget(from, &dead);
        self.rows.push(row);
        self.begun.push(self.now as f64 / 1e6);
    }

    fn report(self) -> ChurnReport {
        let windows = windows(&self.rows, &self.begun, &self.living, self.churn.duration_s);
        ChurnReport {
            lookups: WorkloadReport {
                rows: self.rows,
                connections: self.traffic.metrics,
                asked: Vec::new(),
                keys: Vec::new(),
            },
            begun_s: self.begun,
            joined: self.joined,
            gone: self.gone,
            living: self.overlay.members().living(),
            windows,
        }
    }
}

fn windows(rows: &[LookupRow], begun: &[f64], living: &[usize], duration_s: f64) -> Vec<Window> {
    let length = duration_s / WINDOWS as f64;
    let mut windows = Vec::new();
    let mut hi = 0;
    for window in 0..WINDOWS {
        let until_s = length * (window + 1) as f64;
        // Each lookup is in one window, also one that begins where two meet.
        let lo = hi;
        hi = begun.partition_point(|at| *at < until_s);
        let rows = &rows[lo..hi];
        if let Some(last) = living[lo..hi].last() {
            let mean = |of: &dyn Fn(&LookupRow) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
            windows.push(Window {
                until_s,
                living: *last,
                lookups: rows.len(),
                failures: rows.iter().filter(|row| !row.found).count(),
                dead_met: mean(&|row| f64::from(row.dead_met)),
                recall: mean(&|row| f64::from(row.recall)),
            });
        }
    }
    windows
}
