//! What a person may do about a range that has lost its majority for good. The reasons are in the protocol's `recover`.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use chordal_protocol::keeper::{Keeper, Step};
use chordal_protocol::replica::{FORCED_EPOCH_STEP, Member, Name, NotForced, NotProposed, Store};
use chordal_protocol::{Interval, Time};

/// A step of it.
#[derive(Debug, Clone)]
pub(crate) enum Recovery {
    /// Here at one of the survivors, ask all members.
    Begin { name: Name, survivors: BTreeSet<Member> },
    /// Those who can answer have had the time to: make the view.
    Force(Name),
    /// It is not gone on with.
    GiveUp(Name),
    /// No member is left: found the range anew, empty.
    Found(Interval),
}

/// Why it was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRecovered {
    #[error(transparent)]
    NotBegun(#[from] NotProposed),
    #[error(transparent)]
    NotForced(#[from] NotForced),
    /// Somebody is left: this very node.
    #[error("this node keeps some of that range itself")]
    Kept,
}

pub(super) fn carry_out<S: Store>(
    keeper: &mut Keeper,
    store: &mut S,
    now: Time,
    recovery: Recovery,
) -> (Result<(), NotRecovered>, Step) {
    let step = match recovery {
        Recovery::Begin { name, survivors } => keeper.recover(store, now, name, survivors).map_err(NotRecovered::from),
        Recovery::Force(name) => keeper.force(store, now, name).map_err(NotRecovered::from),
        Recovery::GiveUp(name) => {
            keeper.give_up(&name);
            Ok(Step::default())
        }
        Recovery::Found(range) => {
            let mut held = keeper.replica().durable().held.values();
            if held.any(|held| held.installed && held.view.range.overlaps(&range)) {
                Err(NotRecovered::Kept)
            } else {
                let epoch = far_ahead(keeper.replica().latest_epoch(&range));
                Ok(keeper.found_by_force(range, epoch))
            }
        }
    };
    match step {
        Ok(step) => (Ok(()), step),
        Err(error) => (Err(error), Step::default()),
    }
}

/// An epoch that no former view of a range can have reached. How far those were, nobody is left to tell, so time decides: an epoch
/// grows by one with each change and by a step with each recovery, and there is never one of either a second. Should the clock be
/// far behind, what this node knows counts.
fn far_ahead(known: u64) -> u64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    seconds.saturating_mul(FORCED_EPOCH_STEP).max(known.saturating_add(FORCED_EPOCH_STEP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_far_ahead_is_ahead_of_what_is_known_and_of_what_is_not() {
        assert!(far_ahead(7) > 1 << 50, "of a hundred thousand changes and a hundred recoveries a day, for years");
        assert_eq!(far_ahead(1 << 60), (1 << 60) + FORCED_EPOCH_STEP);
    }
}
