//! Who is in a network: nodes, their hashes, and which of them live.

use rand::RngExt as _;
use rayon::prelude::*;

use super::hash::Hash;
use super::index::Index;
use super::rng::{Use, stream};

/// A node, by its number. The first nodes of a network are numbered in order of their hashes, so that what is near on the
/// circle is near in memory; those that join later follow in the order in which they join.
pub type NodeId = u32;

/// The most nodes of a network: ids of 32 bits, with room for those that join later.
pub const MOST_NODES: usize = 1 << 31;

/// The nodes of a network. A node that has left or died keeps its number and its hash: others may still list it.
#[derive(Debug, Clone)]
pub struct Members {
    network: u64,
    seed: u64,
    hashes: Vec<Hash>,
    alive: Vec<bool>,
    /// The machine that each node runs on; empty where every node has one of its own.
    hosts: Vec<u32>,
    index: Index,
    /// Who lived before many died at once.
    before: Option<Box<Members>>,
}

impl Members {
    /// So many living nodes. The hash of the `i`-th is SHA-256 of the network's id, the seed and `i`.
    pub fn new(network: u64, count: usize, seed: u64) -> Members {
        let mut hashes: Vec<Hash> = (0..count as u64).into_par_iter().map(|i| hash_of(network, seed, i)).collect();
        hashes.par_sort_unstable();
        let index = Index::of((0..count as NodeId).collect(), &hashes);
        Members { network, seed, alive: vec![true; count], hashes, hosts: Vec::new(), index, before: None }
    }

    /// So many machines, each with `virtual_nodes` nodes (Stoica et al. 2003, section VI-B).
    pub fn with_virtual_nodes(network: u64, machines: usize, virtual_nodes: usize, seed: u64) -> Members {
        let count = (machines * virtual_nodes) as u64;
        let mut nodes: Vec<(Hash, u32)> =
            (0..count).into_par_iter().map(|i| (hash_of(network, seed, i), (i % machines as u64) as u32)).collect();
        nodes.par_sort_unstable();
        let hashes: Vec<Hash> = nodes.iter().map(|(hash, _)| *hash).collect();
        let hosts = if virtual_nodes == 1 { Vec::new() } else { nodes.iter().map(|(_, host)| *host).collect() };
        let index = Index::of((0..count as NodeId).collect(), &hashes);
        Members { network, seed, alive: vec![true; hashes.len()], hashes, hosts, index, before: None }
    }

    /// How many there are, the dead included.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there has never been any.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// How many live.
    pub fn living(&self) -> usize {
        self.index.order().len()
    }

    /// The living ones in order of hash.
    pub fn in_order(&self) -> &[NodeId] {
        self.index.order()
    }

