//! The command line of the daemon: `chordal start` and `chordal bootstrap-service`, which `tasks` runs too, and operations on a
//! ring that runs somewhere.

pub mod ask;
pub mod bootstrap;
mod member;
mod notify;
pub mod parse;
mod roster;
pub mod security;
pub mod value;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chordal_protocol::{Id, Mode, Ring};
use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use ask::{InfoArgs, KeyArgs, PutArgs};
use bootstrap::BootstrapArgs;
use security::SecurityArgs;

use crate::machine::node_verb;
use crate::node::{Advertise, Config, Data, Node, Upnp, check_name};

/// A node of a Chord ring over HTTP, and operations on a ring that runs.
#[derive(Debug, Parser)]
#[command(name = "chordal", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `chordal` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node, alone or on the ring of --bootstrap, and run it until it is told to stop
    Start(Box<StartArgs>),
    /// Keep a pool of nodes that form one ring, and name live ones to those who want to join it
    #[command(name = "bootstrap-service")]
    BootstrapService(Box<BootstrapArgs>),
    /// Store a value under a key, and print the tag of its version
    Put(PutArgs),
    /// Print the value of a key, byte for byte
    Get(KeyArgs),
    /// Delete the value of a key
    Delete(KeyArgs),
    /// Print who a node is, whom it knows, and how many keys it serves
    Info(InfoArgs),
}

/// What `chordal start` takes.
#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_parser = parse::host, env = "CHORDAL_HOST")]
    pub host: String,
    /// Port to listen on; 0 takes any free one, or the one that the data directory remembers
    #[arg(long, default_value_t = 0, env = "CHORDAL_PORT")]
    pub port: u16,
    /// What people call the node [default: node-PORT]
    #[arg(long, value_parser = name, env = "CHORDAL_NAME")]
    pub name: Option<String>,
    /// host:port that other nodes are told, and whose SHA-256 is the node's id; a host alone goes with the port that it listens
    /// on; `auto` is where those of --bootstrap see it, if they can call it back there [default: where it listens]
    #[arg(long, value_name = "HOST:PORT|HOST|auto", value_parser = str::parse::<Advertise>, env = "CHORDAL_ADVERTISE")]
    pub advertise: Option<Advertise>,
    /// Have the router forward a port to this node (UPnP), and tell others its outer address unless --advertise names another
    #[arg(long, value_parser = BoolishValueParser::new(), env = "CHORDAL_UPNP")]
    pub upnp: bool,
    /// For how many seconds the router is asked each time
    #[arg(long, value_name = "SECONDS", hide = true)]
    pub upnp_lease: Option<u32>,
    /// Find nodes of the same ring on the local network (mDNS), and be found: a node without a ring joins the one it finds, and
    /// begins none. NAME tells rings apart that have the same secret, or none; it is `chordal` if it is left out
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = Config::RING,
          value_parser = name, env = "CHORDAL_DISCOVER")]
    pub discover: Option<String>,
    /// Begin a ring: for the first node of one whose nodes --discover each other
    #[arg(long, value_parser = BoolishValueParser::new(), env = "CHORDAL_BEGIN")]
    pub begin: bool,
    /// Members of the ring to join, or the URLs of bootstrap services that name some, more than once or separated by commas;
    /// without any, the node begins a ring of its own
    #[arg(
        long,
        visible_alias = "join",
        value_name = "HOST:PORT|URL,…",
        value_delimiter = ',',
        env = "CHORDAL_BOOTSTRAP"
    )]
    pub bootstrap: Vec<String>,
    /// How often to try to join before giving up, or `forever`. A node that was told to join never begins a ring of its own
    #[arg(long, value_name = "TIMES", default_value = "8", value_parser = attempts, allow_hyphen_values = true,
          env = "CHORDAL_JOIN_ATTEMPTS")]
    pub join_attempts: Attempts,
    /// Directory for what the node must not forget [default: data/ADDRESS in the current directory]
    #[arg(long, value_name = "DIR", conflicts_with = "memory", env = "CHORDAL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep everything in memory: it is gone when the node stops
    #[arg(long, value_parser = BoolishValueParser::new(), env = "CHORDAL_MEMORY")]
    pub memory: bool,
    /// How lookups travel: linear, fingers or cached
    #[arg(long, default_value_t = Mode::default(), value_name = "MODE", env = "CHORDAL_ROUTING")]
    pub routing: Mode,
    /// Place the node at this id, for a lesson (the first hex digits are enough; needs a --lab ring)
    #[arg(long, value_name = "HEX", value_parser = hex_prefix, env = "CHORDAL_ID")]
    pub id: Option<Id>,
    /// Begin a ring for lessons: nodes may be placed, and GET may change state
    #[arg(long, value_parser = BoolishValueParser::new(), env = "CHORDAL_LAB")]
    pub lab: bool,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "CHORDAL_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Wire the predecessor by hand, as in the first lab (needs --lab)
    #[arg(long, value_name = "HOST:PORT", env = "CHORDAL_PRED")]
    pub pred: Option<String>,
    /// Wire the successor by hand, as in the first lab (needs --lab)
    #[arg(long, value_name = "HOST:PORT", env = "CHORDAL_SUCC")]
    pub succ: Option<String>,
    /// Largest value in bytes on a ring that this node begins; who joins learns it, and is told in the log if it asks for another
    /// [default: 1048576]
    #[arg(long, value_name = "BYTES", value_parser = value_limit, env = "CHORDAL_VALUE_LIMIT")]
    pub value_limit: Option<usize>,
    /// How many nodes keep each value on a ring that this node begins: 1 to 16, or `all`: every node, and the ring takes no
    /// more than 16. Crashes of fewer than half of them lose nothing. Who joins learns it, and is told in the log if it asks for
    /// another [default: 3]
    #[arg(long, value_name = "COPIES", value_parser = copies, env = "CHORDAL_REPLICATION_FACTOR")]
    pub replication_factor: Option<u8>,
    /// Threads that answer requests; one more keeps content. A node that has a machine to itself gains by more
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64),
          env = THREADS)]
    pub threads: u8,
    /// Milliseconds between two rounds of stabilizing
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000),
          env = "CHORDAL_STABILIZE_INTERVAL")]
    pub stabilize_interval: u64,
    /// How it keeps strangers out
    #[command(flatten)]
    pub security: SecurityArgs,
    /// Write this file, atomically, when the node is ready
    #[arg(long, value_name = "FILE", hide = true)]
    pub ready_file: Option<PathBuf>,
}

