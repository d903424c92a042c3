//! Lookups in one network, and the figures of it.

use std::time::Instant;

use anyhow::{Result, ensure};
use chordal::words::counted;
use chordal_sim::overlay::{
    Churn, ChurnReport, Distribution, LookupRow, Metrics, Window, Workload, WorkloadReport, on_threads,
};
use comfy_table::Cell;
use serde::Serialize;

use super::files::{self, Csv};
use super::{machine, network, plot};
use crate::cli::{OverlayRun, OverlayWork, Which};
use crate::output::{self, Report};

/// What was measured in one network.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    pub(super) overlay: &'static str,
    /// How many nodes there were at first.
    pub(super) nodes: usize,
    /// How many lived when the lookups began.
    pub(super) living: usize,
    /// How many of the closest a lookup is to find: the size of a bucket in Kademlia, one in Chord.
    pub(super) k: usize,
    pub(super) seed: u64,
    pub(super) threads: usize,
    /// Seconds that making the network has taken.
    pub(super) init_s: f64,
    pub(super) lookups: usize,
    /// Lookups per second of this machine's time.
    pub(super) lookups_per_s: f64,
    /// Nodes asked in sequence by the lookups that succeeded.
    pub(super) hops: Distribution,
    pub(super) contacted: Distribution,
    /// Mean share of the true closest (in Chord: the owner) that was found.
    pub(super) recall: f64,
    /// Lookups that failed.
    pub(super) failures: usize,
    pub(super) delay_ms: Distribution,
    pub(super) connections: Metrics,
    pub(super) bytes_per_lookup: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) load: Option<Load>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) churn: Option<ChurnFigures>,
    pub(super) peak_rss_bytes: Option<u64>,
}

/// How the work is spread over the machines that live.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Load {
    /// Questions answered per machine.
    pub(super) questions: Distribution,
    /// The busiest machine's share, as a multiple of the mean.
    pub(super) questions_max_over_mean: f64,
    /// Keys of the workload per machine.
    pub(super) keys: Distribution,
    /// The same for keys.
    pub(super) keys_max_over_mean: f64,
    /// The greatest part of the circle that a machine owns, as a multiple of the mean (Chord).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range_max_over_mean: Option<f64>,
}

/// What came and went.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ChurnFigures {
    pub(super) joined: usize,
    pub(super) gone: usize,
    pub(super) living: usize,
    /// Dead nodes asked per lookup.
    pub(super) dead_met: f64,
    pub(super) windows: Vec<Window>,
}

/// A network with what was done in it.
pub(super) struct Done {
    pub(super) figures: Figures,
    pub(super) report: WorkloadReport,
    /// When each lookup was begun, in seconds, if nodes came and went.
    begun_s: Option<Vec<f64>>,
}

/// `tasks simulate overlay kademlia` and `chord`.
pub(super) fn run(which: Which, task: &OverlayRun) -> Result<Report> {
    files::check(&task.files)?;
    let done = measure(which, &task.work)?;
    if let Some(path) = &task.files.csv {
        files::write(path, &csv(&done))?;
    }
    if let Some(path) = &task.files.plot {
        files::write(path, &plot::run(&done)?)?;
    }
    let text = format!("{}{}", table(&[&done.figures]), files::told(&task.files));
    Report::new(&done.figures, text)
}

/// Refuses what makes no sense or does not fit into memory.
pub(super) fn check(which: Which, asked: &OverlayWork) -> Result<()> {
    checked(which, asked).map(drop)
}

/// Makes a network and does the lookups in it. Everything is checked before anything is done.
pub(super) fn measure(which: Which, asked: &OverlayWork) -> Result<Done> {
    let (asked, workload, churn) = checked(which, asked)?;
    on_threads(asked.network.threads, || measure_here(which, &asked, &workload, churn.as_ref()))
}

fn checked(which: Which, asked: &OverlayWork) -> Result<(OverlayWork, Workload, Option<Churn>)> {
    let mut asked = asked.clone();
    let workload = network::workload(&asked);
    workload.check()?;
    let churn = network::churn(&mut asked)?;
    let several = which == Which::Chord && asked.network.virtual_nodes > 1;
    ensure!(churn.is_none() || !several, "nodes come and go one by one: leave out --virtual or --churn");
    network::check(which, &asked.network, asked.lookups, churn.as_ref())?;
    Ok((asked, workload, churn))
}

fn measure_here(which: Which, asked: &OverlayWork, workload: &Workload, churn: Option<&Churn>) -> Result<Done> {
    machine::forget_peak_rss();
    let spinner = machine::spinner(format!("making {}", counted(asked.network.nodes, "node")));
    let begun = Instant::now();
    let mut overlay = network::build(which, &asked.network)?;
    let init_s = begun.elapsed().as_secs_f64();
    spinner.finish_and_clear();
    if asked.dead > 0.0 {
        overlay.kill(asked.dead, asked.network.seed);
    }
    let living = overlay.members().living();
    let bar = machine::bar(workload.lookups as u64, "lookups");
    let begun = Instant::now();
    let (report, churned) = match churn {
        None => (workload.run(&*overlay, &|done| bar.inc(done)), None),
        Some(churn) => {
            let report = churn.run(&mut *overlay, workload, &|done| bar.inc(done))?;
            (report.lookups.clone(), Some(report))
        }
    };
    let took_s = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let figures = Figures {
        overlay: overlay.name(),
        nodes: asked.network.nodes,
        living,
        k: if which == Which::Kademlia { asked.network.k } else { 1 },
        seed: asked.network.seed,
        threads: rayon_threads(asked.network.threads),
        init_s,
        lookups: report.rows.len(),
        lookups_per_s: report.rows.len() as f64 / took_s,
        hops: report.hops(),
        contacted: report.distribution(|row| f64::from(row.contacted)),
        recall: report.recall(),
        failures: report.failures(),
        delay_ms: report.distribution(|row| row.delay_ms),
        connections: report.connections,
        bytes_per_lookup: report.connections.bytes as f64 / report.rows.len() as f64,
        load: churned.is_none().then(|| load(&report, overlay.shares())),
        churn: churned.as_ref().map(churn_figures),
        peak_rss_bytes: machine::peak_rss_bytes(),
    };
    Ok(Done { figures, report, begun_s: churned.map(|report| report.begun_s) })
}

