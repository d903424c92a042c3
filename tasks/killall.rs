//! `tasks killall` and `tasks kill`: the end, without asking.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chordal::words::counted;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cli;
use crate::context::Context;
use crate::network_state::{NetworkState, Status};
use crate::output::Report;
use crate::process;
use crate::state_file::StateFile;

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// Ends every node. Under the lock all the while, so that no other task adds one meanwhile.
pub(crate) fn killall(context: &Context, task: &cli::Killall) -> Result<Report> {
    let state = &context.state;
    if state.load()?.is_none() {
        let text = format!("There is no ring in {}; nothing to end.", state.path().display());
        return Report::new(json!({ "killed": 0, "kept_data": false }), text);
    }
    end_service(state)?;
    let killed = if task.keep_data {
        state.update(|nodes| {
            let killed = end_all(nodes)?;
            nodes.nodes.iter_mut().for_each(|node| node.status = Status::Stopped);
            anyhow::Ok(killed)
        })?
    } else {
        let killed = state.remove(|nodes| {
            let killed = end_all(nodes)?;
            nodes.nodes.iter().for_each(|node| state.places().clear(node));
            state.places().clear_empty();
            anyhow::Ok(killed)
        })?;
        killed.unwrap_or(0)
    };
    let text = match task.keep_data {
        true => format!(
            "{} ended; state, logs and data are kept. `tasks start --all` brings them back.",
            counted(killed, "node")
        ),
        false => format!("{} ended; state, logs and data are removed.", counted(killed, "node")),
    };
    Report::new(json!({ "killed": killed, "kept_data": task.keep_data }), text)
}

/// Kills the bootstrap service that keeps these nodes, which would only bring them back. Without the lock, for which the
/// service may be waiting.
fn end_service(state: &StateFile) -> Result<()> {
    let Some(service) = state.load()?.and_then(|nodes| nodes.bootstrap) else { return Ok(()) };
    ensure!(
        process::kill_and_wait(service.pid, &service.started, DEATH),
        "process {} of the bootstrap service was killed but is still there; look at it with `ps {}`, then try again",
        service.pid,
        service.pid
    );
    Ok(())
}

/// Kills one node and leaves its entry as stopped.
pub(crate) fn kill(context: &Context, task: &cli::Named) -> Result<Report> {
    let name = &task.name;
    let node = context.node(name)?;
    ensure!(node.is_alive(), "{name} does not run; there is nothing to kill");
    ensure!(
        process::kill_and_wait(node.pid, &node.started, DEATH),
        "process {} of {name} was killed but is still there; look at it with `ps {}`",
        node.pid,
        node.pid
    );
    context.state.update(|state| {
        if let Some(entry) = state.entry_mut(name) {
            entry.status = if entry.is_alive() { entry.status } else { Status::Stopped };
        }
        anyhow::Ok(())
    })?;
    let text = format!("{name} is killed. The ring closes over it by itself; `tasks start {name}` brings it back.");
    Report::new(json!({ "killed": name, "pid": node.pid }), text)
}

/// Kills all nodes at once and waits until they are gone; how many there were.
pub(crate) fn end_all(state: &NetworkState) -> Result<usize> {
    let alive: Vec<_> = state.nodes.iter().filter(|node| node.is_alive()).collect();
    for node in &alive {
        process::signal(node.pid, &node.started, Signal::SIGKILL);
    }
    let deadline = Instant::now() + DEATH;
    for node in &alive {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(
            process::kill_and_wait(node.pid, &node.started, left),
            "process {} of {} was killed but is still there; look at it with `ps {}`, then try again",
            node.pid,
            node.name,
            node.pid
        );
    }
    Ok(alive.len())
}
