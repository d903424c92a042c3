//! What keepers ask of each other.

use serde::{Deserialize, Serialize};

use crate::Contact;
use crate::replica::{self, Letter, Member};

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
    },
}

/// What an envelope weighs, in bytes, beside content.
const LETTER: usize = 256;

impl Request {
    /// About how many bytes it has.
    pub fn weight(&self) -> usize {
        match self {
            Request::Letters { letters, .. } => letters.iter().map(|letter| LETTER + letter.body.weight()).sum(),
            Request::Introduce(_) | Request::Release(_) => LETTER,
        }
    }
}

impl Reply {
    /// About how many bytes it has.
    pub fn weight(&self) -> usize {
        match self {
            Reply::Letters { letters, .. } => letters.iter().map(|letter| LETTER + letter.body.weight()).sum(),
            Reply::Introduced(_) => LETTER,
        }
    }
}
