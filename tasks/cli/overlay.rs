//! What `tasks simulate overlay` understands.

use std::path::PathBuf;
use std::time::Duration;

use chordal_sim::overlay::{DelayRange, Sessions};
use clap::{Args, Subcommand, ValueEnum};

use super::Routing;
use crate::parse;

/// Options of `tasks simulate overlay`.
#[derive(Debug, Args)]
pub(crate) struct Overlay {
    // In a box, since the options are many and every other task would take as much room.
    #[command(subcommand)]
    pub(crate) task: Box<OverlayTask>,
}

/// What can be done with simulated overlays.
#[derive(Debug, Subcommand)]
pub(crate) enum OverlayTask {
    /// Lookups in a Kademlia network.
    Kademlia(OverlayRun),
    /// Lookups in a Chord ring, by the routing of the protocol itself.
    Chord(OverlayRun),
    /// The same lookups in both, and one picture.
    Compare(OverlayRun),
    /// One parameter over several values.
    Sweep(OverlaySweep),
    /// How long it takes to make networks, at several sizes.
    Bench(OverlayBench),
    /// Data-availability sampling: blocks are seeded as segments, and nodes sample them.
    Availability(OverlayAvailability),
}

/// Which overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// Kademlia, with buckets that keep the closest.
    Kademlia,
    /// Chord.
    Chord,
}

/// A network. What belongs to one overlay only has no effect on the other, so that both can be given the same line.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverlayNetwork {
    /// How many nodes (in Chord: machines).
    #[arg(long, default_value_t = 10_000, value_parser = count)]
    pub(crate) nodes: usize,
    /// Kademlia: nodes in a bucket and in an answer.
    #[arg(long, default_value_t = 20, value_parser = count)]
    pub(crate) k: usize,
    /// Kademlia: questions of a lookup under way at once; at most k.
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(crate) alpha: usize,
    /// Kademlia: how many of the closest nodes a lookup returns; by default k.
    #[arg(long, value_parser = count)]
    pub(crate) beta: Option<usize>,
    /// Kademlia: a lookup ends after so many answers in a row without a new close node.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps_to_stop: u32,
    /// Chord: how lookups travel.
    #[arg(long, default_value = "fingers")]
    pub(crate) mode: Routing,
    /// Chord: length of the successor lists; with 1 lookups go by the fingers alone.
    #[arg(long, default_value_t = 8, value_parser = count)]
    pub(crate) successors: usize,
    /// Chord: nodes of each machine on the circle.
    #[arg(long = "virtual", default_value_t = 1, value_parser = count, value_name = "V")]
    pub(crate) virtual_nodes: usize,
    /// Chord: owners that one remembers in the mode cached.
    #[arg(long, default_value_t = 4096, value_parser = count)]
    pub(crate) cache: usize,
    /// Chord: how often a node that fails to answer is asked before it is gone round.
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(crate) tries: usize,
    /// Chord: nodes that a lookup may ask before it gives up, 1024 in a node of ours; 0 is all.
    #[arg(long, default_value_t = 0)]
    pub(crate) budget: u32,
    /// Percentage of the connections that are refused at once.
    #[arg(long, default_value_t = 0.0, value_parser = percent, value_name = "PERCENT", allow_negative_numbers = true)]
    pub(crate) fast_error: f64,
    /// Percentage of the others that are waited for in vain.
    #[arg(long, default_value_t = 0.0, value_parser = percent, value_name = "PERCENT", allow_negative_numbers = true)]
    pub(crate) slow_error: f64,
    /// Delay of a connection and of each question over it, in ms.
    #[arg(long, default_value = "0..0", value_parser = delays, value_name = "LO..HI")]
    pub(crate) delay: DelayRange,
    /// Delay of a fast error, in ms.
    #[arg(long, default_value = "0..0", value_parser = delays, value_name = "LO..HI")]
    pub(crate) fast_delay: DelayRange,
    /// Delay of a slow error, in ms.
    #[arg(long, default_value = "0..0", value_parser = delays, value_name = "LO..HI")]
    pub(crate) slow_delay: DelayRange,
    /// How long it takes to notice that a node is dead, in ms.
    #[arg(long, default_value_t = 1000.0, value_parser = milliseconds, value_name = "MS")]
    pub(crate) timeout: f64,
    /// By how much each contact that a node has handled delays the next ones, in ms.
    #[arg(long, default_value_t = 0.0, value_parser = milliseconds, value_name = "MS")]
    pub(crate) gamma: f64,
    /// The network's id: another id has other nodes.
    #[arg(long, default_value_t = 0, value_name = "ID")]
    pub(crate) network: u64,
    /// Decides everything that is drawn.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many threads; 0 is one for each processor. The result is the same on any number.
    #[arg(long, default_value_t = 0, value_parser = threads)]
    pub(crate) threads: usize,
}

