//! A connection that is kept for calls to one node, as its opener sees it.
//!
//! Whoever calls leaves the call with the stream and waits for the answer; one task writes all that was left since it wrote
//! last, and reads all answers that have come. So what several call at the same time travels together.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use chordal_protocol::Reply;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::super::detector::stood_still;
use super::super::{frames, wire};
use super::exchange::Failure;
use crate::auth::{Awaited, NotSigned, Sent};

/// How many bytes may wait to be written. Who would add more asks in another way.
const WAITING_BYTES: usize = 1 << 20;

/// How much room there is for what is read at a time.
const READ: usize = 16 << 10;

/// How often it is looked whether calls have waited too long.
const LOOK: Duration = Duration::from_millis(100);

/// Where nothing at all has come for so long since a call was sent, the connection may be a mute one from before a cut: no
/// more is asked on it.
const MUTE: Duration = Duration::from_millis(500);

/// How many bytes an answer with a value has besides value and key, at most.
const AROUND_A_VALUE: usize = 1 << 10;

/// What comes of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// An answer, and how long it took.
    Answer(Reply, Duration),
    /// There is one, and it is too long to travel so.
    TooLong,
}

/// A call whose answer has not come yet.
pub(super) type Coming = oneshot::Receiver<Result<Came, Failure>>;

/// What became of a call that was to be sent.
pub(super) enum Left {
    /// It is on its way.
    Sent(Coming),
    /// Too much is under way for now.
    Full,
    /// The connection is not used any more; it was mute if this says so.
    Over { mute: bool },
}

/// A connection for calls.
#[derive(Debug)]
pub(super) struct Stream {
    state: Mutex<State>,
    reads_are_long: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// What waits to be written.
    out: Vec<u8>,
    waiting: HashMap<u64, Waiting>,
    calls: u64,
    /// How many have had an answer of use.
    answered: u64,
    /// When it was last called.
    used: Instant,
    /// Wakes the task. Gone once it was woken.
    waker: Option<Waker>,
    mute: bool,
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    sent: Instant,
    until: Instant,
    awaited: Option<Awaited>,
    tell: oneshot::Sender<Result<Came, Failure>>,
}

impl Stream {
    pub(super) fn new() -> Stream {
        let state = State {
            out: Vec::new(),
            waiting: HashMap::new(),
            calls: 0,
            answered: 0,
            used: Instant::now(),
            waker: None,
            mute: false,
            closed: false,
        };
        Stream { state: Mutex::new(state), reads_are_long: AtomicBool::new(false) }
    }

    /// Leaves a call, signed where the ring has a secret. Within this time there is an outcome.
    pub(super) fn call(&self, message: &[u8], sent: Option<Sent>, limit: Duration) -> Left {
        let mut state = self.state();
        if state.closed || state.mute {
            return Left::Over { mute: state.mute };
        }
        if state.waiting.len() >= frames::UNDER_WAY || state.out.len() + message.len() > WAITING_BYTES {
            return Left::Full;
        }
        let (authorization, awaited) = match sent {
            Some(sent) => (Some(sent.authorization), Some(sent.awaited)),
            None => (None, None),
        };
        let authorization = authorization.as_ref().map_or(&b""[..], |text| text.as_bytes());
        state.calls += 1;
        let (number, now) = (state.calls, Instant::now());
        frames::write_call(&mut state.out, &frames::Call { number, authorization, message });
        let (tell, coming) = oneshot::channel();
        state.waiting.insert(number, Waiting { sent: now, until: now + limit, awaited, tell });
        state.used = now;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Left::Sent(coming)
    }

    /// Writes calls and reads answers until the connection ends, or nobody has called for so long.
    pub(super) async fn run(&self, socket: impl AsyncRead + AsyncWrite, idle: Duration) {
        let _end = End(self);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = Running {
            stream: self,
            outgoing: Vec::new(),
            written: 0,
            incoming: BytesMut::new(),
            received: Instant::now(),
            looked: Instant::now(),
            was_still: false,
            look,
            idle,
        };
        let mut socket = pin!(socket);
        if let Err(reason) = poll_fn(|cx| running.poll(socket.as_mut(), cx)).await {
            self.close(&reason);
        }
    }

    /// Whether the last value that was asked for here was too long to travel so.
    pub(super) fn reads_are_long(&self) -> bool {
        self.reads_are_long.load(Ordering::Relaxed)
    }

    /// A value of so many bytes was asked for in another way.
    pub(super) fn note_read(&self, bytes: usize) {
        self.reads_are_long.store(bytes + AROUND_A_VALUE > frames::LONGEST, Ordering::Relaxed);
    }

    /// How many calls have had an answer of use.
    pub(super) fn answered(&self) -> u64 {
        self.state().answered
    }

    fn close(&self, reason: &str) {
        let mut state = self.state();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for call in waiting.into_values() {
            // Who does not wait any more need not know.
            let _ = call.tell.send(Err(Failure::Broken(reason.to_owned())));
        }
    }

    /// Breaks the connection.
    #[cfg(test)]
    pub(super) fn cut(&self) {
        self.close("it was cut");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever ends the task, nobody waits for it any more.
struct End<'a>(&'a Stream);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.close("the connection was closed");
    }
}

