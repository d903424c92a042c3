//! How a node asks another: behind one trait, so that the way can change and tests can bring their own.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use chordal_protocol::{Envelope, Reply};

use super::wire;
use crate::http::PEER_BODY;

/// The asked node gave no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// A call under way.
pub type Calling<'a> = Pin<Box<dyn Future<Output = Result<Reply, NoAnswer>> + Send + 'a>>;

/// Asks other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Asks the node at `addr` (`host:port`). Every message is safe to send twice.
    fn call<'a>(&'a self, addr: &'a str, envelope: &'a Envelope) -> Calling<'a>;
}

/// Asks over HTTP: `POST /peer` with one client for all calls of the node.
#[derive(Debug)]
pub struct HttpTransport {
    client: reqwest::Client,
}

/// How many connections to one node are kept while they are idle, and for how long. A client that has 32 requests under
/// way at one node must not open and close connections all the time; with fewer kept it did, and most of the time went
/// there. What a burst leaves behind goes soon, so that a node of a large ring has few descriptors.
const POOLED: usize = 64;
const POOLED_FOR: Duration = Duration::from_secs(5);

impl HttpTransport {
    /// A transport whose calls take at most `timeout`.
    pub fn new(timeout: Duration) -> Result<HttpTransport, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(POOLED)
            .pool_idle_timeout(POOLED_FOR)
            .connect_timeout(timeout.min(Duration::from_secs(1)))
            .timeout(timeout)
            .tcp_nodelay(true)
            .build()?;
        Ok(HttpTransport { client })
    }

    async fn send(&self, addr: &str, body: Bytes) -> Result<Reply, Failure> {
        let request = self.client.post(format!("http://{addr}/peer")).body(body);
        let mut response = request.send().await.map_err(Failure::of)?;
        let status = response.status();
        let mut answer = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(Failure::of)? {
            if answer.len() + chunk.len() > PEER_BODY {
                return Err(Failure::last(format!("its answer is longer than {PEER_BODY} bytes")));
            }
            answer.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let problem = serde_json::from_slice::<crate::api::Problem>(&answer);
            let detail = problem.map_or_else(|_| "it is no chordal node".to_owned(), |problem| problem.detail);
            return Err(Failure::last(format!("it answered {status}: {detail}")));
        }
        wire::decode_reply(&answer).map_err(|error| Failure::last(error.to_string()))
    }
}

impl Transport for HttpTransport {
    fn call<'a>(&'a self, addr: &'a str, envelope: &'a Envelope) -> Calling<'a> {
        Box::pin(async move {
            let body = Bytes::from(wire::encode_envelope(envelope));
            match self.send(addr, body.clone()).await {
                // A pooled connection may have been closed under the request; a new one tells whether the node lives.
                Err(failure) if failure.worth_another_try => {
                    self.send(addr, body).await.map_err(|failure| NoAnswer(failure.reason))
                }
                other => other.map_err(|failure| NoAnswer(failure.reason)),
            }
        })
    }
}

struct Failure {
    reason: String,
    worth_another_try: bool,
}

impl Failure {
    fn last(reason: String) -> Failure {
        Failure { reason, worth_another_try: false }
    }

    fn of(error: reqwest::Error) -> Failure {
        let worth_another_try = !error.is_timeout() && !error.is_connect();
        let reason = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            // The innermost cause says it best: "Connection refused".
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            cause.to_string()
        };
        Failure { reason, worth_another_try }
    }
}

/// Nodes that gave no answer a moment ago, so that no lookup waits for them twice.
#[derive(Debug)]
pub(crate) struct Suspects {
    time: Duration,
    until: Mutex<HashMap<String, Instant>>,
}

/// How many suspects are remembered.
const SUSPECTS: usize = 1024;

impl Suspects {
    pub(crate) fn new(time: Duration) -> Suspects {
        Suspects { time, until: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn accuse(&self, addr: &str) {
        let now = Instant::now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= SUSPECTS {
            until.retain(|_, until| *until > now);
        }
        if until.len() < SUSPECTS {
            until.insert(addr.to_owned(), now + self.time);
        }
    }

    pub(crate) fn acquit(&self, addr: &str) {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).remove(addr);
    }

    pub(crate) fn includes(&self, addr: &str) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(addr).is_some_and(|until| *until > Instant::now())
    }
}
