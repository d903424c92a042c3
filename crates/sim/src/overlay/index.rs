//! The living nodes in order of their hashes, which is a binary trie: those that share a prefix stand side by side.

use super::hash::{BITS, Hash};
use super::members::NodeId;

/// Where a range is so small that its nodes are compared one by one.
const LEAF: usize = 8;

/// Nodes in order of hash. The ranges of the short prefixes are looked up, those of longer ones are searched for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    order: Vec<NodeId>,
    /// `starts[p]..starts[p + 1]` are the places of the nodes whose hash begins with the `bits` bits `p`.
    starts: Vec<u32>,
    bits: u32,
}

/// A subtree: the nodes whose hashes begin with the `depth` bits `prefix`, at `lo..hi` in the order.
#[derive(Debug, Clone, Copy)]
struct Subtree {
    lo: usize,
    hi: usize,
    depth: u32,
    /// Kept up to date only as long as `depth` is at most that of the looked-up prefixes.
    prefix: usize,
}

impl Subtree {
    fn len(&self) -> usize {
        self.hi - self.lo
    }
}

impl Index {
    /// The index of these nodes, which stand in order of hash.
    pub(crate) fn of(order: Vec<NodeId>, hashes: &[Hash]) -> Index {
        let bits = order.len().max(2).ilog2();
        let mut starts = vec![0; (1 << bits) + 1];
        for node in &order {
            starts[hashes[*node as usize].prefix(bits) + 1] += 1;
        }
        for prefix in 0..1 << bits {
            starts[prefix + 1] += starts[prefix];
        }
        Index { order, starts, bits }
    }

    /// All of them.
    pub(crate) fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// Takes in a node that isn't there yet.
    pub(crate) fn insert(&mut self, node: NodeId, hashes: &[Hash]) {
        let hash = hashes[node as usize];
        let at = self.place(&hash, hashes);
        self.order.insert(at, node);
        self.starts[hash.prefix(self.bits) + 1..].iter_mut().for_each(|start| *start += 1);
        if self.order.len() >> (self.bits + 2) > 0 {
            *self = Index::of(std::mem::take(&mut self.order), hashes);
        }
    }

    /// Takes out a node that is there.
    pub(crate) fn remove(&mut self, node: NodeId, hashes: &[Hash]) {
        let hash = hashes[node as usize];
        let at = self.place(&hash, hashes);
        debug_assert_eq!(self.order.get(at), Some(&node));
        self.order.remove(at);
        self.starts[hash.prefix(self.bits) + 1..].iter_mut().for_each(|start| *start -= 1);
    }

    /// The place of the first node at or after this point; the number of nodes if there is none up to the end.
    pub(crate) fn place(&self, point: &Hash, hashes: &[Hash]) -> usize {
        let prefix = point.prefix(self.bits);
        let (lo, hi) = (self.starts[prefix] as usize, self.starts[prefix + 1] as usize);
        lo + self.order[lo..hi].partition_point(|node| hashes[*node as usize] < *point)
    }

    /// Calls `visit` with the nodes in ascending XOR distance to the target, until it returns false.
    pub(crate) fn nearest(&self, target: &Hash, hashes: &[Hash], mut visit: impl FnMut(NodeId) -> bool) {
        // The far halves on the way to the target, the nearest last.
        let mut waiting = vec![self.root()];
        while let Some(mut subtree) = waiting.pop() {
            while subtree.len() > LEAF {
                let (near, far) = self.halves(subtree, target, hashes);
                waiting.push(far);
                subtree = near;
            }
            let mut leaf = [0; LEAF];
            let leaf = &mut leaf[..subtree.len()];
            leaf.copy_from_slice(&self.order[subtree.lo..subtree.hi]);
            leaf.sort_unstable_by_key(|node| hashes[*node as usize].xor_distance(target));
            if !leaf.iter().all(|node| visit(*node)) {
                return;
            }
        }
    }

    /// The k-buckets of a node at `me`: for each number of shared first bits the `k` closest, in order of hash within what
    /// is taken whole. `ends` gets the end of each bucket in `entries`.
    pub(crate) fn buckets(&self, me: &Hash, k: usize, hashes: &[Hash], ends: &mut Vec<u32>, entries: &mut Vec<NodeId>) {
        ends.clear();
        entries.clear();
        let mut mine = self.root();
        while mine.len() > 0 && mine.depth < BITS {
            let others = mine.len() > 1 || hashes[self.order[mine.lo] as usize] != *me;
            if !others {
                break;
            }
            let (near, far) = self.halves(mine, me, hashes);
            self.take(far, me, k, hashes, entries);
            ends.push(entries.len() as u32);
            mine = near;
        }
        while ends.len() > 1 && ends[ends.len() - 2] == ends[ends.len() - 1] {
            ends.pop();
        }
    }

