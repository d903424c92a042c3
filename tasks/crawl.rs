//! Walking a ring: from nodes that are known to all that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use chordal::api::{NodeInfo, NodeRef};
use chordal::client::NodeClient;
use chordal_protocol::Id;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::names::Names;

/// How many nodes are asked at the same time.
const AT_ONCE: usize = 32;

/// How many addresses are asked in all: nobody can lead a crawl on for ever.
const MOST: usize = 4096;

/// How long a node may take to tell about itself.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

/// How long one may take that gave no answer when it was asked before.
const ANSWER_AT_LAST: Duration = Duration::from_millis(500);

/// What a crawl found.
#[derive(Debug)]
pub(crate) struct Crawl {
    /// Those who answered, by id: in ring order, from zero upwards.
    pub(crate) nodes: BTreeMap<Id, NodeInfo>,
    /// Those who did not, by address.
    pub(crate) silent: Vec<Silent>,
}

impl Crawl {
    /// An error that says what to do if nobody has answered.
    pub(crate) fn check_answers(&self) -> Result<()> {
        let why = self.silent.first().map_or(String::new(), |silent| format!(" ({})", silent.reason));
        ensure!(
            !self.nodes.is_empty(),
            "no node of the ring answers{why}; `tasks list` shows what runs, `tasks start --all` starts it"
        );
        Ok(())
    }

    /// What the nodes are called that were found.
    pub(crate) fn names(&self) -> Names {
        Names::of(self.nodes.values())
    }
}

/// An address that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Silent {
    /// The address.
    pub(crate) addr: String,
    /// Why there was none.
    pub(crate) reason: String,
    /// What the nodes are called that point there.
    pub(crate) named_by: BTreeSet<String>,
}

/// Asks these addresses, and all that their nodes name as predecessor, successor or later successors. Who was silent in an
/// earlier crawl is not waited for as long again.
pub(crate) async fn crawl(
    client: &NodeClient,
    known: impl IntoIterator<Item = String>,
    silent_before: &BTreeSet<String>,
) -> Crawl {
    let mut nodes = BTreeMap::new();
    let mut failures: Vec<(String, String)> = Vec::new();
    let mut named_by: BTreeMap<String, Vec<NodeRef>> = BTreeMap::new();
    let mut waiting: Vec<String> = known.into_iter().collect();
    let mut seen: BTreeSet<String> = waiting.iter().cloned().collect();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < AT_ONCE
            && let Some(addr) = waiting.pop()
        {
            let client = client.clone();
            let patience = if silent_before.contains(&addr) { ANSWER_AT_LAST } else { ANSWER };
            asking.spawn(async move { (tokio::time::timeout(patience, client.node_info(&addr)).await, addr) });
        }
        let Some(answered) = asking.join_next().await else { break };
        let Ok((answer, addr)) = answered else { continue };
        match answer {
            Ok(Ok(info)) => {
                for neighbour in neighbours(&info) {
                    let there = neighbour.addr();
                    named_by.entry(there.clone()).or_default().push(info.itself());
                    if seen.len() < MOST && seen.insert(there.clone()) {
                        waiting.push(there);
                    }
                }
                nodes.insert(info.id, info);
            }
            Ok(Err(error)) => failures.push((addr, error.to_string())),
            Err(_) => failures.push((addr, "still no answer".to_owned())),
        }
    }
    let names = Names::of(nodes.values());
    let silent = failures.into_iter().map(|(addr, reason)| {
        let named_by = named_by.remove(&addr).unwrap_or_default();
        Silent { addr, reason, named_by: named_by.iter().map(|node| names.call(node)).collect() }
    });
    Crawl { nodes, silent: silent.collect() }
}

/// The nodes that a node points to.
fn neighbours(info: &NodeInfo) -> impl Iterator<Item = &NodeRef> {
    info.pred.iter().chain(&info.succ).chain(&info.successors)
}
