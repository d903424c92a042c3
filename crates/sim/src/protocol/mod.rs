//! Whole rings of `chordal-protocol` nodes under faults: the code that the daemon runs, driven over an event heap.
//!
//! [`run()`] plays one seed and [`simulate`] many; a [`Scenario`] is written down by hand. What a run is to be stands in a
//! [`Setup`], and the same setup and seed give the same run, step by step. A machine (`host`) has a node, a disk and the
//! procedures that it is in the middle of; `world` is the event loop, `drive` does what the daemon's driver does, `nemesis`
//! and `network` do the harm, `operations` are the clients, and `check` looks after every step whether what must hold does.

mod check;
mod content;
mod drive;
mod faults;
mod host;
mod nemesis;
mod network;
mod run;
mod scenario;
mod service;
mod setup;
mod shelf;
mod summary;
mod trace;
mod wish;
mod world;

pub use check::Violation;
pub use faults::{Delay, FaultCounts, Faults, Kind, ParseFaultsError};
pub use run::{Outcome, run};
pub use scenario::{Scenario, ScenarioError};
pub use setup::{Aim, Negligence, ROUND, Setup, Variant};
pub use summary::{Histogram, Spread, Summary, simulate};
pub use trace::{About, Entry, Sink};
