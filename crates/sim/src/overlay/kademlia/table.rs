//! Routing tables and their k-buckets.

use crate::overlay::hash::Hash;
use crate::overlay::index::Index;
use crate::overlay::members::NodeId;

/// The nodes that share the same number of first bits with the owner of a table: at most `k`, and if there are more, those
/// that are *closest* to the owner by XOR.
///
/// Source: Maymounkov and Mazières 2002, section 2.2; there a full bucket keeps those that have been seen longest. Keeping
/// the closest is what data-availability studies do, and makes the best table a function of who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KBucket {
    owner: Hash,
    k: usize,
    /// Distance to the owner, and node; the closest first.
    nodes: Vec<(Hash, NodeId)>,
}

impl KBucket {
    /// An empty bucket of at most `k` nodes for the owner at this hash.
    pub fn new(owner: Hash, k: usize) -> KBucket {
        KBucket { owner, k, nodes: Vec::new() }
    }

    /// Takes a node in if there is room, or if it is closer than the farthest, which then goes. Returns whether the node is
    /// in the bucket now and was not before.
    pub fn insert(&mut self, node: NodeId, hash: &Hash) -> bool {
        let distance = self.owner.xor_distance(hash);
        let Err(at) = self.nodes.binary_search(&(distance, node)) else { return false };
        if at >= self.k {
            return false;
        }
        self.nodes.insert(at, (distance, node));
        self.nodes.truncate(self.k);
        true
    }

    /// The nodes, the closest to the owner first.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().map(|(_, node)| *node)
    }

    /// The nodes with their distances to the owner, the closest first.
    pub fn distances(&self) -> &[(Hash, NodeId)] {
        &self.nodes
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// A routing table: a k-bucket for each number of first bits that a node can share with the owner, up to the last bucket
/// that has a node. Nodes are 32-bit numbers in one array, so that a million tables fit into memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingTable {
    owner: NodeId,
    k: u32,
    /// Where each bucket ends in `entries`.
    ends: Box<[u32]>,
    entries: Box<[NodeId]>,
}

impl RoutingTable {
    /// An empty table with buckets of at most `k` nodes.
    pub fn new(owner: NodeId, k: usize) -> RoutingTable {
        RoutingTable { owner, k: k as u32, ends: Box::default(), entries: Box::default() }
    }

    /// The best table there can be, given who lives.
    pub(crate) fn optimal(owner: NodeId, k: usize, index: &Index, hashes: &[Hash], room: &mut Room) -> RoutingTable {
        index.buckets(&hashes[owner as usize], k, hashes, &mut room.ends, &mut room.entries);
        RoutingTable { owner, k: k as u32, ends: room.ends.as_slice().into(), entries: room.entries.as_slice().into() }
    }

    /// Whose table it is.
    pub fn owner(&self) -> NodeId {
        self.owner
    }

    /// The most nodes of a bucket.
    pub fn k(&self) -> usize {
        self.k as usize
    }

    /// The number of buckets.
    pub fn buckets(&self) -> usize {
        self.ends.len()
    }

    /// The nodes of the bucket of those that share `i` first bits, in no particular order; none beyond the last bucket.
    pub fn entries_of(&self, i: usize) -> &[NodeId] {
        let Some(end) = self.ends.get(i) else { return &[] };
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.entries[start as usize..*end as usize]
    }

    /// The same as a bucket of its own.
    pub fn bucket(&self, i: usize, hashes: &[Hash]) -> KBucket {
        let mut bucket = KBucket::new(hashes[self.owner as usize], self.k());
        for node in self.entries_of(i) {
            bucket.insert(*node, &hashes[*node as usize]);
        }
        bucket
    }

    /// All nodes of the table, those that share the fewest bits first.
    pub fn entries(&self) -> &[NodeId] {
        &self.entries
    }

    /// Takes note of a node: it is in the table afterwards if its bucket has room or holds one that is farther from the
    /// owner. Returns whether the table has changed. `hashes` has the hash of each node by number.
    pub fn insert(&mut self, node: NodeId, hashes: &[Hash]) -> bool {
        if node == self.owner {
            return false;
        }
        let (me, hash) = (&hashes[self.owner as usize], &hashes[node as usize]);
        let at = me.shared_prefix(hash) as usize;
        let before = self.entries_of(at);
        let full = before.len() >= self.k();
        let is_farther = |other: &NodeId| me.xor_distance(&hashes[*other as usize]) < me.xor_distance(hash);
        if before.contains(&node) || (full && before.iter().all(is_farther)) {
            return false;
        }
        let mut bucket = self.bucket(at, hashes);
        let changed = bucket.insert(node, hash);
        self.replace(at, bucket.nodes().collect());
        changed
    }

    /// Takes out a node. Returns whether it was there.
    pub fn remove(&mut self, node: NodeId, hashes: &[Hash]) -> bool {
        let at = hashes[self.owner as usize].shared_prefix(&hashes[node as usize]) as usize;
        let rest: Vec<NodeId> = self.entries_of(at).iter().copied().filter(|other| *other != node).collect();
        let was_there = rest.len() < self.entries_of(at).len();
        if was_there {
            self.replace(at, rest);
        }
        was_there
    }

