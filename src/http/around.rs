//! What happens around every request, whatever its route: it is logged, runs to its end, and is answered readably.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::error::PROBLEM_JSON;
use super::places::Hold;
use super::{ApiError, Kind, Limits};

/// How much of a path is logged: those of the labs may carry a whole value.
const LOGGED_PATH: usize = 200;

/// The layer around all routes.
///
/// - A span per request, and one event when it is answered: `warn` where the node is at fault, else `debug`.
/// - A page of another site, open in a browser on this machine, changes nothing here.
/// - What changes something is not stopped half-way because its client hung up.
/// - What was not read of a body is read away, within bounds, before the answer leaves: a client that still sends
///   would otherwise get a broken pipe and never see the answer.
/// - A panic becomes a 500, and an error that is not ours becomes a problem document.
pub(super) async fn around(request: Request, next: Next) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let path = &path[..path.floor_char_boundary(LOGGED_PATH)];
    let is_quiet = path == "/peer" || path.starts_with("/health/");
    let span = if is_quiet {
        tracing::debug_span!("request", %method, path)
    } else {
        tracing::info_span!("request", %method, path)
    };
    async move {
        let start = Instant::now();
        let response = if is_cross_site(&request) {
            let detail = "a browser sent this for a page of another site, which may change nothing here";
            ApiError::new(Kind::CrossSite, detail).into_response()
        } else {
            answer(request, next).await
        };
        let (status, ms) = (response.status().as_u16(), start.elapsed().as_secs_f64() * 1e3);
        if status >= 500 && !is_quiet {
            tracing::warn!(status, ms, "answered");
        } else {
            tracing::debug!(status, ms, "answered");
        }
        response
    }
    .instrument(span)
    .await
}

/// Whether a browser says that a page from elsewhere wants to change something. A node on loopback is open to every program
/// of its machine, but not to every page that is looked at there.
fn is_cross_site(request: &Request) -> bool {
    if is_safe(request.method()) {
        return false;
    }
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let of_origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host.as_bytes());
    of_origin.is_none() || of_origin != host
}

/// Whether the method promises to change nothing (RFC 9110, section 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

async fn answer(request: Request, next: Next) -> Response {
    let limits = request.extensions().get::<Limits>().copied().unwrap_or_default();
    let may_wait = request.headers().contains_key(header::EXPECT);
    let leftover = Leftover::default();
    let request = if request.body().is_end_stream() {
        request
    } else {
        request.map(|body| Body::new(Returned { body, was_read: false, has_ended: false, to: leftover.clone() }))
    };
    let response = run(request, next).await;
    if let Some(rest) = leftover.take()
        // A client that asked before sending has sent nothing yet, and need not.
        && (rest.was_read || !may_wait)
        // One that has stopped sending won't lose the answer.
        && response.status() != StatusCode::REQUEST_TIMEOUT
    {
        drain(rest.body, limits).await;
    }
    readable(response)
}

/// Runs the route in a task of its own, which ends early only where nothing can be left half done.
async fn run(request: Request, next: Next) -> Response {
    let changes_nothing = is_safe(request.method());
    let hold = request.extensions().get::<Hold>().cloned();
    let work = async move {
        let response = next.run(request).await;
        drop(hold);
        response
    };
    let task = tokio::spawn(work.in_current_span());
    let outcome = if changes_nothing { AbortOnDropHandle::new(task).await } else { task.await };
    outcome.unwrap_or_else(|error| {
        if error.is_panic() {
            tracing::error!(%error, "a request panicked");
            let detail = "a fault in chordal, which its log describes; please report it. The node goes on";
            return ApiError::new(Kind::Internal, detail).into_response();
        }
        ApiError::new(Kind::Stopping, "this node is stopping; ask another one").into_response()
    })
}

async fn drain(mut body: Body, limits: Limits) {
    let read_away = async {
        let mut bytes = 0;
        while bytes <= limits.drain_bytes
            && let Some(Ok(frame)) = body.frame().await
        {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    };
    // What is still left then makes hyper close the connection after the answer.
    if timeout(limits.drain, read_away).await.is_err() {
        tracing::debug!("a body that nobody wants did not end in time");
    }
}

/// Errors of libraries have no body, or one in plain text.
fn readable(response: Response) -> Response {
    let status = response.status();
    let is_ours = |headers: &HeaderMap| headers.get(header::CONTENT_TYPE).is_some_and(|value| value == PROBLEM_JSON);
    if !(status.is_client_error() || status.is_server_error()) || is_ours(response.headers()) {
        return response;
    }
    let kind = match status.as_u16() {
        404 => Kind::NoRoute,
        405 => Kind::Method,
        413 => Kind::TooLarge,
        415 => Kind::MediaType,
        400..=499 => Kind::Malformed,
        _ => Kind::Internal,
    };
    let mut problem = ApiError::new(kind, "GET / lists the routes and what they take").into_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow.clone());
    }
    problem
}

/// Where a body goes that was dropped before its end.
#[derive(Clone, Default)]
struct Leftover(Arc<Mutex<Option<Unread>>>);

struct Unread {
    body: Body,
    was_read: bool,
}

impl Leftover {
    fn put(&self, unread: Unread) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(unread);
    }

    fn take(&self) -> Option<Unread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The body of a request, which comes back if it is not read to its end.
struct Returned {
    body: Body,
    was_read: bool,
    has_ended: bool,
    to: Leftover,
}

impl HttpBody for Returned {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.was_read = true;
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.has_ended |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        if !self.is_end_stream() {
            let body = std::mem::take(&mut self.body);
            self.to.put(Unread { body, was_read: self.was_read });
        }
    }
}
