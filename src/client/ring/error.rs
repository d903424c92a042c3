//! How an operation on a ring can end without having been done.

use std::time::Duration;

use chordal_protocol::RequestId;

use crate::api::Problem;
use crate::words::counted;

/// Why an operation on a ring did not succeed. Each variant says what is known of the ring after it.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The ring refused it, and will again: the value is larger than it takes, say, or the disk of the owner is full.
    /// Nothing has changed. [`Problem::status`] and [`Problem::kind`] tell the refusals apart for programs.
    #[error("{addr} refuses: {}", told(.problem))]
    Refused {
        /// The node that said so, `host:port`.
        addr: String,
        /// What it said.
        problem: Box<Problem>,
    },
    /// Nobody could do it before the deadline: no node answered, or too few of those who keep the key. Nothing has changed.
    /// Asking again later makes sense.
    #[error(
        "not done after {} in {:.1} s, and nothing has changed: {reason}",
        counted(.attempts, "attempt"),
        .waited.as_secs_f32()
    )]
    Unavailable {
        /// How long it was tried.
        waited: Duration,
        /// How many requests were sent.
        attempts: u32,
        /// What stood in the way last.
        reason: String,
    },
    /// The write was sent, and no answer said what became of it: it may have happened, and may still happen. Look what is
    /// stored, or write something that may happen twice.
    #[error(
        "no outcome after {} in {:.1} s: the write may or may not have happened; look what is stored. The last reason: {reason}",
        counted(.attempts, "attempt"),
        .waited.as_secs_f32()
    )]
    Unknown {
        /// The name under which it was sent, each time the same.
        request: RequestId,
        /// How long it was tried.
        waited: Duration,
        /// How many requests were sent.
        attempts: u32,
        /// What stood in the way last.
        reason: String,
    },
}

impl OperationError {
    /// The HTTP status of a refusal: 413 for what is too large, 507 for a full disk.
    pub fn status(&self) -> Option<u16> {
        match self {
            OperationError::Refused { problem, .. } => Some(problem.status),
            OperationError::Unavailable { .. } | OperationError::Unknown { .. } => None,
        }
    }
}

fn told(problem: &Problem) -> &str {
    if problem.detail.is_empty() { &problem.title } else { &problem.detail }
}
