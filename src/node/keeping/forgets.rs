//! Up to when outcomes of requests are forgotten.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// For how long the outcome of a request is remembered at least, so that one that is sent again is not done again.
const REMEMBERS_FOR: Duration = Duration::from_secs(15 * 60);

/// How often outcomes are forgotten.
const FORGETS_EVERY: Duration = Duration::from_secs(60);

/// Up to when outcomes of requests are forgotten, so that they do not pile up.
///
/// A request that was minted before that is refused and not done again, so the mark must not run ahead of other nodes' clocks:
/// it is what this node's clock said a while ago, and no later than what it says now less that while.
#[derive(Default)]
pub(super) struct Forgets {
    /// What the clock said, the latest last.
    said: VecDeque<(Instant, u64)>,
}

impl Forgets {
    /// Now and then the mark, in milliseconds since 1970, when the clock says this.
    pub(super) fn mark(&mut self, at: Instant, now: u64) -> Option<u64> {
        let since = |then: &Instant| at.saturating_duration_since(*then);
        if self.said.back().is_some_and(|(then, _)| since(then) < FORGETS_EVERY) {
            return None;
        }
        self.said.push_back((at, now));
        let mut mark = None;
        while let Some((_, said)) = self.said.front().filter(|(then, _)| since(then) >= REMEMBERS_FOR) {
            mark = Some(*said);
            self.said.pop_front();
        }
        Some(mark?.min(now.saturating_sub(REMEMBERS_FOR.as_millis() as u64)))
    }
}