fn rayon_threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

fn load(report: &WorkloadReport, shares: Option<Vec<f64>>) -> Load {
    let of = |counts: &[u32]| Distribution::of(counts.iter().map(|count| f64::from(*count)));
    let over_mean = |of: &Distribution| if of.mean > 0.0 { of.max / of.mean } else { 0.0 };
    let (questions, keys) = (of(&report.asked), of(&report.keys));
    Load {
        questions_max_over_mean: over_mean(&questions),
        keys_max_over_mean: over_mean(&keys),
        range_max_over_mean: shares.map(|shares| over_mean(&Distribution::of(shares))),
        questions,
        keys,
    }
}

fn churn_figures(report: &ChurnReport) -> ChurnFigures {
    ChurnFigures {
        joined: report.joined,
        gone: report.gone,
        living: report.living,
        dead_met: report.lookups.distribution(|row| f64::from(row.dead_met)).mean,
        windows: report.windows.clone(),
    }
}

fn csv(done: &Done) -> String {
    let mut csv = Csv::new("lookup,begun_s,from,found,hops,contacted,failed,dead_met,recall,delay_ms");
    for (at, row) in done.report.rows.iter().enumerate() {
        let begun = done.begun_s.as_ref().map_or(0.0, |begun| begun[at]);
        let LookupRow { lookup, from, found, hops, contacted, failed, dead_met, recall, delay_ms } = row;
        csv.row(&[lookup, &begun, from, found, hops, contacted, failed, dead_met, recall, delay_ms]);
    }
    csv.text().to_owned()
}

/// Networks side by side, for people.
pub(super) fn table(all: &[&Figures]) -> String {
    let head: Vec<&str> = std::iter::once("").chain(all.iter().map(|figures| figures.overlay)).collect();
    let mut table = output::table(&head);
    let mut row = |name: &str, of: &dyn Fn(&Figures) -> String| {
        table.add_row(std::iter::once(name.to_owned()).chain(all.iter().map(|it| of(it))).map(Cell::new));
    };
    row("nodes", &|it| it.nodes.to_string());
    if all.iter().any(|it| it.living != it.nodes) {
        row("living", &|it| it.living.to_string());
    }
    row("made in", &|it| format!("{:.2} s", it.init_s));
    row("lookups", &|it| it.lookups.to_string());
    row("per second", &|it| format!("{:.0}", it.lookups_per_s));
    row("hops: mean, p50, p99, max", &|it| spread(&it.hops));
    row("hops: variance", &|it| format!("{:.2}", it.hops.variance));
    row("contacted: mean, p50, p99, max", &|it| spread(&it.contacted));
    row("delay in ms: mean, p50, p99, max", &|it| spread(&it.delay_ms));
    row("recall", &|it| format!("{:.4}", it.recall));
    row("lookups that failed", &|it| {
        format!("{} ({:.2}%)", it.failures, 100.0 * it.failures as f64 / it.lookups as f64)
    });
    row("connections, failed", &|it| format!("{}, {}", it.connections.attempts, it.connections.failures()));
    row("bytes per lookup", &|it| format!("{:.0}", it.bytes_per_lookup));
    if all.iter().any(|it| it.load.is_some()) {
        if all.iter().any(|it| it.load.as_ref().is_some_and(|load| load.range_max_over_mean.is_some())) {
            row("largest range, times the mean", &|it| {
                let range = it.load.as_ref().and_then(|load| load.range_max_over_mean);
                range.map_or_else(String::new, |range| format!("{range:.1}"))
            });
        }
        row("busiest node, times the mean", &|it| {
            it.load.as_ref().map_or_else(String::new, |load| format!("{:.1}", load.questions_max_over_mean))
        });
    }
    if all.iter().any(|it| it.churn.is_some()) {
        row("joined, gone, living at the end", &|it| {
            it.churn.as_ref().map_or_else(String::new, |it| format!("{}, {}, {}", it.joined, it.gone, it.living))
        });
        row("dead nodes asked per lookup", &|it| {
            it.churn.as_ref().map_or_else(String::new, |it| format!("{:.3}", it.dead_met))
        });
    }
    row("memory at most", &|it| {
        it.peak_rss_bytes.map_or_else(String::new, |bytes| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)))
    });
    output::lines(&table)
}

fn spread(of: &Distribution) -> String {
    format!("{:.2}, {:.0}, {:.0}, {:.0}", of.mean, of.p50, of.p99, of.max)
}
