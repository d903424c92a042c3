//! The keeper of one place of a pool: brings a node up, watches it, and brings up another when it is lost.
//!
//! docs/bootstrap.md has a picture of the states.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use tokio::sync::MutexGuard;
use tokio::time::{sleep, timeout};

use super::board::Status;
use super::check::{Trouble, check};
use super::pool::Shared;
use super::spawner::{Member, Order, SetAside, SpawnError, Spawner};
use crate::pauses::Pauses;

/// The pauses between attempts to bring a node up.
const START_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The pause that is kept however much a node is wanted.
const HASTE: Duration = Duration::from_secs(1);

/// A node that is lost within this time after it became live does not count as one that came up well.
const SETTLED: Duration = Duration::from_secs(10);

/// The pause before a node that failed a check is checked again.
const AGAIN: Duration = Duration::from_millis(250);

/// How many checks in a row a node may leave without any answer.
const STRIKES: u32 = 3;

/// For how long a node may answer without being able to do its part, or come up without getting ready.
const LIMPING: Duration = Duration::from_secs(30);

/// After this time without any live node, one that looks for its lost ring goes on alone.
const ALONE: Duration = Duration::from_secs(15);

/// How often a remembered node is brought up in vain before a new one takes its place, if others live.
const COMEBACKS: u32 = 3;

/// How many live nodes a new one is told of.
const CONTACTS: usize = 3;

/// How long a keeper waits for others to have a node up before it looks again what it can do itself.
const OTHERS: Duration = Duration::from_millis(500);

/// Keeps one place.
pub(super) struct Keeper<S: Spawner> {
    pub(super) place: usize,
    /// The name of the node that is to come back here.
    pub(super) known: Option<String>,
    /// How often in a row it did not come back, or was lost before it was live.
    pub(super) failures: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) spawner: Arc<S>,
}

/// Why a node is no longer watched.
enum Verdict {
    /// The pool stops.
    Stopping,
    /// It has ended.
    Ended,
    /// It failed its checks.
    Failed(String),
}

/// Whom a node that is to be started is told of.
enum Way<'a> {
    /// These; none for a remembered node that has to find its ring alone.
    Through(Vec<String>),
    /// There is nobody. The holder of this right is the only one who may begin a ring, or join one from outside.
    First(Vec<String>, MutexGuard<'a, ()>),
}

impl<S: Spawner> Keeper<S> {
    /// Keeps the place until the pool stops, and returns the node that is there then.
    pub(super) async fn keep(mut self) -> Option<S::Member> {
        let shared = Arc::clone(&self.shared);
        let mut pauses = Pauses::new(START_PAUSES.0, START_PAUSES.1);
        let mut lost: Option<&str> = None;
        while !shared.stop.is_cancelled() {
            let (member, mut live_since) = self.bring_up(&mut pauses).await?;
            self.known = Some(member.name().to_owned());
            let verdict = self.watch(&member, &mut lost, &mut live_since).await;
            match live_since.map(|since: Instant| since.elapsed()) {
                Some(lived) => {
                    self.failures = 0;
                    if lived >= SETTLED {
                        pauses.reset();
                    }
                }
                None => self.failures += 1,
            }
            match verdict {
                Verdict::Stopping => return Some(member),
                Verdict::Ended => {
                    tracing::warn!(node = member.name(), addr = member.addr(), "has ended; starting it again");
                    lost = Some("ended");
                    self.report(Status::Waiting, Some("it ended".to_owned()));
                }
                Verdict::Failed(reason) => {
                    tracing::warn!(
                        node = member.name(),
                        addr = member.addr(),
                        reason,
                        "failed its checks; replacing it"
                    );
                    lost = Some("failed");
                    self.report(Status::Ending, Some(reason.clone()));
                    member.kill().await;
                    self.report(Status::Waiting, Some(reason));
                }
            }
            if live_since.is_none_or(|since| since.elapsed() < SETTLED) {
                self.pause(&mut pauses).await;
            }
        }
        None
    }

