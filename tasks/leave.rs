//! `tasks leave`: a node hands over what it holds and ends.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cli;
use crate::context::Context;
use crate::output::Report;
use crate::process;

/// How long the process of a node that has left may take to end.
const ENDING: Duration = Duration::from_secs(15);

/// Asks the node to leave, waits until its process is gone, and removes its entry, log and data.
pub(crate) async fn leave(context: &Context, task: &cli::Named) -> Result<Report> {
    let name = &task.name;
    let node = context.running_node(name)?;
    ensure!(
        process::is_awake(node.pid, &node.started),
        "{name} is paused and cannot answer; wake it with `kill -CONT {}`, or `tasks kill {name}`",
        node.pid
    );
    context.client.leave(&node.addr()).await.with_context(|| format!("{name} did not leave"))?;
    ensure!(
        process::wait_gone(node.pid, &node.started, ENDING).await,
        "{name} has left the ring, but its process {} did not end within {} s; end it with `tasks kill {name}`",
        node.pid,
        ENDING.as_secs()
    );
    context.state.update(|state| {
        state.nodes.retain(|entry| entry.name != *name || entry.pid != node.pid);
        anyhow::Ok(())
    })?;
    context.state.places().clear(&node);
    let text = format!("{name} ({}) has handed over what it held and is gone.", node.short_id());
    Report::new(json!({ "left": name, "id": node.id }), text)
}
