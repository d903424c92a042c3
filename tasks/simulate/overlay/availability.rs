//! Data-availability sampling.

use anyhow::{Result, ensure};
use chordal::words::counted;
use chordal_sim::overlay::{Availability, AvailabilityReport, Distribution, on_threads};
use serde_json::{Value, json};

use super::files::{self, Csv};
use super::plot::{self, Line};
use super::{machine, network};
use crate::cli::{OverlayAvailability, Routing, Which};
use crate::output::{self, Report};

/// What a segment or a sampler takes in memory, besides holders and samples.
const STEP_BYTES: u64 = 400;

/// What each holder of a segment takes.
const HOLDER_BYTES: u64 = 8;

/// What each sample takes while it is counted.
const SAMPLE_BYTES: u64 = 60;

/// `tasks simulate overlay availability`.
pub(super) fn availability(task: &OverlayAvailability) -> Result<Report> {
    files::check(&task.files)?;
    let what = Availability {
        blocks: task.blocks,
        rows: task.rows,
        columns: task.columns,
        segment_bytes: task.segment_bytes,
        samplers: task.samplers,
        samples: task.samples,
        parallel: task.parallel,
        withheld: task.withheld,
        dead: task.dead,
        seed: task.network.seed,
    };
    what.check()?;
    network::check(task.which, &task.network, 0, None)?;
    machine::ensure_memory(memory_bytes(task, &what))?;
    let remembering = task.which == Which::Chord && task.network.mode == Routing::Cached;
    ensure!(!remembering, "samplers remember nobody: the mode is linear or fingers");
    let report = on_threads(task.network.threads, || {
        let spinner = machine::spinner(format!("making {}", counted(task.network.nodes, "node")));
        let mut overlay = network::build(task.which, &task.network)?;
        spinner.finish_and_clear();
        let bar = machine::bar(what.steps(), "segments and samplers");
        let report = what.run(&mut *overlay, &|done| bar.inc(done))?;
        bar.finish_and_clear();
        anyhow::Ok(report)
    })?;
    let name = if task.which == Which::Kademlia { "kademlia" } else { "chord" };
    if let Some(path) = &task.files.csv {
        files::write(path, &csv(&report))?;
    }
    if let Some(path) = &task.files.plot {
        let points = plot::cumulative(report.sampled_all_ms.clone());
        let share = report.samplers_satisfied as f64 / report.samplers as f64;
        let points = points.into_iter().map(|(x, y)| (x, y * share)).collect();
        let line = Line { name: name.to_owned(), points, marked: false };
        let panel = plot::panel("Time until sampled", "ms", "share of all samplers", vec![line]);
        files::write(path, &plot::draw(&[panel])?)?;
    }
    let mut json = json!({ "overlay": name, "nodes": task.network.nodes, "what": what });
    if let (Value::Object(all), Value::Object(rest)) = (&mut json, serde_json::to_value(&report)?) {
        all.extend(rest);
        all.insert("peak_rss_bytes".to_owned(), json!(machine::peak_rss_bytes()));
    }
    Report::new(json, format!("{}{}", told(&report), files::told(&task.files)))
}

/// What seeding and sampling take, a little too much rather than too little.
fn memory_bytes(task: &OverlayAvailability, what: &Availability) -> u64 {
    let copies = match task.which {
        Which::Kademlia => task.network.beta.unwrap_or(task.network.k).min(task.network.nodes),
        Which::Chord => 1,
    };
    let product = |numbers: [usize; 3]| numbers.iter().fold(1u64, |all, number| all.saturating_mul(*number as u64));
    let holders = product([what.blocks, what.rows * what.columns, copies]).saturating_mul(HOLDER_BYTES);
    let samples = product([what.blocks, what.samplers, what.samples]).saturating_mul(SAMPLE_BYTES);
    what.steps().saturating_mul(STEP_BYTES).saturating_add(holders).saturating_add(samples)
}

/// When each satisfied sampler had all its samples.
fn csv(report: &AvailabilityReport) -> String {
    let mut csv = Csv::new("satisfied,sampled_ms");
    for (at, ms) in report.sampled_all_ms.iter().enumerate() {
        csv.row(&[&(at + 1), ms]);
    }
    csv.text().to_owned()
}

fn told(report: &AvailabilityReport) -> String {
    let spread = |of: &Distribution| format!("{:.1}, {:.0}, {:.0}, {:.0}", of.mean, of.p50, of.p99, of.max);
    let percent =
        |part: usize, whole: usize| format!("{part} of {whole} ({:.2}%)", 100.0 * part as f64 / whole.max(1) as f64);
    let mut table = output::table(&["", ""]);
    let AvailabilityReport { segments, withheld, lost, .. } = report;
    for (name, value) in [
        ("segments, withheld, lost", format!("{segments}, {withheld}, {lost}")),
        ("copies of a segment: mean, p50, p99, max", spread(&report.copies)),
        ("seeding a block in ms: mean, p50, p99, max", spread(&report.seeding_ms)),
        ("samples got", percent(report.samples_found, report.samples)),
        ("samplers that got all", percent(report.samplers_satisfied, report.samplers)),
        ("time until sampled in ms: mean, p50, p99, max", spread(&report.sampled_ms)),
        ("one sample in ms: mean, p50, p99, max", spread(&report.sample_ms)),
        ("contacted per sample: mean, p50, p99, max", spread(&report.contacted)),
        ("hops per sample: mean, p50, p99, max", spread(&report.hops)),
        ("bytes of seeding", report.seeding_connections.bytes.to_string()),
        ("bytes of sampling", report.sampling_connections.bytes.to_string()),
    ] {
        table.add_row(vec![name.to_owned(), value]);
    }
    output::lines(&table).trim_start_matches('\n').to_owned()
}
