//! `tasks lookup`: what is stored, and with `--trace` the way to it.

use anyhow::{Context as _, Result};
use chordal::api::Found;
use chordal::words::counted;
use chordal_protocol::Id;
use comfy_table::{Cell, Color};

use crate::cli;
use crate::context::{Context, ask};
use crate::network_state::NodeEntry;
use crate::output::{self, Report};
use crate::store::{owner, with_via};

/// Looks a value or a key up. With a trace the way is drawn even if nothing is stored at its end.
pub(crate) async fn lookup(context: &Context, task: &cli::Lookup) -> Result<Report> {
    let nodes = context.askable(task.via.via.as_deref())?;
    let key = task.what.key();
    let traced = if task.trace {
        let mode = task.mode.map(Into::into);
        Some(ask(&nodes, |addr| async move { context.client.find(&addr, Id::of(key), mode).await }).await?)
    } else {
        None
    };
    // The node that drew the way is the one that is asked for the value.
    let nodes = traced.as_ref().map_or(nodes, |(_, through)| vec![through.clone()]);
    let way = traced.as_ref().map(|(found, through)| draw(found, through));
    let (answer, through) =
        ask(&nodes, |addr| async move { context.client.lookup(&addr, key.as_bytes()).await }).await?;
    let Some(answer) = answer else {
        if let (Some(way), false) = (way, context.json) {
            output::warn(&way);
        }
        return Err(nothing(key));
    };
    let value = output::show(&answer.value);
    let source = format!(
        "kept by {} as version {} ({}, through {})",
        owner(&answer.owner),
        answer.version,
        counted(answer.hops, "hop"),
        through.name
    );
    let mut json = with_via(&answer, &through)?;
    if let Some((found, _)) = &traced {
        json["find"] = serde_json::to_value(found)?;
    }
    let text = match way {
        Some(way) => format!("{way}\n\n{value}\n{}", output::paint(&source, Color::DarkGrey)),
        None => format!("{value}\n{}", output::paint(&source, Color::DarkGrey)),
    };
    Report::new(json, text).with_context(|| format!("cannot print what is stored under {}", output::quote(key)))
}

fn nothing(key: &str) -> anyhow::Error {
    let key = output::quote(key);
    anyhow::anyhow!("nothing is stored under {key}; keys and values are compared byte for byte (`tasks store` stores)")
}

/// The way of a lookup: who was asked, in order, how long each took, and why it was chosen.
fn draw(found: &Found, through: &NodeEntry) -> String {
    let mut way = output::table(&["", "NODE", "ID", "MS", "WHY"]);
    way.add_row(vec![
        Cell::new("●"),
        Cell::new(&through.name),
        Cell::new(through.short_id()),
        Cell::new(""),
        Cell::new("was asked"),
    ]);
    for hop in &found.trace {
        let is_owner = hop.node.id == found.owner.id;
        let silent = hop.why.contains("no answer");
        let why = if is_owner && !silent { format!("{}; the owner", hop.why) } else { hop.why.clone() };
        way.add_row(vec![
            Cell::new(if silent { "╳" } else { "↓" }),
            Cell::new(&hop.node.name),
            Cell::new(hop.node.id.short()),
            Cell::new(format!("{:.1}", hop.ms)),
            Cell::new(why).fg(if silent { Color::Red } else { Color::Reset }),
        ]);
    }
    format!(
        "{} is owned by {}: {}, mode {}\n{}",
        found.id.short(),
        owner(&found.owner),
        counted(found.hops, "hop"),
        found.mode,
        output::lines(&way)
    )
}
