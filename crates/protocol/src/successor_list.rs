//! The next few members, so that a ring outlives the death of the nearest.

use crate::{Contact, Id};

/// The nearest successors of a node, in clockwise order, without duplicates and without the node itself.
///
/// Source: Zave, "How to Make Chord Correct" (2015-2017): a list of `r` entries survives `r - 1` neighbours that die
/// at once. In a ring of `N <= r` members it holds all `N - 1` others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SuccessorList {
    owner: Id,
    capacity: usize,
    entries: Vec<Contact>,
    /// A planted bug ([`Flaw::ListsItself`](crate::Flaw::ListsItself)).
    lists_owner: bool,
}

impl SuccessorList {
    /// An empty list of at most `capacity` entries: its owner is alone, or cut off.
    pub fn new(owner: Id, capacity: usize) -> SuccessorList {
        SuccessorList { owner, capacity: capacity.max(1), entries: Vec::new(), lists_owner: false }
    }

    /// The nearest successor.
    pub fn first(&self) -> Option<&Contact> {
        self.entries.first()
    }

    /// All entries, nearest first.
    pub fn entries(&self) -> &[Contact] {
        &self.entries
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// `[head] ++ tail`, cut where the tail comes round to the owner, goes backwards, or is longer than the capacity.
    /// Returns whether the list is another one than before.
    pub fn adopt<'a>(&mut self, head: &'a Contact, tail: impl IntoIterator<Item = &'a Contact>) -> bool {
        let mut entries: Vec<Contact> = Vec::with_capacity(self.capacity);
        let mut reached = Id::ZERO;
        for contact in std::iter::once(head).chain(tail) {
            let distance = self.owner.distance(&contact.id);
            let comes_round = distance <= reached && !(self.lists_owner && distance == Id::ZERO && !entries.is_empty());
            if comes_round || entries.len() == self.capacity {
                break;
            }
            reached = distance;
            entries.push(contact.clone());
        }
        let changed = entries != self.entries;
        self.entries = entries;
        changed
    }

    /// Takes out a node that has died or left. Returns whether it was there.
    pub fn remove(&mut self, gone: &Contact) -> bool {
        let before = self.entries.len();
        self.entries.retain(|contact| contact != gone);
        self.entries.len() != before
    }

    pub(crate) fn list_owner(&mut self) {
        self.lists_owner = true;
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(prefix: &str) -> Contact {
        Contact { id: Id::from_hex_prefix(prefix).unwrap(), addr: prefix.into(), name: String::new() }
    }

    fn list(owner: &str, entries: &[&str]) -> SuccessorList {
        let mut list = SuccessorList::new(node(owner).id, 3);
        let nodes: Vec<Contact> = entries.iter().map(|entry| node(entry)).collect();
        list.adopt(&nodes[0], &nodes[1..]);
        list
    }

    fn names(list: &SuccessorList) -> Vec<&str> {
        list.entries().iter().map(|contact| contact.addr.as_str()).collect()
    }

    #[test]
    fn adopting_keeps_what_comes_next_in_order() {
        assert_eq!(names(&list("1", &["2", "3", "4", "5"])), ["2", "3", "4"]);
        assert_eq!(names(&list("8", &["a", "f", "2"])), ["a", "f", "2"], "past zero");
    }

    #[test]
    fn adopting_stops_at_oneself_and_at_a_step_back() {
        assert_eq!(names(&list("3", &["5", "1", "3", "4"])), ["5", "1"]);
        assert_eq!(names(&list("3", &["5", "4", "6"])), ["5"]);
        assert_eq!(names(&list("3", &["5", "5", "6"])), ["5"]);
        assert_eq!(names(&list("3", &["3", "5"])), [""; 0]);
    }

    #[test]
    fn the_dead_are_taken_out() {
        let mut list = list("1", &["2", "3"]);
        assert!(list.remove(&node("2")));
        assert!(!list.remove(&node("2")));
        assert_eq!(names(&list), ["3"]);
    }
}
