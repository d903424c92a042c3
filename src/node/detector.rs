//! Who can be expected to answer, and within what time: from how long answers took, and from who owes one.
//!
//! No clock and no I/O: time is an input. The reasons stand in docs/decisions/0006-failure-detection.md.
//!
//! - The time after which an answer is *late* is computed for each peer from what was measured (Jacobson 1988, RFC 6298):
//!   the smoothed round-trip and four times its deviation, between a floor and a ceiling that depend on what is asked.
//! - One late answer makes a *suspect*: lookups pass over it for a while, and it is asked again, with twice the time.
//! - Whoever stays silent when it is asked once more, or whose address refuses, is *condemned*: it is passed over in the same
//!   way, and greeted before anything else is asked of it.
//! - Any sign of life clears it of both.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chordal_protocol::Request;

/// Of how many peers anything is remembered. The one that was not asked for longest makes room.
const PEERS: usize = 1024;

/// How much later than it was set for a timer may go off before this node itself is taken to have stood still.
const STOOD_STILL: Duration = Duration::from_millis(250);

/// How many bytes of content take longer than a word.
const LARGE: usize = 64 << 10;

/// What is asked, as far as it decides how long an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The next hop of a lookup: answered from memory, and there are others to ask instead.
    Route,
    /// What keeps the ring: answered from memory, or after a small write.
    Ring,
    /// Something that the asked node must read or write for, or call another node.
    Content,
    /// Much content at once, or an operation that may wait for others.
    Page,
}

impl Kind {
    pub(crate) fn of(request: &Request) -> Kind {
        match request {
            Request::Route { .. } => Kind::Route,
            Request::Hello | Request::Neighbours | Request::Notify(_) | Request::Departing { .. } => Kind::Ring,
            Request::Keep(request) if request.weight() > LARGE => Kind::Page,
            Request::Operate(_) => Kind::Page,
            Request::Keep(_) | Request::Welcome(_) | Request::Invite(_) => Kind::Content,
        }
    }
}

/// Within what time the answer to one kind of question is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest time after which an answer is late, however quick the peer has been.
    pub floor: Duration,
    /// The time for a peer that has not answered yet.
    pub untried: Duration,
    /// The longest time after which an answer is late, however slow the peer has been.
    pub ceiling: Duration,
    /// How long an answer is waited for in all, if the peer shows meanwhile that it lives.
    pub limit: Duration,
}

impl Bounds {
    const fn of_millis(floor: u64, untried: u64, ceiling: u64, limit: u64) -> Bounds {
        Bounds {
            floor: Duration::from_millis(floor),
            untried: Duration::from_millis(untried),
            ceiling: Duration::from_millis(ceiling),
            limit: Duration::from_millis(limit),
        }
    }
}

/// How long others may take to answer, and for how long one that did not is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// What is answered from memory: the way to an id, and what keeps the ring.
    pub ring: Bounds,
    /// What another disk or another node is needed for.
    pub content: Bounds,
    /// A page of content.
    pub page: Bounds,
    /// For how long lookups pass over a node that gave no answer, unless it gives a sign of life.
    pub passed_over: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            ring: Bounds::of_millis(300, 500, 1_500, 3_000),
            content: Bounds::of_millis(500, 1_000, 3_000, 5_000),
            page: Bounds::of_millis(1_000, 2_000, 5_000, 10_000),
            passed_over: Duration::from_secs(2),
        }
    }
}

impl Patience {
    /// The bounds for one kind of question.
    pub(crate) fn bounds(&self, kind: Kind) -> &Bounds {
        match kind {
            Kind::Route | Kind::Ring => &self.ring,
            Kind::Content => &self.content,
            Kind::Page => &self.page,
        }
    }
}

/// What is known of the peers of a node.
#[derive(Debug)]
pub(crate) struct Detector {
    patience: Patience,
    peers: HashMap<String, Peer>,
}

/// What is known of one of them.
#[derive(Debug)]
struct Peer {
    ring: Option<Estimate>,
    content: Option<Estimate>,
    page: Option<Estimate>,
    standing: Standing,
    /// Since when it stands so.
    since: Instant,
    /// When it was last asked or heard of.
    used: Instant,
}

/// What is thought of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing speaks against it.
    Trusted,
    /// It owes an answer.
    Suspected,
    /// It owed one, was asked again, and stayed silent; or nobody listens at its address.
    Condemned,
}

/// A smoothed round-trip and its deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Estimate {
    round_trip: Duration,
    deviation: Duration,
}

