//! Far pointers, each about twice as far as the one before.

use crate::{BITS, Contact, Id};

/// A distinct entry of a finger table: one node that stands for the fingers `first..=last`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finger {
    /// The lowest finger that it is.
    pub first: u16,
    /// The highest one.
    pub last: u16,
    /// The first node at or after `owner + 2^i` for each of them.
    pub contact: Contact,
}

/// The finger table of a node: `finger[i]` is the first node at or after `owner + 2^i` (Chord, table 1). Of its 256
/// entries about log2 N differ, and only those are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FingerTable {
    owner: Id,
    entries: Vec<Finger>,
}

impl FingerTable {
    /// An empty table: lookups go along the successors.
    pub fn new(owner: Id) -> FingerTable {
        FingerTable { owner, entries: Vec::new() }
    }

    /// The distinct entries, nearest first.
    pub fn entries(&self) -> &[Finger] {
        &self.entries
    }

    /// Notes that `contact` is the first node at or after the start of finger `i`, and with that of all fingers up to it.
    /// Returns the next finger to ask for, or `None` if there is none beyond.
    pub fn record(&mut self, i: u16, contact: &Contact) -> Option<u16> {
        let distance = self.owner.distance(&contact.id);
        // Finger j starts at or before the contact as long as 2^j <= distance. A contact that lies before the start
        // itself (the owner, or one passed on the way round) means that nobody is left beyond it.
        let reach = distance.bit_length();
        if reach <= i {
            self.clear_from(i);
            return None;
        }
        let last = reach - 1;
        self.entries.retain(|entry| entry.contact != *contact);
        for entry in &mut self.entries {
            if entry.first < i && entry.last >= i {
                entry.last = i - 1;
            } else if entry.first >= i && entry.first <= last && entry.last > last {
                entry.first = last + 1;
            }
        }
        self.entries.retain(|entry| entry.last < i || entry.first > last);
        let at = self.entries.partition_point(|entry| entry.first < i);
        let first = if at == 0 { 0 } else { i };
        self.entries.insert(at, Finger { first, last, contact: contact.clone() });
        (last + 1 < BITS).then_some(last + 1)
    }

    /// Takes out a node that has died or left.
    pub fn remove(&mut self, gone: &Contact) {
        self.entries.retain(|entry| entry.contact != *gone);
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    fn clear_from(&mut self, i: u16) {
        self.entries.retain(|entry| entry.first < i);
        if let Some(entry) = self.entries.last_mut() {
            entry.last = entry.last.min(i.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: Id) -> Contact {
        Contact { id, addr: id.to_string(), name: String::new() }
    }

    /// The first of `ring` at or after `point`, by looking at all.
    fn naive_successor(ring: &[Id], point: &Id) -> Id {
        *ring.iter().min_by_key(|id| point.distance(id)).unwrap()
    }

    fn fill(owner: Id, ring: &[Id]) -> FingerTable {
        let mut table = FingerTable::new(owner);
        let mut i = Some(0);
        while let Some(at) = i {
            i = table.record(at, &node(naive_successor(ring, &owner.finger_start(at))));
        }
        table
    }

    proptest! {
        #[test]
        fn a_filled_table_is_that_of_looking_at_all_nodes(ids in proptest::collection::btree_set(any::<[u8; 32]>(), 1..40)) {
            let ring: Vec<Id> = ids.into_iter().map(Id::from_bytes).collect();
            let owner = ring[0];
            let table = fill(owner, &ring);
            for i in 0..BITS {
                let expected = naive_successor(&ring, &owner.finger_start(i));
                let found = table.entries().iter().find(|entry| (entry.first..=entry.last).contains(&i));
                match found {
                    Some(entry) => prop_assert_eq!(entry.contact.id, expected),
                    None => prop_assert_eq!(expected, owner),
                }
            }
            let again = {
                let mut again = table.clone();
                for entry in table.entries() {
                    again.record(entry.first, &entry.contact);
                }
                again
            };
            prop_assert_eq!(again, table);
        }

        #[test]
        fn refilling_over_an_old_table_leaves_nothing_of_it(
            old in proptest::collection::btree_set(any::<[u8; 32]>(), 2..20),
            new in proptest::collection::btree_set(any::<[u8; 32]>(), 2..20),
        ) {
            let owner = Id::from_bytes(*old.iter().next().unwrap());
            let ring = |ids: std::collections::BTreeSet<[u8; 32]>| -> Vec<Id> {
                ids.into_iter().map(Id::from_bytes).chain([owner]).collect()
            };
            let (old, new) = (ring(old), ring(new));
            let mut table = fill(owner, &old);
            let mut i = Some(0);
            while let Some(at) = i {
                i = table.record(at, &node(naive_successor(&new, &owner.finger_start(at))));
            }
            prop_assert_eq!(table, fill(owner, &new));
        }
    }

    #[test]
    fn the_dead_are_taken_out() {
        let owner = Id::ZERO;
        let far = Id::power_of_two(255);
        let mut table = fill(owner, &[owner, far]);
        assert_eq!(table.entries(), [Finger { first: 0, last: 255, contact: node(far) }]);
        table.remove(&node(far));
        assert!(table.entries().is_empty());
    }
}
