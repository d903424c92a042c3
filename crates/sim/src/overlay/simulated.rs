//! What the workloads see of an overlay, so that Chord and Kademlia answer the same questions.

use super::conditions::{Conditions, Micros};
use super::connection::Traffic;
use super::hash::Hash;
use super::members::{Members, NodeId};

/// One lookup to be done.
pub struct Task<'a> {
    /// Who begins it; a living node.
    pub from: NodeId,
    /// For what.
    pub key: Hash,
    /// Who holds the value that is wanted; none if the lookup is for the closest nodes (or the owner) themselves. With
    /// holders the lookup ends at the first of them that answers.
    pub holders: Option<&'a [NodeId]>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Whether it succeeded: a holder has answered; or without holders, the owner (Chord) or anybody at all (Kademlia) has.
    pub found: bool,
    /// The closest nodes found, the closest first; in Chord the owner alone.
    pub closest: Vec<NodeId>,
    /// How many nodes were asked in sequence, the last one included and the one who asks not.
    pub hops: u32,
    /// Connections begun.
    pub contacted: u32,
    /// Those of them that failed.
    pub failed: u32,
    /// What it has taken, in microseconds.
    pub delay_us: Micros,
    /// The nodes that turned out not to be there.
    pub dead: Vec<NodeId>,
}

/// An overlay in memory.
pub trait Simulated: Sync + Send {
    /// Its name: `kademlia` or `chord`.
    fn name(&self) -> &'static str;

    /// Its nodes.
    fn members(&self) -> &Members;

    /// What connections meet with.
    fn conditions(&self) -> Conditions;

    /// How many closest nodes a lookup is to find: beta in Kademlia, one in Chord.
    fn wanted(&self) -> usize;

    /// The living nodes that a lookup should find, the closest first.
    fn truth(&self, key: &Hash) -> Vec<NodeId>;

    /// The nodes that a value is stored at, chosen among those that lived before anybody died at once.
    fn holders(&self, key: &Hash) -> Vec<NodeId>;

    /// The share of all keys that each living machine is responsible for, where that is known exactly: in Chord.
    fn shares(&self) -> Option<Vec<f64>> {
        None
    }

    /// Whether one who looks up remembers what was found, so that lookups of one node depend on those before.
    fn remembers(&self) -> bool {
        false
    }

    /// Does a lookup.
    fn find(&self, task: &Task<'_>, traffic: &mut Traffic<'_>) -> Outcome;

    /// So many percent of the machines die at once, drawn by the seed. Returns how many. Nobody is told.
    fn kill(&mut self, percent: f64, seed: u64) -> usize;

    /// A node joins: it learns whom it should know; of the others only those that a join tells know about it.
    fn join(&mut self) -> NodeId;

    /// A node is gone without a word.
    fn leave(&mut self, node: NodeId);

    /// Whether nodes look after their near neighbours apart: Chord has successor lists, Kademlia nothing of the kind.
    fn stabilizes(&self) -> bool;

    /// A node looks after its near neighbours, which are right afterwards.
    fn stabilize(&mut self, node: NodeId);

    /// A node refreshes what it knows of far nodes: buckets in Kademlia, fingers in Chord.
    fn refresh(&mut self, node: NodeId);

    /// A node takes those out of its tables that it has found dead.
    fn forget(&mut self, node: NodeId, dead: &[NodeId]);
}
