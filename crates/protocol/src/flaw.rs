//! Planted bugs. A simulator that has never failed proves nothing: each of these must be caught by it.
//!
//! A flaw is a value that is planted into a [`Chord`](crate::Chord) at run time ([`Chord::plant`](crate::Chord::plant)); no
//! setting, message or file carries one, and the lints of the daemon's package forbid it that call. (As cargo features they
//! would be switched on for everybody in the workspace.)

/// A bug that the protocol can be made to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Join, stabilize and notify as they were published in 2001 (Stoica et al., figure 6): a joiner takes a successor and
    /// nothing more, pointers are adopted unasked, and a successor that has lost its predecessor is not noticed.
    Original2001,
    /// `stabilize` adopts the successor's predecessor without asking it.
    AdoptsUnasked,
    /// A node that still joins answers as if it were a ring of one.
    AnswersWhileJoining,
    /// A node keeps itself in its successor list.
    ListsItself,
    /// A node whose successors are all gone goes on as a ring of one.
    SecondRing,
    /// When its successor dies a node takes all the others for dead too.
    DropsWholeList,
    /// Nodes of other rings are taken for nodes of one's own.
    MergesStrangers,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Flaw; 7] = [
        Flaw::Original2001,
        Flaw::AdoptsUnasked,
        Flaw::AnswersWhileJoining,
        Flaw::ListsItself,
        Flaw::SecondRing,
        Flaw::DropsWholeList,
        Flaw::MergesStrangers,
    ];
}
