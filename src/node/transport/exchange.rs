//! One question to one node over HTTP, and how it may fail.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use chordal_protocol::{Reply, Request, keeper};
use reqwest::header::{AUTHORIZATION, HOST, HeaderMap};
use tokio::runtime::Handle;

use super::super::{Config, wire};
use super::{Caller, Question};
use crate::auth;
use crate::http::PEER_BODY;
use crate::node::KEY_LIMIT;

/// Where nodes are asked.
pub(super) const PEER: &str = "/peer";

/// The largest answer to a question whose answer has no content in it.
pub(super) const PLAIN_ANSWER: usize = 1 << 20;

/// How long an answer to this may be: whoever babbles shall not fill our memory. Only letters bring the content of a range.
pub(super) fn longest_answer(request: &Request) -> usize {
    match request {
        Request::Keep(keeper::Request::Letters { .. }) => PEER_BODY,
        Request::Operate(_) => Config::LARGEST_VALUE_LIMIT + 2 * KEY_LIMIT + PLAIN_ANSWER,
        _ => PLAIN_ANSWER,
    }
}

/// Whether the answer to this may be the content of a range. Whoever keeps it answers that with pages, or with all that was written
/// lately.
pub(super) fn brings_content(request: &Request) -> bool {
    use chordal_protocol::replica::Request as Letter;
    let Request::Keep(request) = request else { return false };
    match request {
        keeper::Request::Letters { letters, .. } => {
            !letters.iter().all(|letter| matches!(letter.body, Letter::Confirm { .. } | Letter::Store { .. }))
        }
        _ => true,
    }
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody listens at the address: the kernel there says so.
    #[error("Connection refused")]
    Refused,
    /// Something answers there, and not as a node does.
    #[error("{0}")]
    Unusable(String),
    /// The connection broke, or none came about.
    #[error("{0}")]
    Broken(String),
    /// Nothing came.
    #[error("no answer in time")]
    Silent,
}

impl Failure {
    /// Whether asking again would bring the same.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Failure::Refused | Failure::Unusable(_))
    }

    pub(super) fn of(error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure::Silent;
        }
        if let Some(told) = auth::explain_request(error) {
            return Failure::Unusable(told);
        }
        // The innermost cause says it best: "Connection refused".
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        match cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => Failure::Refused,
            _ => Failure::Broken(cause.to_string()),
        }
    }
}

/// What one exchange brought, and how long it took.
pub(super) type Outcome = Result<(Reply, Duration), Failure>;

/// Asks, and once more where the connection broke: one that was kept may have been closed under the question.
pub(super) async fn exchange(
    client: &reqwest::Client,
    caller: &Caller,
    addr: &str,
    question: &Question,
    limit: Duration,
) -> Outcome {
    match post(client, caller, addr, question, limit).await {
        Err(Failure::Broken(_)) => post(client, caller, addr, question, limit).await,
        outcome => outcome,
    }
}

async fn post(client: &reqwest::Client, caller: &Caller, addr: &str, question: &Question, limit: Duration) -> Outcome {
    caller.may_call(addr).map_err(Failure::Unusable)?;
    let began = Instant::now();
    let broken = |error: reqwest::Error| Failure::of(&error);
    // What is signed is the host as it is written here.
    let mut request = client.post(format!("{}://{addr}{PEER}", caller.scheme)).timeout(limit).header(HOST, addr);
    let mut awaited = None;
    if let Some(keys) = &caller.keys {
        let sent = keys.sign("POST", addr, PEER, &HeaderMap::new(), &question.message);
        request = request.header(AUTHORIZATION, sent.authorization);
        awaited = Some(sent.awaited);
    }
    let request = request.body(question.message.clone());
    let mut response = request.send().await.map_err(broken)?;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let mut answer = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        let longest = question.longest_answer;
        if answer.len() + chunk.len() > longest {
            return Err(Failure::Unusable(format!("its answer is longer than {longest} bytes")));
        }
        answer.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        let problem = serde_json::from_slice::<crate::api::Problem>(&answer);
        let detail = problem.map_or_else(|_| "it is no chordal node".to_owned(), |problem| problem.detail);
        return Err(Failure::Unusable(format!("it answered {status}: {detail}")));
    }
    if let Some(awaited) = awaited {
        let checked = awaited.check(status.as_u16(), &headers, &answer);
        checked.map_err(|not_signed| Failure::Unusable(not_signed.to_string()))?;
    }
    let reply = wire::decode_reply(&answer).map_err(|error| Failure::Unusable(error.to_string()))?;
    Ok((reply, began.elapsed()))
}

/// An exchange that goes on by itself until its limit, whoever still waits for it: an answer that comes late is a sign of
/// life all the same.
///
/// While somebody waits it runs within that one's task: most are answered at once, and a task of their own would cost them two
/// more turns of the scheduler.
pub(super) struct UnderWay(Option<Exchange>);

type Exchange = Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send>>;

impl UnderWay {
    pub(super) fn new(exchange: impl Future<Output = Result<Reply, Failure>> + Send + 'static) -> UnderWay {
        UnderWay(Some(Box::pin(exchange)))
    }

    /// How it ends; to be asked until it has said so once.
    pub(super) async fn outcome(&mut self) -> Result<Reply, Failure> {
        let Some(exchange) = &mut self.0 else { return Err(Failure::Silent) };
        let outcome = exchange.await;
        self.0 = None;
        outcome
    }

    /// Its answer. Where there is none, this never ends.
    pub(super) async fn answer(&mut self) -> Reply {
        match self.outcome().await {
            Ok(reply) => reply,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for UnderWay {
    /// Nobody waits any more; it ends by itself.
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(exchange);
        }
    }
}