    /// Starts nodes until one is up, and says since when it is live if it is. `None` if the pool stops, or needs this place no
    /// longer.
    async fn bring_up(&mut self, pauses: &mut Pauses) -> Option<(S::Member, Option<Instant>)> {
        let shared = Arc::clone(&self.shared);
        loop {
            if self.known.is_some() && self.failures >= COMEBACKS {
                self.set_aside().await;
            }
            let way = tokio::select! {
                () = shared.stop.cancelled() => return None,
                way = self.way(&shared) => way?,
            };
            let (contacts, first) = match way {
                Way::Through(contacts) => (contacts, None),
                Way::First(contacts, right) => (contacts, Some(right)),
            };
            let begins = first.is_some() && contacts.is_empty();
            if begins {
                shared.begins_ring(self.spawner.as_ref()).await;
            }
            self.report(Status::Starting, None);
            let tried = contacts.clone();
            let order = Order { name: self.known.clone(), contacts, stop: shared.stop.clone() };
            match self.spawner.start(order).await {
                Ok(member) => {
                    if begins {
                        shared.metrics.ring_begun();
                    }
                    self.show(&member);
                    // Whoever waits for the right to be the first is to find this one live.
                    let live_since = if first.is_some() { self.first_check(&member).await } else { None };
                    return Some((member, live_since));
                }
                Err(SpawnError::Stopping) => return None,
                Err(SpawnError::Gone(_)) => self.forget(),
                Err(SpawnError::Failed(reason)) => {
                    self.failures += 1;
                    shared.metrics.start_failed();
                    tracing::warn!(node = self.known, reason, "did not come up");
                    self.report(Status::Waiting, Some(reason));
                    if first.is_some() && !tried.is_empty() {
                        shared.give_up_outsiders(self.spawner.as_ref(), &tried).await;
                    }
                    drop(first);
                    self.pause(pauses).await;
                }
            }
        }
    }

