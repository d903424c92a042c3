//! `chordal bootstrap-service`, which is `tasks manage` too: a pool of nodes, and the HTTP interface that names live ones.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::notify::notify;
use super::parse;
use super::roster::Roster;
use super::{LogFormat, log_to_stderr, raise_descriptor_limit};
use crate::api::join_host_port;
use crate::bootstrap::{Pool, Settings, Stopped, router};
use crate::client::RETURN_DHT_ADDRESS;
use crate::http;
use crate::machine::state_file::StateFile;
use crate::node::{PortHolder, listen_advice};

/// How long the first node may take.
const FIRST: Duration = Duration::from_secs(60);

/// What `chordal bootstrap-service` and `tasks manage` take.
#[derive(Debug, Clone, Args)]
pub struct BootstrapArgs {
    /// Address to listen on
    #[arg(long, alias = "host_address", visible_alias = "host", default_value = "127.0.0.1", value_name = "HOST", value_parser = parse::host)]
    pub host_address: String,
    /// Port to listen on; 0 takes any free one
    #[arg(
        long,
        alias = "host_port",
        visible_alias = "port",
        default_value_t = 5000,
        value_name = "PORT",
        allow_hyphen_values = true
    )]
    pub host_port: u16,
    /// Host that clients are told in place of the one that nodes listen on
    #[arg(long, alias = "external_address", value_name = "HOST")]
    pub external_address: Option<String>,
    /// How many nodes to keep
    #[arg(long, default_value = "10", value_name = "NODES", value_parser = pool_size, allow_hyphen_values = true)]
    pub pool: usize,
    /// How often each node is checked by a lookup through it: `2s`, `500ms` or plain seconds
    #[arg(long, alias = "check_interval", default_value = "100s", value_name = "DURATION", value_parser = parse::duration,
          allow_hyphen_values = true)]
    pub check_interval: Duration,
    /// Members of the ring to join, or URLs of bootstrap services; without any the pool begins a ring, or goes on with its own
    #[arg(long, visible_alias = "join", value_name = "HOST:PORT|URL,…", value_delimiter = ',')]
    pub bootstrap: Vec<String>,
    /// First port for the nodes, ports in use are stepped over; 0 takes any free ones [default: the one after --host-port]
    #[arg(long, alias = "node_port", value_name = "PORT", allow_hyphen_values = true)]
    pub node_port: Option<u16>,
    /// Run the nodes in this process, and not each in one of its own
    #[arg(long, alias = "in_process")]
    pub in_process: bool,
    /// Directory of the pool: its state file, its nodes' logs and data
    #[arg(long, alias = "data_dir", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

fn pool_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (1..=Settings::LARGEST_SIZE).contains(size));
    size.ok_or_else(|| format!("a pool has from 1 to {} nodes, as in --pool 10", Settings::LARGEST_SIZE))
}

