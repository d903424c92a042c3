//! Calling back a node that asks for it, at the address that it tells others or, if it has none yet, at the one that it was seen at,
//! to see whether it is that node which answers there.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::Node;
use crate::api::{CallBack, Challenge, Response, Seen, join_host_port};
use crate::client::{NodeClient, check_member};
use crate::http::Rates;

/// How many nodes are called back at once.
const AT_ONCE: usize = 4;

/// For how long others wait for their turn.
const TURN: Duration = Duration::from_secs(2);

/// How often a second this is done for one address, unless that is loopback.
const A_SECOND: NonZeroU32 = NonZeroU32::new(16).expect("it is more than nothing");

/// How long it may take to answer.
const CALL: Duration = Duration::from_secs(3);

/// How long the log says no more of an address that did not answer, and of how many it knows that.
const NEWS: (Duration, usize) = (Duration::from_secs(600), 64);

/// What bounds the calls of a node, so that nobody can use it to call others in his place.
pub(super) struct CallBacks {
    places: Semaphore,
    rates: Rates,
    /// When the log last told of an address that did not answer.
    told: Mutex<HashMap<String, Instant>>,
}

impl Default for CallBacks {
    fn default() -> CallBacks {
        CallBacks { places: Semaphore::new(AT_ONCE), rates: Rates::new(A_SECOND), told: Mutex::default() }
    }
}

impl CallBacks {
    /// Whether the log has not told of this address lately.
    fn is_news(&self, addr: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| at.elapsed() < NEWS.0);
        told.len() < NEWS.1 && told.insert(addr.to_owned(), Instant::now()).is_none()
    }
}

/// What a node knows that asks to be called back, and nobody else: by it is recognised where it answers.
pub(crate) struct Proof([u8; 32]);

impl Proof {
    pub(super) fn new() -> Proof {
        Proof(rand::random())
    }

    /// What others are told: the digest.
    pub(crate) fn challenge(&self) -> String {
        hex::encode(Sha256::digest(self.0))
    }

    /// What only this node answers. `None` if the challenge is that of another.
    pub(crate) fn response(&self, asked: &Challenge) -> Option<Response> {
        (asked.challenge == self.challenge()).then(|| Response { response: hex::encode(self.0) })
    }
}

/// Why a node was not called back, or not found where it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotCalledBack {
    /// The address is not of those that this node calls.
    #[error("{0}")]
    Forbidden(String),
    /// Too much of that is under way.
    #[error("this node calls back 4 nodes at once, and each address 16 times a second; ask again in a moment")]
    Busy,
    /// The address or the digest make no sense.
    #[error("to be called back takes a port from 1 to 65535, or host:port, and a challenge of 64 hex digits")]
    Malformed,
    /// There was no answer that can be used.
    #[error("nobody answers at {addr} as the node that asks: {reason}")]
    Silent {
        /// Where it was called.
        addr: String,
        /// What happened.
        reason: String,
    },
    /// It does not know what only the node knows that asks.
    #[error("another node answers at {addr} than the one that asks")]
    Another {
        /// Where it was called.
        addr: String,
    },
}

impl Node {
    /// POST /seen: what a node that comes from `ip` hears of its address.
    pub(crate) async fn seen_from(&self, ip: IpAddr, wanted: Option<&CallBack>) -> Result<Seen, NotCalledBack> {
        let ip = ip.to_canonical();
        let Some(wanted) = wanted else { return Ok(Seen { ip, called_back: None, reason: None }) };
        match self.call_back(ip, wanted).await {
            Err(refusal @ (NotCalledBack::Busy | NotCalledBack::Malformed)) => Err(refusal),
            outcome => {
                let reason = outcome.err().map(|error| error.to_string());
                if let (Some(addr), Some(reason)) = (&wanted.addr, &reason)
                    && self.inner.call_backs.is_news(addr)
                {
                    tracing::warn!(%addr, %reason, "a node cannot be called at the address that it tells others; it has been told");
                }
                Ok(Seen { ip, called_back: Some(reason.is_none()), reason })
            }
        }
    }

    async fn call_back(&self, from: IpAddr, wanted: &CallBack) -> Result<(), NotCalledBack> {
        let addr = wanted.addr.clone().unwrap_or_else(|| join_host_port(&from.to_string(), wanted.port));
        let digest = hex::decode(&wanted.challenge).ok().filter(|digest| digest.len() == 32);
        let digest = digest.filter(|_| check_member(&addr).is_ok()).ok_or(NotCalledBack::Malformed)?;
        if let Some(refusal) = self.inner.nets.refused(&addr).await {
            return Err(NotCalledBack::Forbidden(refusal));
        }
        let CallBacks { places, rates, .. } = &self.inner.call_backs;
        // A program of this machine can call that by itself.
        if self.security().limits.hold_for(from)
            && let Err(wait) = rates.take(from)
        {
            // Many nodes may be behind one address, and what is refused here they would take for an answer.
            if wait > TURN {
                return Err(NotCalledBack::Busy);
            }
            tokio::time::sleep(wait).await;
            rates.take(from).map_err(|_| NotCalledBack::Busy)?;
        }
        let turn = tokio::time::timeout(TURN, places.acquire()).await;
        let _place = turn.ok().and_then(Result::ok).ok_or(NotCalledBack::Busy)?;
        // Connections of its own: none is kept to an address that may be nobody's.
        let client = NodeClient::with_timeout(CALL).with_security(self.security());
        let client = client.on_the_way(self.inner.nets.clone(), None);
        let answer = client.challenge(&addr, &Challenge { challenge: wanted.challenge.clone() }).await;
        let response = answer.map_err(|error| match error.status() {
            Some(409) => NotCalledBack::Another { addr: addr.clone() },
            _ => NotCalledBack::Silent { addr: addr.clone(), reason: error.reason().to_owned() },
        })?;
        let known = hex::decode(&response.response).unwrap_or_default();
        if Sha256::digest(&known).as_slice() == digest { Ok(()) } else { Err(NotCalledBack::Another { addr }) }
    }

    /// POST /challenge: proves that this is the node that has made it, and waits to be called back.
    pub(crate) fn proves(&self, asked: &Challenge) -> Option<Response> {
        let proof = self.inner.proof.lock().unwrap_or_else(PoisonError::into_inner);
        proof.as_ref().and_then(|proof| proof.response(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_of_an_address_once_and_of_no_more_than_it_can_remember() {
        let calls = CallBacks::default();
        assert!(calls.is_news("a:1") && calls.is_news("b:1") && !calls.is_news("a:1"));
        let told = (0..2 * NEWS.1).filter(|number| calls.is_news(&format!("c:{number}"))).count();
        assert_eq!(told, NEWS.1 - 2);
    }

    #[test]
    fn a_proof_answers_its_own_challenge_and_no_other() {
        let (proof, other) = (Proof::new(), Proof::new());
        let challenge = Challenge { challenge: proof.challenge() };
        let response = proof.response(&challenge).expect("it is its own");
        let known = hex::decode(response.response).expect("hex digits");
        assert_eq!(hex::encode(Sha256::digest(known)), challenge.challenge);
        assert_eq!(other.response(&challenge), None);
    }
}
