//! Whether a node does its part: it is asked who it is, and has to find the owner of an id on the ring.

use chordal_protocol::{Id, Mode};
use rand::seq::IndexedRandom as _;

use crate::api::NodeInfo;
use crate::client::{Error, NodeClient};

/// Why a check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No answer over HTTP: it is dead, hung or paused.
    Silent(String),
    /// It answers, and cannot do its part; that may pass.
    Limping {
        /// Why.
        reason: String,
        /// Whether it has lost its ring and looks for it.
        is_isolated: bool,
    },
}

impl Trouble {
    /// In one line.
    pub(super) fn reason(&self) -> &str {
        match self {
            Trouble::Silent(reason) | Trouble::Limping { reason, .. } => reason,
        }
    }

    fn limping(reason: impl Into<String>) -> Trouble {
        Trouble::Limping { reason: reason.into(), is_isolated: false }
    }
}

/// Checks the node at `addr`, which must be of this ring if one is known.
///
/// It is asked for the owner of the id of another node that is live, so that the answer depends on no third one that may be
/// dead: a healthy node is not blamed for a hole in the ring.
pub(super) async fn check(
    client: &NodeClient,
    addr: &str,
    live: &[String],
    ring: Option<&str>,
    is_new: bool,
) -> Result<NodeInfo, Trouble> {
    let silent = |error: Error| Trouble::Silent(error.to_string());
    let node = client.node_info(addr).await.map_err(silent)?;
    match (&node.ring, ring) {
        (None, _) => return Err(Trouble::limping("it has not joined a ring yet")),
        (Some(its), Some(ours)) if its != ours => {
            return Err(Trouble::limping(format!("it is a member of another ring, {its} and not {ours}")));
        }
        _ => {}
    }
    if node.membership != "joined" {
        let is_isolated = node.membership == "isolated";
        return Err(Trouble::Limping { reason: format!("it is {}", node.membership), is_isolated });
    }
    if is_new && !node.ready {
        return Err(Trouble::limping("it is not ready yet"));
    }
    let others: Vec<&String> = live.iter().filter(|other| *other != addr).collect();
    let target = others.choose(&mut rand::rng()).map_or(addr, |other| other.as_str());
    client
        .find(addr, Id::of(target), Some(Mode::Fingers))
        .await
        .map_err(|error| Trouble::limping(format!("a lookup through it fails: {error}")))?;
    Ok(node)
}
