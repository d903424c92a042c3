//! `tasks demo`: the tour for newcomers, on a ring of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use serde_json::{Value, json};

use crate::cli::{self, Cli};
use crate::context::Context;
use crate::killall;
use crate::output::{self, Report};
use crate::state_file::StateFile;

/// How long the ring may take to close over a dead node.
const HEALING: Duration = Duration::from_secs(30);

/// The value that the tour stores; its words are its key.
const VALUE: &str = "All roads lead round the ring";

/// Runs the tour. The ring is ended afterwards, whatever happened, unless it is to be kept.
pub(crate) async fn demo(context: &Context, task: &cli::Demo) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("chordal-demo-").tempdir()?;
    let state = StateFile::at(&directory.path().join("network_state.json"))?;
    let mut tour = Tour { context: Context { state, ..context.clone() }, steps: Vec::new() };
    let outcome = tokio::select! {
        outcome = tour.walk() => outcome,
        () = context.interrupt.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    let keep = task.keep && outcome.is_ok();
    let ending = if keep { None } else { Some(killall::killall(&tour.context, &cli::Killall { keep_data: false })) };
    outcome?;
    ending.transpose()?;
    let at = tour.context.state.path().to_owned();
    if keep {
        // From here on the directory is the user's.
        let _ = directory.keep();
    }
    let kept = keep.then(|| at.display().to_string());
    Report::new(json!({ "steps": tour.steps, "state": kept }), farewell(kept.as_deref()))
}

/// The tour, and what it has shown so far.
struct Tour {
    context: Context,
    steps: Vec<Value>,
}

impl Tour {
    async fn walk(&mut self) -> Result<()> {
        self.step("A ring begins with two nodes, each the other's predecessor and successor.", &["boot"]).await?;
        self.step(
            "Others join through any node. Each takes over a part of the circle from the node before it.",
            &["addmany", "4"],
        )
        .await?;
        self.step("To store a value, the ring looks for the owner of its id (SHA-256): the last node at or before it, clockwise.", &["store", VALUE])
            .await?;
        let stored = self.step("Many values spread over all nodes by themselves.", &["storemany", "50"]).await?;
        debug_assert!(stored["stored"] == 50, "a failed step ends the tour");
        let found =
            self.step("Whichever node is asked finds a value, in a few hops.", &["lookup", VALUE, "--trace"]).await?;
        let owner = name_of(&found["owner"])?;
        self.step("The owner of our value leaves. A node that leaves hands over what it holds.", &["leave", &owner])
            .await?;
        let found = self.step("So the value is still there, at another node.", &["lookup", VALUE]).await?;
        let keeper = name_of(&found["owner"])?;
        let victim = self.another_than(&keeper)?;
        self.step("Now one dies without a word (kill -9).", &["kill", &victim]).await?;
        let wait = format!("{}s", HEALING.as_secs());
        self.step(
            "The others notice, and close the ring over it. The doctor checks what must hold.",
            &["doctor", "--wait", &wait],
        )
        .await?;
        self.step("Started again, it finds its way back, with what it had on disk.", &["start", &victim]).await?;
        self.step("Who holds what, as `tasks monitor` draws it again and again:", &["monitor", "--once"]).await?;
        Ok(())
    }

    /// Explains, runs and shows one task.
    async fn step(&mut self, explanation: &str, words: &[&str]) -> Result<Value> {
        let quoted: Vec<String> = words
            .iter()
            .map(|word| if word.contains(' ') { format!("\"{word}\"") } else { word.to_string() })
            .collect();
        let command = format!("tasks {}", quoted.join(" "));
        if !self.context.json {
            let head = format!("{explanation}\n{}", output::paint(&format!("$ {command}"), comfy_table::Color::Cyan));
            Report::new(json!(null), head)?.print(false)?;
        }
        let task = Cli::try_parse_from(std::iter::once("tasks").chain(words.iter().copied()))?.task;
        // Boxed, because a demo could hold a demo.
        let report = Box::pin(crate::run(&self.context, &task)).await.with_context(|| format!("`{command}`"))?;
        if let Some(failure) = report.failure {
            bail!("`{command}`: {failure}");
        }
        if !self.context.json {
            Report { text: format!("{}\n", report.text), ..Report::new(json!(null), "")? }.print(false)?;
        }
        self.steps.push(json!({ "explanation": explanation, "command": command, "result": report.json }));
        Ok(report.json)
    }

    fn another_than(&self, name: &str) -> Result<String> {
        let awake = self.context.state.awake()?;
        let other = awake.into_iter().find(|node| node.name != name);
        other.map(|node| node.name).context("no other node runs")
    }
}

fn name_of(node: &Value) -> Result<String> {
    node["name"].as_str().map(str::to_owned).context("the owner has no name")
}

fn farewell(kept: Option<&str>) -> String {
    match kept {
        None => "That was the tour; its ring is gone again. Yours to try next:\n  \
            tasks boot && tasks addmany 10      a ring of twelve\n  \
            tasks monitor                       watch it in one terminal ...\n  \
            tasks storemany 1000                ... and feed it in another\n  \
            tasks kill node-3; tasks doctor     hurt it, and see whether it holds\n  \
            tasks killall                       the end"
            .to_owned(),
        Some(state) => format!(
            "That was the tour; its ring still runs. Yours to try next:\n  \
            export CHORDAL_STATE={state}\n  \
            tasks monitor\n  \
            tasks addmany 10\n  \
            tasks doctor\n  \
            tasks killall"
        ),
    }
}
