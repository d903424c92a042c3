//! The running node: drives the protocol's procedures, schedules them, moves content, and does what clients ask.
//!
//! [`Node`] is a cheap handle. Behind it `driver` runs the protocol over a [`Transport`] and a
//! [`Store`](crate::store::Store), `maintenance` gives the beat, and `routing` finds owners.

mod address;
mod advertise;
mod builder;
mod call_back;
mod config;
mod detector;
mod driver;
mod error;
pub(crate) mod frames;
mod happenings;
mod info;
mod join;
mod keeping;
mod listening;
mod maintenance;
mod many;
#[cfg(feature = "discover")]
mod neighbourhood;
mod outbox;
mod port_holder;
mod reached;
mod recovery;
mod request;
mod routing;
mod start;
mod start_error;
mod surroundings;
mod transport;
#[cfg(feature = "upnp")]
mod upnp;
mod values;
mod wire;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chordal_protocol::replica::{Answer, Operation};
use chordal_protocol::{
    Contact, Id, Interval, Membership, Mode, Procedure, Record, Refusal, Reply, Request, Ring, Side, Write, Written,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api;
use crate::auth::{Nets, Security};
pub use address::AddressError;
pub use advertise::{Advertise, AdvertiseError};
pub use builder::NodeBuilder;
pub(crate) use call_back::{NotCalledBack, Proof};
pub use config::{Config, Data, Upnp};
pub use detector::{Bounds, Patience};
use driver::Driver;
pub use error::NodeError;
use keeping::Job;
pub use many::{ReadEnd, WriteEnd};
#[cfg(feature = "discover")]
pub use neighbourhood::DiscoverError;
pub use port_holder::PortHolder;
pub use reached::Unreached;
pub use request::{Mistimed, check_minting, mint};
use routing::{Asked, Router};
#[cfg(feature = "cli")]
pub(crate) use start::check_name;
pub use start::{StoppedMember, member_in};
pub use start_error::StartError;
#[cfg(feature = "cli")]
pub(crate) use start_error::advice as listen_advice;
use surroundings::Surroundings;
pub(crate) use transport::Resolver;
pub use transport::{Calling, HttpTransport, NoAnswer, Transport};
#[cfg(feature = "upnp")]
pub use upnp::UpnpError;
pub(crate) use values::{KEY_LIMIT, VALUE_ADVICE, deletion, id_of_key, storing};

/// Who answered, and after how many hops.
#[derive(Debug, Clone)]
pub struct Served {
    /// The node that keeps the record.
    pub owner: Contact,
    /// How many nodes were asked, the owner included, this node not.
    pub hops: u32,
}

/// A running node, or rather a handle to it, which is cheap to clone. [`Node::builder`] and [`Node::start`] make it.
///
/// It runs until it is told to [stop](Node::stop) or to [leave](Node::leave), or until the last handle is dropped. That ends it as
/// a crash would: the ring closes over it, what was acknowledged is kept by others and in its data directory, if it has one, and
/// a node that is started there goes on as the same member.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
    /// Stops the node with the last handle; its own tasks have handles without it.
    _guard: Option<Arc<DropGuard>>,
}

struct Inner {
    driver: Arc<Driver>,
    router: Router,
    config: Config,
    /// Where it listens.
    port: u16,
    /// Whom it calls.
    nets: Nets,
    /// What bounds the calls to nodes that look for their address.
    call_backs: call_back::CallBacks,
    /// What it proves to those who call it back, as long as it waits for that.
    proof: Mutex<Option<Proof>>,
    /// Whether it has come back, and has not heard yet whether others reach it.
    is_doubted: AtomicBool,
    /// Why it has stopped by itself.
    failure: OnceLock<String>,
    /// What it has beside its ring.
    around: Arc<Surroundings>,
    /// What requests for many things at once may have under way together.
    many: many::Lanes,
    /// Ends everything.
    stop: CancellationToken,
    /// The server has ended, and the store is closed.
    served: CancellationToken,
}

