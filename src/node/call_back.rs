//! Calling back a node that looks for its address: at the address that it was seen at and at no other, to see whether it is that
//! node which answers there.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::Node;
use crate::api::{CallBack, Challenge, Seen, join_host_port};
use crate::client::NodeClient;
use crate::http::Rates;

/// How many nodes are called back at once.
const AT_ONCE: usize = 4;

/// How often a second this is done for one address.
const A_SECOND: NonZeroU32 = NonZeroU32::new(4).expect("it is more than nothing");

/// How long it may take to answer.
const CALL: Duration = Duration::from_secs(3);

/// What bounds the calls of a node, so that nobody can use it to call others in his place.
pub(super) struct CallBacks {
    places: Semaphore,
    rates: Rates,
}

impl Default for CallBacks {
    fn default() -> CallBacks {
        CallBacks { places: Semaphore::new(AT_ONCE), rates: Rates::new(A_SECOND) }
    }
}

/// Why a node was not called back, or not found where it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotCalledBack {
    /// The address is not of those that this node calls.
    #[error("{0}")]
    Forbidden(String),
    /// Too much of that is under way.
    #[error("this node calls back 4 nodes at once, and each address 4 times a second; ask again in a moment")]
    Busy,
    /// The port or the digest make no sense.
    #[error("to be called back takes a port from 1 to 65535 and a challenge of 64 hex digits")]
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
                Ok(Seen { ip, called_back: Some(reason.is_none()), reason })
            }
        }
    }

    async fn call_back(&self, ip: IpAddr, wanted: &CallBack) -> Result<(), NotCalledBack> {
        let digest = hex::decode(&wanted.challenge).ok().filter(|digest| digest.len() == 32 && wanted.port != 0);
        let digest = digest.ok_or(NotCalledBack::Malformed)?;
        if !self.inner.nets.allow(ip) {
            return Err(NotCalledBack::Forbidden(self.inner.nets.refusal(ip)));
        }
        let CallBacks { places, rates } = &self.inner.call_backs;
        let _place = places.try_acquire().map_err(|_| NotCalledBack::Busy)?;
        rates.take(ip).map_err(|_| NotCalledBack::Busy)?;
        let addr = join_host_port(&ip.to_string(), wanted.port);
        // Connections of its own: none is kept to an address that may be nobody's.
        let client = NodeClient::with_timeout(CALL).with_security(self.security());
        let answer = client.challenge(&addr, &Challenge { challenge: wanted.challenge.clone() }).await;
        let silent = |reason: &str| NotCalledBack::Silent { addr: addr.clone(), reason: reason.to_owned() };
        let response = answer.map_err(|error| silent(error.reason()))?;
        let known = hex::decode(&response.response).unwrap_or_default();
        if Sha256::digest(&known).as_slice() == digest { Ok(()) } else { Err(NotCalledBack::Another { addr }) }
    }
}
