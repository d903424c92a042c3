//! Starting the process of a node and waiting until it is ready.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chordal_protocol::Id;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::network_state::NodeEntry;
use super::process;
use crate::cli::THREADS;

/// How often a node that starts is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How long a node may take to leave when it is told to by a signal; then it is killed.
const TERMINATION: Duration = Duration::from_secs(15);

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// How long a connection to a node of this machine may take.
const CONNECTING: Duration = Duration::from_millis(100);

/// How many bytes from the end of a log an error is looked for in.
const TAIL: u64 = 16 << 10;

/// How many lines of a log are shown when its node did not start.
const TAIL_LINES: usize = 10;

/// Variables that are not for the nodes: those of `chordal start` that decide what `tasks` decides, and the socket on which a
/// service tells systemd how it does. The others reach the nodes.
const OUR_VARIABLES: [&str; 16] = [
    "NOTIFY_SOCKET",
    "CHORDAL_HOST",
    "CHORDAL_PORT",
    "CHORDAL_NAME",
    "CHORDAL_ADVERTISE",
    "CHORDAL_UPNP",
    "CHORDAL_DISCOVER",
    "CHORDAL_BEGIN",
    "CHORDAL_BOOTSTRAP",
    "CHORDAL_JOIN",
    "CHORDAL_DATA_DIR",
    "CHORDAL_MEMORY",
    "CHORDAL_ID",
    "CHORDAL_PRED",
    "CHORDAL_SUCC",
    "CHORDAL_READY_FILE",
];

/// What a node writes to its `--ready-file` once it is joined and serves what it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyNote {
    /// Its name.
    pub name: String,
    /// Its advertised host.
    pub host: String,
    /// Its advertised port.
    pub port: u16,
    /// Its id.
    pub id: Id,
    /// Its process.
    pub pid: u32,
}

impl ReadyNote {
    /// The note in this file, if there is a whole one.
    pub fn read(path: &Path) -> Option<ReadyNote> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

/// Why no process was started. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Its log cannot be written.
    #[error("cannot write {path}: {reason}")]
    Log {
        /// The log.
        path: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The system starts no process.
    #[error("cannot start a process: {0}")]
    Process(std::io::Error),
    /// The process cannot be told apart from a later one with the same pid; it was ended again.
    #[error("/proc tells nothing about process {0}; chordal needs it to know its nodes")]
    Unknown(u32),
}

/// Why a node did not get ready.
#[derive(Debug)]
pub struct NotReady {
    /// In one line.
    pub reason: String,
    /// The last lines of its log, as far as the reason does not have them.
    pub log_tail: Vec<String>,
}

/// Starts the node that `entry` describes and puts its pid and start time there.
///
/// The process is this very program (`/proc/self/exe`, which outlives a rebuild) with the hidden verb `node`. It gets a
/// session of its own, no input, and its log as output.
pub fn spawn(entry: &mut NodeEntry, contacts: &[String]) -> Result<Child, SpawnError> {
    let _ = fs::remove_file(entry.ready_file());
    let log = OpenOptions::new().create(true).append(true).open(&entry.log);
    let cannot_write = |reason| SpawnError::Log { path: entry.log.display().to_string(), reason };
    let log = log.map_err(cannot_write)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(program()).arg("node").args(arguments(entry, contacts));
    // Nodes that share a machine have threads enough, and pay for each other's.
    if std::env::var_os(THREADS).is_none() {
        command.env(THREADS, "1");
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(cannot_write)?).stderr(log);
    for variable in OUR_VARIABLES {
        command.env_remove(variable);
    }
    let mut child = command.spawn().map_err(SpawnError::Process)?;
    match process::started(child.id()) {
        Some(started) => {
            entry.pid = child.id();
            entry.started = started;
            Ok(child)
        }
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(SpawnError::Unknown(child.id()))
        }
    }
}

/// Waits until the node has reported that it is ready. A node that another process has started comes without `child`.
pub async fn wait_ready(
    entry: &NodeEntry,
    child: Option<&mut Child>,
    patience: Duration,
    interrupt: &CancellationToken,
) -> Result<ReadyNote, NotReady> {
    let note = || ReadyNote::read(&entry.ready_file()).filter(|note| note.pid == entry.pid);
    wait(entry, child, patience, interrupt, note).await
}

/// Waits until the node listens at its address, ready or not.
pub async fn wait_listening(
    entry: &NodeEntry,
    child: Option<&mut Child>,
    patience: Duration,
    interrupt: &CancellationToken,
) -> Result<(), NotReady> {
    let listens = || {
        let mut addrs = (entry.host.as_str(), entry.port).to_socket_addrs().ok()?;
        addrs.find_map(|addr| TcpStream::connect_timeout(&addr, CONNECTING).ok()).map(drop)
    };
    wait(entry, child, patience, interrupt, listens).await
}