    /// Whether there is such a node and it lives.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.alive.get(node as usize).copied().unwrap_or(false)
    }

    /// Where the node stands.
    ///
    /// # Panics
    /// If there has never been such a node.
    pub fn hash(&self, node: NodeId) -> Hash {
        self.hashes[node as usize]
    }

    /// The hashes of all, by number.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The machine that the node runs on.
    pub fn host(&self, node: NodeId) -> u32 {
        self.hosts.get(node as usize).copied().unwrap_or(node)
    }

    /// How many machines there are or were.
    pub fn machines(&self) -> usize {
        if self.hosts.is_empty() {
            self.hashes.len()
        } else {
            self.hosts.iter().max().map_or(0, |host| *host as usize + 1)
        }
    }

    /// The `count` living nodes closest to the target by XOR, the closest first.
    pub fn closest(&self, target: &Hash, count: usize) -> Vec<NodeId> {
        let mut found = Vec::with_capacity(count.min(self.living()));
        if count > 0 {
            self.index.nearest(target, &self.hashes, |node| {
                found.push(node);
                found.len() < count
            });
        }
        found
    }

    /// The first living node at or after a point, clockwise; none if nobody lives.
    pub fn at_or_after(&self, point: &Hash) -> Option<NodeId> {
        let order = self.index.order();
        let at = self.index.place(point, &self.hashes);
        order.get(at).or(order.first()).copied()
    }

    /// The last living node at or before a point, clockwise: the owner of that point in Chord; none if nobody lives.
    pub fn at_or_before(&self, point: &Hash) -> Option<NodeId> {
        let order = self.index.order();
        let at = self.index.place(point, &self.hashes);
        match order.get(at) {
            Some(node) if self.hash(*node) == *point => Some(*node),
            _ => order[..at].last().or(order.last()).copied(),
        }
    }

    /// The `count` living nodes that follow a point clockwise, the node at the point itself left out.
    pub(crate) fn following(&self, point: &Hash, count: usize) -> impl Iterator<Item = NodeId> + '_ {
        let order = self.index.order();
        let at = self.index.place(point, &self.hashes);
        let there = order.get(at).is_some_and(|node| self.hash(*node) == *point);
        let others = order.len() - usize::from(there);
        (0..count.min(others)).map(move |i| order[(at + usize::from(there) + i) % order.len()])
    }

    /// Looks at the members as they were before many died at once; as they are now if that has not happened.
    pub(crate) fn before_deaths<T>(&self, look: impl FnOnce(&Members) -> T) -> T {
        look(self.before.as_deref().unwrap_or(self))
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// One more node, alive, on a machine of its own.
    pub(crate) fn add(&mut self) -> NodeId {
        let node = self.hashes.len() as NodeId;
        self.hashes.push(hash_of(self.network, self.seed, u64::from(node)));
        self.alive.push(true);
        if !self.hosts.is_empty() {
            self.hosts.push(self.machines() as u32);
        }
        self.index.insert(node, &self.hashes);
        node
    }

    /// A node is gone without a word. Returns whether it lived.
    pub(crate) fn remove(&mut self, node: NodeId) -> bool {
        let lived = self.is_alive(node);
        if lived {
            self.alive[node as usize] = false;
            self.index.remove(node, &self.hashes);
        }
        lived
    }

    /// So many percent of the machines die at once, drawn by the seed, each with all its nodes; at least one machine
    /// survives. Returns how many have died.
    pub(crate) fn kill(&mut self, percent: f64, seed: u64) -> usize {
        if self.before.is_none() {
            self.before = Some(Box::new(self.clone()));
        }
        let mut dead = vec![true; self.machines()];
        self.in_order().iter().for_each(|node| dead[self.host(*node) as usize] = false);
        let mut machines: Vec<usize> = (0..dead.len()).filter(|machine| !dead[*machine]).collect();
        let dying = ((machines.len() as f64 * percent / 100.0).round() as usize).min(machines.len().saturating_sub(1));
        let mut rng = stream(seed, Use::Deaths, 0);
        for i in 0..dying {
            let drawn = rng.random_range(i..machines.len());
            machines.swap(i, drawn);
            dead[machines[i]] = true;
        }
        for node in 0..self.hashes.len() {
            self.alive[node] &= !dead[self.host(node as NodeId) as usize];
        }
        let living = self.index.order().iter().copied().filter(|node| self.alive[*node as usize]).collect();
        self.index = Index::of(living, &self.hashes);
        dying
    }
}

fn hash_of(network: u64, seed: u64, i: u64) -> Hash {
    Hash::of([network.to_be_bytes(), seed.to_be_bytes(), i.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_more_is_one_of_a_network_that_began_with_it() {
        let mut grown = Members::new(1, 50, 9);
        grown.add();
        let whole = Members::new(1, 51, 9);
        let hashes = |members: &Members| members.in_order().iter().map(|node| members.hash(*node)).collect::<Vec<_>>();
        assert_eq!(hashes(&grown), hashes(&whole));
        assert_ne!(hashes(&Members::new(2, 51, 9)), hashes(&whole), "another network has other nodes");
        assert_ne!(hashes(&Members::new(1, 51, 8)), hashes(&whole), "and so has another seed");
    }

    #[test]
    fn owners_and_successors_are_found_round_the_circle() {
        let members = Members::new(0, 20, 3);
        for (at, node) in members.in_order().iter().enumerate() {
            let hash = members.hash(*node);
            let next = members.in_order()[(at + 1) % 20];
            assert_eq!(members.at_or_after(&hash), Some(*node));
            assert_eq!(members.at_or_before(&hash), Some(*node));
            assert_eq!(members.at_or_after(&hash.plus_power_of_two(0)), Some(next));
            assert_eq!(members.at_or_before(&members.hash(next)), Some(next));
            assert_eq!(members.following(&hash, 30).collect::<Vec<_>>().len(), 19);
            assert_eq!(members.following(&hash, 1).next(), Some(next));
        }
        assert_eq!(members.at_or_before(&Hash::ZERO), members.in_order().last().copied());
        assert_eq!(members.at_or_after(&Hash::MAX), members.in_order().first().copied());
    }

    #[test]
    fn machines_die_with_all_their_nodes() {
        let mut members = Members::with_virtual_nodes(0, 40, 5, 1);
        assert_eq!((members.len(), members.machines()), (200, 40));
        assert_eq!(members.kill(25.0, 2), 10);
        assert_eq!(members.living(), 150);
        for machine in 0..40 {
            let mut nodes = (0..200).filter(|node| members.host(*node) == machine).map(|node| members.is_alive(node));
            let first = nodes.next().unwrap();
            assert!(nodes.all(|alive| alive == first));
        }
        assert_eq!(members.kill(100.0, 3), 29);
        assert_eq!(members.living(), 5, "one machine survives");
    }
}
