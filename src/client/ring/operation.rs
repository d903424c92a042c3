//! One operation on a ring, from its first attempt to its end.

use std::time::{Duration, Instant};

use chordal_protocol::RequestId;

use super::OperationError;
use crate::api::Problem;
use crate::client::Error;
use crate::pauses::Pauses;

/// An attempt may take this part of the deadline, so that another node can be asked when one hangs.
const ATTEMPTS_WITHIN_DEADLINE: u32 = 3;

/// An operation that is under way.
pub(super) struct Operation {
    began: Instant,
    deadline: Duration,
    pub(super) attempts: u32,
    /// The name of a write.
    request: Option<RequestId>,
    /// Whether it may have been done already.
    unknown: bool,
    /// What stood in the way last.
    pub(super) reason: String,
}

impl Operation {
    pub(super) fn begin(deadline: Duration, request: Option<RequestId>) -> Operation {
        Operation { began: Instant::now(), deadline, attempts: 0, request, unknown: false, reason: String::new() }
    }

    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.began.elapsed())
    }

    /// How long the next attempt may take.
    pub(super) fn share(&self) -> Duration {
        self.left().min(self.deadline / ATTEMPTS_WITHIN_DEADLINE)
    }

    /// A node has answered that it won't or can't. An error if asking again makes no sense.
    pub(super) fn told(&mut self, addr: String, problem: Box<Problem>) -> Result<(), OperationError> {
        let status = problem.status;
        let may_pass = matches!(status, 429 | 500 | 502..=504);
        // What became of an earlier attempt may have been forgotten (409), or is not looked at (507).
        let is_certain = !self.unknown || !matches!(status, 409 | 507);
        if !may_pass && is_certain {
            return Err(OperationError::Refused { addr, problem });
        }
        self.unknown |= self.request.is_some() && matches!(status, 500 | 502 | 504);
        self.reason = format!("{addr}: {}", problem.detail);
        if may_pass { Ok(()) } else { Err(self.failure()) }
    }

    /// A node has not answered, or not like one.
    pub(super) fn missed(&mut self, error: &Error) {
        let arrived = !matches!(error, Error::Unreachable { connected: false, .. } | Error::Handshake { .. });
        self.unknown |= arrived && self.request.is_some();
        // What a node has said says more than that it, or another one, was late the next time.
        if !matches!(error, Error::Unreachable { connected: true, .. }) || self.reason.is_empty() {
            self.reason = error.to_string();
        }
    }

    /// Waits before the next attempt; an error if there is no time for one.
    pub(super) async fn pause(&mut self, pauses: &mut Pauses) -> Result<(), OperationError> {
        let pause = pauses.next();
        if self.left() <= pause {
            return Err(self.failure());
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn failure(&mut self) -> OperationError {
        let (waited, attempts, reason) = (self.began.elapsed(), self.attempts, std::mem::take(&mut self.reason));
        match self.request {
            Some(request) if self.unknown => OperationError::Unknown { request, waited, attempts, reason },
            _ => OperationError::Unavailable { waited, attempts, reason },
        }
    }
}
