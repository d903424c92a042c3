//! `tasks store` and `tasks storemany`: content for the ring, through random nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use chordal::api::{NodeRef, Stored};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cli;
use crate::context::{Context, ask};
use crate::lipsum;
use crate::network_state::NodeEntry;
use crate::output::{self, Report};

/// How many values are on their way at the same time.
const IN_FLIGHT: usize = 32;

/// Stores one value.
pub(crate) async fn store(context: &Context, task: &cli::Store) -> Result<Report> {
    let nodes = context.askable(task.via.via.as_deref())?;
    let (stored, through) = ask(&nodes, |addr| async move {
        context.client.store(&addr, task.value.as_bytes(), task.key.as_ref().map(String::as_bytes)).await
    })
    .await?;
    let what = match &task.key {
        Some(key) => format!("{} under the key {}", output::quote(&task.value), output::quote(key)),
        None => output::quote(&task.value),
    };
    let text = format!(
        "{what} has the id {} and is kept by {} as version {} ({}, through {}).",
        stored.id.short(),
        owner(&stored.owner),
        stored.version,
        hops(stored.hops),
        through.name
    );
    Report::new(with_via(&stored, &through)?, text)
}

/// Stores many lines of filler text.
pub(crate) async fn storemany(context: &Context, task: &cli::StoreMany) -> Result<Report> {
    let nodes = context.state.awake()?;
    let values = lipsum::pick(task.lipsum.as_deref(), task.count as usize)?;
    let wanted = values.len();
    let begun = Instant::now();
    let work = Arc::new(Work {
        context: context.clone(),
        nodes,
        taken: AtomicUsize::new(0),
        hops: AtomicU32::new(0),
        bar: output::progress(wanted as u64, "storing"),
        values,
    });
    let (stored, first_failure) = finish(&work).await?;
    work.bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    let per_second = stored.len() as f64 / seconds.max(1e-9);
    let mean = f64::from(work.hops.load(Ordering::Relaxed)) / stored.len().max(1) as f64;
    let failed = wanted - stored.len();
    let text = format!(
        "{} values stored through {} in {seconds:.2} s: {per_second:.0} per second, {mean:.1} hops each.",
        stored.len(),
        output::nodes(work.nodes.len())
    );
    let json = json!({
        "asked": wanted,
        "stored": stored.len(),
        "failed": failed,
        "seconds": seconds,
        "per_second": per_second,
        "mean_hops": mean,
        "values": stored.iter().map(|index| &work.values[*index]).collect::<Vec<_>>(),
    });
    let failure = first_failure.map(|error| format!("{failed} of {wanted} values were not stored: {error:#}"));
    Ok(Report::new(json, text)?.failing(failure))
}

/// What the workers of `storemany` share.
struct Work {
    context: Context,
    nodes: Vec<NodeEntry>,
    /// How many values have been taken.
    taken: AtomicUsize,
    hops: AtomicU32,
    bar: ProgressBar,
    values: Vec<String>,
}

/// Stores all values; which ones were, and why the first that was not was not.
async fn finish(work: &Arc<Work>) -> Result<(Vec<usize>, Option<anyhow::Error>)> {
    let mut workers = JoinSet::new();
    for _ in 0..IN_FLIGHT.min(work.values.len()) {
        workers.spawn(work_through(Arc::clone(work)));
    }
    let mut stored = Vec::new();
    let mut first_failure = None;
    while let Some(outcome) = workers.join_next().await {
        let (mine, failure) = outcome.context("a task of tasks itself failed")?;
        stored.extend(mine);
        first_failure = first_failure.or(failure);
    }
    stored.sort_unstable();
    Ok((stored, first_failure))
}

/// One worker: takes values until none is left or one fails, which it does only when several nodes were asked in vain.
async fn work_through(work: Arc<Work>) -> (Vec<usize>, Option<anyhow::Error>) {
    let mut stored = Vec::new();
    loop {
        let index = work.taken.fetch_add(1, Ordering::Relaxed);
        let Some(value) = work.values.get(index) else { return (stored, None) };
        let client = &work.context.client;
        match ask(&work.nodes, |addr| async move { client.store(&addr, value.as_bytes(), None).await }).await {
            Ok((answer, _)) => {
                work.hops.fetch_add(answer.hops, Ordering::Relaxed);
                stored.push(index);
                work.bar.inc(1);
            }
            Err(error) => return (stored, Some(error)),
        }
    }
}

/// A node in a sentence: name, short id, address.
pub(crate) fn owner(node: &NodeRef) -> String {
    let name = if node.name.is_empty() { "a node without a name" } else { &node.name };
    format!("{name} ({}, {})", node.id.short(), node.addr())
}

/// A number of hops in a sentence.
pub(crate) fn hops(hops: u32) -> String {
    if hops == 1 { "1 hop".to_owned() } else { format!("{hops} hops") }
}

/// An answer with the name of the node that was asked.
pub(crate) fn with_via(answer: &impl serde::Serialize, through: &NodeEntry) -> Result<Value> {
    let mut json = serde_json::to_value(answer)?;
    json["via"] = json!(through.name);
    Ok(json)
}

/// `tasks delete`: what is stored under a key goes.
pub(crate) async fn delete(context: &Context, task: &cli::Delete) -> Result<Report> {
    let nodes = context.askable(task.via.via.as_deref())?;
    let key = task.what.key();
    let (deleted, through) =
        ask(&nodes, |addr| async move { context.client.delete(&addr, key.as_bytes()).await }).await?;
    let deleted: Stored =
        deleted.with_context(|| format!("nothing is stored under {}, so nothing was deleted", output::quote(key)))?;
    let text = format!(
        "{} is deleted at {} as of version {} ({}, through {}).",
        output::quote(key),
        owner(&deleted.owner),
        deleted.version,
        hops(deleted.hops),
        through.name
    );
    Report::new(with_via(&deleted, &through)?, text)
}
