//! A client of a whole ring.

mod error;
mod members;
mod operation;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chordal_protocol::{Condition, Contact, Id, RequestId};

use super::{Deleted, Error, Kv, NodeClient, Outcome, Source, SourceError, TIMEOUT, Value};
use crate::api::{ETag, NodeInfo, NodeRef};
use crate::auth::Security;
use crate::node::mint;
use crate::pauses::Pauses;
pub use error::OperationError;
use members::{Members, Target};
use operation::Operation;

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The longest deadline. What became of a write is remembered by the ring for longer, so that none is done twice.
const LONGEST_DEADLINE: Duration = Duration::from_secs(300);

/// How often a node is asked, beside the operations, who else there is; and how soon after one was silent.
const LOOKS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

/// How long such a question may take.
const LOOK: Duration = Duration::from_secs(2);

/// How many hints are followed in a row before a node is asked to find the owner itself.
const HINTS: u32 = 8;

/// Uses a ring without being a member of it.
///
/// It is given some nodes, or URLs of bootstrap services that name some, and learns of others from what it hears. It remembers
/// who owns what and asks the owner itself, so that most operations are one request. What fails is tried again, at another
/// node when one is silent, with growing pauses, until the deadline; a write has one [`RequestId`] for all its attempts, so that
/// it is done once.
///
/// Keys are 1 to 65,536 bytes. Values have at most as many bytes as their ring takes, 1 MiB unless it was begun with another
/// limit; a larger one is refused with the status 413, which names the limit.
///
/// Cloning is cheap; clones share what they know and their connections. It needs a tokio runtime with I/O and time.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = chordal::Client::new(["127.0.0.1:4000", "127.0.0.1:4001"])?;
/// client.put("greeting", "hello").await?;
/// let value = client.get("greeting").await?.expect("it was stored above");
/// assert_eq!(value.bytes, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    deadline: Duration,
}

#[derive(Debug)]
struct Shared {
    node: NodeClient,
    services: Vec<Source>,
    members: Mutex<Members>,
    /// When a node was last asked who else there is.
    looked: Mutex<Option<Instant>>,
}

/// A node that is asked.
struct Asked {
    node: NodeClient,
    target: Target,
    share: Duration,
}

impl Asked {
    fn kv(&self) -> Kv<'_> {
        let kv = self.node.kv(&self.target.contact.addr).within(self.share);
        if self.target.direct { kv.direct() } else { kv }
    }
}

impl Client {
    /// A client of the ring to which these nodes (`host:port`) belong, or those that these bootstrap services
    /// (`http://host:port/return_dht_address`) name. Nobody is asked before the first operation.
    ///
    /// # Panics
    /// If the system cannot provide an HTTP client at all.
    pub fn new<S: AsRef<str>>(contacts: impl IntoIterator<Item = S>) -> Result<Client, SourceError> {
        let sources = contacts.into_iter().map(|contact| contact.as_ref().parse());
        let sources: Vec<Source> = sources.collect::<Result<_, SourceError>>()?;
        if sources.is_empty() {
            return Err(SourceError::nobody());
        }
        let mut members = Members::new();
        let (nodes, services): (Vec<_>, Vec<_>) = sources.into_iter().partition(|it| matches!(it, Source::Member(_)));
        nodes.iter().for_each(|node| members.name(&node.to_string()));
        let (members, looked) = (Mutex::new(members), Mutex::new(None));
        let shared = Shared { node: NodeClient::with_timeout(LONGEST_DEADLINE), services, members, looked };
        Ok(Client { shared: Arc::new(shared), deadline: TIMEOUT })
    }

    /// The same client for a ring that is closed to strangers: with keys it signs what it sends, and takes no answer that is not
    /// signed; with a certificate it speaks mutual TLS.
    #[must_use]
    pub fn with_security(self, security: &Security) -> Client {
        let members = Mutex::new(self.shared.members().clone());
        let (node, services) = (self.shared.node.clone().with_security(security), self.shared.services.clone());
        let shared = Shared { node, services, members, looked: Mutex::new(None) };
        Client { shared: Arc::new(shared), ..self }
    }

    /// The same client, whose operations end within `deadline`: [`TIMEOUT`] unless this is called, 5 minutes at most.
    pub fn with_deadline(self, deadline: Duration) -> Client {
        Client { deadline: deadline.min(LONGEST_DEADLINE), ..self }
    }

