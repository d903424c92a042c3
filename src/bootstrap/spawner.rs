//! Who starts the nodes of a pool: a trait, because a pool starts nothing by itself.

use std::future::Future;

use tokio_util::sync::CancellationToken;

/// Starts nodes, and remembers them beyond the life of the pool.
pub trait Spawner: Send + Sync + 'static {
    /// A node that was started.
    type Member: Member;

    /// What is remembered from before.
    fn recall(&self) -> impl Future<Output = Result<Recalled, SpawnError>> + Send;

    /// Remembers this of the pool's ring in place of what was remembered of it before.
    fn remember(&self, ring: RingNote) -> impl Future<Output = Result<(), SpawnError>> + Send;

    /// Brings a node up and returns it when it can be asked. A remembered one that still runs is taken over as it is; one that
    /// does not run goes on where it was, at its address and on what it kept. A new one has joined, or has begun a ring if
    /// there is nobody to join through, when this returns.
    ///
    /// Whatever fails leaves no process behind. If `order.stop` is cancelled meanwhile, this fails soon.
    fn start(&self, order: Order) -> impl Future<Output = Result<Self::Member, SpawnError>> + Send;

    /// Gives up a remembered node that does not come back. If it holds nothing it is forgotten. If it does, or if that cannot
    /// be told, what it holds is left where it is, and it is recalled the next time; unless `even_if_it_holds` it is not given
    /// up then.
    fn set_aside(
        &self,
        name: &str,
        even_if_it_holds: bool,
    ) -> impl Future<Output = Result<SetAside, SpawnError>> + Send;
}

/// A node of a pool, started or taken over by a [`Spawner`]. Dropping it does not end it.
pub trait Member: Send + Sync + 'static {
    /// What it is called.
    fn name(&self) -> &str;

    /// Its `host:port`.
    fn addr(&self) -> &str;

    /// Returns when it has ended, however that came about.
    fn ended(&self) -> impl Future<Output = ()> + Send;

    /// Ends it as a crash would, hung or not; what it kept stays. Returns when it is gone.
    fn kill(&self) -> impl Future<Output = ()> + Send;

    /// Has it leave its ring, hand over what it holds, and end. If that cannot be done in time it ends all the same, and
    /// keeps what it holds.
    fn leave(self) -> impl Future<Output = Departure> + Send;
}

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Order {
    /// A remembered node; without a name a new one.
    pub name: Option<String>,
    /// Whom to join through, as [`Source`](crate::client::Source) reads them; for a remembered node, who may know its ring. A
    /// new node without any begins a ring.
    pub contacts: Vec<String>,
    /// Is cancelled when the pool stops.
    pub stop: CancellationToken,
}

/// What a [`Spawner`] remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recalled {
    /// The names of its nodes, running or not.
    pub members: Vec<String>,
    /// What was remembered of their ring.
    pub ring: RingNote,
}

/// What is remembered of a pool's ring.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RingNote {
    /// Its id, 32 hex digits.
    pub id: Option<String>,
    /// Members that are not of the pool, `host:port`, seen last.
    pub contacts: Vec<String>,
}

/// How a node went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Departure {
    /// In order: it has handed over what it held, and nothing of it is left.
    Left,
    /// It ended without leaving, for this reason; it goes on where it was when it is started again.
    Kept(String),
}

/// What became of a node that does not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetAside {
    /// It held nothing, and is forgotten.
    Forgotten,
    /// It is left alone; what it holds is here.
    Kept(String),
    /// It is not given up, because of what it holds here.
    Refused(String),
}

impl SetAside {
    /// What a node that may hold something gets.
    pub fn holding(place: String, even_if_it_holds: bool) -> SetAside {
        if even_if_it_holds { SetAside::Kept(place) } else { SetAside::Refused(place) }
    }
}

/// Why a spawner did not do what it was asked. No process is left of the attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// No such node is remembered, or it is no member of a ring any more: it has left, or never joined.
    #[error("{0} is no member of the ring any more")]
    Gone(String),
    /// It did not come up, or what is remembered can't be read or written.
    #[error("{0}")]
    Failed(String),
    /// The pool stops.
    #[error("the pool stops")]
    Stopping,
}
