//! Whole rings of `chordal-protocol` nodes under faults: the code that the daemon runs, driven over an event heap.
mod check;
mod client;
mod drive;
mod faults;
mod host;
mod nemesis;
mod network;
mod operations;
mod run;
mod setup;
mod trace;
mod world;

pub use check::Violation;
pub use faults::{Delay, FaultCounts, Faults, Kind, ParseFaultsError};
pub use run::{Outcome, run};
pub use setup::{Aim, ROUND, Setup, Variant};
pub use trace::{About, Entry, Sink};
