//! Room for a bounded number of connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connection::Watch;
use super::rates::client_of;
use super::{ApiError, Kind, Limits};

/// How many connections are being told at once that there is no room; more are closed without a word.
const REFUSALS: usize = 64;
/// How long one of them may take to hear it.
const REFUSAL: Duration = Duration::from_secs(1);

/// The connections of a server: who is here, and how many more may come.
pub(super) struct Places {
    limits: Limits,
    free: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    taken: Mutex<HashMap<u64, Arc<Watch>>>,
    counter: AtomicU64,
    /// How many connections each client has.
    shares: Mutex<HashMap<IpAddr, usize>>,
    tasks: TaskTracker,
}

/// What a new connection gets.
pub(super) enum Admission {
    /// A place.
    Now(Place),
    /// The place of one that was told to go.
    Soon(Ticket),
    /// None. With a permit it may be told so.
    Never(Option<OwnedSemaphorePermit>),
}

/// The right to wait for a place.
pub(super) struct Ticket(Arc<Places>);

/// A place that a connection has taken.
pub(super) struct Place {
    number: u64,
    watch: Arc<Watch>,
    hold: Hold,
    places: Arc<Places>,
}

/// Keeps a place taken, and a server that stops waiting, for as long as any clone of it lives. Requests carry one as an
/// extension, for work that goes on after the client hung up.
#[derive(Clone)]
pub(super) struct Hold {
    _permit: Arc<OwnedSemaphorePermit>,
    _task: TaskTrackerToken,
}

impl Places {
    /// Room for [`Limits::connections`].
    pub(super) fn new(limits: Limits) -> Arc<Places> {
        Arc::new(Places {
            limits,
            free: Arc::new(Semaphore::new(limits.connections)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            taken: Mutex::new(HashMap::new()),
            counter: AtomicU64::new(0),
            shares: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Runs a task that [`Places::all_empty`] waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Finds a place for a new connection. When there is none, the connection that was idle for longest is told to go.
    pub(super) fn admit(self: &Arc<Self>) -> Admission {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Admission::Now(self.place(permit));
        }
        if self.evict_idlest() {
            return Admission::Soon(Ticket(self.clone()));
        }
        Admission::Never(self.refusal())
    }

    /// Counts a connection of this client; `None` if it has as many as one may.
    pub(super) fn share(self: &Arc<Self>, from: IpAddr) -> Option<Share> {
        let limits = &self.limits.clients;
        let client = limits.hold_for(from).then(|| client_of(from));
        if let Some(client) = client {
            let mut shares = self.shares();
            let share = shares.entry(client).or_default();
            if *share >= limits.connections {
                return None;
            }
            *share += 1;
        }
        Some(Share { client, places: self.clone() })
    }

    /// The right to tell a connection that there is no room for it.
    pub(super) fn refusal(&self) -> Option<OwnedSemaphorePermit> {
        self.refusals.clone().try_acquire_owned().ok()
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the connection to go that has been without a request for longest, if for [`Limits::evict`] at least.
    pub(super) fn evict_idlest(&self) -> bool {
        let taken = self.taken();
        let spare = taken.values().filter_map(|watch| Some((watch.spare_since()?, watch)));
        match spare.min_by_key(|(since, _)| *since) {
            Some((since, watch)) if since.elapsed() >= self.limits.evict => {
                watch.evict();
                true
            }
            _ => false,
        }
    }

    /// Returns when all tasks have ended and nobody holds a place.
    pub(super) async fn all_empty(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let watch = Arc::new(Watch::new(self.limits));
        self.taken().insert(number, watch.clone());
        let hold = Hold { _permit: Arc::new(permit), _task: self.tasks.token() };
        Place { number, watch, hold, places: self.clone() }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, Arc<Watch>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, counted for its client until this is dropped.
pub(super) struct Share {
    /// `None` where connections are not counted.
    client: Option<IpAddr>,
    places: Arc<Places>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut shares = self.places.shares();
        // Who has none is not remembered.
        if let Entry::Occupied(mut share) = shares.entry(client) {
            *share.get_mut() -= 1;
            if *share.get() == 0 {
                share.remove();
            }
        }
    }
}

impl Ticket {
    /// Waits for a place; `None` if the server has closed.
    pub(super) async fn place(self) -> Option<Place> {
        let permit = self.0.free.clone().acquire_owned().await.ok()?;
        Some(self.0.place(permit))
    }
}

impl Place {
    /// What the connection here is doing.
    pub(super) fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    /// Keeps the place taken.
    pub(super) fn hold(&self) -> Hold {
        self.hold.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(&self.number);
    }
}

/// Tells a client that there is no room for it, and closes the connection so that it can still read that.
pub(super) async fn refuse(mut stream: TcpStream, why: Refusal) {
    let talk = async {
        stream.write_all(&why.answer()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection, and the client might lose the answer.
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Who does not listen is not told.
    let _ = timeout(REFUSAL, talk).await;
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// For nobody.
    Full,
    /// For this client.
    Greedy,
}

impl Refusal {
    fn answer(self) -> Vec<u8> {
        let (kind, detail) = match self {
            Refusal::Full => (
                Kind::Unavailable,
                "this node has as many connections as it takes; try again shortly, or ask another node",
            ),
            Refusal::Greedy => (
                Kind::TooMany,
                "this client has as many connections to this node as one may have; close some, or ask another node",
            ),
        };
        ApiError::new(kind, detail).last_answer()
    }
}