/// How often something is tried; `None` for as often as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts(pub Option<u32>);

/// Names the number of threads of a node in the environment.
pub(crate) const THREADS: &str = "CHORDAL_THREADS";

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

fn hex_prefix(text: &str) -> Result<Id, String> {
    Id::from_hex_prefix(text).map_err(|error| format!("{error}; its first digits are enough, as in 8000"))
}

fn value_limit(text: &str) -> Result<usize, String> {
    let most = Config::LARGEST_VALUE_LIMIT;
    let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| format!("a number of bytes from 1 to {most}: a value travels between nodes in one message"))
}

fn copies(text: &str) -> Result<u8, String> {
    let most = Ring::MOST_COPIES;
    let copies =
        if text == "all" { Some(Ring::ALL) } else { text.parse().ok().filter(|copies| (1..=most).contains(copies)) };
    copies.ok_or_else(|| format!("a number of nodes from 1 to {most}, or `all`; 3 is usual"))
}

fn attempts(text: &str) -> Result<Attempts, String> {
    let attempts = if text == "forever" { Some(None) } else { text.parse().ok().filter(|times| *times > 0).map(Some) };
    attempts.map(Attempts).ok_or_else(|| "a number of attempts from 1, or `forever`".to_owned())
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

/// Runs `chordal`.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|verb| verb == "node") {
        return node_verb::run(arguments);
    }
    match Cli::try_parse() {
        Ok(Cli { command: Command::Start(args) }) => start(*args),
        Ok(Cli { command: Command::BootstrapService(args) }) => bootstrap_service(*args),
        Ok(Cli { command: Command::Put(args) }) => ask::put(&args),
        Ok(Cli { command: Command::Get(args) }) => ask::get(&args),
        Ok(Cli { command: Command::Delete(args) }) => ask::delete(&args),
        Ok(Cli { command: Command::Info(args) }) => ask::info(&args),
        Err(error) => misused(&Cli::command(), &error),
    }
}

