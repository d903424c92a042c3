//! What happened to a node: for its log, for those who wait for it, and for those who watch it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chordal_protocol::{Contact, Event, Interval};
use tokio::sync::watch;

use super::keeping::Moved;

/// How often a minute the log names the same neighbour as a new one. One that can call and cannot be called comes and goes with each
/// round.
const NEWS: (usize, Duration) = (3, Duration::from_secs(60));

/// How many new neighbours are remembered for that.
const NEIGHBOURS: usize = 32;

/// How many hand-overs are remembered.
const HANDOVERS: usize = 16;

/// A range that came or went.
#[derive(Debug, Clone)]
pub(crate) struct Handover {
    pub(crate) kind: &'static str,
    pub(crate) range: Interval,
    pub(crate) peer: Contact,
    pub(crate) records: u64,
    pub(crate) at: Instant,
}

/// Why the last attempt to join failed.
#[derive(Debug, Clone)]
pub(crate) struct JoinFailure {
    pub(crate) reason: String,
    pub(crate) may_pass: bool,
}

#[derive(Debug)]
pub(crate) struct Happenings {
    handovers: Mutex<VecDeque<Handover>>,
    join_failure: Mutex<Option<JoinFailure>>,
    /// The new neighbours that the log has named, and when.
    neighbours: Mutex<VecDeque<(Option<Contact>, Instant)>>,
    /// Whether somebody waits to hear how joining goes, and tells it.
    join_is_awaited: AtomicBool,
    left: AtomicBool,
    /// Counts what happened, so that it can be waited for.
    count: watch::Sender<u64>,
}

impl Default for Happenings {
    fn default() -> Happenings {
        Happenings {
            handovers: Mutex::default(),
            join_failure: Mutex::default(),
            neighbours: Mutex::default(),
            join_is_awaited: AtomicBool::new(false),
            left: AtomicBool::new(false),
            count: watch::Sender::new(0),
        }
    }
}

impl Happenings {
    /// The ranges that came or went last, oldest first.
    pub(crate) fn handovers(&self) -> Vec<Handover> {
        self.handovers.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Takes the reason why joining failed, if it has.
    pub(crate) fn take_join_failure(&self) -> Option<JoinFailure> {
        self.join_failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Somebody waits to hear how joining goes, and tells it, or does so no more.
    pub(crate) fn awaits_join(&self, awaits: bool) {
        self.join_is_awaited.store(awaits, Ordering::Relaxed);
    }

    /// The node begins to leave its ring.
    pub(crate) fn leaves(&self) {
        self.left.store(false, Ordering::Relaxed);
    }

    /// Whether the node has gone through with leaving its ring.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Changes whenever something happens.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    pub(crate) fn note(&self, event: Event) {
        self.log(&event);
        match event {
            Event::Left => self.left.store(true, Ordering::Relaxed),
            Event::JoinFailed { reason, may_pass } => {
                let failure = JoinFailure { reason, may_pass };
                *self.join_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            }
            _ => {}
        }
        self.count.send_modify(|count| *count += 1);
    }

    /// A range came or went.
    pub(crate) fn moved(&self, Moved { kind, range, peer, records }: Moved) {
        let whom = peer.as_ref().map_or("nobody".to_owned(), ToString::to_string);
        tracing::info!(kind, ?range, peer = whom, records, "content has moved");
        let peer = peer.unwrap_or_else(|| Contact { id: range.lo, addr: String::new(), name: "unknown".to_owned() });
        let mut handovers = self.handovers.lock().unwrap_or_else(PoisonError::into_inner);
        handovers.push_back(Handover { kind, range, peer, records, at: Instant::now() });
        while handovers.len() > HANDOVERS {
            handovers.pop_front();
        }
        drop(handovers);
        self.count.send_modify(|count| *count += 1);
    }

    /// Whether the log has not named this neighbour all the time.
    fn is_news(&self, contact: &Option<Contact>) -> bool {
        let mut neighbours = self.neighbours.lock().unwrap_or_else(PoisonError::into_inner);
        neighbours.retain(|(_, at)| at.elapsed() < NEWS.1);
        let is_news = neighbours.iter().filter(|(named, _)| named == contact).count() < NEWS.0;
        if is_news {
            neighbours.truncate(NEIGHBOURS - 1);
            neighbours.push_front((contact.clone(), Instant::now()));
        }
        is_news
    }

    fn log(&self, event: &Event) {
        let whom = |contact: &Option<Contact>| contact.as_ref().map_or("nobody".to_owned(), ToString::to_string);
        match event {
            Event::Joined => tracing::info!("joined"),
            Event::JoinFailed { .. } if self.join_is_awaited.load(Ordering::Relaxed) => {}
            Event::JoinFailed { reason, .. } => tracing::warn!(%reason, "could not join"),
            Event::Isolated => tracing::warn!("isolated: all successors are gone; looking for the ring"),
            Event::Left => tracing::info!("left"),
            Event::Successor(contact) | Event::Predecessor(contact) if !self.is_news(contact) => {}
            Event::Successor(contact) => tracing::info!(successor = whom(contact), "new successor"),
            Event::Predecessor(contact) => tracing::info!(predecessor = whom(contact), "new predecessor"),
            Event::GaveUpRing => tracing::info!("gave up a ring in which it stood alone"),
            Event::Begin(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_that_comes_and_goes_is_not_news_all_the_time() {
        let happenings = Happenings::default();
        let of = |number: u16| Some(Contact::at(format!("127.0.0.1:{number}"), ""));
        let named = (0..10).filter(|_| happenings.is_news(&of(1))).count();
        assert_eq!(named, NEWS.0);
        assert!(happenings.is_news(&of(2)));
        let many = (3..1000).filter(|number| happenings.is_news(&of(*number))).count();
        assert_eq!((many, happenings.neighbours.lock().expect("nobody has failed").len()), (997, NEIGHBOURS));
    }
}
