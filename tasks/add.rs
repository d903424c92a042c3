//! `tasks add`, `tasks addmany` and `tasks join`: new nodes.

use std::time::Instant;

use anyhow::{Context as _, Result};
use chordal::words::counted;
use serde_json::json;
use tokio::task::JoinSet;

use crate::cli;
use crate::context::Context;
use crate::fleet::{self, Contacts, NotReady, Plan};
use crate::network_state::NodeEntry;
use crate::output::{self, Report};

/// How many nodes are brought up at the same time.
const AT_ONCE: usize = 8;

/// One node more.
pub(crate) async fn add(context: &Context, task: &cli::Add) -> Result<Report> {
    context.state.awake()?;
    one(context, &Plan::of_newcomer(context, &task.newcomer, Contacts::Running)).await
}

/// A node here that joins a ring elsewhere.
pub(crate) async fn join(context: &Context, task: &cli::Join) -> Result<Report> {
    // Asked beforehand, because a wrong address is easier told about here than from a node's log.
    let through = context.client.node_info(&task.contact).await?;
    let plan = Plan::of_newcomer(context, &task.newcomer, Contacts::At(task.contact.clone()));
    let mut report = one(context, &plan).await?;
    report.text = format!("{}\n\nIt joined the ring of {} ({}).", report.text, through.name, task.contact);
    Ok(report)
}

/// Many nodes more.
pub(crate) async fn addmany(context: &Context, task: &cli::AddMany) -> Result<Report> {
    context.state.awake()?;
    let begun = Instant::now();
    let plan = Plan::new(context, &task.options, Contacts::Running);
    let (mut nodes, failed) = bring_up_many(context, &plan, task.count).await?;
    nodes.sort_by_key(|node| node.name.trim_start_matches("node-").parse::<u32>().unwrap_or(u32::MAX));
    let seconds = begun.elapsed().as_secs_f64();
    let summary = format!("{} joined in {seconds:.1} s.", counted(nodes.len(), "node"));
    let text = if nodes.is_empty() { summary } else { format!("{}\n\n{summary}", output::node_table(&nodes)) };
    let failure = failed.map(|failed| {
        let reason = fleet::explain(context, failed);
        format!(
            "{} of {} were added, the others were not: {reason:#}",
            nodes.len(),
            counted(task.count as usize, "node")
        )
    });
    Ok(Report::new(json!({ "nodes": nodes, "seconds": seconds }), text)?.failing(failure))
}

async fn one(context: &Context, plan: &Plan) -> Result<Report> {
    let node = fleet::bring_up(context, plan).await.map_err(|failed| fleet::explain(context, failed))?;
    let text = output::node_table(std::slice::from_ref(&node));
    Report::new(json!({ "nodes": [node] }), text)
}

/// Brings nodes up, several at once. After a failure, or when interrupted, no further ones are begun; those that were
/// under way get ready or clean up after themselves.
async fn bring_up_many(context: &Context, plan: &Plan, count: u32) -> Result<(Vec<NodeEntry>, Option<NotReady>)> {
    let bar = output::progress(count.into(), "joining");
    let mut begun = 0;
    let mut nodes = Vec::new();
    let mut failed: Option<NotReady> = None;
    let mut under_way = JoinSet::new();
    loop {
        while begun < count && under_way.len() < AT_ONCE && failed.is_none() && !context.interrupt.is_cancelled() {
            let (context, plan) = (context.clone(), plan.clone());
            under_way.spawn(async move { fleet::bring_up(&context, &plan).await });
            begun += 1;
        }
        let Some(outcome) = under_way.join_next().await else { break };
        match outcome.context("a task of tasks itself failed")? {
            Ok(node) => {
                nodes.push(node);
                bar.inc(1);
            }
            Err(reason) => failed = failed.or(Some(reason)),
        }
    }
    bar.finish_and_clear();
    if failed.is_none() && nodes.len() < count as usize {
        failed = Some(anyhow::anyhow!("interrupted").into());
    }
    Ok((nodes, failed))
}
