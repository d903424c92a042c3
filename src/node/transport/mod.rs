//! How a node asks another: behind one trait, so that the way can change and tests can bring their own.

mod exchange;
mod stream;
mod streams;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chordal_protocol::replica::{Answer, Operation};
use chordal_protocol::{Envelope, Reply, Request};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::{sleep_until, timeout};

use super::detector::{Detector, Kind, Patience, Standing, stood_still};
use super::{frames, wire};
use crate::auth::{self, KeyRing, Nets, Renewed, Security};
use exchange::{Failure, Outcome, UnderWay, brings_content, longest_answer};
use stream::Came;
use streams::Streams;

/// The asked node gave no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoAnswer {
    /// What happened.
    pub reason: String,
    /// Whether somebody answers there, though not in a way that is of use.
    pub answers: bool,
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> NoAnswer {
        NoAnswer { reason: failure.to_string(), answers: matches!(failure, Failure::Unusable(_)) }
    }
}

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

/// Asks over HTTP: `POST /peer`, or on a connection to a node that is asked much, upgraded for that (`GET /peer`), where a call
/// costs a fraction. See docs/decisions/0012-calls-between-nodes.md.
///
/// A node whose answer is late is asked once more, on a connection of its own, before it is given up; until then the first
/// answer counts as well. See docs/decisions/0006-failure-detection.md.
#[derive(Debug)]
pub struct HttpTransport {
    clients: Renewed<Clients>,
    peers: Arc<Peers>,
    caller: Arc<Caller>,
}

/// The clients, and the connections that they have opened.
#[derive(Debug, Clone)]
struct Clients {
    kept: reqwest::Client,
    /// Without kept connections: what a late node is asked with. A connection from before a cut may stay mute after it.
    afresh: reqwest::Client,
    streams: Arc<Streams>,
}

/// What is asked, and what is to be known of it on its way.
#[derive(Debug)]
struct Question {
    message: Bytes,
    longest_answer: usize,
    answer_may_be_long: bool,
    kind: Kind,
    /// Whether a value is asked for.
    is_read: bool,
}

impl Question {
    fn of(envelope: &Envelope) -> Question {
        Question {
            message: Bytes::from(wire::encode_envelope(envelope)),
            longest_answer: longest_answer(&envelope.request),
            answer_may_be_long: brings_content(&envelope.request),
            kind: Kind::of(&envelope.request),
            is_read: matches!(envelope.request, Request::Operate(Operation::Get(_))),
        }
    }

    /// Whether who is asked lives.
    fn greeting(envelope: &Envelope) -> Question {
        Question::of(&Envelope { request: Request::Hello, ring: envelope.ring, from: envelope.from.clone() })
    }
}

/// How a node shows to others who it is, and whom it calls.
#[derive(Debug)]
struct Caller {
    keys: Option<Arc<KeyRing>>,
    scheme: &'static str,
    nets: Nets,
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
    pub(crate) fn new(peers: Arc<Peers>, security: &Security, nets: Nets) -> Result<HttpTransport, reqwest::Error> {
        let resolver = Arc::new(Resolver(nets.clone()));
        let (keys, scheme) = (security.keys.clone(), auth::scheme(security.tls.as_ref()));
        let caller = Arc::new(Caller { keys, scheme, nets });
        let opener = Arc::clone(&caller);
        let clients = Renewed::new(security.tls.as_ref(), move |certificates| {
            let client = |kept| {
                auth::prepare(reqwest::Client::builder(), certificates)
                    .dns_resolver(Arc::clone(&resolver))
                    .no_proxy()
                    .redirect(reqwest::redirect::Policy::none())
                    .pool_max_idle_per_host(kept)
                    .pool_idle_timeout(POOLED_FOR)
                    .connect_timeout(CONNECTING)
                    .tcp_nodelay(true)
                    .build()
            };
            let (kept, afresh) = (client(POOLED)?, client(0)?);
            let streams = Streams::new(kept.clone(), Arc::clone(&opener));
            Ok(Clients { kept, afresh, streams })
        })?;
        Ok(HttpTransport { clients, peers, caller })
    }

