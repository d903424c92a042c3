//! What a node of the ring knows, in 32-bit numbers.

use chordal_protocol::{Contact, FingerTable, Id, SuccessorList};

use crate::overlay::hash::{BITS, Hash};
use crate::overlay::members::{Members, NodeId};

/// The successors and fingers of a node. The protocol's own types are made of them when the node is asked: a million
/// finger tables of contacts would not fit into memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    successors: Box<[NodeId]>,
    fingers: Box<[NodeId]>,
}

impl Links {
    /// What a node should know, given who lives.
    pub(crate) fn right(node: NodeId, successors: usize, members: &Members) -> Links {
        let mut links = Links::default();
        links.stabilize(node, successors, members);
        links.fix_fingers(node, members);
        links
    }

    /// Its successors, the nearest first.
    pub fn successors(&self) -> &[NodeId] {
        &self.successors
    }

    /// Its distinct fingers, the nearest first.
    pub fn fingers(&self) -> &[NodeId] {
        &self.fingers
    }

    pub(crate) fn stabilize(&mut self, node: NodeId, successors: usize, members: &Members) {
        self.successors = members.following(&members.hash(node), successors).collect();
    }

    pub(crate) fn fix_fingers(&mut self, node: NodeId, members: &Members) {
        let me = members.hash(node);
        let mut fingers = Vec::with_capacity(32);
        let mut i = 0;
        while i < BITS
            && let Some(finger) = members.at_or_after(&me.plus_power_of_two(i))
        {
            // One node stands for all fingers up to the last that begins before it; where the way round leads back past
            // the node itself, nobody is left.
            let reach = me.clockwise_distance(&members.hash(finger)).bit_length();
            if reach <= i {
                break;
            }
            fingers.push(finger);
            i = reach;
        }
        self.fingers = fingers.into();
    }

    pub(crate) fn forget(&mut self, dead: &[NodeId]) {
        let rest = |nodes: &[NodeId]| nodes.iter().copied().filter(|node| !dead.contains(node)).collect();
        (self.successors, self.fingers) = (rest(&self.successors), rest(&self.fingers));
    }

    /// The node at this hash, if it is one of these.
    pub(crate) fn find(&self, hash: &Hash, members: &Members) -> Option<NodeId> {
        let mut all = self.successors.iter().chain(&self.fingers).copied();
        all.find(|node| members.hash(*node) == *hash)
    }

    /// The protocol's successor list and finger table of a node with these links.
    pub(crate) fn tables(&self, node: NodeId, members: &Members) -> (SuccessorList, FingerTable) {
        let me = Id::from(members.hash(node));
        let mut list = SuccessorList::new(me, self.successors.len());
        let successors: Vec<Contact> = self.successors.iter().map(|node| contact(*node, members)).collect();
        if let Some((first, rest)) = successors.split_first() {
            list.adopt(first, rest);
        }
        let mut table = FingerTable::new(me);
        let mut i = Some(0);
        for finger in &self.fingers {
            let Some(next) = i else { break };
            i = table.record(next, &contact(*finger, members));
        }
        (list, table)
    }
}

/// A node as the protocol knows it. Its id alone says who it is; an address would cost an allocation for each.
pub(crate) fn contact(node: NodeId, members: &Members) -> Contact {
    Contact { id: Id::from(members.hash(node)), addr: String::new(), name: String::new() }
}
