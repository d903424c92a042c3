//! What a simulation is to be.

use chordal_protocol::{Flaw, Settings, keeper};

use super::faults::Faults;
use crate::disk::Pace;

/// Which protocol the nodes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// What nodes run: Zave's corrected Chord.
    Zave,
    /// Chord as it was published in 2001, whose join, stabilize and notify do not keep a ring.
    Stoica2001,
    /// What nodes run, with a planted bug.
    Flawed(Flaw),
}

impl Variant {
    /// What is planted into each node.
    pub(crate) fn flaw(self) -> Option<Flaw> {
        match self {
            Variant::Zave => None,
            Variant::Stoica2001 => Some(Flaw::Original2001),
            Variant::Flawed(flaw) => Some(flaw),
        }
    }
}

/// What is wrong with the machines, and not with the protocol, so that a simulator can show that it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Negligence {
    /// What a step wants to send leaves at once, and not when the disk has what the step has changed.
    AnswersBeforeDurable,
}

/// What is asked of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// That nothing which must never happen happens, whatever the faults: they go on to the end.
    Safety,
    /// That a core of nodes becomes an ideal ring, with all its content served, once faults have stopped for it. Nodes that
    /// are no part of the core are gone for good from that moment on.
    Liveness,
}

/// What a simulation is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// The smallest and the largest ring; each seed picks one in between.
    pub nodes: (usize, usize),
    /// For how long faults go on, in simulated seconds. The recovery that [`Aim::Liveness`] looks at comes on top.
    pub seconds: f64,
    /// What is done to the ring.
    pub faults: Faults,
    /// Nodes that leave in order, per node and simulated second. For each that is gone a new one comes.
    pub churn: f64,
    /// Reads and writes per simulated second.
    pub operations: f64,
    /// How many keys clients use. The fewer, the more operations of one key are under way at once.
    pub keys: usize,
    /// How long disks take to make something durable, in simulated microseconds.
    pub pace: Pace,
    /// For how long primaries remember what became of requests, in simulated milliseconds.
    pub outcomes_kept: u64,
    /// Which share of the members is lost for good, at once, in the moment in which faults stop. None: up to a quarter, in half
    /// of the runs in which nodes crash.
    pub lose: Option<f64>,
    /// Whether faults are passed over that Zave's theorem excludes: a member that loses all its successors at once. None: in three
    /// of four runs. What clients are told must be right in any case.
    pub sparing: Option<bool>,
    /// How many nodes of another ring are about, which remember nodes of this one and are remembered by them.
    pub strangers: usize,
    /// The protocol.
    pub variant: Variant,
    /// What is wrong with the machines.
    pub negligence: Option<Negligence>,
    /// What is asked of the runs.
    pub aim: Aim,
    /// How many rounds of stabilizing the core may take to become ideal.
    pub rounds: u64,
    /// How long an answer is waited for, in simulated milliseconds, and how often it is asked for before the verdict.
    pub patience: (u64, u32),
    /// What the nodes are told.
    pub settings: Settings,
    /// What they are told as those who keep content, if they do: then clients read and write replicated registers.
    pub content: Option<keeper::Settings>,
}

/// How often nodes stabilize, in milliseconds: the daemon's default.
pub const ROUND: u64 = 500;

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            nodes: (16, 16),
            seconds: 30.0,
            faults: Faults::NONE,
            churn: 0.01,
            operations: 4.0,
            keys: 24,
            pace: Pace { usual: (500, 5_000), slow: (50_000, 500_000), slow_share: 0.01 },
            outcomes_kept: 120_000,
            lose: None,
            sparing: None,
            strangers: 0,
            variant: Variant::Zave,
            negligence: None,
            aim: Aim::Liveness,
            rounds: 600,
            patience: (400, 3),
            settings: Settings::default(),
            content: None,
        }
    }
}
