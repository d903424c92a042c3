//! A connection that was upgraded for the calls of another node, as the answering side sees it.
//!
//! What is answered at once, from memory, is answered where it is read, and all answers of one read leave in one write.
//! What has to wait for the disk or for other nodes waits beside the connection, and is answered when it is there.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use bytes::{Buf as _, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::runtime::Handle;

use super::ApiError;
use super::authenticate::{Admitted, Ends, Gate};
use super::connection::Watch;
use super::places::Hold;
use crate::node::Node;
use crate::node::frames::{self, Call, NoFrame};

/// How many bytes of answers may wait to be written before nothing more is read.
const WAITING_BYTES: usize = 1 << 20;

/// How much room there is for what is read at a time.
const READ: usize = 16 << 10;

/// That a connection is to go on with calls once it is upgraded. Travels with the answer that says so.
#[derive(Clone)]
pub(super) struct Onward {
    pub(super) upgrade: OnUpgrade,
    pub(super) calls: Calls,
}

/// Who answers the calls on a connection, and whose it takes.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) node: Node,
    /// What keeps strangers out.
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) ends: Ends,
    /// By what `host:port` this node was called when the connection was opened.
    pub(super) host: String,
}

/// A call that is answered later: its number, who has signed it, the answer.
type Later = Pin<Box<dyn Future<Output = (u64, Option<Admitted>, Vec<u8>)> + Send>>;

/// A connection on which calls are taken.
pub(super) struct Taking<S> {
    calls: Calls,
    socket: S,
    watch: Arc<Watch>,
    hold: Hold,
    incoming: BytesMut,
    /// What is being written, and how much of it has been.
    outgoing: Vec<u8>,
    written: usize,
    under_way: FuturesUnordered<Later>,
    phase: Phase,
    /// Nothing more is read: the other side has sent all, or was refused.
    ended: bool,
}

/// What was last reported of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Part,
    Busy,
}

