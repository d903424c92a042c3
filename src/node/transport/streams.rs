//! Which nodes are asked over a connection that is kept for calls, and how one comes about.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONNECTION, HOST, HeaderMap, UPGRADE};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exchange::{Failure, PEER};
use super::stream::{Coming, Left, Stream};
use super::{Caller, POOLED_FOR};
use crate::node::frames;

/// From how many calls within a second on a node gets a connection for them. One that is asked now and then is asked on
/// connections that come and go, so that a node of a large ring has no more of them than it needs.
const BUSY: u32 = 4;
const WHILE: Duration = Duration::from_secs(1);

/// How long it may take to come about.
const OPENING: Duration = Duration::from_secs(3);

/// How long it is not tried again where the other side does not know such connections, and where something went wrong.
const REFUSED: Duration = Duration::from_secs(60);
const FAILED: Duration = Duration::from_secs(2);

/// Of how many nodes it is remembered how they are asked. Others are asked on connections that come and go.
const PEERS: usize = 1024;

/// The connections for calls.
#[derive(Debug)]
pub(super) struct Streams {
    client: reqwest::Client,
    caller: Arc<Caller>,
    peers: Mutex<HashMap<String, Peer>>,
    closing: CancellationToken,
}

#[derive(Debug)]
struct Peer {
    way: Way,
    /// How often it was called since then.
    calls: u32,
    since: Instant,
}

#[derive(Debug)]
enum Way {
    /// There is no connection.
    None,
    /// One comes about.
    Opening,
    Open(Arc<Stream>),
    /// None came about, and it is not tried before then.
    Not(Instant),
}

impl Peer {
    /// Whether something would be done otherwise if it were forgotten.
    fn is_of_use(&self) -> bool {
        match self.way {
            Way::Opening | Way::Open(_) => true,
            Way::Not(until) => Instant::now() < until,
            Way::None => self.since.elapsed() < WHILE,
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Streams {
    pub(super) fn new(client: reqwest::Client, caller: Arc<Caller>) -> Arc<Streams> {
        Arc::new(Streams { client, caller, peers: Mutex::default(), closing: CancellationToken::new() })
    }

    /// The connection on which a node can be asked now, if there is one. Where it would be worth one, it is opened meanwhile.
    pub(super) fn to(self: &Arc<Self>, addr: &str) -> Option<Arc<Stream>> {
        let mut peers = self.peers();
        if !peers.contains_key(addr) {
            if peers.len() >= PEERS {
                peers.retain(|_, peer| peer.is_of_use());
            }
            if peers.len() >= PEERS {
                return None;
            }
            peers.insert(addr.to_owned(), Peer { way: Way::None, calls: 0, since: Instant::now() });
        }
        let peer = peers.get_mut(addr)?;
        match &peer.way {
            Way::Open(stream) => return Some(Arc::clone(stream)),
            Way::Opening => return None,
            Way::Not(until) if Instant::now() < *until => return None,
            Way::Not(_) | Way::None => {}
        }
        if peer.since.elapsed() >= WHILE {
            (peer.calls, peer.since) = (0, Instant::now());
        }
        peer.calls += 1;
        if peer.calls >= BUSY {
            peer.way = Way::Opening;
            let open = open(self.client.clone(), Arc::clone(&self.caller), addr.to_owned());
            tokio::spawn(keep(Arc::downgrade(self), self.closing.clone(), open, addr.to_owned()));
        }
        None
    }

    /// Leaves a call on this connection, if it is open and takes it.
    pub(super) fn call(&self, stream: &Arc<Stream>, addr: &str, message: &Bytes, limit: Duration) -> Option<Coming> {
        let sign = |keys: &Arc<crate::auth::KeyRing>| keys.sign(frames::METHOD, addr, PEER, &HeaderMap::new(), message);
        match stream.call(message, self.caller.keys.as_ref().map(sign), limit) {
            Left::Sent(coming) => Some(coming),
            Left::Full => None,
            Left::Over { mute } => {
                let way = if mute { Way::Not(Instant::now() + FAILED) } else { Way::None };
                self.is_over(addr, stream, way);
                None
            }
        }
    }

    /// This connection is not used any more.
    fn is_over(&self, addr: &str, stream: &Arc<Stream>, then: Way) {
        if let Some(peer) = self.peers().get_mut(addr)
            && matches!(&peer.way, Way::Open(open) if Arc::ptr_eq(open, stream))
        {
            peer.way = then;
        }
    }

    /// Whether a connection to this node is there, comes about, or did not.
    #[cfg(test)]
    pub(super) fn knows_way(&self, addr: &str) -> bool {
        self.peers().get(addr).is_some_and(|peer| !matches!(peer.way, Way::None))
    }

    fn set(&self, addr: &str, way: Way) {
        if let Some(peer) = self.peers().get_mut(addr) {
            peer.way = way;
        }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<String, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection and sees to it until it ends.
async fn keep(
    streams: Weak<Streams>,
    closing: CancellationToken,
    open: impl Future<Output = Result<reqwest::Upgraded, NotOpen>>,
    addr: String,
) {
    let kept = async {
        let opened = timeout(OPENING, open).await.unwrap_or(Err(NotOpen::Failed(Failure::Silent)));
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(node = addr, %error, "no connection for calls");
                let pause = if matches!(error, NotOpen::Refused(_)) { REFUSED } else { FAILED };
                if let Some(streams) = streams.upgrade() {
                    streams.set(&addr, Way::Not(Instant::now() + pause));
                }
                return;
            }
        };
        tracing::debug!(node = addr, "has a connection for calls now");
        let stream = Arc::new(Stream::new());
        let Some(there) = streams.upgrade() else { return };
        there.set(&addr, Way::Open(Arc::clone(&stream)));
        drop(there);
        stream.run(socket, POOLED_FOR).await;
        tracing::debug!(node = addr, answered = stream.answered(), "a connection for calls has ended");
        if let Some(streams) = streams.upgrade() {
            streams.is_over(&addr, &stream, Way::None);
        }
    };
    closing.run_until_cancelled(kept).await;
}

/// Why there is no connection for calls.
#[derive(Debug, thiserror::Error)]
enum NotOpen {
    /// The other side has none.
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Asks for a connection: `GET /peer`, upgraded.
async fn open(client: reqwest::Client, caller: Arc<Caller>, addr: String) -> Result<reqwest::Upgraded, NotOpen> {
    caller.may_call(&addr).map_err(Failure::Unusable)?;
    let mut request = client.get(format!("{}://{addr}{PEER}", caller.scheme)).header(HOST, &addr);
    request = request.header(CONNECTION, "upgrade").header(UPGRADE, frames::PROTOCOL);
    let sent = caller.keys.as_ref().map(|keys| keys.sign("GET", &addr, PEER, &HeaderMap::new(), b""));
    if let Some(sent) = &sent {
        request = request.header(AUTHORIZATION, &sent.authorization);
    }
    let response = request.send().await.map_err(|error| Failure::of(&error))?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(NotOpen::Refused(status));
    }
    if let Some(sent) = sent {
        let checked = sent.awaited.check(status.as_u16(), response.headers(), b"");
        checked.map_err(|not_signed| Failure::Unusable(not_signed.to_string()))?;
    }
    Ok(response.upgrade().await.map_err(|error| Failure::of(&error))?)
}