impl Inner {
    fn new(
        driver: Arc<Driver>,
        router: Router,
        config: Config,
        port: u16,
        nets: Nets,
        around: Arc<Surroundings>,
        stop: CancellationToken,
    ) -> Inner {
        let (many, served, call_backs) = (many::Lanes::default(), CancellationToken::new(), Default::default());
        let (proof, is_doubted, failure) = Default::default();
        Inner { driver, router, config, port, nets, call_backs, proof, is_doubted, failure, around, many, stop, served }
    }
}

impl Node {
    /// A node to be: say how it shall be, and [start](NodeBuilder::start) it.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// A handle for the node's own tasks, which do not keep it running.
    fn for_itself(&self) -> Node {
        Node { inner: Arc::clone(&self.inner), _guard: None }
    }

    /// Who this node is.
    pub fn contact(&self) -> Contact {
        self.inner.driver.lock().chord.me().clone()
    }

    /// Where others ask it: `host:port`.
    pub fn addr(&self) -> String {
        self.contact().addr
    }

    /// The largest value that its ring takes, in bytes.
    pub fn value_limit(&self) -> usize {
        let ring = self.inner.driver.lock().chord.ring();
        ring.map_or(Config::VALUE_LIMIT, |ring| ring.value_limit as usize)
    }

    /// Whether its ring was created for lessons.
    pub fn is_lab(&self) -> bool {
        self.inner.driver.lock().chord.ring().is_some_and(|ring| ring.lab)
    }

    /// How it keeps strangers out.
    pub(crate) fn security(&self) -> &Security {
        &self.inner.config.security
    }

    /// Its predecessor.
    pub fn predecessor(&self) -> Option<Contact> {
        self.inner.driver.lock().chord.predecessor().cloned()
    }

    /// Its successor.
    pub fn successor(&self) -> Option<Contact> {
        self.inner.driver.lock().chord.successors().first().cloned()
    }

    /// Why it is not ready, if it isn't. Ready means joined, with a live successor, serving all that it owns; on a ring where every
    /// node keeps every value, also keeping all of it.
    pub fn not_ready(&self) -> Option<String> {
        let driver = &self.inner.driver;
        let (not_ready, due, is_full) = {
            let core = driver.lock();
            (core.chord.not_ready(), core.chord.due(), core.chord.ring().is_some_and(|ring| ring.is_full()))
        };
        let seen = driver.keeping.seen();
        not_ready.or_else(|| {
            if !seen.serves(&due) {
                Some("joined, but it does not serve all of its range yet".to_owned())
            } else if is_full && !seen.keeps(&Interval::whole(due.lo)) {
                Some("joined, but it does not keep all of the ring yet, as every node of this ring does".to_owned())
            } else if self.inner.is_doubted.load(Ordering::Relaxed) {
                Some("joined, but it has not heard yet that others can call it".to_owned())
            } else {
                None
            }
        })
    }

    /// Waits until the node is ready; after the deadline of its configuration it says why it is not.
    pub async fn ready(&self) -> Result<(), String> {
        let mut happenings = self.inner.driver.happenings.subscribe();
        let mut views = self.inner.driver.keeping.watch();
        let deadline = tokio::time::Instant::now() + self.inner.config.ready_deadline;
        while let Some(reason) = self.not_ready() {
            // Most of what makes a node ready is an event; what isn't is seen at the next look.
            let soon = deadline.min(tokio::time::Instant::now() + Duration::from_millis(20));
            tokio::select! {
                _ = happenings.changed() => {}
                _ = views.changed() => {}
                () = tokio::time::sleep_until(soon) => {}
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(reason);
            }
        }
        Ok(())
    }

    /// findNode: the owner of `id`, with the trace.
    pub async fn find(&self, id: Id, mode: Option<Mode>) -> Result<api::Found, NodeError> {
        let mode = mode.unwrap_or(self.inner.config.routing);
        let way = self.inner.router.find(id, mode).await?;
        let hop = |asked: &Asked| api::HopInfo {
            node: api::NodeRef::from(&asked.contact),
            ms: asked.took.as_secs_f64() * 1e3,
            why: if asked.answered { asked.why.to_string() } else { format!("{} (no answer)", asked.why) },
        };
        Ok(api::Found {
            id,
            owner: api::NodeRef::from(&way.owner),
            hops: way.trace.len() as u32,
            mode: mode.to_string(),
            trace: way.trace.iter().map(hop).collect(),
        })
    }

