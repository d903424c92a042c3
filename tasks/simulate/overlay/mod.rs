//! `tasks simulate overlay`: very large networks, Chord and Kademlia, and what can be measured in them.

mod availability;
mod bench;
mod compare;
mod files;
mod machine;
mod network;
mod plot;
mod run;
mod sweep;

use std::thread;

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::oneshot;

use crate::cli::{Overlay, OverlayTask, Which};
use crate::context::Context;
use crate::output::Report;

/// Runs the simulator.
pub(crate) async fn overlay(_context: &Context, task: &Overlay) -> Result<Report> {
    match &*task.task {
        OverlayTask::Kademlia(task) => off_thread(task, |task| run::run(Which::Kademlia, task)).await,
        OverlayTask::Chord(task) => off_thread(task, |task| run::run(Which::Chord, task)).await,
        OverlayTask::Compare(task) => off_thread(task, compare::compare).await,
        OverlayTask::Sweep(task) => off_thread(task, sweep::sweep).await,
        OverlayTask::Bench(task) => off_thread(task, bench::bench).await,
        OverlayTask::Availability(task) => off_thread(task, availability::availability).await,
    }
}

/// Computes on a thread of its own, so that Ctrl-C ends the task at once. Such a thread ends with the process; a blocking
/// task of the runtime would be waited for.
async fn off_thread<T: Clone + Send + 'static>(
    task: &T,
    work: impl FnOnce(&T) -> Result<Report> + Send + 'static,
) -> Result<Report> {
    let task = task.clone();
    let (done, waiting) = oneshot::channel();
    thread::Builder::new()
        .name("overlay".to_owned())
        .spawn(move || {
            // Nobody listens any more if the task was interrupted.
            let _ = done.send(work(&task));
        })
        .context("cannot start a thread")?;
    waiting.await.map_err(|_| anyhow!("the simulation has stopped early: this is a bug; please report it"))?
}
