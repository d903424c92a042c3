//! The nodes near this one in their order, as far as it knows.

use crate::{Contact, Id, Interval};

/// Nodes in the order of their ids. They stand side by side on the ring where pointers are right.
pub(super) struct Circle {
    nodes: Vec<Contact>,
}

impl Circle {
    pub(super) fn of(nodes: impl IntoIterator<Item = Contact>) -> Circle {
        let mut nodes: Vec<Contact> = nodes.into_iter().collect();
        nodes.sort_by_key(|node| node.id);
        nodes.dedup_by_key(|node| node.id);
        Circle { nodes }
    }

    /// Where the owner of an id stands: the last node at or before it.
    pub(super) fn owner(&self, id: &Id) -> Option<usize> {
        let behind = self.nodes.partition_point(|node| node.id <= *id);
        behind.checked_sub(1).or(self.nodes.len().checked_sub(1))
    }

    /// The first node within a range, not at its beginning.
    pub(super) fn first_within(&self, range: &Interval) -> Option<usize> {
        let within = |i: &usize| self.nodes.get(*i).is_some_and(|node| node.id != range.lo && range.contains(&node.id));
        (0..self.nodes.len()).filter(within).min_by_key(|i| self.nodes.get(*i).map(|node| range.lo.distance(&node.id)))
    }

    /// Who shall keep what the node at this place owns: it, and those before it, so many in all if there are so many.
    pub(super) fn group(&self, owner: usize, factor: usize) -> Vec<&Contact> {
        let count = self.nodes.len();
        let place = |back: usize| (owner + count - back) % count.max(1);
        (0..factor.min(count)).filter_map(|back| self.nodes.get(place(back))).collect()
    }

    pub(super) fn at(&self, place: usize) -> Option<&Contact> {
        self.nodes.get(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(prefix: &str) -> Id {
        Id::from_hex_prefix(prefix).unwrap()
    }

    fn node(prefix: &str) -> Contact {
        Contact { id: id(prefix), addr: format!("host:{prefix}"), name: prefix.to_owned() }
    }

    fn names(nodes: &[&Contact]) -> String {
        nodes.iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn the_owner_is_the_last_at_or_before_and_its_group_comes_before_it() {
        let circle = Circle::of([node("8"), node("2"), node("4"), node("2")]);
        let owner = |at: &str| circle.owner(&id(at)).and_then(|place| circle.at(place)).map(|node| node.name.clone());
        assert_eq!(owner("4").as_deref(), Some("4"));
        assert_eq!(owner("7").as_deref(), Some("4"));
        assert_eq!(owner("1").as_deref(), Some("8"));
        assert_eq!(names(&circle.group(0, 2)), "28");
        assert_eq!(names(&circle.group(2, 3)), "842");
        assert_eq!(names(&circle.group(2, 5)), "842");
        assert_eq!(Circle::of([]).owner(&id("1")), None);
    }

    #[test]
    fn the_first_within_a_range_is_the_next_after_its_beginning() {
        let circle = Circle::of([node("2"), node("4"), node("8")]);
        let first = |lo: &str, hi: &str| {
            let place = circle.first_within(&Interval::half_open(id(lo), id(hi)));
            place.and_then(|place| circle.at(place)).map(|node| node.name.clone())
        };
        assert_eq!(first("2", "8").as_deref(), Some("4"));
        assert_eq!(first("2", "4"), None);
        assert_eq!(first("8", "8").as_deref(), Some("2"));
        assert_eq!(first("5", "3").as_deref(), Some("8"));
    }
}
