//! A pool of nodes that form one ring, and its beginning and end.

use std::sync::Arc;
use std::time::Duration;

use chordal_protocol::Contact;
use rand::seq::IndexedRandom as _;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::board::{Board, Snapshot, Status};
use super::keeper::Keeper;
use super::metrics::Metrics;
use super::settings::{Settings, SettingsError};
use super::spawner::{Departure, Member, RingNote, SpawnError, Spawner};
use crate::api::join_host_port;
use crate::client::{NodeClient, Source};
use crate::pauses::Pauses;

/// How often the ring to join is asked for by a pool that has no members yet, and the pauses between.
const GREETINGS: u32 = 5;
const GREETING_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// For how long nodes may leave, one after the other, when the pool stops. Those that are left then are told to end.
const LEAVING: Duration = Duration::from_secs(120);

/// How long a node that is wanted at once may take, before those who want it stop hastening the keepers.
const HASTE: Duration = Duration::from_millis(200);

/// Why a pool was not started. Nothing of it runs, but for nodes that ran before.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Nobody of the ring to join answers.
    #[error(
        "nobody of the ring to join answers: {0}. Is a node of that ring, or its bootstrap service, running there, and is the \
         port right?"
    )]
    Unreachable(String),
    /// The pool belongs to another ring than the one to join.
    #[error(
        "this pool belongs to the ring {pool}, and {through} to the ring {other}: start it without --bootstrap to go on with its \
         own ring, or give it a directory of its own to join the other one"
    )]
    OtherRing {
        /// The pool's ring.
        pool: String,
        /// The ring to join.
        other: String,
        /// Who told so.
        through: String,
    },
    /// What is remembered can't be read or written.
    #[error(transparent)]
    Spawner(#[from] SpawnError),
}

/// There is no address to hand out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no node of the pool answers{reason}; one is being started, so try again shortly")]
pub struct NoAddress {
    reason: String,
}

/// How the nodes of a pool went when it stopped, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopped {
    /// They left the ring and handed over what they held.
    pub left: Vec<String>,
    /// They ended without leaving; what they hold is kept, and they go on when the pool is started again.
    pub kept: Vec<String>,
}

/// What a pool's keepers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) board: Board,
    pub(super) client: NodeClient,
    pub(super) metrics: Metrics,
    /// Ends everything.
    pub(super) stop: CancellationToken,
    /// The right to be the first node of the pool on a ring.
    pub(super) founding: Mutex<()>,
    /// Somebody waits for an address.
    hurry: Notify,
}

/// A pool of nodes: a cheap handle. When the last one is dropped the pool stops as by [`Pool::stop`], in the background.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    stopped: watch::Receiver<Option<Stopped>>,
    _stop: Arc<DropGuard>,
}

impl Pool {
    /// Starts a pool: takes over what the spawner remembers, and fills up to the size in the background.
    ///
    /// The ring to join must answer now, unless the pool has members already; if it is not theirs, that is an error.
    pub async fn start<S: Spawner>(settings: Settings, spawner: S) -> Result<Pool, PoolError> {
        let sources = settings.check()?;
        let recalled = spawner.recall().await?;
        let client = NodeClient::with_timeout(settings.check_timeout);
        let mut note = recalled.ring;
        if !sources.is_empty() {
            // A pool that has members need not wait for those that it was told of once.
            let attempts = if recalled.members.is_empty() { GREETINGS } else { 1 };
            match ring_through(&sources, attempts).await {
                Ok((through, ring)) => match &note.id {
                    Some(pool) if *pool != ring => {
                        return Err(PoolError::OtherRing { pool: pool.clone(), other: ring, through });
                    }
                    _ => note.id = Some(ring),
                },
                Err(reason) if recalled.members.is_empty() => return Err(PoolError::Unreachable(reason)),
                Err(reason) => tracing::warn!(reason, "the ring to join does not answer; going on with what is here"),
            }
            spawner.remember(note.clone()).await?;
        }
        let shared = Arc::new(Shared {
            board: Board::new(settings.size, note),
            settings,
            client,
            metrics: Metrics::new(),
            stop: CancellationToken::new(),
            founding: Mutex::new(()),
            hurry: Notify::new(),
        });
        let (tell, stopped) = watch::channel(None);
        tokio::spawn(run(Arc::clone(&shared), Arc::new(spawner), recalled.members, tell));
        let guard = shared.stop.clone().drop_guard();
        Ok(Pool { shared, stopped, _stop: Arc::new(guard) })
    }

