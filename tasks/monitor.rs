//! `tasks monitor`: who holds what, and what moves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use chordal::api::{HandoverInfo, NodeInfo, NodeRef};
use chordal::client::NodeClient;
use chordal::words::counted;
use chordal_protocol::Id;
use comfy_table::{Cell, Color};
use serde::Serialize;
use serde_json::json;

use crate::cli;
use crate::context::Context;
use crate::crawl::{self, Crawl};
use crate::names::Names;
use crate::network_state::{NetworkState, NodeEntry, Status};
use crate::output::{self, Report};
use crate::screen::Screen;
use crate::views::Views;

/// How far back the first look tells of movements.
const FIRST_LOOK_BACK: Duration = Duration::from_secs(10);

/// How many movements of a node are shown.
const MOST_MOVES: usize = 3;

/// Looks once, or again and again until Ctrl-C. The state is read anew each time, so nodes may come, go and die.
pub(crate) async fn monitor(context: &Context, task: &cli::Monitor) -> Result<Report> {
    context.state.ring()?;
    let client = context.client.within(crawl::ANSWER);
    let mut earlier = Earlier::default();
    if task.once || context.json {
        let look = look(context, &client, &mut earlier).await?;
        return Report::new(json!({ "nodes": look.rows, "views": look.views }), draw(&look));
    }
    let mut screen = Screen::new(task.interval);
    loop {
        let picture = match look(context, &client, &mut earlier).await {
            Ok(look) if !look.rows.is_empty() => draw(&look),
            Ok(_) => "The ring is gone. Waiting for another one (`tasks boot`).".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        screen.draw(&picture)?;
        tokio::select! {
            () = context.interrupt.cancelled() => return Report::new(json!(null), ""),
            () = tokio::time::sleep(task.interval) => {}
        }
    }
}

/// What the last look saw, to tell what has changed.
#[derive(Default)]
struct Earlier {
    keys: BTreeMap<Id, u64>,
    silent: BTreeSet<String>,
    at: Option<Instant>,
}

/// A node as the monitor shows it.
#[derive(Debug, Clone, Serialize)]
struct Row {
    name: String,
    id: Option<Id>,
    addr: String,
    /// `running`, `starting`, `stopped`, `silent` (its process runs and does not answer), `elsewhere` (it is no node of
    /// this state), or what else it says of its membership.
    status: String,
    share: Option<f64>,
    keys: Option<u64>,
    pred: Option<String>,
    succ: Option<String>,
    moved: Vec<String>,
}

/// What one look brought.
#[derive(Debug, Default)]
struct Look {
    rows: Vec<Row>,
    views: Views,
    names: Names,
}

async fn look(context: &Context, client: &NodeClient, earlier: &mut Earlier) -> Result<Look> {
    let Some(state) = context.state.load()? else {
        *earlier = Earlier::default();
        return Ok(Look::default());
    };
    let running = state.nodes.iter().filter(|node| node.status == Status::Running);
    let crawl = crawl::crawl(client, running.map(NodeEntry::addr), &earlier.silent).await;
    let rows = rows(&state, &crawl, earlier);
    earlier.keys = crawl.nodes.values().map(|info| (info.id, info.keys)).collect();
    earlier.silent = crawl.silent.iter().map(|silent| silent.addr.clone()).collect();
    earlier.at = Some(Instant::now());
    Ok(Look { rows, views: Views::of(crawl.nodes.values()), names: crawl.names() })
}

/// All nodes in ring order, from zero upwards; last those that have no id yet.
fn rows(state: &NetworkState, crawl: &Crawl, earlier: &Earlier) -> Vec<Row> {
    let ours = |id: &Id| state.nodes.iter().find(|node| node.id == Some(*id));
    let names = crawl.names();
    let answered = |info: &NodeInfo| answered(info, ours(&info.id), earlier, &names);
    let mut rows: Vec<Row> = crawl.nodes.values().map(answered).collect();
    let quiet = state.nodes.iter().filter(|node| node.id.is_none_or(|id| !crawl.nodes.contains_key(&id)));
    rows.extend(quiet.map(|node| Row {
        name: node.name.clone(),
        id: node.id,
        addr: node.addr(),
        status: if node.status == Status::Running { "silent" } else { node.status.word() }.to_owned(),
        share: None,
        keys: None,
        pred: None,
        succ: None,
        moved: Vec::new(),
    }));
    rows.sort_by_key(|row| (row.id.is_none(), row.id));
    rows
}

fn answered(info: &NodeInfo, ours: Option<&NodeEntry>, earlier: &Earlier, names: &Names) -> Row {
    let status = match (info.membership.as_str(), ours) {
        ("joined", Some(_)) => "running",
        ("joined", None) => "elsewhere",
        (other, _) => other,
    };
    let named = |node: &Option<NodeRef>| node.as_ref().map(|node| names.call(node));
    Row {
        name: info.name.clone(),
        id: Some(info.id),
        addr: info.itself().addr(),
        status: status.to_owned(),
        share: Some(info.range.share),
        keys: Some(info.keys),
        pred: named(&info.pred),
        succ: named(&info.succ),
        moved: moved(info, earlier, names),
    }
}

/// What came and went since the last look: hand-overs, and by how much the number of keys has changed.
fn moved(info: &NodeInfo, earlier: &Earlier, names: &Names) -> Vec<String> {
    let back = earlier.at.map_or(FIRST_LOOK_BACK, |at| at.elapsed()).as_secs_f64();
    let recent = info.handovers.iter().rev().filter(|handover| handover.ago_s <= back);
    let mut moves: Vec<String> = recent.take(MOST_MOVES).map(|handover| told(handover, names)).collect();
    match (earlier.at, earlier.keys.get(&info.id)) {
        (Some(_), None) => moves.insert(0, "new".to_owned()),
        (Some(_), Some(before)) if *before != info.keys => {
            moves.insert(0, by_keys(info.keys as i128 - i128::from(*before)));
        }
        _ => {}
    }
    moves
}

fn by_keys(by: i128) -> String {
    let keys = if by.abs() == 1 { "key" } else { "keys" };
    format!("{by:+} {keys}")
}

fn told(handover: &HandoverInfo, names: &Names) -> String {
    let (records, peer) = (handover.records, names.call(&handover.peer));
    match handover.kind.as_str() {
        "received" => format!("{records} from {peer}"),
        "given" => format!("{records} to {peer}"),
        "taken" => format!("took over from {peer}"),
        "yielded" => format!("yielded to {peer}"),
        other => format!("{other} {records} ({peer})"),
    }
}

fn draw(look: &Look) -> String {
    let Look { rows, views, names } = look;
    let mut table = output::table(&["NAME", "ID", "ADDRESS", "STATUS", "RANGE", "KEYS", "PRED", "SUCC", "JUST MOVED"]);
    let or_dash = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
    for row in rows {
        table.add_row(vec![
            Cell::new(&row.name),
            Cell::new(row.id.map_or_else(|| "-".to_owned(), |id| id.short())),
            Cell::new(&row.addr),
            output::status_cell(&row.status),
            Cell::new(row.share.map_or_else(|| "-".to_owned(), output::share_bar)),
            Cell::new(row.keys.map_or_else(|| "-".to_owned(), |keys| keys.to_string())),
            Cell::new(or_dash(&row.pred)),
            Cell::new(or_dash(&row.succ)),
            Cell::new(row.moved.join(", ")).fg(Color::Yellow),
        ]);
    }
    let keys: u64 = rows.iter().filter_map(|row| row.keys).sum();
    let answering = rows.iter().filter(|row| row.keys.is_some()).count();
    let lost = views.lost().count() + views.gaps.len();
    let told = match lost {
        0 => String::new(),
        1 => " One range has no majority: `tasks recover` tells which.".to_owned(),
        lost => format!(" {lost} ranges have no majority: `tasks recover` tells which."),
    };
    let (answer, hold) = if answering == 1 { ("answers", "holds") } else { ("answer", "hold") };
    format!(
        "{}\n\n{}\n\n{answering} of {} {answer} and {hold} {}.{told}",
        output::lines(&table),
        views.table(names),
        counted(rows.len(), "node"),
        counted(keys, "key")
    )
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