impl Estimate {
    /// RFC 6298, section 2: a gain of 1/8 for the round-trip, and of 1/4 for its deviation.
    fn with(before: Option<Estimate>, took: Duration) -> Estimate {
        let Some(Estimate { round_trip, deviation }) = before else {
            return Estimate { round_trip: took, deviation: took / 2 };
        };
        Estimate { deviation: (deviation * 3 + round_trip.abs_diff(took)) / 4, round_trip: (round_trip * 7 + took) / 8 }
    }

    fn late_after(&self) -> Duration {
        self.round_trip + self.deviation * 4
    }
}

impl Detector {
    pub(crate) fn new(patience: Patience) -> Detector {
        Detector { patience, peers: HashMap::new() }
    }

    /// After what time this peer's answer is late. A suspect has twice as long, and the condemned as long as the trusted: it
    /// has had its second chance, and should it be slow and not dead, its answer clears it whenever it comes.
    pub(crate) fn late_after(&self, addr: &str, kind: Kind) -> Duration {
        let bounds = self.patience.bounds(kind);
        let peer = self.peers.get(addr);
        let measured = peer.and_then(|peer| *peer.estimate(kind)).map(|estimate| estimate.late_after());
        let expected = measured.unwrap_or(bounds.untried).max(bounds.floor);
        let factor = if self.standing(addr) == Standing::Suspected { 2 } else { 1 };
        (expected * factor).min(bounds.ceiling)
    }

    /// What is thought of a peer.
    pub(crate) fn standing(&self, addr: &str) -> Standing {
        self.peers.get(addr).map_or(Standing::Trusted, |peer| peer.standing)
    }

    /// Whether a peer gave no answer a moment ago, so that no lookup should wait for it now.
    pub(crate) fn is_passed_over(&self, addr: &str, now: Instant) -> bool {
        let recent = |peer: &Peer| now.saturating_duration_since(peer.since) < self.patience.passed_over;
        self.peers.get(addr).is_some_and(|peer| peer.standing != Standing::Trusted && recent(peer))
    }

    /// A peer has answered, be it late.
    pub(crate) fn answered(&mut self, addr: &str, kind: Kind, took: Duration, now: Instant) {
        let took = took.min(self.patience.bounds(kind).ceiling);
        let peer = self.peer(addr, now);
        let estimate = peer.estimate_mut(kind);
        *estimate = Some(Estimate::with(*estimate, took));
        peer.standing = Standing::Trusted;
    }

    /// A peer has asked something itself. That of somebody unknown is not worth remembering: anybody can say who he is.
    pub(crate) fn heard_of(&mut self, addr: &str, now: Instant) {
        if let Some(peer) = self.peers.get_mut(addr) {
            peer.standing = Standing::Trusted;
            peer.used = now;
        }
    }

    /// A peer's answer is late. Who is condemned stays so.
    pub(crate) fn suspect(&mut self, addr: &str, now: Instant) {
        let peer = self.peer(addr, now);
        if peer.standing != Standing::Condemned {
            peer.standing = Standing::Suspected;
        }
        peer.since = now;
    }

    /// A peer was asked again and stayed silent, or nobody listens at its address.
    pub(crate) fn condemn(&mut self, addr: &str, now: Instant) {
        let peer = self.peer(addr, now);
        peer.standing = Standing::Condemned;
        peer.since = now;
    }

    fn peer(&mut self, addr: &str, now: Instant) -> &mut Peer {
        if self.peers.len() >= PEERS && !self.peers.contains_key(addr) {
            let longest_unused = self.peers.iter().min_by_key(|(_, peer)| peer.used).map(|(addr, _)| addr.clone());
            longest_unused.map(|addr| self.peers.remove(&addr));
        }
        let new = || Peer { ring: None, content: None, page: None, standing: Standing::Trusted, since: now, used: now };
        let peer = self.peers.entry(addr.to_owned()).or_insert_with(new);
        peer.used = now;
        peer
    }
}

impl Peer {
    fn estimate(&self, kind: Kind) -> &Option<Estimate> {
        match kind {
            Kind::Route | Kind::Ring => &self.ring,
            Kind::Content => &self.content,
            Kind::Page => &self.page,
        }
    }

    fn estimate_mut(&mut self, kind: Kind) -> &mut Option<Estimate> {
        match kind {
            Kind::Route | Kind::Ring => &mut self.ring,
            Kind::Content => &mut self.content,
            Kind::Page => &mut self.page,
        }
    }
}

/// Whether this node itself stood still (it was paused, or starved) while it waited. What it then finds overdue may have
/// come long ago and not have been read yet, so it must not judge anybody by it.
pub(crate) fn stood_still(meant_to_wait: Duration, waited: Duration) -> bool {
    waited > meant_to_wait + STOOD_STILL
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