    /// Up to so many addresses of different nodes that passed their last check, in random order, as clients are told them.
    /// If there is none, one is waited for until the deadline, and the attempts to start one are hastened.
    pub async fn addresses(&self, count: usize, patience: Duration) -> Result<Vec<String>, NoAddress> {
        let mut live = self.shared.board.live_now();
        if live.is_empty() {
            live = self.wait_live(patience).await?;
        }
        let external = self.shared.settings.external_address.as_deref();
        let told = |addr: &String| match external {
            Some(host) => join_host_port(host, Contact::at(addr.as_str(), "").port()),
            None => addr.clone(),
        };
        let addresses: Vec<String> = live.sample(&mut rand::rng(), count).map(told).collect();
        self.shared.metrics.handed_out(addresses.len());
        Ok(addresses)
    }

    /// Waits until a node is live.
    pub async fn ready(&self, patience: Duration) -> Result<(), NoAddress> {
        self.wait_live(patience).await.map(drop)
    }

    /// The pool at this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.board.snapshot()
    }

    /// Stops the pool: its nodes leave their ring one after the other and hand over what they hold. The last of a ring that
    /// still holds something keeps it. Returns when all have ended.
    pub async fn stop(&self) -> Stopped {
        self.shared.stop.cancel();
        let mut stopped = self.stopped.clone();
        // The sender goes without a word only if the runtime ends.
        stopped.wait_for(Option::is_some).await.ok().and_then(|it| it.clone()).unwrap_or_default()
    }

    /// Whether it has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    async fn wait_live(&self, patience: Duration) -> Result<Arc<[String]>, NoAddress> {
        let deadline = Instant::now() + patience;
        let mut live = self.shared.board.live();
        loop {
            let now = Arc::clone(&live.borrow_and_update());
            if !now.is_empty() {
                return Ok(now);
            }
            if Instant::now() >= deadline || self.is_stopping() {
                let trouble = self.snapshot().slots.into_iter().find_map(|slot| slot.trouble);
                return Err(NoAddress { reason: trouble.map_or(String::new(), |it| format!(" ({it})")) });
            }
            self.shared.hurry.notify_waiters();
            let soon = deadline.min(Instant::now() + HASTE);
            let _ = timeout_at(soon, live.changed()).await;
        }
    }
}

impl Shared {
    /// Whom to join through where no node of the pool is live.
    pub(super) fn outsiders(&self) -> Vec<String> {
        let mut contacts = self.board.note().contacts;
        contacts.extend(self.settings.bootstrap.iter().cloned());
        contacts
    }

    /// Returns when somebody waits for an address.
    pub(super) async fn wanted(&self) {
        self.hurry.notified().await;
    }

    /// The next node begins a ring. If there was one before, that is said aloud.
    pub(super) async fn begins_ring<S: Spawner>(&self, spawner: &S) {
        match self.board.ring() {
            None => tracing::info!("there is no ring yet: beginning one"),
            Some(ring) => {
                tracing::error!(ring, "nobody of this ring is left: the pool begins a new ring");
                self.remember(spawner, self.board.forget_ring()).await;
            }
        }
    }

    /// No node could be brought up through those of the ring that are not of the pool. If that is because none of them answers
    /// they are forgotten, so that the next node begins a ring; not if the pool was told which ring to join.
    pub(super) async fn give_up_outsiders<S: Spawner>(&self, spawner: &S, tried: &[String]) {
        if !self.settings.bootstrap.is_empty() {
            return;
        }
        for addr in tried {
            if self.client.node_info(addr).await.is_ok() {
                return;
            }
        }
        tracing::error!(tried = tried.join(", "), "none of those who are remembered of the ring answers any more");
        self.remember(spawner, self.board.forget_outsiders()).await;
    }

    pub(super) async fn remember<S: Spawner>(&self, spawner: &S, note: RingNote) {
        if let Err(error) = spawner.remember(note).await {
            tracing::warn!(%error, "the pool's ring could not be written down");
        }
    }
}

