//! One connection, watched: what it is doing, and since when.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::{ApiError, Kind, Limits};

/// What one connection is doing. Its socket, its requests and its answers report here; the server looks here for
/// connections that are overdue, and for one to close when it needs room.
///
/// hyper's own header timeout also runs while a connection is idle, so with it a connection could not be kept alive for
/// longer than a header may take.
pub(super) struct Watch {
    limits: Limits,
    state: Mutex<State>,
    evicted: Notify,
}

struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client has taken none of what is to be written.
    stalled: Option<Instant>,
    evicted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is no request.
    Idle,
    /// The first bytes of one are there.
    Head,
    /// It is being answered.
    Busy,
}

impl Watch {
    /// The watch of a connection that was opened just now.
    pub(super) fn new(limits: Limits) -> Watch {
        let state = State { phase: Phase::Idle, since: Instant::now(), stalled: None, evicted: false };
        Watch { limits, state: Mutex::new(state), evicted: Notify::new() }
    }

    /// A request has arrived.
    pub(super) fn asked(&self) {
        self.enter(Phase::Busy);
    }

    /// Its answer has been handed over to the socket, or nobody wants it any more.
    pub(super) fn answered(&self) {
        self.enter(Phase::Idle);
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        self.state().phase == Phase::Busy
    }

    /// Since when there has been no request, if there is none and it was not told to go before.
    pub(super) fn spare_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.phase != Phase::Busy && !state.evicted).then_some(state.since)
    }

    /// Tells the connection to make room.
    pub(super) fn evict(&self) {
        self.state().evicted = true;
        self.evicted.notify_one();
    }

    /// Waits until it is told to make room.
    pub(super) async fn eviction(&self) {
        self.evicted.notified().await;
    }

    /// Ready once the connection has overstayed. `alarm` is kept at or before the moment when that may be so; it must be
    /// polled after everything that reports here, in the same task.
    pub(super) fn poll_overdue(&self, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = self.due();
            if due.is_some_and(|due| due < alarm.deadline()) {
                alarm.as_mut().reset(due.unwrap_or_else(Instant::now));
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            match due {
                Some(due) if due <= now => return Poll::Ready(()),
                Some(due) => alarm.as_mut().reset(due),
                None => alarm.as_mut().reset(now + self.limits.idle),
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let state = self.state();
        let phase = match state.phase {
            Phase::Idle => Some(state.since + self.limits.idle),
            Phase::Head => Some(state.since + self.limits.header),
            Phase::Busy => None,
        };
        let stall = state.stalled.map(|since| since + self.limits.stall);
        [phase, stall].into_iter().flatten().min()
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        (state.phase, state.since) = (phase, Instant::now());
    }

    /// The first bytes of a request are there, if there was none.
    pub(super) fn has_read(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, Instant::now());
        }
    }

    /// The socket has taken some of what is to be written, or none.
    pub(super) fn has_written(&self, outcome: &Poll<io::Result<usize>>) {
        let mut state = self.state();
        match outcome {
            Poll::Pending => {
                state.stalled.get_or_insert_with(Instant::now);
            }
            Poll::Ready(_) => {
                state.stalled = None;
                // A long answer may leave well after it was handed over.
                if state.phase == Phase::Idle {
                    state.since = Instant::now();
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that reports to a [`Watch`].
///
/// What hyper says by itself where it cannot read a request has no body; it leaves as a problem document.
pub(super) struct Watched<S> {
    socket: S,
    watch: Arc<Watch>,
    instead: Vec<u8>,
}

impl<S> Watched<S> {
    /// Watches `socket`.
    pub(super) fn new(socket: S, watch: Arc<Watch>) -> Watched<S> {
        Watched { socket, watch, instead: Vec::new() }
    }

    /// The socket alone.
    pub(super) fn into_inner(self) -> S {
        self.socket
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Writes the problem document in place of `bytes`, which hyper then takes for written.
    fn poll_write_instead(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while !self.instead.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.instead) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => drop(self.instead.drain(..written)),
                other => return other,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

/// The problem document for an answer without a body, as only hyper gives it: one of ours always has one.
fn problem_for(answer: &[u8]) -> Option<Vec<u8>> {
    let code = answer.strip_prefix(b"HTTP/1.1 4").or_else(|| answer.strip_prefix(b"HTTP/1.0 4"))?.get(..2)?;
    let head = std::str::from_utf8(answer).ok()?.strip_suffix("\r\n\r\n")?;
    if !head.lines().any(|line| line == "content-length: 0") {
        return None;
    }
    let (kind, detail) = match code {
        b"14" => (
            Kind::LongTarget,
            "the address has more than 65534 bytes; what has a long key is found by its id: GET /get/{id}",
        ),
        b"31" => {
            (Kind::LargeHeaders, "the request line and the headers have at most 128 KiB, and 100 lines; send fewer")
        }
        _ => (Kind::Malformed, "that is not a request in HTTP/1.1; GET / lists what this node answers"),
    };
    Some(ApiError::new(kind, detail).last_answer())
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.watch.has_read();
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_empty() {
            self.instead = problem_for(bytes).unwrap_or_default();
        }
        let outcome = match self.instead.is_empty() {
            true => Pin::new(&mut self.socket).poll_write(cx, bytes),
            false => self.poll_write_instead(cx, bytes),
        };
        self.watch.has_written(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = pieces {
            return self.poll_write(cx, only);
        }
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, pieces);
        self.watch.has_written(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The body of an answer; once it is dropped the request is over.
pub(super) struct Answer {
    body: Body,
    watch: Arc<Watch>,
}

impl Answer {
    /// Reports the end of `body` to `watch`.
    pub(super) fn new(body: Body, watch: Arc<Watch>) -> Answer {
        Answer { body, watch }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.watch.answered();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
