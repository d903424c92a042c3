//! Why a history is refused, for people.

use std::fmt;

use chordal_protocol::Id;

use super::Operation;

/// What a register must keep to, and has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The history is not one: an answer does not fit its question, or two writes have the same value.
    WellFormed,
    /// Each version belongs to one write.
    OneWriteOfAVersion,
    /// Each write happens at most once, and so has at most one version.
    OneVersionOfAWrite,
    /// What is read was written, and with that version.
    ReadWhatWasWritten,
    /// What was refused, or failed its condition, has not happened.
    RefusedHasNoEffect,
    /// A value is not read before its write is invoked.
    NotBeforeItsWrite,
    /// A write that is invoked after another has ended, or been read, has a greater version.
    WritesInOrder,
    /// What is read is no older than what had been acknowledged or read before.
    NoStaleRead,
    /// Nothing is read only where nothing is: before the first write, or after a delete.
    AbsentOnlyWhereAbsent,
    /// A conditional write directly follows what it expected.
    ConditionHeld,
    /// A condition that has failed did not hold.
    ConditionDidNotHold,
    /// What is deleted was there.
    DeletesSomething,
    /// A version that is seen belongs to a write that may have happened by then.
    SeenVersionWasWritten,
}

impl Rule {
    fn text(self) -> &'static str {
        match self {
            Rule::WellFormed => "the history can't be judged",
            Rule::OneWriteOfAVersion => "two writes have one version",
            Rule::OneVersionOfAWrite => "a write has happened twice",
            Rule::ReadWhatWasWritten => "a read returned what was never written",
            Rule::RefusedHasNoEffect => "a write that was refused has happened",
            Rule::NotBeforeItsWrite => "a value was seen before its write was invoked",
            Rule::WritesInOrder => "a later write has a smaller version",
            Rule::NoStaleRead => "stale read: something newer had been told before this was asked",
            Rule::AbsentOnlyWhereAbsent => "nothing was seen where a value was, and no delete can be between",
            Rule::ConditionHeld => "a conditional write does not directly follow what it expected",
            Rule::ConditionDidNotHold => "a condition failed that held",
            Rule::DeletesSomething => "a delete was done where nothing was",
            Rule::SeenVersionWasWritten => "a version was seen that no write can have had by then",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Something that clients saw of a key and that no register shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// The key.
    pub key: Id,
    /// What is broken.
    pub rule: Rule,
    /// The operations that together break it.
    pub operations: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: {}", self.key, self.rule)?;
        self.operations.iter().try_for_each(|operation| write!(f, "\n  {operation}"))
    }
}