    /// Whom the next node of this place is told of. `None` if the pool has nodes enough without this place.
    async fn way<'a>(&self, shared: &'a Shared) -> Option<Way<'a>> {
        if self.known.is_some() {
            let live = shared.board.live_now();
            let contacts: Vec<String> = live.sample(&mut rand::rng(), CONTACTS).cloned().collect();
            return Some(Way::Through(if contacts.is_empty() { shared.outsiders() } else { contacts }));
        }
        if shared.board.remove_if_too_many(self.place) {
            return None;
        }
        let mut live = shared.board.live();
        loop {
            let others = Arc::clone(&live.borrow_and_update());
            if !others.is_empty() {
                return Some(Way::Through(others.sample(&mut rand::rng(), CONTACTS).cloned().collect()));
            }
            if !shared.board.others_come_back(self.place) {
                tokio::select! {
                    right = shared.founding.lock() => {
                        if live.borrow_and_update().is_empty() {
                            return Some(Way::First(shared.outsiders(), right));
                        }
                    }
                    _ = live.changed() => {}
                }
            } else {
                let _ = timeout(OTHERS, live.changed()).await;
            }
        }
    }

    /// Checks the node at the interval until it is lost or the pool stops.
    async fn watch(
        &self,
        member: &S::Member,
        lost: &mut Option<&'static str>,
        live_since: &mut Option<Instant>,
    ) -> Verdict {
        let shared = &self.shared;
        let mut strikes = 0;
        let mut failing_since: Option<Instant> = None;
        loop {
            let outcome = tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Verdict::Stopping,
                () = member.ended() => return Verdict::Ended,
                outcome = self.check(member, live_since.is_none()) => outcome,
            };
            let pause = match outcome {
                Ok(()) => {
                    (strikes, failing_since) = (0, None);
                    live_since.get_or_insert_with(Instant::now);
                    if let Some(why) = lost.take() {
                        shared.metrics.replaced(why);
                    }
                    shared.settings.check_interval.mul_f64(rand::rng().random_range(0.8..1.0))
                }
                Err(Trouble::Silent(reason)) => {
                    strikes += 1;
                    let failing = failing_since.get_or_insert_with(Instant::now).elapsed();
                    // If most of them are silent it is likely the machine, and killing them would make that worse.
                    if strikes >= STRIKES && (failing > LIMPING || !shared.board.is_mostly_suspect()) {
                        return Verdict::Failed(reason);
                    }
                    AGAIN
                }
                Err(Trouble::Limping { reason, is_isolated }) => {
                    strikes = 0;
                    if failing_since.get_or_insert_with(Instant::now).elapsed() > LIMPING {
                        return Verdict::Failed(reason);
                    }
                    if is_isolated {
                        self.go_on_alone(member).await;
                    }
                    if live_since.is_none() { AGAIN / 5 } else { AGAIN }
                }
            };
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Verdict::Stopping,
                () = member.ended() => return Verdict::Ended,
                () = sleep(pause) => {}
            }
        }
    }

    /// One check, and what it tells, on the board.
    async fn check(&self, member: &S::Member, is_new: bool) -> Result<(), Trouble> {
        let shared = &self.shared;
        let began = Instant::now();
        let (live, ring) = (shared.board.live_now(), shared.board.ring());
        let outcome = check(&shared.client, member.addr(), &live, ring.as_deref(), is_new).await;
        if !is_new || outcome.is_ok() {
            shared.metrics.checked(outcome.is_ok());
        }
        shared.board.change(self.place, |slot| {
            slot.checked = Some((Instant::now(), began.elapsed()));
            match &outcome {
                Ok(_) => {
                    slot.status = Status::Live;
                    if is_new {
                        // What was in the way before it was ready was no trouble.
                        slot.trouble = None;
                    }
                }
                Err(trouble) => {
                    slot.trouble = Some(trouble.reason().to_owned());
                    if !is_new {
                        slot.status = Status::Suspect;
                    }
                }
            }
        });
        let node = outcome.inspect_err(|trouble| {
            if !is_new {
                tracing::warn!(node = member.name(), addr = member.addr(), reason = trouble.reason(), "failed a check");
            }
        })?;
        if let Some(ring) = &node.ring {
            let neighbours = node.successors.iter().chain(&node.pred).map(|node| node.addr());
            if let Some(note) = shared.board.learn(ring, neighbours) {
                shared.remember(self.spawner.as_ref(), note).await;
            }
        }
        Ok(())
    }

    /// Checks a node that is the first, or the first to come from outside, until it is live or lost.
    async fn first_check(&self, member: &S::Member) -> Option<Instant> {
        let live = async {
            while self.check(member, true).await.is_err() {
                sleep(AGAIN / 5).await;
            }
        };
        tokio::select! {
            () = self.shared.stop.cancelled() => None,
            () = member.ended() => None,
            () = sleep(LIMPING) => None,
            () = live => Some(Instant::now()),
        }
    }

    /// The last of a ring that cannot find any other member stays isolated for ever, by itself. The pool knows what the node
    /// cannot know: that none of its other nodes is live, and has been for some time.
    async fn go_on_alone(&self, member: &S::Member) {
        let shared = &self.shared;
        if shared.board.empty_for().is_none_or(|empty| empty < ALONE) {
            return;
        }
        let Ok(_right) = shared.founding.try_lock() else { return };
        tracing::warn!(node = member.name(), "has lost its ring, and no other node is live: it goes on alone");
        if let Err(error) = shared.client.put_succ(member.addr(), member.addr()).await {
            tracing::warn!(%error, "it does not go on alone");
        }
    }

    async fn set_aside(&mut self) {
        let Some(name) = &self.known else { return };
        // Where nobody else is live, what it holds is all that is left of the ring.
        let others_live = !self.shared.board.live_now().is_empty();
        match self.spawner.set_aside(name, others_live).await {
            Ok(SetAside::Kept(place)) => {
                tracing::error!(
                    node = name,
                    place,
                    "does not come back; what it holds stays there until the next start"
                );
            }
            Ok(SetAside::Forgotten) => tracing::warn!(node = name, "does not come back; it held nothing"),
            Ok(SetAside::Refused(place)) => {
                tracing::error!(node = name, place, "does not come back, and no other node is live; trying on");
                return;
            }
            Err(error) => {
                tracing::warn!(node = name, %error, "does not come back, and cannot be set aside");
                return;
            }
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.known = None;
        self.failures = 0;
        self.shared.board.change(self.place, |slot| {
            (slot.name, slot.addr, slot.is_remembered) = (String::new(), String::new(), false);
        });
    }

    fn show(&self, member: &S::Member) {
        self.shared.board.change(self.place, |slot| {
            (slot.name, slot.addr) = (member.name().to_owned(), member.addr().to_owned());
            slot.is_remembered = true;
        });
    }

    fn report(&self, status: Status, trouble: Option<String>) {
        self.shared.board.change(self.place, |slot| {
            slot.status = status;
            slot.trouble = trouble.or(slot.trouble.take());
        });
    }

    /// Waits before the next attempt; not longer than a second if somebody waits for an address and there is none.
    async fn pause(&self, pauses: &mut Pauses) {
        let pause = pauses.next();
        let least = pause.min(HASTE);
        let rest = async {
            sleep(least).await;
            tokio::select! {
                () = sleep(pause.saturating_sub(least)) => {}
                () = self.shared.wanted() => {}
            }
        };
        tokio::select! {
            () = self.shared.stop.cancelled() => {}
            () = rest => {}
        }
    }
}