/// What is written down.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverlayFiles {
    /// Write what was measured to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Draw it into this file.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

/// Lookups in a network.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverlayWork {
    #[command(flatten)]
    pub(crate) network: OverlayNetwork,
    /// How many lookups, each of a random key.
    #[arg(long, default_value_t = 10_000, value_parser = count)]
    pub(crate) lookups: usize,
    /// How many nodes begin them; 0 is all.
    #[arg(long, default_value_t = 0)]
    pub(crate) initiators: usize,
    /// Each key has a value, and the lookup ends where it is found.
    #[arg(long)]
    pub(crate) values: bool,
    /// Reset the overheads (gamma) after so many lookups; 0 is never.
    #[arg(long, default_value_t = 0)]
    pub(crate) reset_every: usize,
    /// Percentage of the nodes that die at once before the lookups, unnoticed.
    #[arg(long, default_value_t = 0.0, value_parser = percent, value_name = "PERCENT", allow_negative_numbers = true)]
    pub(crate) dead: f64,
    #[command(flatten)]
    pub(crate) churn: OverlayChurn,
}

/// Nodes that come and go while lookups are made.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverlayChurn {
    /// How long nodes stay: `exponential:MEAN`, `pareto:SHAPE:SHORTEST` or `trace:FILE` (CSV, `session_s` or
    /// `start_s,end_s`); times as `90s`, `500ms` or plain seconds.
    #[arg(long, value_parser = churn, value_name = "DISTRIBUTION")]
    pub(crate) churn: Option<ChurnSpec>,
    /// Nodes that join per second; by default one for each that goes.
    #[arg(long, requires = "churn", value_parser = rate, value_name = "PER_S")]
    pub(crate) join_rate: Option<f64>,
    /// Nodes that die per second besides those whose time is up.
    #[arg(long, requires = "churn", value_parser = rate, value_name = "PER_S")]
    pub(crate) leave_rate: Option<f64>,
    /// How long it goes on; the lookups are spread over it.
    #[arg(long, requires = "churn", default_value = "3600s", value_parser = parse::simulated_duration)]
    pub(crate) duration: Duration,
    /// How often a node refreshes its buckets or fingers.
    #[arg(long, requires = "churn", default_value = "600s", value_parser = parse::simulated_duration)]
    pub(crate) refresh: Duration,
    /// Chord: how often a node puts its successor list right.
    #[arg(long, requires = "churn", default_value = "30s", value_parser = parse::simulated_duration)]
    pub(crate) stabilize: Duration,
}

/// Options of `tasks simulate overlay kademlia`, `chord` and `compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverlayRun {
    #[command(flatten)]
    pub(crate) work: OverlayWork,
    #[command(flatten)]
    pub(crate) files: OverlayFiles,
}

/// Options of `tasks simulate overlay sweep`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverlaySweep {
    /// Which overlay.
    pub(crate) which: Which,
    /// Which parameter.
    #[arg(long, value_name = "PARAMETER")]
    pub(crate) over: Parameter,
    /// Its values, separated by commas.
    #[arg(long = "at", value_name = "X,Y,…", value_delimiter = ',', num_args = 1, required = true)]
    pub(crate) at: Vec<f64>,
    #[command(flatten)]
    pub(crate) work: OverlayWork,
    #[command(flatten)]
    pub(crate) files: OverlayFiles,
}

/// What can be varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Parameter {
    /// The number of nodes.
    Nodes,
    /// k (and beta, unless it is given).
    K,
    /// alpha.
    Alpha,
    /// beta.
    Beta,
    /// Steps to stop.
    StepsToStop,
    /// The rate of fast errors.
    FastError,
    /// The rate of slow errors.
    SlowError,
    /// gamma, in ms.
    Gamma,
    /// The share of nodes that die at once.
    Dead,
    /// The length of successor lists.
    Successors,
    /// Virtual nodes.
    Virtual,
}

