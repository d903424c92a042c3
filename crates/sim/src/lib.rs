//! The simulators: [`protocol`] runs whole rings of the very code that nodes run, under faults; [`overlay`] holds networks
//! of up to a million nodes, Chord and Kademlia, to study routing. [`history`] judges what clients saw, of simulated rings and of
//! real ones; [`disk`] is a disk that crashes.
//!
//! All repeat themselves exactly when they are given the same seed.

pub mod disk;
pub mod history;
pub mod overlay;
pub mod protocol;
