//! Why a node did not do what a client asked.

use crate::api;
use crate::auth::NotSigned;

/// What came of a request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answered. If the request was a write, it may have happened all the same when the answer was lost on the
    /// way back; if no connection came about, nothing has happened.
    #[error("{addr} does not answer: {reason} (is the node running, and is the port right?)")]
    Unreachable {
        /// The node that was asked.
        addr: String,
        /// What happened to the request.
        reason: String,
        /// Whether there was a connection, so that the request may have arrived.
        connected: bool,
    },
    /// The node answered that it won't or can't. What state remains is told by the problem; 4xx means that nothing changed.
    #[error("{addr}: {}", told(.problem))]
    Problem {
        /// The node that was asked.
        addr: String,
        /// What it said.
        problem: Box<api::Problem>,
    },
    /// The two ends of the connection do not take each other: one speaks TLS and the other does not, or a certificate is refused.
    /// Nothing has happened, and asking again brings the same until options or certificates have changed.
    #[error("{addr}: {reason}")]
    Handshake {
        /// The node that was asked.
        addr: String,
        /// Who does not take whom, and what to do.
        reason: String,
    },
    /// Somebody answered who has not proved that it has the secret of the ring: a node of an open ring, or not a node. It may
    /// have done what it was asked.
    #[error("{addr}: {}", NotSigned::REASON)]
    Unsigned {
        /// The node that was asked.
        addr: String,
    },
    /// Somebody answered, but not in the words of a Chordal node. Nothing is known about what it did.
    #[error("{addr} does not answer like a chordal node of this version: {reason} (is that port another program's?)")]
    Garbled {
        /// The address that was asked.
        addr: String,
        /// What was odd about the answer.
        reason: String,
    },
    /// A bootstrap service was asked, or something that was taken for one, and named no member of a ring.
    #[error("{service} names nobody: {reason}")]
    NobodyNamed {
        /// Its URL.
        service: String,
        /// What came instead of members.
        reason: String,
    },
}

impl Error {
    /// The HTTP status with which the node refused, if it did.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Problem { problem, .. } => Some(problem.status),
            Error::Unreachable { .. }
            | Error::Handshake { .. }
            | Error::Unsigned { .. }
            | Error::Garbled { .. }
            | Error::NobodyNamed { .. } => None,
        }
    }

    /// Whether whoever was asked does not take who asks: another secret or certificate, or none, and not one that passes.
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Handshake { .. } | Error::Unsigned { .. } => true,
            Error::Problem { problem, .. } => matches!(problem.status, 401 | 403),
            Error::Unreachable { .. } | Error::Garbled { .. } | Error::NobodyNamed { .. } => false,
        }
    }

    /// What happened, without the address and without advice: for a sentence that has both.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Error::Unreachable { reason, .. }
            | Error::Handshake { reason, .. }
            | Error::Garbled { reason, .. }
            | Error::NobodyNamed { reason, .. } => reason,
            Error::Unsigned { .. } => NotSigned::REASON,
            Error::Problem { problem, .. } => told(problem),
        }
    }

    /// Whether another node may well do what this one did not: it is silent, busy, or not part of the ring right now.
    pub fn is_worth_asking_another(&self) -> bool {
        match self {
            Error::Unreachable { .. }
            | Error::Handshake { .. }
            | Error::Unsigned { .. }
            | Error::Garbled { .. }
            | Error::NobodyNamed { .. } => true,
            Error::Problem { problem, .. } => matches!(problem.status, 421 | 429 | 502..=504),
        }
    }
}

fn told(problem: &api::Problem) -> &str {
    if problem.detail.is_empty() { &problem.title } else { &problem.detail }
}