/// Runs the keepers until the pool stops, then has their nodes leave.
async fn run<S: Spawner>(
    shared: Arc<Shared>,
    spawner: Arc<S>,
    members: Vec<String>,
    tell: watch::Sender<Option<Stopped>>,
) {
    let places = shared.settings.size.max(members.len());
    if places > shared.settings.size {
        tracing::warn!(
            members = members.len(),
            size = shared.settings.size,
            "the pool has more nodes than it is to have; all stay"
        );
    }
    let mut keepers = JoinSet::new();
    let mut known = members.into_iter();
    let keeper = |place: usize, known: Option<String>| {
        shared.board.change(place, |slot| {
            slot.name = known.clone().unwrap_or_default();
            slot.is_remembered = known.is_some();
        });
        Keeper { place, known, failures: 0, shared: Arc::clone(&shared), spawner: Arc::clone(&spawner) }
    };
    // All places are on the board before any keeper looks whether others come back.
    let all: Vec<_> = (0..places).map(|place| keeper(place, known.next())).collect();
    let mut by_task = std::collections::HashMap::new();
    for it in all {
        let place = it.place;
        by_task.insert(keepers.spawn(it.keep()).id(), place);
    }
    let mut staying = Vec::new();
    while let Some(ended) = keepers.join_next_with_id().await {
        match ended {
            Ok((id, member)) => staying.extend(member.zip(by_task.remove(&id))),
            Err(error) => {
                tracing::error!(%error, "a keeper has failed; another one takes its place");
                if let Some(place) = by_task.remove(&error.id()) {
                    let name = shared.board.remembered_at(place);
                    by_task.insert(keepers.spawn(keeper(place, name).keep()).id(), place);
                }
            }
        }
    }
    staying.sort_by_key(|(_, place)| *place);
    let stopped = leave(&shared, staying).await;
    if stopped.kept.is_empty() && shared.board.note().contacts.is_empty() {
        // Nothing is left of a ring that was all ours.
        shared.remember(spawner.as_ref(), shared.board.forget_ring()).await;
    }
    tell.send_replace(Some(stopped));
}

/// One after the other, so that each hands over to one that stays; what is left at the deadline ends at once.
async fn leave<M: Member>(shared: &Shared, members: Vec<(M, usize)>) -> Stopped {
    let deadline = Instant::now() + LEAVING;
    let mut stopped = Stopped::default();
    for (member, place) in members {
        shared.board.change(place, |slot| slot.status = Status::Ending);
        let name = member.name().to_owned();
        if Instant::now() >= deadline {
            member.kill().await;
            stopped.kept.push(name);
            continue;
        }
        match member.leave().await {
            Departure::Left => stopped.left.push(name),
            Departure::Kept(reason) => {
                tracing::warn!(node = name, reason, "ended without leaving; it goes on when the pool is started again");
                stopped.kept.push(name);
            }
        }
        shared.board.remove(place);
    }
    stopped
}

/// The ring that these lead to, and who told so; else why it could not be told.
async fn ring_through(sources: &[Source], attempts: u32) -> Result<(String, String), String> {
    let client = NodeClient::with_timeout(Duration::from_secs(5));
    let mut pauses = Pauses::new(GREETING_PAUSES.0, GREETING_PAUSES.1);
    let mut reason = String::new();
    for attempt in 1..=attempts {
        for source in sources {
            match ask_ring(&client, source).await {
                Ok(found) => return Ok(found),
                Err(error) => reason = error,
            }
        }
        if attempt < attempts {
            sleep(pauses.next()).await;
        }
    }
    Err(reason)
}

async fn ask_ring(client: &NodeClient, source: &Source) -> Result<(String, String), String> {
    let members = source.members(client).await.map_err(|error| error.to_string())?;
    let mut reason = String::new();
    for member in members {
        match timeout(Duration::from_secs(5), client.node_info(&member)).await {
            Ok(Ok(node)) => match node.ring {
                Some(ring) => return Ok((member, ring)),
                None => reason = format!("{member} has not joined a ring itself yet"),
            },
            Ok(Err(error)) => reason = error.to_string(),
            Err(_) => reason = format!("{member} does not answer in time"),
        }
    }
    Err(reason)
}
