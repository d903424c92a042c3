//! What keepers ask of each other.

use serde::{Deserialize, Serialize};

use super::Age;
use crate::Contact;
use crate::replica::{self, Letter, Member, Name};

/// What one keeper asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Request {
    /// I am this member; which are you?
    Introduce(Member),
    /// I am leaving: take me out of the views that you serve, and into none.
    Release(Member),
    /// Letters of my replica to yours.
    Letters {
        /// The letters, in the order in which they were written.
        letters: Vec<Letter<replica::Request>>,
        /// Where those can be asked whom the letters name as members of a view.
        contacts: Vec<Contact>,
        /// How far the disk has come on which they rest.
        age: Age,
    },
}

/// What a keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// This is who I am.
    Introduced(Member),
    /// The answers to letters.
    Letters {
        /// An answer for each letter that was for this node.
        letters: Vec<Letter<replica::Reply>>,
        /// Where those can be asked whom the answers name as members of a view.
        contacts: Vec<Contact>,
        /// How far the disk has come on which they rest.
        age: Age,
    },
    /// Your disk is an older copy of the one that you had (rule 16): nothing that you say counts.
    Restored,
}

/// What an envelope weighs, in bytes, beside content.
const LETTER: usize = 256;

impl Request {
    /// Whether it may leave before the records of its step are durable ([`replica::Request::may_go_ahead`]).
    pub fn may_go_ahead(&self) -> bool {
        match self {
            Request::Letters { letters, .. } => letters.iter().all(|letter| letter.body.may_go_ahead()),
            Request::Introduce(_) | Request::Release(_) => false,
        }
    }

    /// The views that its letters ask to keep writes in.
    pub fn writes_in(&self) -> impl Iterator<Item = Name> {
        let letters = match self {
            Request::Letters { letters, .. } => letters.as_slice(),
            Request::Introduce(_) | Request::Release(_) => &[],
        };
        letters.iter().filter_map(|letter| match letter.body {
            replica::Request::Store { name, .. } => Some(name),
            _ => None,
        })
    }

    /// About how many bytes it has.
    pub fn weight(&self) -> usize {
        match self {
            Request::Letters { letters, .. } => letters.iter().map(|letter| LETTER + letter.body.weight()).sum(),
            Request::Introduce(_) | Request::Release(_) => LETTER,
        }
    }

    /// To be called when it leaves: what it rests on is durable.
    pub fn leave_at(&mut self, now: Age) {
        if let Request::Letters { age, .. } = self {
            *age = now;
        }
    }
}

impl Reply {
    /// About how many bytes it has.
    pub fn weight(&self) -> usize {
        match self {
            Reply::Letters { letters, .. } => letters.iter().map(|letter| LETTER + letter.body.weight()).sum(),
            Reply::Introduced(_) | Reply::Restored => LETTER,
        }
    }

    /// As [`Request::leave_at`].
    pub fn leave_at(&mut self, now: Age) {
        if let Reply::Letters { age, .. } = self {
            *age = now;
        }
    }
}
