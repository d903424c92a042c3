//! What a primary has under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::ROW;
use super::{Answer, Member, Settings, Token, View};
use crate::{Id, Record, Time};

/// How many bytes of writes may be under way or not yet at all members in a view: they travel in one message when it changes.
pub(super) const HEAVIEST_TAIL: usize = 32 << 20;

/// What a primary has under way. It is not durable: whoever restarts does not serve this epoch any more (rule 10).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Lead {
    /// The number of the last write: counted for the view, not for each register.
    pub(super) sequence: u64,
    /// Writes that are not known to be at all members.
    pub(super) tail: BTreeMap<u64, Unstable>,
    /// The registers of those that a majority is not known to have.
    pub(super) open: BTreeSet<Id>,
    /// What the tail weighs, in bytes.
    weight: usize,
    /// What all writes so far weigh, with their rows.
    written: u64,
    /// Up to which write those who catch up have been sent what they lack.
    pub(super) sent_again: BTreeMap<Member, u64>,
    /// When those who keep writes before they have installed kept one last.
    pub(super) fetching: BTreeMap<Member, Time>,
    /// The number of the last question whether the view stands, and who has answered it.
    pub(super) round: u64,
    pub(super) confirmed: BTreeSet<Member>,
    /// Answers that wait until it is known that the view stood after they were asked for, and by which question.
    pub(super) waiting: Vec<(u64, Token, Answer)>,
}

/// A write that is not known to be at all members.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Unstable {
    pub(super) record: Arc<Record>,
    /// Where it is durable.
    pub(super) at: Places,
    /// Where it is durable at members that have not installed yet.
    pub(super) kept: Places,
    /// Whom to tell, until that is done.
    pub(super) token: Option<Token>,
    /// Whether a majority has it.
    pub(super) is_done: bool,
    /// When members were asked to keep it last.
    pub(super) asked: Time,
}

/// A member by its place in the view. A view has no more than [`crate::Ring::MOST_COPIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) usize);

/// Some members of a view, a bit for each place: there may be thousands of these, and they are copied often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Places(u64);

/// How far a primary has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// All writes up to this number are at all members.
    pub(super) stable: u64,
    /// What all writes so far weigh.
    pub(super) written: u64,
}

impl Place {
    pub(super) fn of(member: &Member, view: &View) -> Option<Place> {
        view.members.iter().position(|other| other == member).map(Place)
    }
}

impl Places {
    pub(super) fn add(&mut self, place: Place) {
        self.0 |= 1 << (place.0 % 64);
    }

    pub(super) fn has(self, place: Place) -> bool {
        self.0 & (1 << (place.0 % 64)) != 0
    }

    pub(super) fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) fn and(self, others: Places) -> Places {
        Places(self.0 | others.0)
    }
}

impl Unstable {
    /// Whether a member must be sent it: it does not have it, or only keeps it where that is not enough.
    pub(super) fn is_lacking(&self, place: Place) -> bool {
        !(self.at.has(place) || self.is_done && self.kept.has(place))
    }
}

impl Lead {
    /// Has one write more under way.
    pub(super) fn takes(&mut self, record: Arc<Record>, token: Token, now: Time) {
        self.open.insert(record.id);
        self.weight += record.weight();
        self.written += (ROW + record.weight()) as u64;
        let (at, kept) = (Places::default(), Places::default());
        let write = Unstable { record, at, kept, token: Some(token), is_done: false, asked: now };
        self.tail.insert(self.sequence, write);
    }

    /// Rule 15: stable is what is at all members, with everything before it.
    pub(super) fn drop_stable(&mut self, all: usize) {
        let is_stable = |write: &Unstable| write.is_done && write.at.and(write.kept).count() >= all;
        while self.tail.first_key_value().is_some_and(|(_, write)| is_stable(write)) {
            if let Some((_, write)) = self.tail.pop_first() {
                self.weight -= write.record.weight();
            }
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let stable = self.tail.first_key_value().map_or(self.sequence, |(first, _)| first - 1);
        Progress { stable, written: self.written }
    }

    pub(super) fn unstable(&self) -> usize {
        self.tail.len()
    }

    /// Whether half of what may be under way is.
    pub(super) fn is_half_full(&self, settings: &Settings) -> bool {
        self.fills(settings.longest_tail / 2, HEAVIEST_TAIL / 2)
    }

    /// Whether so many writes, or so many bytes, are not known to be at all members.
    pub(super) fn fills(&self, writes: usize, bytes: usize) -> bool {
        self.tail.len() >= writes || self.weight >= bytes
    }
}
