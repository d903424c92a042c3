//! Who proposes, and under which number.

use serde::{Deserialize, Serialize};

use crate::Id;

/// A node with a data directory: what is a member of a view.
///
/// The incarnation is drawn when the directory is made. A node whose disk is gone comes back as another member, which holds
/// no vote of the former one (rule 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Where the node stands on the circle.
    pub id: Id,
    /// Which data directory of that node it is.
    pub incarnation: u64,
}

/// The number of a proposal. No two proposals have the same one: the round grows with each of a member, and is durable before
/// it is used; a member that has restarted differs by its boot (rule 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// What is counted up to overtake others.
    pub round: u64,
    /// Who proposes.
    pub proposer: Member,
    /// In which of its lives.
    pub boot: u64,
}

/// How many of `count` are a majority.
pub(crate) fn majority(count: usize) -> usize {
    count / 2 + 1
}