async fn wait<T>(
    entry: &NodeEntry,
    mut child: Option<&mut Child>,
    patience: Duration,
    interrupt: &CancellationToken,
    look: impl Fn() -> Option<T>,
) -> Result<T, NotReady> {
    let deadline = Instant::now() + patience;
    let reason = loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        match child.as_mut().map(|child| child.try_wait()) {
            Some(Ok(Some(status))) => break died(entry, &format!(" ({status})")),
            Some(Err(error)) => break format!("{}: cannot wait for process {}: {error}", entry.name, entry.pid),
            None if !entry.is_alive() => break died(entry, ""),
            Some(Ok(None)) | None => {}
        }
        if interrupt.is_cancelled() {
            let reason = format!("{} was not ready yet when the task was interrupted", entry.name);
            return Err(NotReady { reason, log_tail: Vec::new() });
        }
        if Instant::now() >= deadline {
            break format!("{} was not ready within {} s{}", entry.name, patience.as_secs(), last_words(entry));
        }
        tokio::time::sleep(POLL).await;
    };
    let mut log_tail = tail(&entry.log, TAIL_LINES);
    // What it said last stands in the reason.
    log_tail.pop_if(|last| reason.contains(last.trim()));
    Err(NotReady { reason, log_tail })
}

/// Ends a node that did not get ready: it may be about to join, so it is asked first and killed then.
pub async fn terminate(entry: &NodeEntry) {
    process::signal(entry.pid, &entry.started, Signal::SIGTERM);
    if !process::wait_gone(entry.pid, &entry.started, TERMINATION).await {
        process::kill_and_wait(entry.pid, &entry.started, DEATH);
    }
}

/// The last lines of a file, as far as they lie in its last 16 KiB; none if it cannot be read.
pub fn tail(path: &Path, lines: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| line.to_string()).collect()
}

fn arguments(entry: &NodeEntry, contacts: &[String]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--name".into(), entry.name.clone().into()];
    arguments.extend(["--host".into(), entry.host.clone().into()]);
    arguments.extend(["--port".into(), entry.port.to_string().into()]);
    arguments.extend(["--ready-file".into(), entry.ready_file().into()]);
    match &entry.data_dir {
        Some(directory) => arguments.extend(["--data-dir".into(), directory.into()]),
        None => arguments.push("--memory".into()),
    }
    if !contacts.is_empty() {
        arguments.extend(["--bootstrap".into(), contacts.join(",").into()]);
    }
    arguments.extend(entry.options.iter().map(OsString::from));
    arguments
}

fn died(entry: &NodeEntry, status: &str) -> String {
    format!("{} ended before it was ready{status}{}", entry.name, last_words(entry))
}

/// What this program is called in a list of processes.
fn program() -> String {
    let called = std::env::args_os().next().and_then(|path| Path::new(&path).file_name().map(OsString::from));
    called.and_then(|name| name.into_string().ok()).unwrap_or_else(|| "chordal".to_owned())
}

fn last_words(entry: &NodeEntry) -> String {
    match tail(&entry.log, 1).pop() {
        Some(line) => format!("; it said last: {}", line.trim()),
        None => "; its log is empty".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        assert!(tail(&log, 3).is_empty());
        fs::write(&log, "one\ntwo\n\nthree\nfo\u{fc}r").unwrap();
        assert_eq!(tail(&log, 2), ["three", "foür"]);
        fs::write(&log, "x".repeat(100_000) + "\nlast\n").unwrap();
        assert_eq!(tail(&log, 1), ["last"]);
    }

    #[test]
    fn a_node_is_told_what_it_needs() {
        let mut entry = NodeEntry::starting(
            "node-1".into(),
            "127.0.0.1".into(),
            0,
            "/s/logs/node-1.log".into(),
            Some("/s/d".into()),
        );
        entry.options = vec!["--lab".into()];
        let words = |contacts: &[String]| {
            let words = arguments(&entry, contacts).into_iter().map(|word| word.into_string().unwrap());
            words.collect::<Vec<_>>().join(" ")
        };
        let common = "--name node-1 --host 127.0.0.1 --port 0 --ready-file /s/logs/node-1.ready --data-dir /s/d";
        assert_eq!(words(&[]), format!("{common} --lab"));
        assert_eq!(words(&["a:1".into(), "b:2".into()]), format!("{common} --bootstrap a:1,b:2 --lab"));
    }
}
