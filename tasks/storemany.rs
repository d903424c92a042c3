//! `tasks storemany`: much content for the ring, many values a request, through random nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use chordal::api::BulkRecord;
use chordal::words::counted;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::task::JoinSet;

use crate::batch;
use crate::cli;
use crate::context::Context;
use crate::lipsum;
use crate::network_state::NodeEntry;
use crate::output::{self, Report};

/// How many values a request has.
const VALUES: usize = 50;

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
        "{} stored through {} in {seconds:.2} s: {per_second:.0} per second, {mean:.1} hops each.",
        counted(stored.len(), "value"),
        counted(work.nodes.len(), "node")
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
    let failure =
        first_failure.map(|error| format!("{failed} of {} were not stored: {error:#}", counted(wanted, "value")));
    Ok(Report::new(json, text)?.failing(failure))
}

/// What the workers share.
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
    for _ in 0..batch::AT_ONCE {
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

/// One worker: takes values until none is left or some could not be stored, although several nodes were asked.
async fn work_through(work: Arc<Work>) -> (Vec<usize>, Option<anyhow::Error>) {
    let mut stored = Vec::new();
    loop {
        let first = work.taken.fetch_add(VALUES, Ordering::Relaxed);
        let values = work.values.get(first..).unwrap_or_default();
        let values = &values[..VALUES.min(values.len())];
        if values.is_empty() {
            return (stored, None);
        }
        let records = values.iter().map(|value| BulkRecord::default().with_value(value.as_bytes())).collect();
        let answers = match batch::send(&work.context.client, &work.nodes, records).await {
            Ok(answers) => answers,
            Err(error) => return (stored, Some(error)),
        };
        let before = stored.len();
        for (place, answer) in answers.iter().enumerate().filter(|(_, answer)| answer.is_done()) {
            stored.push(first + place);
            work.hops.fetch_add(answer.hops.unwrap_or_default(), Ordering::Relaxed);
        }
        work.bar.inc((stored.len() - before) as u64);
        if let Some(failed) = answers.iter().find(|answer| !answer.is_done()) {
            return (stored, Some(anyhow!(batch::told(failed))));
        }
    }
}
