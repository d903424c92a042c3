//! The names of wishes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chordal_protocol::RequestId;

/// For how long after its minting a request is looked at. What became of it is remembered for a shorter time (`keeping`); one that
/// is older than that is refused by the primary.
const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the clock of whoever minted it may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(60 * 60);

/// A new name for a wish: the time in milliseconds in the upper half, chance in the lower. Outcomes of requests are forgotten
/// in the order of that time, so every id of ours is made here.
pub fn mint() -> RequestId {
    at(now(), rand::random())
}

/// The milliseconds since 1970 that request ids carry.
pub(super) fn unix_millis() -> u64 {
    now().as_millis() as u64
}

/// Why a request id cannot be taken: the time in it is not one at which it could have been minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mistimed {
    /// What became of it may have been forgotten, and so it might be done again.
    #[error("the request id was minted more than a day ago")]
    Old,
    /// What became of it would be remembered too long.
    #[error("the request id claims to have been minted more than an hour from now")]
    Early,
}

/// Whether an id that somebody else has minted carries a time at which that can have happened.
pub fn check_minting(request: RequestId) -> Result<(), Mistimed> {
    check_at(request, now())
}

fn check_at(request: RequestId, now: Duration) -> Result<(), Mistimed> {
    let minted = Duration::from_millis((request.0 >> 64) as u64);
    if minted + OLDEST < now {
        Err(Mistimed::Old)
    } else if minted > now + AHEAD {
        Err(Mistimed::Early)
    } else {
        Ok(())
    }
}

fn at(time: Duration, chance: u64) -> RequestId {
    RequestId((time.as_millis() << 64) | u128::from(chance))
}

/// Since 1970. A clock that stands before that counts as standing there.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_half_is_the_time() {
        let id = at(Duration::from_millis(1_800_000_000_123), 7);
        assert_eq!(id.to_string(), format!("{:016x}{:016x}", 1_800_000_000_123_u64, 7));
        assert_ne!(mint(), mint());
        assert_eq!(check_minting(mint()), Ok(()));
    }

    #[test]
    fn ids_of_another_time_are_told() {
        let now = Duration::from_secs(1_800_000_000);
        for (minted, expected) in [
            (now, Ok(())),
            (now - OLDEST, Ok(())),
            (now - OLDEST - Duration::from_millis(1), Err(Mistimed::Old)),
            (now + AHEAD, Ok(())),
            (now + AHEAD + Duration::from_millis(1), Err(Mistimed::Early)),
            (Duration::ZERO, Err(Mistimed::Old)),
            (Duration::from_millis(u64::MAX), Err(Mistimed::Early)),
        ] {
            assert_eq!(check_at(at(minted, 1), now), expected, "{minted:?}");
        }
    }
}
