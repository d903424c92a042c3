//! How long it takes to make networks, in the columns of py-dht's benchmarks.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use anyhow::{Result, anyhow, ensure};
use chordal_sim::overlay::kademlia::{Network, NetworkSettings, Settings};
use chordal_sim::overlay::{Distribution, NodeId, on_threads};
use plotters::prelude::SeriesLabelPosition;
use serde::Serialize;

use super::files::{self, Csv};
use super::machine;
use super::plot::{self, Line, Panel, Scale};
use crate::cli::OverlayBench;
use crate::output::{self, Report};

/// The most rounds: each is kept.
const MOST_ROUNDS: usize = 1_000_000;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Benchmark {
    /// Creating so many nodes, with empty tables.
    NInitialization,
    /// Computing the best table of one node.
    BootstrapNode,
    /// A network with all its tables, on one thread.
    FastBootstrapNetwork,
    /// The same on several threads.
    FastThreadedBootstrapNetwork,
}

impl Benchmark {
    const ALL: [Benchmark; 4] = [
        Benchmark::NInitialization,
        Benchmark::BootstrapNode,
        Benchmark::FastBootstrapNetwork,
        Benchmark::FastThreadedBootstrapNetwork,
    ];

    fn name(self) -> &'static str {
        match self {
            Benchmark::NInitialization => "n_initialization",
            Benchmark::BootstrapNode => "bootstrap_node",
            Benchmark::FastBootstrapNetwork => "fast_bootstrap_network",
            Benchmark::FastThreadedBootstrapNetwork => "fast_threaded_bootstrap_network",
        }
    }
}

/// One time. Times of day in seconds since 1970.
#[derive(Debug, Clone, Serialize)]
struct Round {
    round: usize,
    start_time: f64,
    finish_time: f64,
    /// What was done besides what is timed.
    task_prep_time: f64,
    duration_s: f64,
    failed: bool,
}

/// All rounds of a benchmark at one size.
#[derive(Debug, Clone, Serialize)]
struct Summary {
    benchmark: Benchmark,
    nodes: usize,
    threads: usize,
    rounds: usize,
    failed: usize,
    /// Mean of what was done besides, in seconds.
    prep_time_s: f64,
    avg_s: f64,
    median_s: f64,
    p90_s: f64,
    #[serde(skip)]
    measured: Vec<Round>,
}

/// `tasks simulate overlay bench`.
pub(super) fn bench(task: &OverlayBench) -> Result<Report> {
    files::check(&task.files)?;
    ensure!(task.rounds <= MOST_ROUNDS, "--rounds must be at most {MOST_ROUNDS}, not {}", task.rounds);
    for nodes in &task.sizes {
        let settings = settings(task, *nodes);
        settings.check()?;
        machine::ensure_memory(settings.memory_bytes())?;
    }
    let several = if task.threads > 0 { task.threads } else { std::thread::available_parallelism()?.get() };
    let bar = machine::bar((task.sizes.len() * Benchmark::ALL.len() * task.rounds) as u64, "rounds");
    let mut summaries = Vec::new();
    for benchmark in Benchmark::ALL {
        let threads = if benchmark == Benchmark::FastThreadedBootstrapNetwork { several } else { 1 };
        for nodes in &task.sizes {
            let rounds = on_threads(threads, || {
                let round = |number| {
                    bar.inc(1);
                    measure(benchmark, number, settings(task, *nodes))
                };
                (0..task.rounds).map(round).collect()
            });
            summaries.push(summary(benchmark, *nodes, threads, rounds));
        }
    }
    bar.finish_and_clear();
    if let Some(path) = &task.files.csv {
        files::write(path, &csv(&summaries))?;
    }
    if let Some(path) = &task.files.plot {
        files::write(path, &plot::draw(&[picture(&summaries)])?)?;
    }
    Report::new(&summaries, format!("{}{}", table(&summaries), files::told(&task.files)))
}

fn settings(task: &OverlayBench, nodes: usize) -> NetworkSettings {
    let kademlia = Settings { k: task.k, beta: task.k, ..Settings::default() };
    NetworkSettings { nodes, kademlia, seed: task.seed, ..NetworkSettings::default() }
}

