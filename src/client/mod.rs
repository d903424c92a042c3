//! Typed clients of the HTTP interface.
//!
//! [`Client`] is for programs that use a ring: it knows several nodes, finds the owner of a key and asks that, and sees an
//! operation through. [`NodeClient`] asks the very node that is named, once: it has the labs' requests, and with
//! [`NodeClient::kv`] those of /kv. Every method takes the address (`host:port`) of the node to ask, so one [`NodeClient`]
//! and its pool of connections serve for a whole ring.
//!
//! ```no_run
//! # use chordal::client::Outcome;
//! # use chordal::node::mint;
//! # async fn example() -> Result<(), chordal::client::Error> {
//! let client = chordal::client::NodeClient::new();
//! let stored = client.store("127.0.0.1:4000", b"a value", Some(b"a key")).await?;
//! println!("kept by {}", stored.owner.name);
//! let found = client.lookup("127.0.0.1:4001", b"a key").await?;
//! assert!(found.is_some());
//!
//! let kv = client.kv("127.0.0.1:4000");
//! let value = kv.get(b"a key").await?.expect("it was stored above");
//! let outcome = kv.compare_and_set(b"a key", Some(value.etag), b"another value", None, mint()).await?;
//! assert!(matches!(outcome, Outcome::Done(_)), "nobody else has written meanwhile");
//! # Ok(())
//! # }
//! ```

mod error;
mod kv;
mod ring;
mod source;
mod transport;

use std::net::IpAddr;
use std::time::Duration;

use chordal_protocol::{Contact, Id, Mode};
use reqwest::Method;
use reqwest::header::HeaderName;
use serde::Serialize;

use crate::api::{
    Challenge, DbPage, Found, LookedUp, NodeInfo, NodeRef, Recovered, Recovery, Response, Seen, SeenBody, StoreBody,
    Stored, Text, Welcomed,
};
use crate::auth::{Nets, Security};
use crate::node::mint;
pub use error::Error;
pub use kv::{Deleted, Head, Kv, Outcome, Value};
pub use ring::{Client, OperationError};
pub use source::{RETURN_DHT_ADDRESS, Source, SourceError};
pub(crate) use source::{check_host, check_member};
use transport::{Ask, Transport, Way};

/// How long a request may take in all, unless [`NodeClient::with_timeout`] says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// Keys whose escaped form is longer than this many bytes, or that are not UTF-8, don't travel in a URL: the client then
/// finds the owner by the key's id and asks it directly.
const LONGEST_KEY_IN_URL: usize = 4096;

/// How often a direct request follows a ring that changes under it.
const FOLLOWS: usize = 4;

/// Asks nodes. Cloning is cheap and shares the connections.
#[derive(Debug, Clone)]
pub struct NodeClient {
    transport: Transport,
}

impl Default for NodeClient {
    fn default() -> NodeClient {
        NodeClient::new()
    }
}

impl NodeClient {
    /// A client that gives up on a request after [`TIMEOUT`].
    ///
    /// # Panics
    /// If the system cannot provide an HTTP client at all, as `reqwest::Client::new` does.
    pub fn new() -> NodeClient {
        NodeClient::with_timeout(TIMEOUT)
    }

    /// A client that gives up on a request after `timeout`. Panics as [`NodeClient::new`] does.
    pub fn with_timeout(timeout: Duration) -> NodeClient {
        NodeClient { transport: Transport::new(timeout, Security::default()) }
    }

    /// The same client for a ring that is closed to strangers: with keys it signs what it sends, and takes no answer that is not
    /// signed; with a certificate it speaks mutual TLS.
    pub fn with_security(self, security: &Security) -> NodeClient {
        NodeClient { transport: Transport::new(self.transport.timeout(), security.clone()) }
    }

    /// The same client, which connects to nothing outside of these nets, and from this address if there is one.
    pub(crate) fn on_the_way(self, nets: Nets, local: Option<IpAddr>) -> NodeClient {
        let Transport { security, .. } = &self.transport;
        let way = Way { nets: Some(nets), local };
        NodeClient { transport: Transport::on_the_way(self.transport.timeout(), security.clone(), way) }
    }

    /// The same client, with another timeout and connections of its own.
    pub fn within(&self, timeout: Duration) -> NodeClient {
        NodeClient { transport: Transport::new(timeout, self.transport.security.clone()) }
    }

    /// The values of the ring in HTTP's own words, through the node at `addr`.
    pub fn kv<'a>(&'a self, addr: &'a str) -> Kv<'a> {
        Kv { client: self, addr, direct: false, wait: self.transport.timeout() }
    }

    /// Everything that the node tells about itself.
    pub async fn node_info(&self, addr: &str) -> Result<NodeInfo, Error> {
        self.transport.json(Ask::get(addr, "/nodeinfo")).await
    }

    /// The node's predecessor, if it has one.
    pub async fn pred(&self, addr: &str) -> Result<Option<NodeRef>, Error> {
        absent(self.transport.json(Ask::get(addr, "/pred")).await)
    }

    /// The node's successor, if it has one.
    pub async fn succ(&self, addr: &str) -> Result<Option<NodeRef>, Error> {
        absent(self.transport.json(Ask::get(addr, "/succ")).await)
    }

    /// Makes `neighbour` (`host:port`) the node's predecessor by hand.
    pub async fn put_pred(&self, addr: &str, neighbour: &str) -> Result<(), Error> {
        self.transport.done(Ask::new(Method::PUT, addr, "/pred").again().body(&Named::at(neighbour))).await
    }

    /// Makes `neighbour` (`host:port`) the node's successor by hand.
    pub async fn put_succ(&self, addr: &str, neighbour: &str) -> Result<(), Error> {
        self.transport.done(Ask::new(Method::PUT, addr, "/succ").again().body(&Named::at(neighbour))).await
    }

