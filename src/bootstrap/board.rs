//! What is known of the nodes of a pool at this moment: written by their keepers, read by whoever asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::spawner::RingNote;

/// How many members of the ring that are not of the pool are remembered.
const OUTSIDERS: usize = 32;

/// How many addresses of nodes that are gone are remembered.
const FORMER: usize = 200;

/// What a node of a pool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is none at the moment; the next attempt to start one waits its turn.
    Waiting,
    /// It is being brought up, and has not passed a check yet.
    Starting,
    /// It passed its last check: its address is handed out.
    Live,
    /// It failed its last check: its address is not handed out, and it is checked again soon.
    Suspect,
    /// It is being ended.
    Ending,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 5] = [Status::Waiting, Status::Starting, Status::Live, Status::Suspect, Status::Ending];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Waiting => "waiting",
            Status::Starting => "starting",
            Status::Live => "live",
            Status::Suspect => "suspect",
            Status::Ending => "ending",
        }
    }
}

/// One place of a pool.
#[derive(Debug, Clone)]
pub struct Slot {
    /// What its node is called; empty if there is none.
    pub name: String,
    /// `host:port` of its node; empty if there is none.
    pub addr: String,
    /// What it does.
    pub status: Status,
    /// Since when.
    pub since: Instant,
    /// When it was checked last, and how long that took.
    pub checked: Option<(Instant, Duration)>,
    /// What went wrong last, if anything has.
    pub trouble: Option<String>,
    /// Whether a node is remembered that is to come back here.
    pub(super) is_remembered: bool,
}

/// A pool at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// How many nodes it is to have.
    pub size: usize,
    /// Its places.
    pub slots: Vec<Slot>,
    /// The id of its ring, once that is known.
    pub ring: Option<String>,
    /// Members of the ring that are not of the pool, seen last.
    pub outsiders: Vec<String>,
}

impl Snapshot {
    /// How many nodes passed their last check.
    pub fn live(&self) -> usize {
        self.slots.iter().filter(|slot| slot.status == Status::Live).count()
    }
}

/// The places of a pool and what is known of its ring.
#[derive(Debug)]
pub(super) struct Board {
    size: usize,
    state: Mutex<State>,
    /// The addresses of the nodes that passed their last check.
    live: watch::Sender<Arc<[String]>>,
}

#[derive(Debug)]
struct State {
    slots: BTreeMap<usize, Slot>,
    ring: Option<String>,
    outsiders: VecDeque<String>,
    /// Addresses that nodes of the pool had and have no longer; the ring may name them for a while.
    former: VecDeque<String>,
    /// Since when no node is live.
    empty_since: Option<Instant>,
}

impl Board {
    pub(super) fn new(size: usize, ring: RingNote) -> Board {
        let outsiders = ring.contacts.into_iter().take(OUTSIDERS).collect();
        let state = State {
            slots: BTreeMap::new(),
            ring: ring.id,
            outsiders,
            former: VecDeque::new(),
            empty_since: Some(Instant::now()),
        };
        Board { size, state: Mutex::new(state), live: watch::Sender::new(Arc::from([])) }
    }

    /// The addresses of the nodes that passed their last check; changes can be waited for.
    pub(super) fn live(&self) -> watch::Receiver<Arc<[String]>> {
        self.live.subscribe()
    }

    /// The same, now.
    pub(super) fn live_now(&self) -> Arc<[String]> {
        Arc::clone(&self.live.borrow())
    }

    /// Changes a place, which is made if it is not there, and tells who is live now.
    pub(super) fn change(&self, place: usize, change: impl FnOnce(&mut Slot)) {
        let mut state = self.state();
        let slot = state.slots.entry(place).or_insert_with(|| Slot {
            name: String::new(),
            addr: String::new(),
            status: Status::Waiting,
            since: Instant::now(),
            checked: None,
            trouble: None,
            is_remembered: false,
        });
        let (before, addr) = (slot.status, slot.addr.clone());
        change(slot);
        let is_former = slot.addr != addr && !addr.is_empty();
        if slot.status != before {
            slot.since = Instant::now();
        }
        if is_former {
            state.former.push_back(addr);
            let excess = state.former.len().saturating_sub(FORMER);
            state.former.drain(..excess);
        }
        self.tell(&mut state);
    }

    /// Takes a place away.
    pub(super) fn remove(&self, place: usize) {
        let mut state = self.state();
        state.slots.remove(&place);
        self.tell(&mut state);
    }

    /// Takes a place away if the pool has more places than it is to have nodes; whether it had.
    pub(super) fn remove_if_too_many(&self, place: usize) -> bool {
        let mut state = self.state();
        let has_too_many = state.slots.len() > self.size;
        if has_too_many {
            state.slots.remove(&place);
            self.tell(&mut state);
        }
        has_too_many
    }

    /// Whether a remembered node is to come back to another place.
    pub(super) fn others_come_back(&self, place: usize) -> bool {
        self.state().slots.iter().any(|(other, slot)| *other != place && slot.is_remembered)
    }

    /// The name of the remembered node of a place.
    pub(super) fn remembered_at(&self, place: usize) -> Option<String> {
        self.state().slots.get(&place).filter(|slot| slot.is_remembered).map(|slot| slot.name.clone())
    }

