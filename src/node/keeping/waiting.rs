//! Clients whose operations have been begun.

use std::collections::HashMap;

use chordal_protocol::Id;
use chordal_protocol::replica::Token;

use super::{Reply, Told};

#[derive(Default)]
pub(super) struct Waiting {
    clients: HashMap<Token, (Id, Reply<Told>)>,
    last: u64,
}

impl Waiting {
    /// An operation on this register begins; whom to answer.
    pub(super) fn begin(&mut self, id: Id, answer: Reply<Told>) -> Token {
        self.last += 1;
        let token = Token(self.last);
        self.clients.insert(token, (id, answer));
        token
    }

    /// It is over.
    pub(super) fn end(&mut self, token: Token) -> Option<(Id, Reply<Told>)> {
        self.clients.remove(&token)
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> {
        self.clients.keys().copied()
    }
}
