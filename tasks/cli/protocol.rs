//! What `tasks simulate protocol` understands.

use std::ops::Range;
use std::path::PathBuf;

use chordal_protocol::keeper;
use chordal_sim::protocol::{Aim, Faults, Setup, Variant};
use clap::{Args, ValueEnum};

/// The largest ring that is simulated.
const LARGEST: usize = 1_024;

#[derive(Debug, Args)]
#[command(after_help = "\
A run that fails is repeated, step by step, with --replay SEED and the same other options.
The exit status is 0 if no invariant was violated and every kind of fault that was asked for has happened.")]
pub(crate) struct Protocol {
    /// How many nodes the ring has; of a range A..B each seed picks one, B included.
    #[arg(long, default_value = "16", value_name = "N|A..B", value_parser = nodes)]
    pub(crate) nodes: (usize, usize),
    /// Which seeds are run, B excluded; one number is that seed alone.
    #[arg(long, default_value = "0..100", value_name = "A..B", value_parser = seeds)]
    pub(crate) seeds: Range<u64>,
    /// For how many simulated seconds faults go on.
    #[arg(long, default_value_t = 30.0, value_name = "SIM_SECONDS", value_parser = number(0.1, 86_400.0), allow_negative_numbers = true)]
    pub(crate) duration: f64,
    /// What is done to the ring: `none`, `all`, or some of loss=P, duplicate=P (per message), delay=A..Bms, crash=R, restart=R,
    /// pause=R (per node and simulated second), partition=R (per simulated second), drift=SHARE (of the timers), full=R (disks
    /// without room, with --content).
    #[arg(long, default_value = "all", value_name = "KIND=VALUE,…")]
    pub(crate) faults: Faults,
    /// The protocol: Zave's corrected Chord, which nodes run (the default, unless a scenario says otherwise), or Chord as it was published in 2001.
    #[arg(long)]
    pub(crate) variant: Option<Protocols>,
    /// safety: faults go on to the end. liveness: they stop, some nodes are lost for good, and the rest must become ideal.
    #[arg(long, default_value = "liveness")]
    pub(crate) mode: Aims,
    /// How many successors a node remembers.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) successors: u16,
    /// How many nodes leave in order, per node and simulated second; new ones come for those that are gone.
    #[arg(long, default_value_t = 0.01, value_name = "RATE", value_parser = number(0.0, 10.0), allow_negative_numbers = true)]
    pub(crate) churn: f64,
    /// How many values are read or written per simulated second.
    #[arg(long, default_value_t = 4.0, value_name = "RATE", value_parser = number(0.0, 1_000.0), allow_negative_numbers = true)]
    pub(crate) operations: f64,
    /// Nodes keep content: clients put, get, compare and swap, and delete, and all that they are told is checked.
    #[arg(long)]
    pub(crate) content: bool,
    /// How many keys clients use. The fewer, the more operations of one key are under way at once.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) keys: u16,
    /// How many nodes keep each value, once there are so many.
    #[arg(long, default_value_t = 3, requires = "content", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) replication_factor: u16,
    /// Which share of the members is lost for good, at once, when faults stop (with --mode liveness). By default up to a quarter,
    /// in half of the runs in which nodes crash.
    #[arg(long, value_name = "SHARE", value_parser = number(0.0, 0.9), allow_negative_numbers = true)]
    pub(crate) lose: Option<f64>,
    /// How many nodes of another ring are about, which must never become part of this one.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) strangers: u16,
    /// How many rounds of stabilizing a ring may take to become ideal once faults have stopped.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) rounds: u64,
    /// Play this scenario instead of seeds, and tell what happens.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["nodes", "seeds", "duration", "faults", "mode", "successors", "churn", "operations", "lose",
            "strangers", "rounds", "replay", "content", "keys", "replication_factor"]
    )]
    pub(crate) scenario: Option<PathBuf>,
    /// Run this seed alone, and tell what happens.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    pub(crate) replay: Option<u64>,
    /// In a replay or a scenario, tell of every message, and not only of what changes something.
    #[arg(long)]
    pub(crate) all: bool,
}

/// The protocols, as they are named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocols {
    Zave,
    #[value(name = "2001")]
    Stoica2001,
}

/// What is asked of runs, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Aims {
    Safety,
    Liveness,
}

impl Protocols {
    pub(crate) fn variant(self) -> Variant {
        match self {
            Protocols::Zave => Variant::Zave,
            Protocols::Stoica2001 => Variant::Stoica2001,
        }
    }
}

impl Protocol {
    /// What the simulator is told.
    pub(crate) fn setup(&self) -> Setup {
        let aim = match self.mode {
            Aims::Safety => Aim::Safety,
            Aims::Liveness => Aim::Liveness,
        };
        let mut setup = Setup {
            nodes: self.nodes,
            seconds: self.duration,
            faults: self.faults,
            churn: self.churn,
            operations: self.operations,
            keys: self.keys.into(),
            content: self.content.then(|| keeper::Settings {
                replication_factor: self.replication_factor.into(),
                ..keeper::Settings::default()
            }),
            lose: self.lose,
            strangers: self.strangers.into(),
            variant: self.variant.map_or(Variant::Zave, Protocols::variant),
            aim,
            rounds: self.rounds,
            ..Setup::default()
        };
        setup.settings.successors = self.successors.into();
        setup
    }
}

fn nodes(text: &str) -> Result<(usize, usize), String> {
    let wrong = || format!("a ring has from 1 to {LARGEST} nodes: a number such as 16, or a range such as 1..64");
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if 1 <= from && from <= to && to <= LARGEST => Ok((from, to)),
        _ => Err(wrong()),
    }
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || "seeds are a range such as 0..1000, which ends before its last number, or one number".to_owned();
    let range = match text.split_once("..") {
        Some((from, to)) => from.parse::<u64>().ok().zip(to.parse::<u64>().ok()).map(|(from, to)| from..to),
        None => text.parse::<u64>().ok().filter(|seed| *seed < u64::MAX).map(|seed| seed..seed + 1),
    };
    range.filter(|range| !range.is_empty()).ok_or_else(wrong)
}

/// Reads a number from `least` to `most`.
fn number(least: f64, most: f64) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| {
        let parsed = text.parse::<f64>().ok().filter(|number| (least..=most).contains(number));
        parsed.ok_or_else(|| format!("that must be a number from {least} to {most}"))
    }
}
