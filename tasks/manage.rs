//! `tasks manage`: the bootstrap service, with its pool in the state file.

use anyhow::{Context as _, Result, anyhow};
use chordal::cli::bootstrap::{BootstrapArgs, serve};
use chordal::words::counted;
use serde_json::json;

use crate::context::Context;
use crate::output::{self, Report};

/// Keeps the pool until it is told to stop.
pub(crate) async fn manage(context: &Context, task: &BootstrapArgs) -> Result<Report> {
    let (args, state, json) = (task.clone(), context.state.clone(), context.json);
    // It has a runtime of its own, with more than the one thread that a task needs.
    let service = tokio::task::spawn_blocking(move || {
        serve(args, Some(state), |line| if json { output::warn(line) } else { output::say(line) })
    });
    let stopped = service.await.context("the bootstrap service failed")?.map_err(|reason| anyhow!(reason))?;
    let kept = match stopped.kept.as_slice() {
        [] => String::new(),
        kept => format!(" {} kept what nobody could take, and goes on with the next start.", kept.join(", ")),
    };
    let text = format!("{} left the ring.{kept}", counted(stopped.left.len(), "node"));
    Report::new(json!({ "left": stopped.left, "kept": stopped.kept }), text)
}
