//! `tasks simulate protocol`: many seeds at once, one step by step, or a scenario.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use chordal::words::counted;
use chordal_sim::protocol::{About, Entry, Kind, Outcome, Scenario, Setup, Spread, Summary, run, simulate};
use serde_json::{Map, Value, json};

use crate::cli::Protocol;
use crate::context::Context;
use crate::output::{self, Report};

/// The longest scenario file that makes sense, in bytes.
const SCENARIO: u64 = 1 << 20;

/// How many failed seeds are told of in words.
const TOLD: usize = 8;

/// Runs the simulator.
pub(crate) async fn protocol(context: &Context, task: &Protocol) -> Result<Report> {
    if let Some(path) = &task.scenario {
        return play(context, task, path).await;
    }
    if let Some(seed) = task.replay {
        return replay(context, task, seed).await;
    }
    let setup = task.setup();
    let seeds = task.seeds.clone();
    let bar = output::progress(seeds.end - seeds.start, "seeds");
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let work = {
        let (setup, stop, bar) = (setup.clone(), Arc::clone(&stop), bar.clone());
        let failed = AtomicU64::new(0);
        tokio::task::spawn_blocking(move || {
            let ran = |outcome: &Outcome| {
                bar.inc(1);
                if outcome.violation.is_some() {
                    let failed = failed.fetch_add(1, Ordering::Relaxed) + 1;
                    bar.set_message(format!("seeds, {failed} failed"));
                }
            };
            simulate(&setup, seeds, ran, &stop)
        })
    };
    let summary = finish(context, work, &stop).await?;
    bar.finish_and_clear();
    Ok(report(&Told { setup: &setup, summary: &summary, seconds: begin.elapsed().as_secs_f64(), replay: Some(task) }))
}

/// Waits for work on another thread; an interruption stops it.
async fn finish<T>(context: &Context, work: tokio::task::JoinHandle<T>, stop: &AtomicBool) -> Result<T> {
    tokio::select! {
        done = work => done.context("the simulator has failed; this is a bug in it"),
        () = context.interrupt.cancelled() => {
            stop.store(true, Ordering::Relaxed);
            bail!("interrupted");
        }
    }
}

async fn replay(context: &Context, task: &Protocol, seed: u64) -> Result<Report> {
    let setup = task.setup();
    let begin = Instant::now();
    let work = {
        let (setup, teller) = (setup.clone(), Teller::new(context, task));
        tokio::task::spawn_blocking(move || {
            let mut teller = teller;
            run(&setup, seed, Some(&mut |entry: &Entry| teller.tell(entry)))
        })
    };
    let outcome = finish(context, work, &AtomicBool::new(false)).await?;
    let summary = Summary::of(outcome);
    Ok(report(&Told { setup: &setup, summary: &summary, seconds: begin.elapsed().as_secs_f64(), replay: None }))
}

async fn play(context: &Context, task: &Protocol, path: &Path) -> Result<Report> {
    let scenario = read(path)?;
    let variant = task.variant.map(crate::cli::Protocols::variant);
    let begin = Instant::now();
    if !context.json {
        output::say(&format!("{}\n\n{}\n", scenario.title, scenario.text.trim()));
    }
    let setup = scenario.setup(variant);
    let work = {
        let teller = Teller::new(context, task);
        tokio::task::spawn_blocking(move || {
            let mut teller = teller;
            scenario.play(variant, Some(&mut |entry: &Entry| teller.tell(entry)))
        })
    };
    let outcome = finish(context, work, &AtomicBool::new(false)).await?;
    let outcome = outcome.with_context(|| format!("{} makes no sense", path.display()))?;
    let summary = Summary::of(outcome);
    Ok(report(&Told { setup: &setup, summary: &summary, seconds: begin.elapsed().as_secs_f64(), replay: None }))
}

fn read(path: &Path) -> Result<Scenario> {
    let shown = path.display();
    let size = fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
    ensure!(size <= SCENARIO, "{shown} has {size} bytes; no scenario is that long");
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let scenario: Scenario = toml::from_str(&text)
        .with_context(|| format!("{shown} is no scenario; docs/scenarios has some to begin with"))?;
    scenario.check().with_context(|| format!("{shown} makes no sense"))?;
    Ok(scenario)
}

/// Prints what happens: who asked whom, what that changed, and what broke.
struct Teller {
    silent: bool,
    all: bool,
    /// Messages that changed nothing and were not told of.
    passed_over: u64,
}

impl Teller {
    fn new(context: &Context, task: &Protocol) -> Teller {
        Teller { silent: context.json, all: task.all, passed_over: 0 }
    }

    fn tell(&mut self, entry: &Entry) {
        if self.silent {
            return;
        }
        let matters =
            !entry.changes.is_empty() || matches!(entry.about, About::Fault | About::Client | About::Violation);
        if !matters && !self.all {
            self.passed_over += 1;
            return;
        }
        if self.passed_over > 0 {
            output::say(&format!("{:>14}({} messages that changed nothing)", "", self.passed_over));
            self.passed_over = 0;
        }
        output::say(&entry.to_string());
    }
}

/// What is reported.
struct Told<'a> {
    setup: &'a Setup,
    summary: &'a Summary,
    seconds: f64,
    /// The task, if its seeds can be replayed.
    replay: Option<&'a Protocol>,
}

