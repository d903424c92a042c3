//! What happens, in words.

use std::fmt::Write as _;

use crate::run::Run;
use crate::world::{Action, Message, World, number, point};

impl World {
    /// One line about something that happens in this state.
    pub(crate) fn describe(&self, run: &Run, action: Action) -> String {
        let mut line = String::new();
        let _ = match action {
            Action::Deliver(i) | Action::DeliverTwice(i) => {
                let twice = if matches!(action, Action::DeliverTwice(_)) { " (and it stays on its way)" } else { "" };
                let (from, to) = self.messages[i].ends();
                let text = match &*self.messages[i] {
                    Message::Request(letter) => format!("{:?}", letter.body),
                    Message::Reply(letter) => format!("{:?}", letter.body),
                };
                write!(line, "{} -> {}: {}{twice}", number(&from), number(&to), shorten(&text))
            }
            Action::Operate(i, n) => {
                write!(line, "client -> {n}: operation {i}, {:?} of {:?}", self.rest.ops[i].want, self.rest.ops[i].id)
            }
            Action::Wish(i) => {
                let (n, at, wish) = run.wishes[i];
                write!(line, "{n} proposes for the view of {:?}: {wish:?}", point(at))
            }
            Action::Restart(i) => write!(line, "{} crashes and starts again", run.restarts[i]),
            Action::LoseDisk(i) => write!(line, "{} loses its disk and starts again", run.losses[i]),
            Action::Sync(n) => write!(line, "{n} has written everything to its disk"),
            Action::Forget(n, name) => write!(line, "{n} forgets what {name:?} has decided"),
            Action::Purge(op) => write!(line, "the outcome of operation {op} is purged"),
        };
        line
    }
}

/// A message's `Debug` without what the scenarios make the same everywhere.
fn shorten(text: &str) -> String {
    text.replace("000000", "")
        .replace(", incarnation: 1", "")
        .replace("content_type: \"\"", "")
        .replace(", deferred: None, forced: false", "")
        .replace(", absorbs: None", "")
        .replace("Interval { lo: ", "[")
        .replace("Member { id: ", "n{ ")
}
