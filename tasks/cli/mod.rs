//! What `tasks` understands. Definitions only.

mod overlay;
mod protocol;
mod secret;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use chordal::cli::bootstrap::BootstrapArgs;
use chordal_protocol::Mode;
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::parse;

pub(crate) use overlay::{
    ChurnSpec, Overlay, OverlayAvailability, OverlayBench, OverlayFiles, OverlayNetwork, OverlayRun, OverlaySweep,
    OverlayTask, OverlayWork, Parameter, Which,
};
pub(crate) use protocol::{Protocol, Protocols};
pub(crate) use secret::Secret;
pub(crate) use values::{Cas, Export, Get, Import, Put};

/// Boots, grows, feeds, watches, hurts and ends Chord rings on this machine.
#[derive(Debug, Parser)]
#[command(name = "tasks", version, max_term_width = 100)]
#[command(after_help = "New here? `tasks demo` gives the tour; `tasks boot` begins.")]
pub(crate) struct Cli {
    /// Where the ring is remembered; its nodes' logs/ and data/ lie beside it.
    #[arg(long, global = true, env = "CHORDAL_STATE", default_value = "network_state.json", value_name = "FILE")]
    pub(crate) state: PathBuf,
    /// The keys of the ring, if it is closed to strangers; what boots it remembers where they are.
    #[arg(long, global = true, env = "CHORDAL_SECRET_FILE", value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// The certificates of the ring, as `tasks certs` makes them, if its nodes speak TLS; what boots it remembers where they are.
    #[arg(long, global = true, env = "CHORDAL_CERTS", value_name = "DIR")]
    pub(crate) certs: Option<PathBuf>,
    /// Print one JSON value and nothing else on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// The tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Start a new ring: two nodes, each the other's predecessor and successor.
    Boot(Boot),
    /// End every node of the ring, hung and paused ones too; remove state, logs and data.
    Killall(Killall),
    /// killall, then boot.
    Reboot(Boot),
    /// Start a node that joins through a randomly picked one.
    Add(Add),
    /// Start many nodes, several at once, each joining through a randomly picked one.
    Addmany(AddMany),
    /// Start a node that joins a ring elsewhere.
    Join(Join),
    /// Ask a node to leave: it hands over what it holds and ends.
    Leave(Named),
    /// Kill a node (SIGKILL); its entry stays as stopped.
    Kill(Named),
    /// Start nodes that do not run, on their old ports and data.
    Start(Start),
    /// List the nodes of this machine.
    List,
    /// Print the end of a node's log.
    Logs(Logs),
    /// Store a value through a random node.
    Store(Store),
    /// Store many lines of filler text through random nodes.
    Storemany(StoreMany),
    /// Look up a value or a key through a random node; non-zero exit if nothing is stored there.
    Lookup(Lookup),
    /// Delete a value or a key through a random node; non-zero exit if nothing is stored there.
    Delete(Delete),
    /// Store bytes under a key through a random node.
    Put(Put),
    /// Print the bytes under a key; non-zero exit if nothing is stored there.
    Get(Get),
    /// Compare and set: put a value in the place of another; non-zero exit if that is not there.
    Cas(Cas),
    /// Write all values of the ring to a file.
    Export(Export),
    /// Store all values of a file.
    Import(Import),
    /// Show who holds what and what moves, again and again.
    Monitor(Monitor),
    /// Crawl the ring and check its invariants; non-zero exit if one is violated.
    Doctor(Doctor),
    /// List ranges that have lost their majority; bring one back without those who are gone for good.
    Recover(Recover),
    /// Keep a pool of nodes and name live ones to those who want to join: the bootstrap service, beside the state file.
    Manage(Box<BootstrapArgs>),
    /// A tour for newcomers, on a ring of its own.
    Demo(Demo),
    /// Simulate rings under faults, or overlays of up to a million nodes.
    #[command(subcommand)]
    Simulate(Simulate),
    /// Write a secret file, or replace its keys while the ring runs.
    #[command(subcommand)]
    Secret(Secret),
    /// Make an authority of a ring's own, and certificates for its nodes and clients.
    Certs(Certs),
    /// Print a completion script for a shell.
    Completions(Completions),
}

/// How new nodes are to be.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeOptions {
    /// The host to listen on.
    #[arg(long, default_value = "127.0.0.1", value_parser = parse::host)]
    pub(crate) host: String,
    /// Keep content in memory instead of on disk.
    #[arg(long)]
    pub(crate) memory: bool,
    /// How the nodes route.
    #[arg(long, value_name = "MODE")]
    pub(crate) routing: Option<Routing>,
    /// For lessons: nodes may be placed, state-changing GETs are served.
    #[arg(long)]
    pub(crate) lab: bool,
}

/// How lookups travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Routing {
    /// Successor by successor.
    Linear,
    /// By the closest preceding finger.
    Fingers,
    /// By remembered owners first.
    Cached,
}

impl Routing {
    /// The word on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Routing::Linear => "linear",
            Routing::Fingers => "fingers",
            Routing::Cached => "cached",
        }
    }
}

