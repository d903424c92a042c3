//! Which views are known to stand: what a primary asks before it answers a read (rule 11).
//!
//! A member that has said so says it again without standing in line for the disk, until something of its views is written down.
//! That is sound: whoever is asked before a promise leaves this node may say that nothing has been promised, for nobody has
//! heard of it. Now and then the question goes to the thread all the same, which takes the primary's marks and keeps the time of
//! when it was heard.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chordal_protocol::keeper;
use chordal_protocol::replica::{Durable, Letter, Name, Reply, Request};

/// For how long a view is said to stand without the thread: well below what makes a member suspect its primary.
const SHORTCUT: Duration = Duration::from_millis(100);

/// The views that stand, each with what was last said of it, and when.
#[derive(Default)]
pub(super) struct Standing {
    said: Mutex<HashMap<Name, (Letter<Reply>, Instant)>>,
}

impl Standing {
    /// The answer, if nothing else is asked and all of it is known.
    pub(super) fn confirm(&self, request: &keeper::Request, now: Instant) -> Option<keeper::Reply> {
        let keeper::Request::Letters { letters, .. } = request else { return None };
        let said = self.lock();
        let again = |letter: &Letter<Request>| {
            let Request::Confirm { name, boot, round, .. } = letter.body else { return None };
            let (last, at) = said.get(&name)?;
            let Reply::Confirmed { boot: known, .. } = last.body else { return None };
            let is_same = (letter.from, letter.to, letter.boot, boot) == (last.to, last.from, known, known);
            let is_fresh = now.saturating_duration_since(*at) < SHORTCUT;
            (is_same && is_fresh).then(|| Letter { body: Reply::Confirmed { name, boot, round }, ..last.clone() })
        };
        let letters: Option<Vec<_>> = letters.iter().map(again).collect();
        let letters = letters.filter(|letters| !letters.is_empty())?;
        Some(keeper::Reply::Letters { letters, contacts: Vec::new(), age: keeper::Age::default() })
    }

    /// The thread has said this, and all that it rests on is durable.
    pub(super) fn note(&self, said: Vec<Letter<Reply>>, now: Instant) {
        if said.is_empty() {
            return;
        }
        let mut known = self.lock();
        for letter in said {
            if let Reply::Confirmed { name, .. } = letter.body {
                known.insert(name, (letter, now));
            }
        }
    }

    /// Views have changed. To be called before anybody hears of it.
    pub(super) fn follow(&self, durable: &Durable) {
        let stands = |name: &Name| durable.held.get(name).is_some_and(|held| held.installed && held.promised.is_none());
        self.lock().retain(|name, (letter, _)| {
            let is_known = |boot: u64| durable.boots.get(&letter.to).is_none_or(|known| *known <= boot);
            stands(name) && matches!(letter.body, Reply::Confirmed { boot, .. } if is_known(boot))
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, (Letter<Reply>, Instant)>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of these answers says that a view stands.
pub(super) fn confirmations(said: &keeper::Reply) -> Vec<Letter<Reply>> {
    match said {
        keeper::Reply::Letters { letters, .. } => {
            letters.iter().filter(|letter| matches!(letter.body, Reply::Confirmed { .. })).cloned().collect()
        }
        keeper::Reply::Introduced(_) | keeper::Reply::Restored => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chordal_protocol::replica::{Held, Marks, Member, Replica, Settings, View};
    use chordal_protocol::{Id, Interval};

    use super::*;

    fn member(name: &str) -> Member {
        Member { id: Id::of(name), incarnation: 1 }
    }

    fn view() -> View {
        let range = Interval::half_open(Id::ZERO, Id::ZERO);
        let members = vec![member("primary"), member("me")];
        View { range, epoch: 3, members, primary: member("primary"), deferred: None, forced: false }
    }

    fn durable(change: impl FnOnce(&mut Held)) -> Durable {
        let view = view();
        let mut held = Held {
            view: view.clone(),
            base: None,
            installed: true,
            promised: None,
            accepted: None,
            stable: 0,
            fetched: None,
        };
        change(&mut held);
        let durable = Replica::new(member("me"), Settings::default()).durable().clone();
        Durable { held: BTreeMap::from([(view.name(), held)]), ..durable }
    }

    fn asks(from: &str, boot: u64, round: u64) -> keeper::Request {
        let body = Request::Confirm { name: view().name(), boot, round, marks: Marks::default() };
        let letters = vec![Letter { from: member(from), boot, to: member("me"), body }];
        keeper::Request::Letters { letters, contacts: Vec::new(), age: keeper::Age::default() }
    }

    fn standing(now: Instant) -> Standing {
        let standing = Standing::default();
        let body = Reply::Confirmed { name: view().name(), boot: 2, round: 7 };
        standing.note(vec![Letter { from: member("me"), boot: 5, to: member("primary"), body }], now);
        standing
    }

    #[test]
    fn what_was_said_is_said_again_to_the_question_that_is_asked() {
        let now = Instant::now();
        let standing = standing(now);
        standing.follow(&durable(|_| {}));
        let Some(keeper::Reply::Letters { letters, .. }) = standing.confirm(&asks("primary", 2, 9), now) else {
            panic!("it stands");
        };
        let body = Reply::Confirmed { name: view().name(), boot: 2, round: 9 };
        assert_eq!(letters, [Letter { from: member("me"), boot: 5, to: member("primary"), body }]);
    }

    #[test]
    fn nothing_is_said_to_anybody_else_of_another_life_or_too_late() {
        let now = Instant::now();
        let standing = standing(now);
        assert!(standing.confirm(&asks("another", 2, 9), now).is_none());
        assert!(standing.confirm(&asks("primary", 3, 9), now).is_none());
        assert!(standing.confirm(&asks("primary", 1, 9), now).is_none());
        assert!(standing.confirm(&asks("primary", 2, 9), now + SHORTCUT).is_none());
        let age = keeper::Age::default();
        let nothing = keeper::Request::Letters { letters: Vec::new(), contacts: Vec::new(), age };
        assert!(standing.confirm(&nothing, now).is_none());
    }

    #[test]
    fn a_view_that_was_promised_away_or_is_over_is_not_said_to_stand() {
        let now = Instant::now();
        let ballot = chordal_protocol::replica::Ballot { round: 1, proposer: member("another"), boot: 1 };
        let sealed = durable(|held| held.promised = Some(ballot));
        let uninstalled = durable(|held| held.installed = false);
        let over = Durable { held: BTreeMap::new(), ..durable(|_| {}) };
        let restarted = Durable { boots: BTreeMap::from([(member("primary"), 3)]), ..durable(|_| {}) };
        for changed in [sealed, uninstalled, over, restarted] {
            let standing = standing(now);
            standing.follow(&changed);
            assert!(standing.confirm(&asks("primary", 2, 9), now).is_none(), "{changed:?}");
        }
    }
}