    /// Finds the owner and writes there.
    pub async fn write(&self, write: Write) -> Result<(Written, Served), NodeError> {
        self.write_for(write, None).await
    }

    /// The same, tried no longer than this.
    pub(crate) async fn write_for(&self, write: Write, wait: Option<Duration>) -> Result<(Written, Served), NodeError> {
        self.inner.router.for_at_most(wait).write(write).await
    }

    /// Finds the owner and reads there; a tombstone is `None`.
    pub async fn read(&self, id: Id) -> Result<(Option<Record>, Served), NodeError> {
        self.read_for(id, None).await
    }

    /// The same, tried no longer than this.
    pub(crate) async fn read_for(&self, id: Id, wait: Option<Duration>) -> Result<(Option<Record>, Served), NodeError> {
        let (record, served) = self.inner.router.for_at_most(wait).read(id).await?;
        Ok((record.filter(Record::is_live), served))
    }

    /// Writes as the owner, or says who is.
    pub async fn write_here(&self, write: Write) -> Result<Written, NodeError> {
        self.write_here_for(write, None).await
    }

    /// The same, tried no longer than this.
    pub(crate) async fn write_here_for(&self, write: Write, wait: Option<Duration>) -> Result<Written, NodeError> {
        match self.inner.router.for_at_most(wait).here(Operation::Write(write)).await? {
            Answer::Written(written) => Ok(written),
            _ => Err(NodeError::Unavailable { reason: "it was no write".to_owned() }),
        }
    }

    /// Reads as the owner, or says who is; a tombstone is `None`.
    pub async fn read_here(&self, id: Id) -> Result<Option<Record>, NodeError> {
        self.read_here_for(id, None).await
    }

    /// The same, tried no longer than this.
    pub(crate) async fn read_here_for(&self, id: Id, wait: Option<Duration>) -> Result<Option<Record>, NodeError> {
        match self.inner.router.for_at_most(wait).here(Operation::Get(id)).await? {
            Answer::Read(record) => Ok(record.filter(Record::is_live)),
            _ => Err(NodeError::Unavailable { reason: "it was no read".to_owned() }),
        }
    }

    /// PUT /pred by hand: asks `addr` who it is, then rewires.
    pub async fn rewire_predecessor(&self, addr: &str) -> Result<Contact, NodeError> {
        self.rewire(Side::Predecessor, addr).await
    }

    /// PUT /succ by hand: asks `addr` who it is, then rewires. Its own address makes the node a ring of one.
    pub async fn rewire_successor(&self, addr: &str) -> Result<Contact, NodeError> {
        self.rewire(Side::Successor, addr).await
    }

    async fn rewire(&self, side: Side, addr: &str) -> Result<Contact, NodeError> {
        let (to, ring, membership) = self.greet(addr).await?;
        let mine = self.inner.driver.lock().chord.ring();
        if ring.map(|ring| ring.id) != mine.map(|ring| ring.id) {
            return Err(NodeError::Conflict { reason: format!("{to} belongs to another ring") });
        }
        if !membership.is_member() && to != self.contact() {
            return Err(NodeError::Conflict { reason: format!("{to} is not a member of the ring now ({membership})") });
        }
        self.inner.driver.run(Procedure::Rewire { side, to: to.clone() }).await;
        Ok(to)
    }

    /// POST /dht/join: finds the owner of the joiner's id, which calls the joiner back; returns when it has joined.
    /// The answer is (joiner, owner).
    pub async fn welcome(&self, addr: &str) -> Result<(Contact, Contact), NodeError> {
        let (joiner, _, _) = self.greet(addr).await?;
        if joiner == self.contact() {
            return Err(NodeError::Conflict { reason: "a node cannot join itself; name another one".to_owned() });
        }
        let owner = self.inner.router.find(joiner.id, self.inner.config.routing).await?.owner;
        if owner.id == joiner.id && owner != joiner {
            let reason = format!("{owner} stands at the same id already; place the joiner elsewhere with --id");
            return Err(NodeError::Conflict { reason });
        }
        if owner != joiner {
            if self.inner.driver.lock().chord.ring().is_some_and(|ring| ring.is_full()) {
                self.check_room(&self.contact(), &joiner.id).await?;
            }
            let request = Request::Welcome(joiner.clone());
            match self.inner.driver.ask(&owner, request).await {
                Ok(Reply::Accepted) => {}
                Ok(Reply::Refused(refusal)) => return Err(refused_by(&joiner, refusal)),
                Ok(_) => return Err(unexpected(&owner)),
                Err(error) => return Err(NodeError::Unreachable { addr: owner.addr, reason: error.to_string() }),
            }
        }
        self.wait_for_joiner(&joiner).await?;
        Ok((joiner, owner))
    }