/// Options of `tasks simulate overlay bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverlayBench {
    /// Numbers of nodes.
    #[arg(
        long, value_name = "N,…", value_delimiter = ',', num_args = 1, value_parser = count,
        default_value = "500,1000,1200,2000,5000,10000"
    )]
    pub(crate) sizes: Vec<usize>,
    /// How often each is done.
    #[arg(long, default_value_t = 5, value_parser = count)]
    pub(crate) rounds: usize,
    /// Nodes in a bucket.
    #[arg(long, default_value_t = 20, value_parser = count)]
    pub(crate) k: usize,
    /// Decides the nodes.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many threads the benchmark on several has; 0 is one for each processor.
    #[arg(long, default_value_t = 0, value_parser = threads)]
    pub(crate) threads: usize,
    #[command(flatten)]
    pub(crate) files: OverlayFiles,
}

/// Options of `tasks simulate overlay availability`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverlayAvailability {
    /// Which overlay.
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) network: OverlayNetwork,
    /// How many blocks, one after the other.
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(crate) blocks: usize,
    /// Rows of a block.
    #[arg(long, default_value_t = 64, value_parser = count)]
    pub(crate) rows: usize,
    /// Columns of a block; each row and column is one segment.
    #[arg(long, default_value_t = 64, value_parser = count)]
    pub(crate) columns: usize,
    /// Bytes of a segment.
    #[arg(long, default_value_t = 560, value_parser = count)]
    pub(crate) segment_bytes: usize,
    /// How many nodes sample each block.
    #[arg(long, default_value_t = 500, value_parser = count)]
    pub(crate) samplers: usize,
    /// How many segments each of them samples.
    #[arg(long, default_value_t = 75, value_parser = count)]
    pub(crate) samples: usize,
    /// How many segments are seeded, or sampled, by a node at once.
    #[arg(long, default_value_t = 16, value_parser = count)]
    pub(crate) parallel: usize,
    /// Percentage of the segments that are never seeded.
    #[arg(long, default_value_t = 0.0, value_parser = percent, value_name = "PERCENT", allow_negative_numbers = true)]
    pub(crate) withheld: f64,
    /// Percentage of the nodes that die between seeding and sampling.
    #[arg(long, default_value_t = 0.0, value_parser = percent, value_name = "PERCENT", allow_negative_numbers = true)]
    pub(crate) dead: f64,
    #[command(flatten)]
    pub(crate) files: OverlayFiles,
}

/// How long nodes stay, as it stands on the command line: a trace is read later.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ChurnSpec {
    /// A distribution.
    Drawn(Sessions),
    /// What a file says.
    Trace(PathBuf),
}

fn count(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse::<usize>() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("`{text}` is no whole number from 1")),
    }
}

fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().map_err(|_| format!("`{text}` is no number of threads"))?;
    if number <= 1024 { Ok(number) } else { Err("at most 1024 threads".to_owned()) }
}

fn percent(text: &str) -> Result<f64, String> {
    let wrong = || format!("a percentage is a number from 0 to 100, not `{text}`");
    let number = text.parse::<f64>().map_err(|_| wrong())?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err(wrong()) }
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|it| (0.0..=3_600_000.0).contains(it));
    number.ok_or_else(|| format!("it is a number of milliseconds from 0 to 3600000 (an hour), not `{text}`"))
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|it| it.is_finite() && *it > 0.0);
    number.ok_or_else(|| format!("a rate is a positive number per second, not `{text}`"))
}

fn delays(text: &str) -> Result<DelayRange, String> {
    let wrong = || format!("a delay range is LO..HI in ms, such as 10..50, not `{text}`");
    let (lo, hi) = text.split_once("..").unwrap_or((text, text));
    let (lo, hi) = (lo.parse::<f64>().map_err(|_| wrong())?, hi.parse::<f64>().map_err(|_| wrong())?);
    DelayRange::of_ms(lo, hi).map_err(|error| error.to_string())
}

fn churn(text: &str) -> Result<ChurnSpec, String> {
    let wrong = || format!("churn is exponential:MEAN, pareto:SHAPE:SHORTEST or trace:FILE, not `{text}`");
    let seconds = |text: &str| parse::simulated_duration(text).map(|duration| duration.as_secs_f64());
    let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
    match kind {
        "exponential" => Sessions::exponential(seconds(rest)?).map(ChurnSpec::Drawn).map_err(|error| error.to_string()),
        "pareto" => {
            let (shape, shortest) = rest.split_once(':').ok_or_else(wrong)?;
            let shape = shape.parse::<f64>().map_err(|_| wrong())?;
            Sessions::pareto(shape, seconds(shortest)?).map(ChurnSpec::Drawn).map_err(|error| error.to_string())
        }
        "trace" if !rest.is_empty() => Ok(ChurnSpec::Trace(PathBuf::from(rest))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
