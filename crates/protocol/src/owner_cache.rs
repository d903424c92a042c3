//! Who was seen to own what.

use std::collections::{BTreeMap, VecDeque};

use crate::{Contact, Id, Interval};

/// Owner intervals learned from replies, so that a warm lookup asks the owner at once. An entry may be stale: its node
/// then says who it believes owns the key, and the entry goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnerCache {
    capacity: usize,
    by_start: BTreeMap<Id, (Interval, Contact)>,
    /// The starts in the order in which they were learned, so that the oldest makes room.
    learned: VecDeque<Id>,
}

impl OwnerCache {
    /// An empty cache of at most `capacity` intervals.
    pub fn new(capacity: usize) -> OwnerCache {
        OwnerCache { capacity: capacity.max(1), by_start: BTreeMap::new(), learned: VecDeque::new() }
    }

    /// The node that was last seen to own this id.
    pub fn owner(&self, id: &Id) -> Option<&Contact> {
        self.entry(id).map(|(_, contact)| contact)
    }

    /// Notes an owner; what was known of these ids before is forgotten.
    pub fn learn(&mut self, range: Interval, owner: &Contact) {
        if self.by_start.get(&range.lo).is_some_and(|entry| entry.0 == range && entry.1 == *owner) {
            return;
        }
        for start in self.overlapping(&range) {
            self.by_start.remove(&start);
        }
        self.by_start.insert(range.lo, (range, owner.clone()));
        self.learned.push_back(range.lo);
        while self.by_start.len() > self.capacity || self.learned.len() > 4 * self.capacity {
            // A start that was learned again stands further back too; whichever is met first makes room.
            let Some(oldest) = self.learned.pop_front() else { break };
            self.by_start.remove(&oldest);
        }
    }

    /// Forgets what is known of this id: whoever was asked did not own it.
    pub fn forget(&mut self, id: &Id) {
        if let Some(start) = self.entry(id).map(|(range, _)| range.lo) {
            self.by_start.remove(&start);
        }
    }

    /// Forgets a node that has died or left.
    pub fn forget_node(&mut self, gone: &Contact) {
        self.by_start.retain(|_, entry| entry.1 != *gone);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.by_start.clear();
        self.learned.clear();
    }

    fn entry(&self, id: &Id) -> Option<&(Interval, Contact)> {
        let at_or_before = self.by_start.range(..=id).next_back().or_else(|| self.by_start.iter().next_back());
        at_or_before.map(|(_, entry)| entry).filter(|(range, _)| range.contains(id))
    }

    fn overlapping(&self, range: &Interval) -> Vec<Id> {
        let mut starts: Vec<Id> = if range.is_whole() {
            self.by_start.keys().copied().collect()
        } else if range.lo < range.hi {
            self.by_start.range(range.lo..range.hi).map(|(start, _)| *start).collect()
        } else {
            self.by_start.range(range.lo..).chain(self.by_start.range(..range.hi)).map(|(start, _)| *start).collect()
        };
        starts.extend(self.entry(&range.lo).map(|(range, _)| range.lo));
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(prefix: &str) -> Id {
        Id::from_hex_prefix(prefix).unwrap()
    }

    fn range(lo: &str, hi: &str) -> Interval {
        Interval::half_open(point(lo), point(hi))
    }

    fn node(name: &str) -> Contact {
        Contact::at(name, name)
    }

    fn owner(cache: &OwnerCache, id: &str) -> Option<String> {
        cache.owner(&point(id)).map(|contact| contact.addr.clone())
    }

    #[test]
    fn what_was_learned_last_counts() {
        let mut cache = OwnerCache::new(8);
        cache.learn(range("2", "6"), &node("a"));
        cache.learn(range("e", "2"), &node("z"));
        assert_eq!(owner(&cache, "5").as_deref(), Some("a"));
        assert_eq!(owner(&cache, "6"), None);
        assert_eq!(owner(&cache, "1").as_deref(), Some("z"), "past zero");
        cache.learn(range("4", "6"), &node("b"));
        assert_eq!(owner(&cache, "5").as_deref(), Some("b"));
        assert_eq!(owner(&cache, "3"), None, "an overlapped entry goes whole");
        cache.forget(&point("f"));
        assert_eq!(owner(&cache, "f"), None);
        cache.forget_node(&node("b"));
        assert_eq!(owner(&cache, "5"), None);
    }

    #[test]
    fn a_range_over_zero_replaces_what_lies_on_both_sides() {
        let mut cache = OwnerCache::new(8);
        cache.learn(range("1", "2"), &node("a"));
        cache.learn(range("f", "0"), &node("b"));
        cache.learn(range("e", "3"), &node("c"));
        assert_eq!(owner(&cache, "18").as_deref(), Some("c"));
        assert_eq!(owner(&cache, "f8").as_deref(), Some("c"));
        cache.learn(range("7", "7"), &node("d"));
        assert_eq!(owner(&cache, "18").as_deref(), Some("d"), "the whole circle");
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut cache = OwnerCache::new(2);
        for (lo, hi) in [("1", "2"), ("2", "3"), ("3", "4")] {
            cache.learn(range(lo, hi), &node(lo));
        }
        assert_eq!(owner(&cache, "1"), None);
        assert_eq!(owner(&cache, "2").as_deref(), Some("2"));
        for i in 0..100 {
            cache.learn(range("5", if i % 2 == 0 { "6" } else { "7" }), &node("5"));
        }
        assert!(cache.learned.len() <= 8);
    }
}