    /// Waits until the joiner says that it is a member of this ring.
    async fn wait_for_joiner(&self, joiner: &Contact) -> Result<(), NodeError> {
        let began = Instant::now();
        let mine = self.inner.driver.lock().chord.ring().map(|ring| ring.id);
        loop {
            let (_, ring, membership) = self.greet(&joiner.addr).await?;
            if membership == Membership::Joined && ring.map(|ring| ring.id) == mine {
                return Ok(());
            }
            let waited = began.elapsed();
            if waited > self.inner.config.operation_deadline {
                return Err(NodeError::Deadline { waited, reason: format!("{joiner} is still {membership}") });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks whoever lives at an address who it is. What it says of its own address is not believed before that address
    /// says the same, and its id must belong to that address, unless it was placed on a ring for lessons.
    async fn greet(&self, addr: &str) -> Result<(Contact, Option<Ring>, Membership), NodeError> {
        // The same is looked at when a connection is made; here it can be told for what it is.
        if let Some(reason) = self.inner.nets.refused(addr).await {
            return Err(NodeError::Invalid { reason });
        }
        let said = self.hello(addr).await?;
        let (me, ring, _) = &said;
        let lie = |reason: String| NodeError::Peer { addr: addr.to_owned(), reason };
        if !me.is_well_formed() || me.port() == 0 {
            return Err(lie("it gives itself no address of the form host:port, or too long a name".to_owned()));
        }
        if !me.is_genuine() && !ring.is_some_and(|ring| ring.lab) {
            return Err(lie(format!(
                "it calls itself {me} with id {}, which is not the SHA-256 of that address, and only a --lab ring places \
                 nodes",
                me.id.short()
            )));
        }
        if me.addr != addr {
            let there = self.hello(&me.addr).await;
            if !there.as_ref().is_ok_and(|(there, ..)| there == me) {
                let instead = there.map_or_else(|error| error.to_string(), |(there, ..)| format!("{there} is there"));
                return Err(lie(format!("it says that it is {me}, but {instead}")));
            }
        }
        Ok(said)
    }

    async fn hello(&self, addr: &str) -> Result<(Contact, Option<Ring>, Membership), NodeError> {
        let named = Contact::at(addr, "");
        match self.inner.driver.ask(&named, Request::Hello).await {
            Ok(Reply::Hello { me, ring, membership }) => Ok((me, ring, membership)),
            Ok(Reply::Refused(refusal)) => Err(refused_by(&named, refusal)),
            Ok(_) => Err(unexpected(&named)),
            Err(error) => Err(NodeError::Unreachable { addr: addr.to_owned(), reason: error.to_string() }),
        }
    }

    /// POST /dht/leave: hands everything over and leaves the ring, then stops the node. If it cannot hand over in time, or
    /// has values and nobody to hand them to, it stays a member.
    pub async fn leave(&self) -> Result<(), NodeError> {
        if let Some(values) = self.values_nobody_takes()? {
            return Err(nobody_takes(values));
        }
        let node = self.clone();
        // Whoever asked may go away; what has begun is finished.
        let leaving = tokio::spawn(async move {
            let driver = &node.inner.driver;
            let deadline = tokio::time::Instant::now() + node.inner.config.leave_deadline;
            driver.happenings.leaves();
            driver.keeping.submit(Job::Leave(true))?;
            let mut views = driver.keeping.watch();
            let alone = || driver.lock().chord.successors().is_empty();
            let released = async {
                // Who stands alone has nobody who could take over from it.
                while !views.borrow_and_update().released && !alone() {
                    let soon = tokio::time::Instant::now() + Duration::from_millis(50);
                    let _ = tokio::time::timeout_at(soon, views.changed()).await;
                }
                driver.run(Procedure::Leave).await;
            };
            let left = tokio::time::timeout_at(deadline, released).await;
            if left.is_ok() && driver.happenings.has_left() {
                // All the others may have left while it did.
                if let Some(values) = node.values_nobody_takes()? {
                    node.stays()?;
                    return Err(nobody_takes(values));
                }
                node.inner.stop.cancel();
                return Ok(());
            }
            node.stays()?;
            Err(NodeError::Unavailable {
                reason: format!(
                    "others could not take over what the node keeps within {} s, and it stays; try again when a majority of \
                     those who keep it too answers",
                    node.inner.config.leave_deadline.as_secs_f32()
                ),
            })
        });
        leaving.await.unwrap_or_else(|error| Err(NodeError::Unavailable { reason: error.to_string() }))
    }

    fn stays(&self) -> Result<(), NodeError> {
        self.inner.driver.lock().chord.stay();
        Ok(self.inner.driver.keeping.submit(Job::Leave(false))?)
    }

    /// How many values this node holds, where there is nobody, as far as it knows, to whom it could hand them over.
    fn values_nobody_takes(&self) -> Result<Option<u64>, NodeError> {
        if !self.inner.driver.lock().chord.successors().is_empty() {
            return Ok(None);
        }
        let values = self.inner.driver.values()?;
        Ok((values > 0).then_some(values))
    }

    /// Stops without leaving: the ring sees a crash, and a data directory keeps everything. Returns when the server has
    /// ended and all that was acknowledged is on disk.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.stopped().await;
    }

    /// Why it has stopped by itself, if that is why.
    pub fn failure(&self) -> Option<&str> {
        self.inner.failure.get().map(String::as_str)
    }

    /// Stops, and says why.
    fn fail(&self, reason: impl Into<String>) {
        // The first reason stays.
        let _ = self.inner.failure.set(reason.into());
        self.inner.stop.cancel();
    }

    /// Stops once others say that its data directory is an older copy: it would stand in the way of those who take over what
    /// it keeps, and could serve none of it.
    async fn stop_when_refused(self) {
        let mut seen = self.inner.driver.keeping.watch();
        if seen.wait_for(|seen| seen.is_restored).await.is_ok() {
            self.fail(keeping::RESTORED);
        }
    }

    /// Waits until the node has stopped, for whatever reason.
    pub async fn stopped(&self) {
        self.inner.served.cancelled().await;
    }

    /// POST /peer: what another node asks. Both sides are encoded.
    pub async fn answer(&self, envelope: Bytes) -> Result<Vec<u8>, NodeError> {
        let answering = self.answering(&envelope)?;
        Ok(answering.await)
    }

    /// The same, with what was asked taken from where it lies.
    pub(crate) fn answering(&self, envelope: &[u8]) -> Result<impl Future<Output = Vec<u8>> + Send + use<>, NodeError> {
        let envelope = wire::decode_envelope(envelope)
            .map_err(|error| NodeError::Invalid { reason: format!("this is no message of a node: {error}") })?;
        let driver = Arc::clone(&self.inner.driver);
        Ok(async move { wire::encode_reply(&driver.answer(envelope).await) })
    }

    /// Is cancelled when the node stops: streams and connections end on it.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }
}

fn refused_by(node: &Contact, refusal: Refusal) -> NodeError {
    match refusal {
        Refusal::Settled(reason) => NodeError::Conflict { reason: format!("{node} does not join: {reason}") },
        Refusal::OtherRing(_) => NodeError::Conflict { reason: format!("{node}: {refusal}") },
        other => NodeError::Peer { addr: node.addr.clone(), reason: other.to_string() },
    }
}

fn nobody_takes(values: u64) -> NodeError {
    NodeError::Conflict {
        reason: format!(
            "the last node of a ring cannot leave while it holds values ({values}), for nobody could take them; end it with \
             SIGTERM, which keeps its data directory (`tasks killall` removes that too)"
        ),
    }
}

fn unexpected(node: &Contact) -> NodeError {
    NodeError::Peer { addr: node.addr.clone(), reason: "it answered another question".to_owned() }
}