/// Runs a bootstrap service until SIGTERM or SIGINT, in a runtime of its own, and tells how its nodes went. Its pool is in the
/// directory that `args` name, else in this state file, else in data/bootstrap-PORT. `ready` is called with a line for people
/// once there is a live node. An error says in one line what is wrong and what to do.
pub fn serve(args: BootstrapArgs, state: Option<StateFile>, ready: impl FnOnce(&str)) -> Result<Stopped, String> {
    log_to_stderr(args.log_format);
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_name("bootstrap")
        .enable_all()
        .build()
        .map_err(|error| format!("there is no runtime: {error}"))?;
    let outcome = runtime.block_on(run(args, state, ready));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// What tells the service to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one, and names it.
    async fn told(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn run(args: BootstrapArgs, state: Option<StateFile>, ready: impl FnOnce(&str)) -> Result<Stopped, String> {
    // Before anything else, so that a signal during the start is not lost.
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let settings = Settings {
        size: args.pool,
        check_interval: args.check_interval,
        bootstrap: args.bootstrap.clone(),
        external_address: args.external_address.clone(),
        ..Settings::default()
    };
    settings.check().map_err(|error| error.to_string())?;
    let state = match (&args.data_dir, state) {
        (Some(directory), _) => state_in(directory)?,
        (None, Some(state)) => state,
        (None, None) => state_in(&Path::new("data").join(format!("bootstrap-{}", args.host_port)))?,
    };
    let _lock = lock(&state)?;
    let listener = listen(&args).await?;
    let addr = listener.local_addr().map_err(|error| error.to_string())?;
    if !addr.ip().is_loopback() {
        tracing::warn!(
            %addr,
            "the service answers everybody who can reach it, without a key: addresses of its nodes, its state and its metrics. Its nodes \
             listen on the loopback of this machine, so that nobody on another one can join through them (docs/bootstrap.md)"
        );
    }
    if let Some(host) = &args.external_address {
        tracing::warn!(
            external = %host,
            "the ring of this service is open: whoever forwards ports of that host to its nodes opens it to everybody who reaches them \
             (docs/security.md)"
        );
    }
    let node_port =
        args.node_port.unwrap_or_else(|| args.host_port.checked_add(1).filter(|_| args.host_port != 0).unwrap_or(0));
    let roster = Roster::new(state.clone(), node_host(&args.host_address), node_port, args.in_process);
    let pool = tokio::select! {
        pool = Pool::start(settings, roster) => pool.map_err(|error| error.to_string())?,
        signal = signals.told() => return Err(format!("{signal} before the ring to join had answered")),
    };
    let stop = CancellationToken::new();
    let server = tokio::spawn(http::serve(listener, router(pool.clone()), http::Limits::default(), stop.clone()));
    let first = tokio::select! {
        first = pool.ready(FIRST) => first.map_err(|error| error.to_string()),
        signal = signals.told() => Err(format!("{signal} before there was a live node")),
    };
    let failure = match first {
        Ok(()) => {
            let url = format!("http://{}{RETURN_DHT_ADDRESS}", join_host_port(&args.host_address, addr.port()));
            let directory = state.path().parent().unwrap_or(Path::new("."));
            ready(&format!("bootstrap service at {url}, a pool of {} in {}", args.pool, directory.display()));
            notify("READY=1");
            let signal = signals.told().await;
            notify("STOPPING=1");
            tracing::info!(signal, "told to stop: the nodes leave their ring");
            None
        }
        Err(reason) => Some(reason),
    };
    let stopped = tokio::select! {
        stopped = pool.stop() => stopped,
        signal = signals.told() => return Err(format!(
            "{signal} while the nodes were leaving: those that still run are taken over when the service is started again"
        )),
    };
    stop.cancel();
    let _ = server.await;
    match failure {
        Some(reason) => Err(format!("the pool did not come up: {reason}")),
        None => Ok(stopped),
    }
}

/// The state file of a pool's directory.
fn state_in(directory: &Path) -> Result<StateFile, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot use {} for a pool: {error}", directory.display());
    std::fs::create_dir_all(directory).map_err(|error| cannot(&error))?;
    StateFile::at(&directory.join("network_state.json")).map_err(|error| cannot(&error))
}

/// The right to keep this pool, which ends with the value, and with the process however it ends.
fn lock(state: &StateFile) -> Result<File, String> {
    let path = state.path().with_added_extension("bootstrap.lock");
    let cannot = |error: std::io::Error| format!("cannot lock {}: {error}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(cannot)?;
    }
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => {
            // For people, and for the message below; the lock does not depend on it.
            file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(cannot)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.rewind().and_then(|()| (&file).take(20).read_to_string(&mut pid));
            Err(format!(
                "another bootstrap service (process {}) keeps the pool of {}; stop it, or give this one a directory of its own \
                 with --data-dir",
                pid.trim(),
                state.path().display()
            ))
        }
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

async fn listen(args: &BootstrapArgs) -> Result<TcpListener, String> {
    let addr = join_host_port(&args.host_address, args.host_port);
    TcpListener::bind(&addr).await.map_err(|error| {
        let holder = PortHolder::behind(&error, args.host_port);
        let advice = listen_advice(&error, holder.as_ref(), "--host-address", "--host-port");
        format!("cannot listen on {addr}: {error}{advice}")
    })
}

/// Where nodes listen: beside the service if that is on loopback, for nodes refuse anything else.
fn node_host(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => host.to_owned(),
        _ => "127.0.0.1".to_owned(),
    }
}
