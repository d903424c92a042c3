//! `tasks boot` and `tasks reboot`: a ring of two, each the other's predecessor and successor.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use chordal::words::counted;
use serde_json::json;

use crate::cli;
use crate::context::Context;
use crate::fleet::{self, Contacts, Plan, Spawned};
use crate::killall;
use crate::network_state::{NetworkState, NodeEntry};
use crate::output::{self, Report};
use crate::places::Places;

/// How long two nodes that are ready may take to find each other on both sides.
const WIRING: Duration = Duration::from_secs(15);

/// How often they are asked.
const POLL: Duration = Duration::from_millis(10);

/// Starts a new ring in place of the old one, which must not run any more.
pub(crate) async fn boot(context: &Context, task: &cli::Boot) -> Result<Report> {
    ensure!(task.id.len() <= 2, "a ring is booted with two nodes, so --id takes one or two places");
    let begun = Instant::now();
    let first = Plan::new(context, &task.options, Contacts::Nobody)
        .port(task.port)
        .placed(task.id.first().map(String::as_str))
        .copies(task.replication_factor.as_deref());
    let second = Plan::new(context, &task.options, Contacts::Running).placed(task.id.get(1).map(String::as_str));
    let spawned = fleet::enlist(context, |state, places| begin(context, state, places, &first))?;
    let booted = finish(context, spawned, &second).await;
    if booted.is_err() {
        // The first node, if it came up, is a ring without the second one: nothing is left of either.
        context.state.remove(|state| {
            killall::end_all(state)?;
            clear(state, context.state.places());
            anyhow::Ok(())
        })?;
    }
    let nodes = booted?;
    let text = format!(
        "{}\n\nA ring of two runs: each is the other's predecessor and successor.\nNext: `tasks addmany 10`, `tasks storemany 100`, `tasks monitor`.",
        output::node_table(&nodes)
    );
    Report::new(json!({ "nodes": nodes, "seconds": begun.elapsed().as_secs_f64() }), text)
}

/// Ends the old ring and starts a new one.
pub(crate) async fn reboot(context: &Context, task: &cli::Boot) -> Result<Report> {
    killall::killall(context, &cli::Killall { keep_data: false })?;
    boot(context, task).await
}

/// Sees the first node through, starts the second one, and waits until they know each other.
async fn finish(context: &Context, spawned: Spawned, second: &Plan) -> Result<[NodeEntry; 2]> {
    let one = fleet::see_through(context, spawned, fleet::PATIENCE)
        .await
        .map_err(|failed| fleet::explain(context, failed))?;
    let Some(one) = one else { bail!("another task changed the state while the ring was booted; try again") };
    let two = fleet::bring_up(context, second).await.map_err(|failed| fleet::explain(context, failed))?;
    wired(context, &one, &two).await?;
    Ok([one, two])
}

/// Clears what an old ring has left and spawns the first node of the new one.
fn begin(context: &Context, state: &mut NetworkState, places: &Places, first: &Plan) -> Result<Spawned> {
    let alive = state.nodes.iter().filter(|node| node.is_alive()).count();
    ensure!(
        alive == 0,
        "a ring of {} in {} still runs; end it with `tasks killall`, or use `tasks reboot`",
        counted(alive, "node"),
        context.state.path().display()
    );
    clear(state, places);
    *state = NetworkState::default();
    fleet::spawn_new(state, places, first)
}

fn clear(state: &NetworkState, places: &Places) {
    state.nodes.iter().for_each(|node| places.clear(node));
    places.clear_empty();
}

/// Waits until each names the other as predecessor and as successor.
async fn wired(context: &Context, one: &NodeEntry, two: &NodeEntry) -> Result<()> {
    let deadline = Instant::now() + WIRING;
    loop {
        if knows(context, one, two).await && knows(context, two, one).await {
            return Ok(());
        }
        ensure!(
            !context.interrupt.is_cancelled(),
            "interrupted before {} and {} had found each other",
            one.name,
            two.name
        );
        ensure!(
            Instant::now() < deadline,
            "{} and {} did not become each other's predecessor and successor within {} s; {} and {} are gone again",
            one.name,
            two.name,
            WIRING.as_secs(),
            one.addr(),
            two.addr()
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Whether `one` has `two` on both sides.
async fn knows(context: &Context, one: &NodeEntry, two: &NodeEntry) -> bool {
    let addr = one.addr();
    let (pred, succ) = tokio::join!(context.client.pred(&addr), context.client.succ(&addr));
    [pred, succ].into_iter().all(|side| matches!(side, Ok(Some(node)) if Some(node.id) == two.id))
}
