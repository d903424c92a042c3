//! `tasks store` and `tasks delete`: a value for the ring in the way of the labs, through a random node.

use anyhow::{Context as _, Result};
use chordal::api::{NodeRef, Stored};
use chordal::words::counted;
use serde_json::{Value, json};

use crate::cli;
use crate::context::{Context, ask};
use crate::network_state::NodeEntry;
use crate::output::{self, Report};

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
        counted(stored.hops, "hop"),
        through.name
    );
    Report::new(with_via(&stored, &through)?, text)
}

/// A node in a sentence: name, short id, address.
pub(crate) fn owner(node: &NodeRef) -> String {
    let name = if node.name.is_empty() { "a node without a name" } else { &node.name };
    format!("{name} ({}, {})", node.id.short(), node.addr())
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
        counted(deleted.hops, "hop"),
        through.name
    );
    Report::new(with_via(&deleted, &through)?, text)
}