    /// Finds the owner of an id; without a mode the node routes in its own way.
    pub async fn find(&self, addr: &str, id: Id, mode: Option<Mode>) -> Result<Found, Error> {
        let query = mode.map_or(String::new(), |mode| format!("?mode={mode}"));
        self.transport.json(Ask::get(addr, format!("/find/{id}{query}"))).await
    }

    /// Finds the owner of a key.
    pub async fn find_key(&self, addr: &str, key: &[u8], mode: Option<Mode>) -> Result<Found, Error> {
        self.find(addr, Id::of(key), mode).await
    }

    /// Stores a value, under a key or as its own key, wherever it belongs.
    pub async fn store(&self, addr: &str, value: &[u8], key: Option<&[u8]>) -> Result<Stored, Error> {
        let body = StoreBody { value: Text::of(value), key: key.map(Text::of) };
        self.transport.json(once(Ask::new(Method::POST, addr, "/dht/store")).body(&body)).await
    }

    /// Looks a key up (a value that was stored without one is its own key); `None` if nothing is stored there.
    pub async fn lookup(&self, addr: &str, key: &[u8]) -> Result<Option<LookedUp>, Error> {
        if let Some(key) = in_query(key) {
            return absent(self.transport.json(Ask::get(addr, format!("/dht/lookup?key={key}"))).await);
        }
        let id = Id::of(key);
        let mut tries = FOLLOWS;
        loop {
            let owner = self.find(addr, id, None).await?.owner.addr();
            match self.transport.json(Ask::get(&owner, format!("/get/{id}"))).await {
                Err(error) if tries > 0 && error.status() == Some(421) => tries -= 1,
                answer => return absent(answer),
            }
        }
    }

    /// Deletes what is stored under a key; `None` if nothing was.
    pub async fn delete(&self, addr: &str, key: &[u8]) -> Result<Option<Stored>, Error> {
        if let Some(key) = in_query(key) {
            let path = format!("/dht/delete?key={key}");
            return absent(self.transport.json(once(Ask::new(Method::DELETE, addr, path))).await);
        }
        let id = Id::of(key);
        let mut tries = FOLLOWS;
        loop {
            let owner = self.find(addr, id, None).await?.owner.addr();
            match self.transport.json(once(Ask::new(Method::DELETE, &owner, format!("/db/{id}")))).await {
                Err(error) if tries > 0 && error.status() == Some(421) => tries -= 1,
                answer => return absent(answer),
            }
        }
    }

    /// A page of what the node holds, in id order, strictly after `after`; without a limit the node decides how much.
    pub async fn db(&self, addr: &str, after: Option<Id>, limit: Option<usize>) -> Result<DbPage, Error> {
        let after = after.map(|id| format!("after={id}"));
        let limit = limit.map(|limit| format!("limit={limit}"));
        let query = [after, limit].into_iter().flatten().collect::<Vec<_>>().join("&");
        self.transport.json(Ask::get(addr, format!("/db?{query}"))).await
    }

    /// Asks the node to bring the node at `joiner` (`host:port`) into its ring; returns when that has joined.
    pub async fn join(&self, addr: &str, joiner: &str) -> Result<Welcomed, Error> {
        self.transport.json(Ask::new(Method::POST, addr, "/dht/join").body(&Named::at(joiner))).await
    }

    /// Asks the node to leave its ring. When this returns it has handed everything over and is about to stop.
    pub async fn leave(&self, addr: &str) -> Result<(), Error> {
        self.transport.done(Ask::new(Method::POST, addr, "/dht/leave")).await
    }

    /// Has the node, one of those who are left, serve a range again that has lost its majority for good.
    pub async fn recover(&self, addr: &str, recovery: &Recovery) -> Result<Recovered, Error> {
        self.transport.json(Ask::new(Method::POST, addr, "/recover").body(recovery)).await
    }

    /// From where the node sees this program, which it calls back if that is wanted.
    pub(crate) async fn seen(&self, addr: &str, body: &SeenBody) -> Result<Seen, Error> {
        self.transport.json(Ask::new(Method::POST, addr, "/seen").again().at_most(SHORT).body(body)).await
    }

    /// Has a node that looks for its address prove that it is the one that has made the challenge.
    pub(crate) async fn challenge(&self, addr: &str, challenge: &Challenge) -> Result<Response, Error> {
        self.transport.json(Ask::new(Method::POST, addr, "/challenge").again().at_most(SHORT).body(challenge)).await
    }

    /// Whether the node is joined, has a live successor and serves what it owns.
    pub async fn ready(&self, addr: &str) -> Result<bool, Error> {
        match self.transport.done(Ask::get(addr, "/health/ready")).await {
            Ok(()) => Ok(true),
            Err(error) if error.status() == Some(503) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The longest answer that is read from somebody of whom little is known.
const SHORT: usize = 16 << 10;

/// The header that names a wish.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// A write with a name, so that sending it again does not do it again.
fn once(ask: Ask) -> Ask {
    ask.again().header(REQUEST_ID, mint().to_string())
}

/// A node as a client names it: the server finds out the rest.
#[derive(Serialize)]
struct Named {
    host: String,
    port: u16,
}

impl Named {
    fn at(addr: &str) -> Named {
        let contact = Contact::at(addr, "");
        Named { host: contact.host().to_owned(), port: contact.port() }
    }
}

/// 404 is an answer, not a failure.
fn absent<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A key as a query carries it: UTF-8, percent-encoded, not too long; `None` if it is not like that.
fn in_query(key: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(key).ok()?;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    (escaped.len() <= LONGEST_KEY_IN_URL).then_some(escaped)
}

#[cfg(test)]
mod tests;