    /// The value of a key; `None` if nothing is stored there. It is the latest: no write that was acknowledged before is missed.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, OperationError> {
        let key = key.as_ref();
        self.run(key, None, |node| async move { node.kv().get(key).await }).await
    }

    /// Stores a value under a key, whatever is there, and gives the tag of its version. When this returns, the value is on the
    /// disks of a majority of the nodes that keep the key.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<ETag, OperationError> {
        let (key, value, request) = (key.as_ref(), value.as_ref(), mint());
        let put = |node: Asked| async move {
            match node.kv().put(key, value, None, Condition::Always, request).await? {
                Outcome::Done(etag) => Ok(etag),
                Outcome::Refused(_) => {
                    let reason = "it sees a condition in a write that has none".to_owned();
                    Err(Error::Garbled { addr: node.target.contact.addr, reason })
                }
            }
        };
        self.run(key, Some(request), put).await
    }

    /// Stores a value if the condition holds, which the owner looks at in the same moment. Without a content type it gets the one
    /// of text or of bytes, whichever it is.
    pub async fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        content_type: Option<&str>,
        condition: Condition,
    ) -> Result<Outcome, OperationError> {
        let (key, value, request) = (key.as_ref(), value.as_ref(), mint());
        let put = |node: Asked| async move { node.kv().put(key, value, content_type, condition, request).await };
        self.run(key, Some(request), put).await
    }

    /// Stores a value if the one there has this tag, or if there is none (`None`): nobody has written since it was read.
    pub async fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<ETag>,
        value: impl AsRef<[u8]>,
    ) -> Result<Outcome, OperationError> {
        let condition = expected.map_or(Condition::Absent, |etag| Condition::Is(etag.0));
        self.put_if(key, value, None, condition).await
    }

    /// Deletes the value of a key, and says whether there was one.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, OperationError> {
        let (key, request) = (key.as_ref(), mint());
        let delete = |node: Asked| async move { node.kv().delete(key, None, request).await };
        let deleted = self.run(key, Some(request), delete).await?;
        Ok(matches!(deleted, Deleted::Done))
    }

    /// What a node tells of itself and its neighbours: that at `addr` (`host:port`), once and no other.
    pub async fn info(&self, addr: &str) -> Result<NodeInfo, Error> {
        self.shared.look_at(addr, self.deadline).await
    }

    /// The nodes that the client remembers, with the addresses at which they are asked: at most 64.
    pub fn nodes(&self) -> Vec<NodeRef> {
        self.shared.members().all().map(NodeRef::from).collect()
    }

    /// Has somebody do it, until it is done, refused, or too late. `request` is the name of a write.
    async fn run<T, F, Asking>(&self, key: &[u8], request: Option<RequestId>, ask: F) -> Result<T, OperationError>
    where
        F: Fn(Asked) -> Asking,
        Asking: Future<Output = Result<T, Error>>,
    {
        let (shared, id) = (&self.shared, Id::of(key));
        let mut operation = Operation::begin(self.deadline, request);
        let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
        let (mut next, mut hints) = (None, 0);
        loop {
            shared.look_around(LOOKS.0);
            let mut known = next.take().or_else(|| shared.members().target(&id, Instant::now()));
            if known.is_none() {
                // All were silent, or none was named yet.
                if let Err(reason) = shared.ask_services(operation.left()).await {
                    operation.reason = reason;
                }
                let members = shared.members();
                known = members.target(&id, Instant::now()).or_else(|| members.least_silent());
            }
            let Some(target) = known else {
                operation.pause(&mut pauses).await?;
                continue;
            };
            let share = operation.share();
            let asked = Asked { node: shared.node.clone(), target: target.clone(), share };
            operation.attempts += 1;
            let error = match tokio::time::timeout(share, ask(asked)).await {
                Ok(Ok(done)) => {
                    shared.members().did(&target, &id);
                    return Ok(done);
                }
                Ok(Err(error)) => error,
                Err(_) => Error::Unreachable {
                    addr: target.contact.addr.clone(),
                    reason: format!("no answer within {:.1} s", share.as_secs_f32()),
                    connected: true,
                },
            };
            match error {
                Error::Problem { problem, .. } if problem.status == 421 => {
                    next = Some(shared.members().redirected(&target, &id, problem.hint.as_ref(), hints < HINTS));
                    hints += 1;
                    if !operation.left().is_zero() && hints <= 2 * HINTS {
                        continue;
                    }
                    operation.reason =
                        format!("{}: the ring changes too fast: {}", target.contact.addr, problem.detail);
                }
                Error::Problem { addr, problem } => operation.told(addr, problem)?,
                error => {
                    operation.missed(&error);
                    shared.members().was_silent(&target.contact, Instant::now());
                    shared.look_around(LOOKS.1);
                }
            }
            hints = 0;
            operation.pause(&mut pauses).await?;
        }
    }
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_at(&self, addr: &str, deadline: Duration) -> Result<NodeInfo, Error> {
        let info = match tokio::time::timeout(deadline, self.node.node_info(addr)).await {
            Ok(info) => info?,
            Err(_) => {
                let reason = format!("no answer within {:.1} s", deadline.as_secs_f32());
                return Err(Error::Unreachable { addr: addr.to_owned(), reason, connected: true });
            }
        };
        self.members().learn_from(&info);
        Ok(info)
    }

    /// Has a node asked, beside what is going on, who else there is, unless that was done a moment ago.
    fn look_around(self: &Arc<Self>, interval: Duration) {
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|looked| looked.elapsed() < interval) {
                return;
            }
            *looked = Some(Instant::now());
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let node = shared.members().any(Instant::now());
            let Some(node) = node else { return };
            match shared.look_at(&node.addr, LOOK).await {
                Ok(_) => shared.members().answered(&node),
                Err(_) => shared.members().was_silent(&node, Instant::now()),
            }
        });
    }

    /// Asks the bootstrap services, if it was given any, for nodes. An error if none of them named one.
    async fn ask_services(&self, left: Duration) -> Result<(), String> {
        if self.services.is_empty() {
            return Ok(());
        }
        let mut reason = String::new();
        for service in &self.services {
            match tokio::time::timeout(left, service.members(&self.node)).await {
                Ok(Ok(named)) => {
                    let mut members = self.members();
                    named.iter().for_each(|addr| members.learn(&Contact::at(addr.as_str(), "")));
                    return Ok(());
                }
                Ok(Err(error)) => reason = error.to_string(),
                Err(_) => reason = format!("{service} does not answer in time"),
            }
        }
        Err(reason)
    }
}