fn measure(benchmark: Benchmark, round: usize, settings: NetworkSettings) -> Round {
    let start_time = now();
    let begun = Instant::now();
    let timed = match benchmark {
        Benchmark::NInitialization => timed(|| Network::without_tables(settings).map(drop)),
        Benchmark::BootstrapNode => Network::new(settings).map_err(Into::into).and_then(|network| {
            let node = (round % settings.nodes) as NodeId;
            timed(|| network.best_table(node).map(drop))
        }),
        Benchmark::FastBootstrapNetwork | Benchmark::FastThreadedBootstrapNetwork => {
            timed(|| Network::new(settings).map(drop))
        }
    };
    let whole = begun.elapsed().as_secs_f64();
    let (duration_s, failed) = timed.map_or((0.0, true), |duration| (duration, false));
    Round { round, start_time, finish_time: now(), task_prep_time: whole - duration_s, duration_s, failed }
}

fn timed<E: std::error::Error + Send + Sync + 'static>(work: impl FnOnce() -> Result<(), E>) -> Result<f64> {
    let begun = Instant::now();
    work().map_err(|error| anyhow!(error))?;
    Ok(begun.elapsed().as_secs_f64())
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64())
}

fn summary(benchmark: Benchmark, nodes: usize, threads: usize, rounds: Vec<Round>) -> Summary {
    let of = Distribution::of(rounds.iter().filter(|round| !round.failed).map(|round| round.duration_s));
    Summary {
        benchmark,
        nodes,
        threads,
        rounds: rounds.len(),
        failed: rounds.iter().filter(|round| round.failed).count(),
        prep_time_s: Distribution::of(rounds.iter().map(|round| round.task_prep_time)).mean,
        avg_s: of.mean,
        median_s: of.p50,
        p90_s: of.p90,
        measured: rounds,
    }
}

/// The six columns of py-dht's files, and behind them what each row belongs to.
fn csv(summaries: &[Summary]) -> String {
    let mut csv = Csv::new("round,start_time,finish_time,task_prep_time,duration_s,failed,benchmark,nodes,threads");
    for it in summaries {
        for row in &it.measured {
            let Round { round, start_time, finish_time, task_prep_time, duration_s, failed } = row;
            let name = it.benchmark.name();
            csv.row(&[
                round,
                start_time,
                finish_time,
                task_prep_time,
                duration_s,
                failed,
                &name,
                &it.nodes,
                &it.threads,
            ]);
        }
    }
    csv.text().to_owned()
}

fn picture(summaries: &[Summary]) -> Panel {
    let mut lines: BTreeMap<Benchmark, Vec<(f64, f64)>> = BTreeMap::new();
    for it in summaries.iter().filter(|it| it.failed < it.rounds) {
        lines.entry(it.benchmark).or_default().push((it.nodes as f64, it.avg_s));
    }
    let lines = lines.into_iter().map(|(benchmark, mut points)| {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { name: benchmark.name().to_owned(), points, marked: true }
    });
    let panel = plot::panel("Making networks", "nodes", "seconds", lines.collect());
    Panel { x_scale: Scale::Log2, y_scale: Scale::Log10, names: SeriesLabelPosition::UpperLeft, ..panel }
}

fn table(summaries: &[Summary]) -> String {
    let head =
        ["BENCHMARK", "NODES", "THREADS", "ROUNDS", "FAILED", "PREP TIME (S)", "AVG (S)", "MEDIAN (S)", "P90 (S)"];
    let mut table = output::table(&head);
    for it in summaries {
        table.add_row(vec![
            it.benchmark.name().to_owned(),
            it.nodes.to_string(),
            it.threads.to_string(),
            it.rounds.to_string(),
            it.failed.to_string(),
            format!("{:.6}", it.prep_time_s),
            format!("{:.6}", it.avg_s),
            format!("{:.6}", it.median_s),
            format!("{:.6}", it.p90_s),
        ]);
    }
    output::lines(&table)
}