    /// Asks; what comes of it is noted even if nobody waits for it any more.
    fn exchange(&self, addr: &str, question: Question) -> UnderWay {
        let Clients { kept, streams, .. } = self.clients.now();
        self.noted(addr, kept, Some(streams), question)
    }

    /// The same on a connection of its own.
    fn exchange_afresh(&self, addr: &str, question: Question) -> UnderWay {
        self.noted(addr, self.clients.now().afresh, None, question)
    }

    fn noted(
        &self,
        addr: &str,
        client: reqwest::Client,
        streams: Option<Arc<Streams>>,
        question: Question,
    ) -> UnderWay {
        let (peers, addr) = (Arc::clone(&self.peers), addr.to_owned());
        let caller = Arc::clone(&self.caller);
        UnderWay::new(async move {
            let kind = question.kind;
            let limit = peers.patience.bounds(kind).limit;
            // Large, and most calls have no need of it.
            let post = || Box::pin(exchange::exchange(&client, &caller, &addr, &question, limit));
            let outcome = match &streams {
                Some(streams) => on_stream_or(streams, &addr, &question, limit, post).await,
                None => post().await,
            };
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
        let (standing, mut late_after) =
            self.peers.with(|detector, _| (detector.standing(addr), detector.late_after(addr, kind)));
        if standing == Standing::Condemned {
            // One that was given up is not waited for as if nothing had been; and if it lives, it has as long as any other.
            self.heard(addr, &mut self.exchange_afresh(addr, Question::greeting(envelope))).await?;
            late_after = self.late_after(addr, kind);
        }
        let began = tokio::time::Instant::now();
        let mut first = self.exchange(addr, Question::of(envelope));
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
        let again = if kind == Kind::Ring { Question::of(envelope) } else { Question::greeting(envelope) };
        let mut probe = self.exchange_afresh(addr, again);
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

/// Asks on the connection that is kept for calls to the node, if there is one and the question is for there; else, and where that
/// connection breaks under it, by `POST /peer`.
async fn on_stream_or<P: Future<Output = Outcome>>(
    streams: &Arc<Streams>,
    addr: &str,
    question: &Question,
    limit: Duration,
    post: impl FnOnce() -> P,
) -> Outcome {
    let is_short = !question.answer_may_be_long && question.message.len() <= frames::LONGEST;
    let stream = if is_short { streams.to(addr) } else { None };
    let Some(stream) = stream else { return post().await };
    if !(question.is_read && stream.reads_are_long())
        && let Some(coming) = streams.call(&stream, addr, &question.message, limit)
    {
        match coming.await {
            Ok(Ok(Came::Answer(reply, took))) => return Ok((reply, took)),
            // Every message is safe to send twice.
            Ok(Ok(Came::TooLong) | Err(Failure::Broken(_))) | Err(_) => {}
            Ok(Err(failure)) => return Err(failure),
        }
    }
    let outcome = post().await;
    // Values that are as long as the last would be looked for twice.
    if let Ok((Reply::Answered(Answer::Read(Some(record))), _)) = &outcome {
        stream.note_read(record.weight());
    }
    outcome
}

/// Finds the addresses of a name, as far as they may be called. What it finds is what is connected to: a name that leads
/// elsewhere the next time leads nowhere.
#[derive(Debug)]
pub(crate) struct Resolver(pub(crate) Nets);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let nets = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.iter().copied().filter(|addr| nets.allow(addr.ip())).collect();
            match found.first() {
                Some(addr) if allowed.is_empty() => Err(nets.refusal(addr.ip()).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

impl Caller {
    /// An address that is no name is not resolved, and looked at here.
    fn may_call(&self, addr: &str) -> Result<(), String> {
        let ip = addr.parse::<SocketAddr>().map(|addr| addr.ip());
        ip.map_or(Ok(()), |ip| if self.nets.allow(ip) { Ok(()) } else { Err(self.nets.refusal(ip)) })
    }
}

impl Transport for HttpTransport {
    fn call<'a>(&'a self, addr: &'a str, envelope: &'a Envelope) -> Calling<'a> {
        Box::pin(async move { Ok(self.ask(addr, envelope).await?) })
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