    /// Whether more than half of the nodes, and not just one, failed their last check.
    pub(super) fn is_mostly_suspect(&self) -> bool {
        let state = self.state();
        let suspect = state.slots.values().filter(|slot| slot.status == Status::Suspect).count();
        suspect > 1 && 2 * suspect > state.slots.len()
    }

    /// For how long no node has been live.
    pub(super) fn empty_for(&self) -> Option<Duration> {
        self.state().empty_since.map(|since| since.elapsed())
    }

    /// The id of the ring.
    pub(super) fn ring(&self) -> Option<String> {
        self.state().ring.clone()
    }

    /// Learns of the ring from a node of the pool that passed its check; what is to be remembered, if that has changed.
    pub(super) fn learn(&self, ring: &str, neighbours: impl Iterator<Item = String>) -> Option<RingNote> {
        let mut state = self.state();
        let before = state.note();
        state.ring.get_or_insert_with(|| ring.to_owned());
        let new: Vec<String> =
            neighbours.filter(|addr| !state.is_ours(addr) && !state.outsiders.contains(addr)).collect();
        state.outsiders.extend(new);
        let excess = state.outsiders.len().saturating_sub(OUTSIDERS);
        state.outsiders.drain(..excess);
        // Who was a stranger may have been a node of ours that was just coming up.
        let mut outsiders = std::mem::take(&mut state.outsiders);
        outsiders.retain(|addr| !state.is_ours(addr));
        state.outsiders = outsiders;
        let after = state.note();
        (after != before).then_some(after)
    }

    /// Forgets the members that are not of the pool.
    pub(super) fn forget_outsiders(&self) -> RingNote {
        let mut state = self.state();
        state.outsiders.clear();
        state.note()
    }

    /// Forgets a ring of which nobody is left.
    pub(super) fn forget_ring(&self) -> RingNote {
        let mut state = self.state();
        (state.ring, state.outsiders) = (None, VecDeque::new());
        state.note()
    }

    /// What is to be remembered of the ring.
    pub(super) fn note(&self) -> RingNote {
        self.state().note()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot {
            size: self.size,
            slots: state.slots.values().cloned().collect(),
            ring: state.ring.clone(),
            outsiders: state.outsiders.iter().cloned().collect(),
        }
    }

    fn tell(&self, state: &mut State) {
        let live: Vec<String> =
            state.slots.values().filter(|slot| slot.status == Status::Live).map(|slot| slot.addr.clone()).collect();
        state.empty_since = if live.is_empty() { state.empty_since.or_else(|| Some(Instant::now())) } else { None };
        // Under the lock, so that the last to tell is the last who knows.
        self.live.send_if_modified(|told| {
            let changed = **told != *live;
            if changed {
                *told = live.into();
            }
            changed
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_ours(&self, addr: &String) -> bool {
        self.slots.values().any(|slot| slot.addr == *addr) || self.former.contains(addr)
    }

    fn note(&self) -> RingNote {
        RingNote { id: self.ring.clone(), contacts: self.outsiders.iter().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(board: &Board, place: usize, status: Status) {
        board.change(place, |slot| {
            slot.addr = format!("127.0.0.1:{place}");
            slot.status = status;
        });
    }

    #[test]
    fn only_who_passed_the_last_check_is_named() {
        let board = Board::new(3, RingNote::default());
        assert!(board.live_now().is_empty() && board.empty_for().is_some());
        for (place, status) in Status::ALL.into_iter().enumerate() {
            with(&board, place, status);
        }
        assert_eq!(*board.live_now(), ["127.0.0.1:2".to_owned()]);
        assert!(board.empty_for().is_none());
        assert!(!board.is_mostly_suspect());
        with(&board, 2, Status::Suspect);
        assert!(!board.is_mostly_suspect(), "two of five");
        with(&board, 1, Status::Suspect);
        assert!(board.is_mostly_suspect());
        assert!(board.live_now().is_empty() && board.empty_for().is_some());
        assert!(board.remove_if_too_many(0) && board.remove_if_too_many(1));
        assert!(!board.remove_if_too_many(2));
        assert_eq!(board.snapshot().slots.len(), 3);
    }

    #[test]
    fn strangers_are_remembered_up_to_a_bound_and_without_our_own() {
        let board = Board::new(1, RingNote::default());
        with(&board, 0, Status::Live);
        let addrs = |numbers: std::ops::Range<usize>| numbers.map(|number| format!("127.0.0.1:{number}"));
        let note = board.learn("r", addrs(0..3)).expect("that was new");
        assert_eq!(note, RingNote { id: Some("r".to_owned()), contacts: addrs(1..3).collect() });
        assert_eq!(board.learn("r", addrs(0..3)), None);
        with(&board, 1, Status::Starting);
        let note = board.learn("r", addrs(3..100)).expect("that was new");
        assert_eq!(note.contacts, addrs(100 - OUTSIDERS..100).collect::<Vec<_>>());
        board.change(0, |slot| slot.addr = String::new());
        assert_eq!(board.learn("r", addrs(0..1)), None, "that one was ours");
        assert_eq!(board.forget_ring(), RingNote::default());
    }
}