/// Runs a bootstrap service until it is told to stop. Says in one line on standard output when it has a live node, and in one
/// line on standard error why it did not start.
fn bootstrap_service(args: BootstrapArgs) -> ExitCode {
    // Who does not look has lost nothing.
    match bootstrap::serve(args, None, |line| drop(writeln!(std::io::stdout(), "chordal: {line}"))) {
        Ok(_) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("chordal: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Says in one line what is wrong with the command line, or prints the help that was asked for.
pub fn misused(program: &clap::Command, error: &clap::Error) -> ExitCode {
    let asked_for = !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let code = ExitCode::from(error.exit_code() as u8);
    if asked_for {
        // Who asked and does not look has lost nothing.
        let _ = error.print();
        return code;
    }
    let text = error.to_string();
    let told = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<&str> = told.flat_map(str::split_whitespace).collect();
    let line = words.join(" ");
    let line = match line.split_once(" tip: ") {
        // Options are told as their help has them, and not in the spelling with underscores that is understood as well.
        Some((wrong, tip)) if tip.contains("similar") => format!("{wrong}; tip: {}", tip.replace('_', "-")),
        Some((wrong, tip)) => format!("{wrong}; tip: {tip}"),
        None => line,
    };
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    eprintln!("{}: {line}; `{} --help` tells more", program.get_name(), meant(program, std::env::args().skip(1)));
    code
}

/// The command, with those under it, that these arguments are for.
fn meant(program: &clap::Command, args: impl Iterator<Item = String>) -> String {
    let (mut command, mut meant) = (program, program.get_name().to_owned());
    let mut is_value = false;
    for arg in args {
        if let Some(next) = command.find_subcommand(&arg).filter(|_| !is_value) {
            command = next;
            meant = format!("{meant} {}", command.get_name());
        }
        let option = command
            .get_arguments()
            .find(|option| option.get_long().is_some() && option.get_long() == arg.strip_prefix("--"));
        is_value = option.is_some_and(|option| option.get_action().takes_values());
    }
    meant
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT, or a request to leave), in a runtime of its own. Says in one line
/// on standard output when it is ready, and in one line on standard error why it did not start.
pub fn start(args: StartArgs) -> ExitCode {
    log_to_stderr(args.log_format);
    // Whoever catches a panic says what it means; the log gets a line.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{}", panic.to_string().replace('\n', " "))));
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(args.threads))
        .max_blocking_threads(16)
        .thread_name("chordal")
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(args));
            runtime.shutdown_timeout(Duration::from_secs(1));
            outcome
        }
        Err(error) => Err(format!("there is no runtime: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("chordal: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// For how long a node that is told to stop while it starts may still find its place, so that it can leave in order.
const STARTING: Duration = Duration::from_secs(3);

async fn run(args: StartArgs) -> Result<(), String> {
    // Before anything else, so that a signal during the start is not lost.
    let listen_for = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut terminate, mut interrupt) = (listen_for(SignalKind::terminate())?, listen_for(SignalKind::interrupt())?);
    let ready_file = args.ready_file.clone();
    let told_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    tokio::pin!(told_to_stop);
    let start = Node::start(config(args)?);
    tokio::pin!(start);
    let (node, told) = tokio::select! {
        node = &mut start => (node, None),
        signal = &mut told_to_stop => match tokio::time::timeout(STARTING, start).await {
            // It may have joined just now, and must not go with what it was given.
            Ok(node) => (node, Some(signal)),
            Err(_) => return Ok(()),
        },
    };
    let node = node.map_err(|error| error.to_string())?;
    let running = async {
        while let Err(reason) = node.ready().await {
            tracing::warn!(%reason, "not ready yet");
        }
        announce(&node, ready_file.as_deref())?;
        node.stopped().await;
        ended(&node)
    };
    let signal = match told {
        Some(signal) => signal,
        None => tokio::select! {
            ended = running => return ended,
            () = node.stopped() => return ended(&node),
            signal = &mut told_to_stop => signal,
        },
    };
    tracing::info!(signal, "told to stop: leaving the ring");
    if let Err(error) = node.leave().await {
        tracing::warn!(%error, "stopping without having left; the data directory keeps what this node holds");
    }
    node.stop().await;
    Ok(())
}

/// How a node has ended that was not told to by a signal.
fn ended(node: &Node) -> Result<(), String> {
    node.failure().map_or(Ok(()), |reason| Err(reason.to_owned()))
}

fn config(args: StartArgs) -> Result<Config, String> {
    let data = match args.data_dir {
        _ if args.memory => Data::Memory,
        Some(dir) => Data::Dir(dir),
        None => Data::DirWithin("data".into()),
    };
    Ok(Config {
        host: args.host,
        port: args.port,
        advertise: args.advertise,
        discover: args.discover,
        begin: args.begin,
        upnp: args.upnp.then(|| match args.upnp_lease {
            Some(seconds) => Upnp { lease: Duration::from_secs(seconds.into()) },
            None => Upnp::default(),
        }),
        name: args.name,
        bootstrap: args.bootstrap,
        join_attempts: args.join_attempts.0,
        data,
        routing: args.routing,
        id: args.id,
        lab: args.lab,
        pred: args.pred,
        succ: args.succ,
        value_limit: args.value_limit,
        replication_factor: args.replication_factor,
        stabilize_interval: Duration::from_millis(args.stabilize_interval),
        security: args.security.load()?,
        ..Config::default()
    })
}

/// One line for people, and one file for the program that started the node.
fn announce(node: &Node, ready_file: Option<&Path>) -> Result<(), String> {
    let contact = node.contact();
    println!("chordal: {contact} is ready, id {}", contact.id);
    let Some(path) = ready_file else { return Ok(()) };
    let ready = serde_json::json!({
        "name": contact.name,
        "host": contact.host(),
        "port": contact.port(),
        "id": contact.id,
        "pid": std::process::id(),
    });
    let written = (|| {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        std::io::Write::write_all(&mut file, ready.to_string().as_bytes())?;
        file.persist(path)?;
        Ok::<(), std::io::Error>(())
    })();
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,tokio_cron_scheduler=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    if let Err(error) = started {
        eprintln!("chordal: there will be no log: {error}");
    }
}

/// A node has a socket for each peer and each client: take what the system allows.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_command_that_was_meant() {
        let program = Cli::command();
        for (args, is) in [
            ("", "chordal"),
            ("--nonsense", "chordal"),
            ("put --port x k v", "chordal put"),
            ("bootstrap-service --pool 0", "chordal bootstrap-service"),
            ("start --name put --port x", "chordal start"),
            ("get get", "chordal get"),
        ] {
            assert_eq!(meant(&program, args.split_whitespace().map(str::to_owned)), is, "{args}");
        }
    }
}