impl<S> Taking<S> {
    /// Takes calls on `socket`, of which the first bytes may have been read already. The place of the connection is held for as
    /// long as anything of it is under way.
    pub(super) fn new(calls: Calls, socket: S, read: &Bytes, watch: Arc<Watch>, hold: Hold) -> Taking<S> {
        Taking {
            calls,
            socket,
            watch,
            hold,
            incoming: BytesMut::from(&read[..]),
            outgoing: Vec::new(),
            written: 0,
            under_way: FuturesUnordered::new(),
            phase: Phase::Idle,
            ended: false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Taking<S> {
    /// Takes calls and answers them; ready when the connection has ended, or is to end and nothing is under way.
    pub(super) fn poll(&mut self, closing: bool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Ok(progress) = self.step(closing, cx) else { return Poll::Ready(()) };
            if !progress {
                break;
            }
        }
        self.report();
        if (closing || self.ended) && self.is_quiet() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Does what can be done now; whether anything was.
    fn step(&mut self, closing: bool, cx: &mut Context<'_>) -> Result<bool, Gone> {
        let mut progress = false;
        while let Poll::Ready(Some((number, signer, answer))) = self.under_way.poll_next_unpin(cx) {
            self.answer(number, signer.as_ref(), &answer);
            progress = true;
        }
        if !closing && !self.ended {
            self.take_calls(cx)?;
            if self.has_room() && !self.ended {
                progress |= self.read(cx)?;
                self.take_calls(cx)?;
            }
        }
        Ok(progress | self.write(cx)?)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Gone> {
        // Costs nothing where what lay before it has been taken.
        if self.incoming.capacity() - self.incoming.len() < READ / 2 {
            self.incoming.reserve(READ);
        }
        let read = pin!(self.socket.read_buf(&mut self.incoming)).poll(cx);
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                Ok(false)
            }
            Poll::Ready(Ok(_)) => Ok(true),
            Poll::Ready(Err(_)) => Err(Gone),
        }
    }

    /// Takes the calls that were read in full, as far as there is room for them.
    fn take_calls(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = &incoming[..];
        while self.has_room()
            && !self.ended
            && let Some((frame, after)) = frames::first(rest)?
        {
            self.take(&frames::read_call(frame)?, cx);
            rest = after;
        }
        let taken = incoming.len() - rest.len();
        self.incoming = incoming;
        self.incoming.advance(taken);
        Ok(())
    }

    fn take(&mut self, call: &Call<'_>, cx: &mut Context<'_>) {
        let number = call.number;
        let Calls { node, gate, ends, host } = &self.calls;
        let admitted = match gate {
            Some(gate) => gate.admit_call(host, ends, call.authorization, call.message),
            None => Ok(None),
        };
        let (signer, answering) = match (admitted, node.answering(call.message)) {
            (Ok(signer), Ok(answering)) => (signer, answering),
            (Err(refusal), _) => return self.refuse(number, &refusal),
            (Ok(_), Err(error)) => return self.refuse(number, &error.into()),
        };
        let mut answering = Box::pin(answering);
        match answering.as_mut().poll(cx) {
            Poll::Ready(answer) => self.answer(number, signer.as_ref(), &answer),
            Poll::Pending => self.under_way.push(Box::pin(async move { (number, signer, answering.await) })),
        }
    }

    fn answer(&mut self, number: u64, signer: Option<&Admitted>, answer: &[u8]) {
        let answer = match signer {
            _ if answer.len() > frames::LONGEST => frames::Answer::TooLong,
            Some(signer) => {
                let mac = signer.call_mac(answer);
                return frames::write_answer(&mut self.outgoing, number, &frames::Answer::Signed(&mac, answer));
            }
            None => frames::Answer::Plain(answer),
        };
        frames::write_answer(&mut self.outgoing, number, &answer);
    }

    /// Says why a call is not answered, and takes no more: whoever sends such will send more of them.
    fn refuse(&mut self, number: u64, refusal: &ApiError) {
        let problem = refusal.problem();
        frames::write_answer(&mut self.outgoing, number, &frames::Answer::Refused(problem.status, &problem.detail));
        self.ended = true;
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Gone> {
        let mut wrote = false;
        while self.written < self.outgoing.len() {
            let outcome = Pin::new(&mut self.socket).poll_write(cx, &self.outgoing[self.written..]);
            self.watch.has_written(&outcome);
            match outcome {
                Poll::Pending => return Ok(wrote),
                Poll::Ready(Ok(0) | Err(_)) => return Err(Gone),
                Poll::Ready(Ok(bytes)) => self.written += bytes,
            }
            wrote = true;
        }
        if wrote {
            self.written = 0;
            self.outgoing.clear();
            // What a burst of long answers needed is not kept.
            self.outgoing.shrink_to(WAITING_BYTES);
            // TLS keeps what was written until it is told that it was all.
            if let Poll::Ready(Err(_)) = Pin::new(&mut self.socket).poll_flush(cx) {
                return Err(Gone);
            }
        }
        Ok(wrote)
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < frames::UNDER_WAY && self.outgoing.len() - self.written < WAITING_BYTES
    }

    fn is_quiet(&self) -> bool {
        self.under_way.is_empty() && self.written == self.outgoing.len()
    }

    /// Tells the watch what the connection is doing, as far as that has changed.
    fn report(&mut self) {
        let phase = match (self.is_quiet(), self.incoming.is_empty()) {
            (false, _) => Phase::Busy,
            (true, false) => Phase::Part,
            (true, true) => Phase::Idle,
        };
        if phase == self.phase {
            return;
        }
        match phase {
            Phase::Busy => self.watch.asked(),
            Phase::Idle => self.watch.answered(),
            Phase::Part => {
                self.watch.answered();
                self.watch.has_read();
            }
        }
        self.phase = phase;
    }
}

impl<S> Drop for Taking<S> {
    /// What was asked runs to its end, whether or not anybody hears of it: it may change something.
    fn drop(&mut self) {
        let mut under_way = std::mem::take(&mut self.under_way);
        let hold = self.hold.clone();
        if !under_way.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                while under_way.next().await.is_some() {}
                drop(hold);
            });
        }
    }
}

/// The connection cannot be used any more.
struct Gone;

impl From<NoFrame> for Gone {
    fn from(_: NoFrame) -> Gone {
        Gone
    }
}