impl From<Routing> for Mode {
    fn from(routing: Routing) -> Mode {
        match routing {
            Routing::Linear => Mode::Linear,
            Routing::Fingers => Mode::Fingers,
            Routing::Cached => Mode::Cached,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Boot {
    #[command(flatten)]
    pub(crate) options: NodeOptions,
    /// The port of node-1; 0 lets the system pick. node-2 always gets a picked one.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// How many nodes keep each value: 1 to 16, or `all` (every node, of at most 16) [default: 3]
    #[arg(long, value_name = "COPIES")]
    pub(crate) replication_factor: Option<String>,
    /// Places the nodes (with --lab): one or two hex prefixes.
    #[arg(long, value_name = "HEX[,HEX]", value_delimiter = ',', num_args = 1, requires = "lab")]
    pub(crate) id: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Killall {
    /// Keep data, logs and state, for `tasks start --all`.
    #[arg(long)]
    pub(crate) keep_data: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Newcomer {
    #[command(flatten)]
    pub(crate) options: NodeOptions,
    /// The port; 0 lets the system pick.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// What to call it; by default the next node-N.
    #[arg(long, value_parser = parse::name)]
    pub(crate) name: Option<String>,
    /// Places the node (with --lab, on a ring made for lessons): a hex prefix.
    #[arg(long, value_name = "HEX", requires = "lab")]
    pub(crate) id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    pub(crate) newcomer: Newcomer,
}

#[derive(Debug, Args)]
pub(crate) struct AddMany {
    /// How many.
    #[arg(value_name = "X", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) options: NodeOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// A node of the ring to join.
    #[arg(value_name = "HOST:PORT", value_parser = parse::addr)]
    pub(crate) contact: String,
    #[command(flatten)]
    pub(crate) newcomer: Newcomer,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The node's name, as `tasks list` shows it.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true))]
pub(crate) struct Start {
    /// The node's name, as `tasks list` shows it.
    #[arg(group = "which")]
    pub(crate) name: Option<String>,
    /// Every node that does not run.
    #[arg(long, group = "which")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The node's name, as `tasks list` shows it.
    pub(crate) name: String,
    /// Go on printing what is added, until Ctrl-C.
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) follow: bool,
    /// How many lines from the end.
    #[arg(short = 'n', long, default_value_t = 50)]
    pub(crate) lines: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Store {
    /// The value.
    pub(crate) value: String,
    /// Under which key; without one the value is its own key.
    #[arg(long)]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) via: Via,
}

#[derive(Debug, Args)]
pub(crate) struct StoreMany {
    /// How many values, all different.
    #[arg(value_name = "X", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    /// Take lines of this file; by default of ./lipsum.txt, else of the text compiled in.
    #[arg(long, value_name = "FILE")]
    pub(crate) lipsum: Option<PathBuf>,
}

/// A value that is its own key, or a key.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct What {
    /// The value, if it was stored without a key.
    pub(crate) value: Option<String>,
    /// The key that it was stored under.
    #[arg(long)]
    pub(crate) key: Option<String>,
}

impl What {
    /// The key in either case.
    pub(crate) fn key(&self) -> &str {
        self.key.as_deref().or(self.value.as_deref()).unwrap_or_default()
    }
}

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct Via {
    /// Ask this node; by default a random one that runs.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) via: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Lookup {
    #[command(flatten)]
    pub(crate) what: What,
    /// Draw the way to the owner, hop by hop.
    #[arg(long)]
    pub(crate) trace: bool,
    /// How the traced lookup travels.
    #[arg(long, requires = "trace")]
    pub(crate) mode: Option<Routing>,
    #[command(flatten)]
    pub(crate) via: Via,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) via: Via,
}

#[derive(Debug, Args)]
pub(crate) struct Monitor {
    /// How often to look: `2s`, `500ms` or plain seconds.
    #[arg(long, default_value = "1s", value_parser = parse::duration, allow_negative_numbers = true)]
    pub(crate) interval: Duration,
    /// Look once and end (as --json does).
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Check only this part; without it the pointers are checked, and the views told of.
    #[arg(long)]
    pub(crate) only: Option<Part>,
    /// Look again until all is well, at most this long: `2s`, `500ms` or plain seconds.
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, allow_negative_numbers = true)]
    pub(crate) wait: Option<Duration>,
    /// Look again and again until Ctrl-C, and count what is broken meanwhile; fails if an invariant that must hold at all
    /// times was violated at any look, or if the ring is not ideal at the last. With --json a line for each look, and one
    /// for the summary.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) watch: bool,
    /// How often --watch looks: `2s`, `500ms` or plain seconds.
    #[arg(long, default_value = "1s", value_parser = parse::duration, allow_negative_numbers = true, requires = "watch")]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The range, as it is listed: `0a1b2c3d..4e5f6071`. Without one, those that have no majority are listed.
    #[arg(value_name = "RANGE")]
    pub(crate) range: Option<String>,
    /// The range that this key belongs to.
    #[arg(long, conflicts_with = "range")]
    pub(crate) key: Option<String>,
    /// Go on without the members that are missing: what only they had is lost for good. Where one node is left of the ring, it goes
    /// on alone.
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// A node of a ring that the state file does not know.
    #[arg(long, value_name = "HOST:PORT", value_parser = parse::addr)]
    pub(crate) node: Option<String>,
}

/// What the doctor can look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The pointers between nodes.
    Ring,
    /// The views that keep content.
    Content,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the ring running when the tour ends.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// What can be simulated.
#[derive(Debug, Subcommand)]
pub(crate) enum Simulate {
    /// Whole rings of the code that nodes run, under faults.
    Protocol(Box<Protocol>),
    /// Chord and Kademlia networks of up to a million nodes.
    Overlay(Overlay),
}

#[derive(Debug, Args)]
pub(crate) struct Certs {
    /// The directory for all of them; an authority that is there already makes new certificates.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// A host under which nodes are called, besides this machine: an address or a name; once for each.
    #[arg(long, value_name = "HOST", value_parser = parse::host)]
    pub(crate) host: Vec<String>,
    /// For how many days the certificates are good.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub(crate) days: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// For which shell.
    pub(crate) shell: Shell,
}

#[cfg(test)]
mod tests;