    /// The `need` nodes of the subtree that are closest to the target.
    fn take(&self, subtree: Subtree, target: &Hash, need: usize, hashes: &[Hash], entries: &mut Vec<NodeId>) {
        let (mut subtree, mut need) = (subtree, need);
        while subtree.len() > need {
            let (near, far) = self.halves(subtree, target, hashes);
            if near.len() >= need {
                subtree = near;
            } else {
                entries.extend_from_slice(&self.order[near.lo..near.hi]);
                need -= near.len();
                subtree = far;
            }
        }
        entries.extend_from_slice(&self.order[subtree.lo..subtree.hi]);
    }

    fn root(&self) -> Subtree {
        Subtree { lo: 0, hi: self.order.len(), depth: 0, prefix: 0 }
    }

    /// The half of a subtree on the target's side, and the other one.
    fn halves(&self, subtree: Subtree, target: &Hash, hashes: &[Hash]) -> (Subtree, Subtree) {
        let Subtree { lo, hi, depth, prefix } = subtree;
        let one = prefix << 1 | 1;
        let middle = if depth < self.bits {
            self.starts[one << (self.bits - depth - 1)] as usize
        } else {
            lo + self.order[lo..hi].partition_point(|node| !hashes[*node as usize].bit(depth))
        };
        // Beyond the looked-up depth the prefix is not used any more, and would grow out of its word.
        let one = if depth < self.bits { one } else { 0 };
        let low = Subtree { lo, hi: middle, depth: depth + 1, prefix: one & !1 };
        let high = Subtree { lo: middle, hi, depth: depth + 1, prefix: one };
        if target.bit(depth) { (high, low) } else { (low, high) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nearest(index: &Index, target: &Hash, hashes: &[Hash]) -> Vec<NodeId> {
        let mut found = Vec::new();
        index.nearest(target, hashes, |node| {
            found.push(node);
            true
        });
        found
    }

    /// Hashes that crowd: all share their first bits with one of a few others, or hardly differ.
    fn crowded() -> impl Strategy<Value = Vec<Hash>> {
        let one = (0u64..4, any::<[u64; 4]>(), prop_oneof![Just(0u32), Just(60), Just(130), Just(250)]).prop_map(
            |(family, mut words, shared)| {
                let base = Hash::of(family.to_be_bytes());
                for i in 0..shared {
                    let mask = 1 << (63 - i % 64);
                    let word = &mut words[(i / 64) as usize];
                    *word = if base.bit(i) { *word | mask } else { *word & !mask };
                }
                Hash::from_words(words)
            },
        );
        proptest::collection::btree_set(one, 1..80).prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #[test]
        fn walks_are_those_of_sorting_all(hashes in crowded(), target: [u64; 4], gone in 0usize..80) {
            let target = Hash::from_words(target);
            let all: Vec<NodeId> = (0..hashes.len() as NodeId).collect();
            let mut index = Index::of(all.clone(), &hashes);
            let mut expected = all.clone();
            expected.sort_by_key(|node| hashes[*node as usize].xor_distance(&target));
            prop_assert_eq!(nearest(&index, &target, &hashes), expected.clone());
            prop_assert_eq!(index.place(&target, &hashes), hashes.iter().filter(|hash| **hash < target).count());

            // One goes, and comes back; and all come one by one.
            let gone = (gone % hashes.len()) as NodeId;
            index.remove(gone, &hashes);
            let rest: Vec<NodeId> = expected.iter().copied().filter(|node| *node != gone).collect();
            prop_assert_eq!(nearest(&index, &target, &hashes), rest);
            index.insert(gone, &hashes);
            prop_assert_eq!(nearest(&index, &target, &hashes), expected.clone());
            let mut grown = Index::of(Vec::new(), &hashes);
            all.iter().rev().for_each(|node| grown.insert(*node, &hashes));
            prop_assert_eq!(nearest(&grown, &target, &hashes), expected);
            prop_assert_eq!(grown.order(), index.order());
        }
    }

    #[test]
    fn a_walk_ends_when_enough_was_seen() {
        let mut hashes: Vec<Hash> = (0..100u32).map(|i| Hash::of(i.to_be_bytes())).collect();
        hashes.sort();
        let index = Index::of((0..100).collect(), &hashes);
        let mut seen = 0;
        index.nearest(&hashes[40], &hashes, |node| {
            seen += 1;
            assert!(seen > 1 || node == 40, "the node at the target comes first");
            seen < 5
        });
        assert_eq!(seen, 5);
    }
}
