//! Chord (Stoica et al. 2003) by the protocol crate's own routing: each node that is asked answers with
//! [`chordal_protocol::next_hop`], and the one who asks goes round the dead with [`chordal_protocol::Lookup`].
//!
//! As everywhere in this project the owner of a key is the last node at or before it, clockwise.

mod links;
mod ring;
#[cfg(test)]
mod tests;

use chordal_protocol::Mode;
use serde::Serialize;

use super::settings_error::{nodes, within};
use super::{Conditions, SettingsError};

pub use links::Links;
pub use ring::Ring;

/// How a ring is to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RingSettings {
    /// Its id: rings of different ids have different nodes.
    pub id: u64,
    /// How many machines there are.
    pub nodes: usize,
    /// How many nodes each machine has on the circle (section VI-B).
    pub virtual_nodes: usize,
    /// How lookups travel.
    pub mode: Mode,
    /// The length of successor lists. Routing uses them too: with one successor it goes by the fingers alone.
    pub successors: usize,
    /// How many owners one who looks up remembers, in the mode `cached`.
    pub cache: usize,
    /// How often a node that does not answer is asked before the lookup goes round it.
    pub tries: usize,
    /// How many nodes a lookup may ask before it gives up; 0 stands for all there are. A node of this project allows 1,024.
    pub budget: u32,
    /// What connections meet with.
    pub conditions: Conditions,
    /// What decides everything that is drawn.
    pub seed: u64,
}

impl Default for RingSettings {
    fn default() -> RingSettings {
        RingSettings {
            id: 0,
            nodes: 0,
            virtual_nodes: 1,
            mode: Mode::Fingers,
            successors: 8,
            cache: 4096,
            tries: 1,
            budget: 0,
            conditions: Conditions::default(),
            seed: 0,
        }
    }
}

impl RingSettings {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        within("the number of virtual nodes", self.virtual_nodes, 1 << 20)?;
        nodes(self.nodes.saturating_mul(self.virtual_nodes))?;
        within("the number of successors", self.successors, 1 << 16)?;
        within("the size of the cache", self.cache, 1 << 24)?;
        within("the number of tries", self.tries, 1000)?;
        self.conditions.check()
    }

    /// How many bytes of memory the ring takes, a little too many rather than too few.
    pub fn memory_bytes(&self) -> u64 {
        let nodes = (self.nodes as f64 * self.virtual_nodes as f64).max(2.0);
        (nodes * (4.0 * (self.successors as f64).min(nodes) + 5.0 * nodes.log2() + 200.0)) as u64
    }
}
