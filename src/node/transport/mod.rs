//! How a node asks another: behind one trait, so that the way can change and tests can bring their own.

mod exchange;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chordal_protocol::{Envelope, Reply, Request};
use tokio::time::{sleep_until, timeout};

use super::detector::{Detector, Kind, Patience, Standing, stood_still};
use super::wire;
use exchange::{Failure, PLAIN_ANSWER, UnderWay, longest_answer};

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

/// What is known of other nodes, shared by all who ask them.
#[derive(Debug)]
pub(crate) struct Peers {
    patience: Patience,
    detector: Mutex<Detector>,
}

impl Peers {
    pub(crate) fn new(patience: Patience) -> Arc<Peers> {
        Arc::new(Peers { detector: Mutex::new(Detector::new(patience.clone())), patience })
    }

    /// Whether a node gave no answer a moment ago, so that no lookup should wait for it now.
    pub(crate) fn is_passed_over(&self, addr: &str) -> bool {
        self.with(|detector, now| detector.is_passed_over(addr, now))
    }

    /// Whether a node has given no answer when it was asked last.
    pub(crate) fn is_silent(&self, addr: &str) -> bool {
        self.with(|detector, _| detector.standing(addr) != Standing::Trusted)
    }

    /// A node has asked something, so it lives.
    pub(crate) fn heard_of(&self, addr: &str) {
        self.with(|detector, now| detector.heard_of(addr, now));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Detector, Instant) -> T) -> T {
        act(&mut self.detector.lock().unwrap_or_else(PoisonError::into_inner), Instant::now())
    }
}

/// Asks over HTTP: `POST /peer`.
///
/// A node whose answer is late is asked once more, on a connection of its own, before it is given up; until then the first
/// answer counts as well. See docs/decisions/0006-failure-detection.md.
#[derive(Debug)]
pub struct HttpTransport {
    client: reqwest::Client,
    /// Without kept connections: what a late node is asked with. A connection from before a cut may stay mute after it.
    afresh: reqwest::Client,
    peers: Arc<Peers>,
}

/// How many connections to one node are kept while they are idle, and for how long. A client that has 32 requests under
/// way at one node must not open and close connections all the time; with fewer kept it did, and most of the time went
/// there. What a burst leaves behind goes soon, so that a node of a large ring has few descriptors.
const POOLED: usize = 64;
const POOLED_FOR: Duration = Duration::from_secs(5);

/// How long a connection may take to come about.
const CONNECTING: Duration = Duration::from_secs(1);

impl HttpTransport {
    /// A transport that learns and respects what is known of the peers.
    pub(crate) fn new(peers: Arc<Peers>) -> Result<HttpTransport, reqwest::Error> {
        let client = |kept| {
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(kept)
                .pool_idle_timeout(POOLED_FOR)
                .connect_timeout(CONNECTING)
                .tcp_nodelay(true)
                .build()
        };
        Ok(HttpTransport { client: client(POOLED)?, afresh: client(0)?, peers })
    }

    /// Asks; what comes of it is noted even if nobody waits for it any more.
    fn exchange(&self, client: &reqwest::Client, addr: &str, body: Bytes, longest: usize, kind: Kind) -> UnderWay {
        let (client, peers, addr) = (client.clone(), Arc::clone(&self.peers), addr.to_owned());
        UnderWay::new(async move {
            let limit = peers.patience.bounds(kind).limit;
            let outcome = exchange::exchange(&client, &addr, body, longest, limit).await;
            peers.with(|detector, now| match &outcome {
                Ok((_, took)) => detector.answered(&addr, kind, *took, now),
                Err(failure) if failure.is_final() => detector.condemn(&addr, now),
                Err(_) => {}
            });
            outcome.map(|(reply, _)| reply)
        })
    }

    async fn ask(&self, addr: &str, envelope: &Envelope) -> Result<Reply, Failure> {
        let kind = Kind::of(&envelope.request);
        if kind == Kind::Route && self.peers.is_passed_over(addr) {
            return Err(Failure::Silent);
        }
        let body = Bytes::from(wire::encode_envelope(envelope));
        let greeting = || {
            let hello = Envelope { request: Request::Hello, ring: envelope.ring, from: envelope.from.clone() };
            Bytes::from(wire::encode_envelope(&hello))
        };
        if self.peers.with(|detector, _| detector.standing(addr)) == Standing::Condemned {
            // One that was given up is not waited for as if nothing had been; and if it lives, it has as long as any other.
            self.heard(addr, &mut self.exchange(&self.afresh, addr, greeting(), PLAIN_ANSWER, Kind::Ring)).await?;
        }
        let began = tokio::time::Instant::now();
        let late_after = self.late_after(addr, kind);
        let mut first = self.exchange(&self.client, addr, body.clone(), longest_answer(&envelope.request), kind);
        match within(late_after, first.outcome()).await {
            Some(Ok(reply)) => return Ok(reply),
            Some(Err(failure)) if failure.is_final() => return Err(failure),
            Some(Err(_)) | None => self.peers.with(|detector, now| detector.suspect(addr, now)),
        }
        if kind == Kind::Route {
            return Err(Failure::Silent);
        }
        // What failed sooner may have been a breath of the network: it has the same time.
        sleep_until(began + late_after).await;
        let again = if kind == Kind::Ring { body } else { greeting() };
        let mut probe = self.exchange(&self.afresh, addr, again, PLAIN_ANSWER, Kind::Ring);
        let heard = tokio::select! {
            reply = first.answer() => return Ok(reply),
            heard = self.heard(addr, &mut probe) => heard?,
        };
        if kind == Kind::Ring {
            return Ok(heard);
        }
        // It lives, and is slow: that is what its limit is for.
        let limit = self.peers.patience.bounds(kind).limit;
        within(limit.saturating_sub(began.elapsed()), first.outcome()).await.unwrap_or(Err(Failure::Silent))
    }

    /// The answer to a question that decides whether a node is given up.
    async fn heard(&self, addr: &str, probe: &mut UnderWay) -> Result<Reply, Failure> {
        let late_after = self.late_after(addr, Kind::Ring);
        let heard = within(late_after, probe.outcome()).await.unwrap_or(Err(Failure::Silent));
        if heard.is_err() {
            self.peers.with(|detector, now| detector.condemn(addr, now));
        }
        heard
    }

    fn late_after(&self, addr: &str, kind: Kind) -> Duration {
        self.peers.with(|detector, _| detector.late_after(addr, kind))
    }
}

impl Transport for HttpTransport {
    fn call<'a>(&'a self, addr: &'a str, envelope: &'a Envelope) -> Calling<'a> {
        Box::pin(async move { self.ask(addr, envelope).await.map_err(|failure| NoAnswer(failure.to_string())) })
    }
}

/// What comes within this time. If this node itself stood still meanwhile, what came may not have been read yet, and there
/// is as much time again.
async fn within<T>(time: Duration, coming: impl Future<Output = T>) -> Option<T> {
    let mut coming = pin!(coming);
    let began = Instant::now();
    if let Ok(come) = timeout(time, &mut coming).await {
        return Some(come);
    }
    if stood_still(time, began.elapsed()) {
        return timeout(time, coming).await.ok();
    }
    None
}

#[cfg(test)]
mod tests;
