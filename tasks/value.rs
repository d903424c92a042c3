//! `tasks put`, `tasks get` and `tasks cas`: one value, byte for byte, through a random node.

use anyhow::{Context as _, Error, Result, bail, ensure};
use chordal::api::{BulkAnswer, fitting_type};
use chordal::client::{Outcome, Value};
use chordal::node::mint;
use chordal::words::counted;
use chordal_protocol::{Condition, Id};
use serde_json::json;

use crate::cli;
use crate::context::{Context, ask};
use crate::network_state::NodeEntry;
use crate::off_thread::off_thread;
use crate::output::{self, Report};

/// How often a comparison is made anew because somebody wrote between reading and writing.
const TRIES: usize = 8;

/// Stores a value under a key.
pub(crate) async fn put(context: &Context, task: &cli::Put) -> Result<Report> {
    let nodes = context.askable(task.via.via.as_deref())?;
    let named = task.value.clone();
    let value = off_thread(move || named.read()).await?.map_err(Error::msg)?;
    let content_type = task.value.content_type.as_deref().unwrap_or(fitting_type(&value));
    let condition = if task.value.if_absent { Condition::Absent } else { Condition::Always };
    let (request, key, bytes) = (mint(), task.key.as_bytes(), value.as_slice());
    let (outcome, through) = ask(&nodes, |addr| async move {
        context.client.kv(&addr).put(key, bytes, Some(content_type), condition, request).await
    })
    .await?;
    let key = output::quote(&task.key);
    let etag = match outcome {
        Outcome::Done(etag) => etag,
        Outcome::Refused(Some(now)) => bail!("{key} has a value already, with the tag {now}; nothing was stored"),
        Outcome::Refused(None) => bail!("{key} could not be stored: its condition does not hold"),
    };
    let text =
        format!("{} stored under {key} with the tag {etag} (through {}).", counted(value.len(), "byte"), through.name);
    let json = json!({
        "key": task.key,
        "id": Id::of(&task.key),
        "etag": etag,
        "bytes": value.len(),
        "content_type": content_type,
        "via": through.name,
    });
    Report::new(json, text)
}

/// Prints a value as it is.
pub(crate) async fn get(context: &Context, task: &cli::Get) -> Result<Report> {
    let (value, through) = fetch(context, &task.key, task.via.via.as_deref()).await?;
    // The form in which a record stands in JSON everywhere.
    let in_json = BulkAnswer::of(200).with_value(&value.bytes);
    let mut json = json!({
        "key": task.key,
        "id": Id::of(&task.key),
        "etag": value.etag,
        "bytes": value.bytes.len(),
        "content_type": value.content_type,
        "via": through.name,
    });
    match in_json.base64 {
        Some(base64) => json["base64"] = base64.into(),
        None => json["value"] = in_json.value.into(),
    }
    Ok(Report::of_bytes(json, value.bytes))
}

/// Puts a value in the place of another one, if that is there.
pub(crate) async fn cas(context: &Context, task: &cli::Cas) -> Result<Report> {
    let nodes = context.askable(task.via.via.as_deref())?;
    for _ in 0..TRIES {
        let (now, _) = fetch(context, &task.key, task.via.via.as_deref()).await?;
        let shown = output::quote(&String::from_utf8_lossy(&now.bytes));
        let key = output::quote(&task.key);
        ensure!(
            now.bytes == task.old.as_bytes(),
            "{key} holds {shown} and not {}; nothing has changed",
            output::quote(&task.old)
        );
        let (request, now) = (mint(), &now);
        let (outcome, through) = ask(&nodes, |addr| async move {
            let (key, new) = (task.key.as_bytes(), task.new.as_bytes());
            let kv = context.client.kv(&addr);
            kv.compare_and_set(key, Some(now.etag), new, Some(&now.content_type), request).await
        })
        .await?;
        if let Outcome::Done(etag) = outcome {
            let new = output::quote(&task.new);
            let text = format!("{key} holds {new} instead, with the tag {etag} (through {}).", through.name);
            let json = json!({ "key": task.key, "etag": etag, "was": now.etag, "via": through.name });
            return Report::new(json, text);
        }
        // Somebody has written meanwhile, perhaps the same value again.
    }
    bail!("{} was written {TRIES} times by others meanwhile; nothing has changed", output::quote(&task.key))
}

async fn fetch(context: &Context, key: &str, via: Option<&str>) -> Result<(Value, NodeEntry)> {
    let nodes = context.askable(via)?;
    let (value, through) =
        ask(&nodes, |addr| async move { context.client.kv(&addr).get(key.as_bytes()).await }).await?;
    let value = value.with_context(|| format!("nothing is stored under {}", output::quote(key)))?;
    Ok((value, through))
}
