//! Connections between two nodes, and what is counted of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use chordal_protocol::OwnerCache;
use serde::Serialize;

use super::conditions::{Conditions, ErrorKind, Micros};
use super::members::{Members, NodeId};
use super::rng::Rng;

/// What a question weighs on the wire: the sender's id and address, the key, and a number that tells the answer apart. The
/// model of the simulator, the same for both overlays; headers of HTTP, UDP and IP are not counted.
pub const QUESTION_BYTES: u64 = 32 + 6 + 32 + 8;
/// What an answer weighs that names nobody.
pub const ANSWER_BYTES: u64 = 8;
/// What each node weighs that an answer names: its id, an IPv4 address and a port.
pub const CONTACT_BYTES: u64 = 32 + 4 + 2;

/// A connection, or the attempt at one: who, how it ended, and how long it took.
///
/// All delays are in microseconds. The *overheads* are what the contacts handled before have added, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConnectionSummary {
    /// The number of the attempt, counted from 1.
    pub id: u64,
    /// Who connected.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// How it failed; none if it did not.
    pub error: Option<ErrorKind>,
    /// The delay that was drawn.
    pub base_delay_us: Micros,
    /// The overhead of the one who connects.
    pub origin_overhead_us: Micros,
    /// The overhead of the other side.
    pub remote_overhead_us: Micros,
}

impl ConnectionSummary {
    /// Both overheads.
    pub fn total_overhead_us(&self) -> Micros {
        self.origin_overhead_us + self.remote_overhead_us
    }

    /// The base delay and both overheads: what each question over the connection takes, or what the error has taken.
    pub fn total_delay_us(&self) -> Micros {
        self.base_delay_us + self.total_overhead_us()
    }
}

/// An open connection. Opening it has taken its base delay; each question over it takes its total delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection(pub(crate) ConnectionSummary);

impl Connection {
    /// Who, and how long it takes.
    pub fn summary(&self) -> ConnectionSummary {
        self.0
    }

    /// Whom it leads to.
    pub fn to(&self) -> NodeId {
        self.0.to
    }

    /// What opening it has taken.
    pub fn connect_delay_us(&self) -> Micros {
        self.0.base_delay_us
    }

    /// What a question over it takes.
    pub fn question_delay_us(&self) -> Micros {
        self.0.total_delay_us()
    }
}

/// A connection that could not be made. Nothing has changed but the counts; it may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node {} cannot connect to node {}: {kind:?}", summary.from, summary.to)]
pub struct ConnectionError {
    /// How it failed.
    pub kind: ErrorKind,
    /// Who, and how long it took to know.
    pub summary: ConnectionSummary,
}

/// How many connections were tried, and how they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Metrics {
    /// Connections tried.
    pub attempts: u64,
    /// Those that were made.
    pub successes: u64,
    /// Those that were refused at once.
    pub fast_errors: u64,
    /// Those that were waited for in vain.
    pub slow_errors: u64,
    /// Those to nodes that are not there.
    pub not_found: u64,
    /// What was sent, in bytes of the model.
    pub bytes: u64,
}

impl Metrics {
    /// Those that failed.
    pub fn failures(&self) -> u64 {
        self.fast_errors + self.slow_errors + self.not_found
    }

    pub(crate) fn add(&mut self, other: &Metrics) {
        self.attempts += other.attempts;
        self.successes += other.successes;
        self.fast_errors += other.fast_errors;
        self.slow_errors += other.slow_errors;
        self.not_found += other.not_found;
        self.bytes += other.bytes;
    }

    pub(crate) fn question_answered(&mut self, contacts: usize) {
        self.bytes += ANSWER_BYTES + contacts as u64 * CONTACT_BYTES;
    }
}

/// How many contacts each node has handled since the last reset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overheads {
    gamma_us: Micros,
    handled: BTreeMap<NodeId, u64>,
}