fn report(told: &Told<'_>) -> Report {
    let summary = told.summary;
    let missing = summary.missing(told.setup);
    let failure = match (summary.failures.len(), &missing[..]) {
        (0, []) => None,
        (0, missing) => {
            let names: Vec<&str> = missing.iter().map(|kind| kind.name()).collect();
            let names = names.join(", ");
            Some(format!(
                "{names} was asked for and never happened, so this proves nothing: run more seeds, longer, or raise it"
            ))
        }
        (failed, _) => Some(format!("{failed} of {} runs violated an invariant", summary.runs)),
    };
    Report { json: as_json(told, &missing), text: as_text(told), bytes: None, failure }
}

fn as_json(told: &Told<'_>, missing: &[Kind]) -> Value {
    let Told { setup, summary, seconds, .. } = told;
    let faults: Map<String, Value> =
        summary.faults.each().map(|(kind, times)| (kind.name().to_owned(), json!(times))).collect();
    let nodes =
        if setup.nodes.0 == setup.nodes.1 { json!(setup.nodes.0) } else { json!([setup.nodes.0, setup.nodes.1]) };
    let failed: Vec<u64> = summary.failures.iter().map(|(seed, _)| *seed).collect();
    let failures: Vec<Value> = summary
        .failures
        .iter()
        .map(|(seed, it)| json!({"seed": seed, "at_ms": it.at, "invariant": it.invariant, "detail": it.text}))
        .collect();
    json!({
        "nodes": nodes,
        "seeds": summary.runs,
        "steps": summary.steps,
        "checks": summary.looks,
        "violations": summary.failures.len(),
        "seeds_failed": failed,
        "failures": failures,
        "passed": summary.passed,
        "assumption_broken": summary.assumption_broken,
        "faults": faults,
        "faults_missing": missing.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
        "rounds_to_ideal": spread(summary.rounds_to_ideal.spread()),
        "rounds_to_ready": spread(summary.rounds_to_ready.spread()),
        "hops": spread(summary.hops.spread()),
        "operations": summary.operations,
        "unavailable": summary.unavailable,
        "unknown": summary.unknown,
        "histories_checked": summary.histories_checked,
        "writes_lost": summary.writes_lost,
        "stale_reads": summary.stale_reads,
        "view_changes": summary.view_changes,
        "seconds_without_service": summary.without_service as f64 / 1e3,
        "longest_without_service_ms": spread(summary.longest_without_service.spread()),
        "simulated_s": summary.simulated as f64 / 1e3,
        "elapsed_s": seconds,
        "simulated_s_per_s": summary.simulated as f64 / 1e3 / seconds.max(1e-9),
    })
}

fn spread(spread: Option<Spread>) -> Value {
    spread.map_or(Value::Null, |it| json!({"mean": it.mean, "p99": it.p99, "max": it.max}))
}

fn as_text(told: &Told<'_>) -> String {
    let Told { setup, summary, seconds, replay } = told;
    let mut lines = Vec::new();
    for (seed, violation) in summary.failures.iter().take(TOLD) {
        let at = violation.at as f64 / 1e3;
        let seed = if replay.is_some() { format!("seed {seed}, ") } else { String::new() };
        lines.push(format!("{seed}at {at:.3} s: {} is violated: {}", violation.invariant, violation.text));
    }
    if summary.failures.len() > TOLD {
        lines.push(format!("… and {} more", summary.failures.len() - TOLD));
    }
    if let (Some(_), Some((seed, _))) = (replay, summary.failures.first()) {
        lines.push(format!("See it happen: the same command with --replay {seed} in place of --seeds"));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    let runs = counted(summary.runs, "run");
    lines.push(format!(
        "{runs}: {} passed, {} failed, {} were outside the theorem (a node lost all its successors at once, or took living ones for dead)",
        summary.passed,
        summary.failures.len(),
        summary.assumption_broken
    ));
    let faults: Vec<String> = summary
        .faults
        .each()
        .filter(|(kind, times)| *times > 0 || setup.faults.requested().contains(kind))
        .map(|(kind, times)| format!("{kind} {times}"))
        .collect();
    if !faults.is_empty() {
        lines.push(format!("faults: {}", faults.join(", ")));
    }
    if let (Some(ideal), Some(ready)) = (summary.rounds_to_ideal.spread(), summary.rounds_to_ready.spread()) {
        lines.push(format!(
            "rounds until ideal: mean {:.1}, 99% {}, at most {}; until all is served: mean {:.1}, 99% {}, at most {}",
            ideal.mean, ideal.p99, ideal.max, ready.mean, ready.p99, ready.max
        ));
    }
    if let Some(hops) = summary.hops.spread() {
        lines.push(format!("hops of lookups: mean {:.2}, 99% {}, at most {}", hops.mean, hops.p99, hops.max));
    }
    if summary.operations + summary.unavailable > 0 {
        lines.push(format!("clients: {} answered, {} unavailable", summary.operations, summary.unavailable));
    }
    if setup.content.is_some() {
        lines.push(format!(
            "content: {} histories checked, {} operations of unknown outcome, {} acknowledged writes lost, {} stale reads",
            summary.histories_checked, summary.unknown, summary.writes_lost, summary.stale_reads
        ));
        lines.push(format!(
            "views: {} changes; {:.1} s in which a range was not served although a majority of its members could talk",
            summary.view_changes,
            summary.without_service as f64 / 1e3
        ));
    }
    let simulated = summary.simulated as f64 / 1e3;
    lines.push(format!(
        "{} steps, checked {} times; {simulated:.0} simulated seconds in {seconds:.1} s",
        summary.steps, summary.looks
    ));
    lines.join("\n")
}
