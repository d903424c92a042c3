//! What every task works with, and how it asks the ring.

use std::future::Future;

use anyhow::{Context as _, Result, anyhow, bail};
use chordal::client::{Error, NodeClient};
use rand::seq::SliceRandom as _;
use tokio_util::sync::CancellationToken;

use crate::closed_by::ClosedBy;
use crate::network_state::{NodeEntry, Status};
use crate::state_file::StateFile;

/// How many nodes are asked the same before the answer is that it cannot be done.
const ASKED_AT_MOST: usize = 4;

/// What every task works with. Clones share the client's connections.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Where the ring is remembered.
    pub(crate) state: StateFile,
    /// Asks nodes.
    pub(crate) client: NodeClient,
    /// What nodes of the ring are started with, if it is closed to strangers.
    pub(crate) closed_by: ClosedBy,
    /// Whether a program reads the output.
    pub(crate) json: bool,
    /// Is cancelled by Ctrl-C and SIGTERM.
    pub(crate) interrupt: CancellationToken,
}

impl Context {
    /// The node of this name; an error that says what there is.
    pub(crate) fn node(&self, name: &str) -> Result<NodeEntry> {
        let state = self.state.ring()?;
        state.entry(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = state.nodes.iter().take(8).map(|node| node.name.as_str()).collect();
            let more = if state.nodes.len() > names.len() { ", …" } else { "" };
            anyhow!("there is no node called {name}; `tasks list` shows them: {}{more}", names.join(", "))
        })
    }

    /// The node of this name, which must run.
    pub(crate) fn running_node(&self, name: &str) -> Result<NodeEntry> {
        let node = self.node(name)?;
        match node.status {
            Status::Running => Ok(node),
            Status::Starting => bail!("{name} is still being started; try again when it is ready"),
            Status::Stopped => bail!("{name} does not run; start it with `tasks start {name}`"),
        }
    }

    /// Those who can be asked: one node, or all that run and are not paused.
    pub(crate) fn askable(&self, via: Option<&str>) -> Result<Vec<NodeEntry>> {
        match via {
            Some(name) => Ok(vec![self.running_node(name)?]),
            None => Ok(self.state.awake()?),
        }
    }
}

/// Asks these nodes in random order until one gives an answer, and says who did. One that is silent or busy is passed
/// over for another; any other refusal is final.
pub(crate) async fn ask<T, F, Asking>(nodes: &[NodeEntry], question: F) -> Result<(T, NodeEntry)>
where
    F: Fn(String) -> Asking,
    Asking: Future<Output = Result<T, Error>>,
{
    let mut order: Vec<&NodeEntry> = nodes.iter().collect();
    order.shuffle(&mut rand::rng());
    let mut last = None;
    for node in order.iter().take(ASKED_AT_MOST) {
        match question(node.addr()).await {
            Ok(answer) => return Ok((answer, (*node).clone())),
            Err(error) if error.is_worth_asking_another() => last = Some((error, &node.name)),
            Err(error) => return Err(error).with_context(|| node.name.clone()),
        }
    }
    match last {
        Some((error, name)) if order.len() == 1 => Err(error).with_context(|| name.clone()),
        Some((error, name)) => {
            let asked = order.len().min(ASKED_AT_MOST);
            Err(anyhow!(
                "{asked} nodes were asked and none could do it, {name} the last ({error}); `tasks doctor` tells more"
            ))
        }
        None => bail!("there is nobody to ask; start a ring with `tasks boot`"),
    }
}