impl Overheads {
    pub(crate) fn new(gamma_us: Micros) -> Overheads {
        Overheads { gamma_us, handled: BTreeMap::new() }
    }

    /// The overhead of a node that handles one more contact, this one included.
    fn grow(&mut self, node: NodeId) -> Micros {
        if self.gamma_us == 0 {
            return 0;
        }
        let handled = self.handled.entry(node).or_default();
        *handled += 1;
        *handled * self.gamma_us
    }

    fn reset(&mut self) {
        self.handled.clear();
    }
}

/// Where connections are made and counted: one for all that a network's clients do by hand, one for each batch of a
/// workload. It also has what those who look up remember.
#[derive(Debug)]
pub struct Traffic<'a> {
    pub(crate) conditions: Conditions,
    pub(crate) rng: Rng,
    pub(crate) metrics: Metrics,
    /// The owners that each one who looks up remembers.
    pub(crate) caches: BTreeMap<NodeId, OwnerCache>,
    overheads: Overheads,
    /// Every connection, if they are to be kept.
    log: Option<Vec<ConnectionSummary>>,
    /// How many questions each node has been asked, for all batches together.
    asked: Option<&'a [AtomicU32]>,
}

impl<'a> Traffic<'a> {
    pub(crate) fn new(conditions: Conditions, rng: Rng) -> Traffic<'a> {
        let overheads = Overheads::new(conditions.gamma_us);
        Traffic {
            conditions,
            rng,
            metrics: Metrics::default(),
            caches: BTreeMap::new(),
            overheads,
            log: None,
            asked: None,
        }
    }

    /// The same, and every connection is kept.
    pub(crate) fn logging(self) -> Traffic<'a> {
        Traffic { log: Some(Vec::new()), ..self }
    }

    /// The same, and the questions asked are added up here.
    pub(crate) fn counting(self, asked: &'a [AtomicU32]) -> Traffic<'a> {
        Traffic { asked: Some(asked), ..self }
    }

    pub(crate) fn connections(&self) -> &[ConnectionSummary] {
        self.log.as_deref().unwrap_or_default()
    }

    pub(crate) fn reset(&mut self) {
        self.metrics = Metrics::default();
        self.reset_overheads();
        if let Some(log) = &mut self.log {
            log.clear();
        }
    }

    pub(crate) fn reset_overheads(&mut self) {
        self.overheads.reset();
    }

    /// A node begins something; its overhead throughout.
    pub(crate) fn begin(&mut self, origin: NodeId) -> Micros {
        self.overheads.grow(origin)
    }

    /// Tries to connect.
    pub(crate) fn connect(
        &mut self,
        members: &Members,
        from: NodeId,
        to: NodeId,
        origin_overhead_us: Micros,
    ) -> Result<Connection, ConnectionError> {
        let remote_overhead_us = self.overheads.grow(to);
        let (outcome, base_delay_us) = self.conditions.draw(members.is_alive(to), &mut self.rng);
        self.metrics.attempts += 1;
        self.metrics.bytes += QUESTION_BYTES;
        let summary = ConnectionSummary {
            id: self.metrics.attempts,
            from,
            to,
            error: outcome.err(),
            base_delay_us,
            origin_overhead_us,
            remote_overhead_us,
        };
        if let Some(log) = &mut self.log {
            log.push(summary);
        }
        match outcome {
            Ok(()) => {
                self.metrics.successes += 1;
                if let Some(asked) = self.asked {
                    asked[to as usize].fetch_add(1, Ordering::Relaxed);
                }
                Ok(Connection(summary))
            }
            Err(kind) => {
                match kind {
                    ErrorKind::Fast => self.metrics.fast_errors += 1,
                    ErrorKind::Slow => self.metrics.slow_errors += 1,
                    ErrorKind::NotFound => self.metrics.not_found += 1,
                }
                Err(ConnectionError { kind, summary })
            }
        }
    }
}