/// What the task knows.
struct Running<'a> {
    stream: &'a Stream,
    /// What is being written, and how much of it has been.
    outgoing: Vec<u8>,
    written: usize,
    incoming: BytesMut,
    /// When anything last came.
    received: Instant,
    looked: Instant,
    /// Whether it could not be told at the last look what is late.
    was_still: bool,
    look: Interval,
    idle: Duration,
}

impl Running<'_> {
    /// Ready with the reason for which it ends.
    fn poll(
        &mut self,
        mut socket: Pin<&mut (impl AsyncRead + AsyncWrite)>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), String>> {
        while self.look.poll_tick(cx).is_ready() {
            if self.is_over() {
                return Poll::Ready(Ok(()));
            }
        }
        if let Poll::Ready(Err(error)) = self.write(socket.as_mut(), cx) {
            return Poll::Ready(Err(error.to_string()));
        }
        loop {
            // Costs nothing where what lay before it has been taken.
            if self.incoming.capacity() - self.incoming.len() < READ / 2 {
                self.incoming.reserve(READ);
            }
            let read = pin!(socket.read_buf(&mut self.incoming)).poll(cx);
            match ready!(read) {
                Ok(0) => return Poll::Ready(Err("the other side closed the connection".to_owned())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error.to_string())),
            }
            if let Err(error) = self.take_answers() {
                return Poll::Ready(Err(error.to_string()));
            }
        }
    }

    /// Writes what was left, until nothing is or the socket takes no more.
    fn write(
        &mut self,
        mut socket: Pin<&mut (impl AsyncRead + AsyncWrite)>,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut wrote = false;
        loop {
            if self.written == self.outgoing.len() {
                self.outgoing.clear();
                self.written = 0;
                let mut state = self.stream.state();
                if state.out.is_empty() {
                    state.waker = Some(cx.waker().clone());
                    break;
                }
                std::mem::swap(&mut state.out, &mut self.outgoing);
            }
            match ready!(socket.as_mut().poll_write(cx, &self.outgoing[self.written..]))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
            wrote = true;
        }
        // TLS keeps what was written until it is told that it was all.
        if wrote { socket.as_mut().poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    fn take_answers(&mut self) -> Result<(), frames::NoFrame> {
        let now = Instant::now();
        self.received = now;
        let mut read = &self.incoming[..];
        while let Some((frame, rest)) = frames::first(read)? {
            let (number, answer) = frames::read_answer(frame)?;
            // Nobody waits any more for one that has come after its limit.
            if let Some(call) = { self.stream.state().waiting.remove(&number) } {
                let came = came(call.awaited.as_ref(), answer, now.saturating_duration_since(call.sent));
                self.stream.state().answered += u64::from(matches!(came, Ok(Came::Answer(..))));
                let _ = call.tell.send(came);
            }
            read = rest;
        }
        let taken = self.incoming.len() - read.len();
        bytes::Buf::advance(&mut self.incoming, taken);
        Ok(())
    }

    /// Ends calls that have waited too long. Says whether the connection has been without any for long enough, or is mute.
    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let waited = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        // What came while this node itself stood still has not been read yet.
        self.was_still = stood_still(LOOK, waited) && !self.was_still;
        if self.was_still {
            return false;
        }
        let mut state = self.stream.state();
        let oldest = state.waiting.values().map(|call| call.sent).min();
        let is_mute = |sent: Instant| sent > self.received && now.saturating_duration_since(sent) >= MUTE;
        state.mute |= oldest.is_some_and(is_mute);
        let late: Vec<u64> =
            state.waiting.iter().filter(|(_, call)| call.until <= now).map(|(number, _)| *number).collect();
        for call in late.iter().filter_map(|number| state.waiting.remove(number)).collect::<Vec<_>>() {
            let _ = call.tell.send(Err(Failure::Silent));
        }
        let is_done =
            state.waiting.is_empty() && (state.mute || now.saturating_duration_since(state.used) >= self.idle);
        // From here on nobody leaves a call that would not be sent.
        state.closed |= is_done;
        is_done
    }
}

/// What an answer is worth that took so long, to a call that was signed so.
fn came(awaited: Option<&Awaited>, answer: frames::Answer<'_>, took: Duration) -> Result<Came, Failure> {
    let not_signed = |error: NotSigned| Failure::Unusable(error.to_string());
    let message = match (answer, awaited) {
        (frames::Answer::Refused(status, why), _) => {
            return Err(Failure::Unusable(format!("it answered {status}: {why}")));
        }
        (frames::Answer::TooLong, _) => return Ok(Came::TooLong),
        (frames::Answer::Signed(mac, message), Some(awaited)) => {
            awaited.check_call(message, mac).map_err(not_signed)?;
            message
        }
        (frames::Answer::Plain(_), Some(_)) => return Err(not_signed(NotSigned)),
        (frames::Answer::Plain(message) | frames::Answer::Signed(_, message), None) => message,
    };
    let reply = wire::decode_reply(message).map_err(|error| Failure::Unusable(error.to_string()))?;
    Ok(Came::Answer(reply, took))
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