    fn replace(&mut self, at: usize, nodes: Vec<NodeId>) {
        let mut buckets: Vec<Vec<NodeId>> =
            (0..self.buckets().max(at + 1)).map(|i| self.entries_of(i).to_vec()).collect();
        buckets[at] = nodes;
        while buckets.last().is_some_and(Vec::is_empty) {
            buckets.pop();
        }
        let mut end = 0;
        let ends = buckets.iter().map(|bucket| {
            end += bucket.len() as u32;
            end
        });
        self.ends = ends.collect();
        self.entries = buckets.concat().into();
    }

    /// Puts the `count` nodes of the table that are closest to the target into `found`, the closest first.
    ///
    /// Nodes that share more first bits with the target are closer, so the buckets are gone through in this order: the one
    /// in which the target would be; all that share more bits with the owner than the target does; and then back from the
    /// target's bucket to the first.
    pub(crate) fn closest(&self, target: &Hash, count: usize, hashes: &[Hash], found: &mut Vec<Near>) {
        found.clear();
        let shared = hashes[self.owner as usize].shared_prefix(target) as usize;
        let mut gather = |nodes: &[NodeId]| {
            found.extend(nodes.iter().map(|node| Near::new(*node, target, hashes)));
            found.len() < count
        };
        let mut go_on = gather(self.entries_of(shared));
        if go_on && let Some(end) = self.ends.get(shared) {
            go_on = gather(&self.entries[*end as usize..]);
        }
        for i in (0..shared.min(self.buckets())).rev() {
            if !go_on {
                break;
            }
            go_on = gather(self.entries_of(i));
        }
        found.sort_unstable_by(|a, b| a.compare(b, target, hashes));
        found.truncate(count);
    }
}

/// How many nodes are in each bucket: `b0:20 b1:20 …`.
impl std::fmt::Display for RoutingTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for i in 0..self.buckets() {
            let blank = if i == 0 { "" } else { " " };
            write!(f, "{blank}b{i}:{}", self.entries_of(i).len())?;
        }
        Ok(())
    }
}

/// Space for building tables one after the other.
#[derive(Debug, Default)]
pub(crate) struct Room {
    ends: Vec<u32>,
    entries: Vec<NodeId>,
}

/// A node, and the first word of its distance to a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Near {
    pub(crate) head: u64,
    pub(crate) node: NodeId,
}

impl Near {
    pub(crate) fn new(node: NodeId, target: &Hash, hashes: &[Hash]) -> Near {
        Near { head: hashes[node as usize].xor_head(target), node }
    }

    /// Which of two is the closer to the target; equal only if it is the same node.
    pub(crate) fn compare(&self, other: &Near, target: &Hash, hashes: &[Hash]) -> std::cmp::Ordering {
        let whole = |near: &Near| hashes[near.node as usize].xor_distance(target);
        self.head.cmp(&other.head).then_with(|| {
            if self.node == other.node { std::cmp::Ordering::Equal } else { whole(self).cmp(&whole(other)) }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_keeps_the_closest_whatever_comes_first(
            mut words in proptest::collection::btree_set(any::<u64>(), 1..40), k in 1usize..8, turn in 0usize..40,
        ) {
            words.insert(0);
            let hashes: Vec<Hash> = words.into_iter().map(|word| Hash::from_words([word, 0, 0, 1])).collect();
            let owner = Hash::from_words([1 << 63, 5, 0, 0]);
            let mut bucket = KBucket::new(owner, k);
            let count = hashes.len();
            for i in 0..count {
                let node = (i + turn) % count;
                let room = bucket.len() < k;
                prop_assert!(bucket.insert(node as NodeId, &hashes[node]) || !room);
                prop_assert!(!bucket.insert(node as NodeId, &hashes[node]), "nobody is in it twice");
            }
            let mut expected: Vec<NodeId> = (0..count as NodeId).collect();
            expected.sort_by_key(|node| owner.xor_distance(&hashes[*node as usize]));
            expected.truncate(k);
            prop_assert_eq!(bucket.nodes().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn the_closest_of_a_table_are_those_of_sorting_all_its_nodes(
            seed: u64, count in 2usize..200, k in 1usize..12, asked in 1usize..30, target: [u64; 4],
        ) {
            let hashes: Vec<Hash> = (0..count as u64).map(|i| Hash::of([seed.to_be_bytes(), i.to_be_bytes()].concat())).collect();
            let mut table = RoutingTable::new(0, k);
            (0..count as NodeId).for_each(|node| { table.insert(node, &hashes); });
            for target in [Hash::from_words(target), hashes[0], hashes[count - 1]] {
                let mut found = Vec::new();
                table.closest(&target, asked, &hashes, &mut found);
                let mut expected = table.entries().to_vec();
                expected.sort_by_key(|node| hashes[*node as usize].xor_distance(&target));
                expected.truncate(asked);
                prop_assert_eq!(found.iter().map(|near| near.node).collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn what_is_taken_out_is_gone_and_empty_buckets_at_the_end_with_it() {
        let hashes: Vec<Hash> = (0..30u64).map(|i| Hash::of(i.to_be_bytes())).collect();
        let mut table = RoutingTable::new(3, 4);
        (0..30).for_each(|node| {
            table.insert(node, &hashes);
        });
        assert!(!table.insert(3, &hashes), "the owner isn't in its own table");
        let nodes = table.entries().to_vec();
        for (gone, node) in nodes.iter().enumerate() {
            assert!(table.remove(*node, &hashes));
            assert!(!table.remove(*node, &hashes));
            assert_eq!(table.entries().len(), nodes.len() - gone - 1);
        }
        assert_eq!(table, RoutingTable::new(3, 4));
        assert_eq!(table.to_string(), "");
    }
}
