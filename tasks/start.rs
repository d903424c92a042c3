//! `tasks start`: what does not run, on its old port and data, however it ended.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use chordal::node::member_in;
use chordal::words::counted;
use serde_json::json;
use tokio::task::JoinSet;

use crate::cli;
use crate::context::Context;
use crate::fleet::{self, NotReady, Spawned};
use crate::network_state::{NetworkState, NodeEntry, Status};
use crate::output::{self, Report};
use crate::places::Places;
use crate::state_file::StateError;

/// What each of many nodes that start at once adds to the patience with all of them.
const PATIENCE_PER_NODE: Duration = Duration::from_millis(500);

/// Starts one node, or all that do not run.
pub(crate) async fn start(context: &Context, task: &cli::Start) -> Result<Report> {
    let begun = Instant::now();
    let state = context.state.ring()?;
    let stopped: Vec<NodeEntry> = match &task.name {
        Some(name) => vec![context.node(name)?],
        None => state.nodes.iter().filter(|node| node.status == Status::Stopped).cloned().collect(),
    };
    if let (Some(name), true) = (&task.name, stopped.iter().any(NodeEntry::is_alive)) {
        return Err(anyhow!("{name} runs already; `tasks list` shows it"));
    }
    if stopped.is_empty() {
        return Report::new(json!({ "nodes": [], "seconds": 0.0 }), "All nodes run already.");
    }
    let wanted = stopped.len();
    let (nodes, failed) = bring_back(context, stopped).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let text = format!("{}\n\nReady after {seconds:.1} s.", output::node_table(&nodes));
    let text = if nodes.is_empty() { String::new() } else { text };
    let failure = failed.map(|failed| {
        let reason = fleet::explain(context, failed);
        format!("{} of {} were started, the others were not: {reason:#}", nodes.len(), counted(wanted, "node"))
    });
    Ok(Report::new(json!({ "nodes": nodes, "seconds": seconds }), text)?.failing(failure))
}

/// Nodes that ended as members remember their ring. They start all at once, for none of them is ready before it finds
/// another. Those that had left, or kept everything in memory, join the ones that run then; if there are
/// none, the first begins a ring.
async fn bring_back(context: &Context, stopped: Vec<NodeEntry>) -> Result<(Vec<NodeEntry>, Option<NotReady>)> {
    let bar = output::progress(stopped.len() as u64, "starting");
    let names: Vec<String> = stopped.iter().map(|node| node.name.clone()).collect();
    // Under the lock, for a store that is being looked at cannot be opened by a node that another task starts.
    let (durable, mut forgetful): (Vec<_>, Vec<_>) =
        context.state.update(|_| Ok::<_, StateError>(stopped.into_iter().partition(remembers)))?;
    let mut waves = vec![durable];
    if waves[0].is_empty() && context.state.ring()?.awake().is_empty() {
        waves.push(forgetful.drain(..1).collect());
    }
    waves.push(forgetful);
    let mut ready = Vec::new();
    let mut failed = None;
    for wave in waves {
        let (up, failure) = start_at_once(context, &wave, &bar).await?;
        ready.extend(up);
        failed = failed.or(failure);
    }
    bar.finish_and_clear();
    let place = |node: &NodeEntry| names.iter().position(|name| *name == node.name);
    ready.sort_by_key(place);
    Ok((ready, failed))
}

async fn start_at_once(
    context: &Context,
    wave: &[NodeEntry],
    bar: &indicatif::ProgressBar,
) -> Result<(Vec<NodeEntry>, Option<NotReady>)> {
    let patience = fleet::PATIENCE + PATIENCE_PER_NODE * wave.len() as u32;
    let mut failed = None;
    let mut under_way = JoinSet::new();
    for node in wave {
        match fleet::enlist(context, |state, places| again(state, places, node)) {
            Ok(spawned) => {
                let context = context.clone();
                under_way.spawn(async move { fleet::see_through(&context, spawned, patience).await });
            }
            Err(error) => failed = failed.or(Some(NotReady::from(error))),
        }
    }
    let mut ready = Vec::new();
    while let Some(outcome) = under_way.join_next().await {
        match outcome.context("a task of tasks itself failed")? {
            Ok(Some(node)) => ready.push(node),
            Ok(None) => failed = failed.or(Some(anyhow!("a node came up on the port of another").into())),
            Err(reason) => failed = failed.or(Some(reason)),
        }
        bar.inc(1);
    }
    Ok((ready, failed))
}

fn again(state: &mut NetworkState, places: &Places, node: &NodeEntry) -> Result<Spawned> {
    // Also for those that remember their ring: all whom they knew may have gone since.
    let contacts = fleet::running_contacts(state).unwrap_or_default();
    if node.port == 0 && !remembers(node) && state.entry(&node.name).is_some_and(|entry| !entry.is_alive()) {
        // It ended before it was ready and nobody was there to clean up: what it began to write is of no use.
        places.clear_data(node);
    }
    fleet::spawn_again(state, &node.name, &contacts)
}

/// Whether the node finds its ring by what it has on disk. Where that cannot be told, the node itself will say why.
fn remembers(node: &NodeEntry) -> bool {
    node.data_dir.as_ref().is_some_and(|directory| member_in(directory).map_or(true, |member| member.is_some()))
}
