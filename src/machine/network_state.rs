//! What `tasks` remembers of a ring: `network_state.json`.
//!
//! ```json
//! {"version": 1, "nodes": [{"name": "node-1", "host": "127.0.0.1", "port": 4000, "id": "…", "pid": 17,
//!   "started": "<boot id>:<start time>", "log": "/…/logs/node-1.log", "data_dir": "/…/data/node-1", "status": "running"}]}
//! ```
//!
//! A node that is being started has the status `starting`, the port 0 (unless one was asked for) and no id until it
//! reports them. A node without a data directory keeps its content in memory. `options` stands only with nodes that
//! were started with some. Fields that we don't know are kept.
//!
//! The file tells what was true when it was written; [`NetworkState::refresh`] puts it right by looking at the processes.

use std::path::PathBuf;

use crate::api::join_host_port;
use chordal_protocol::Id;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::process;
use super::spawn::ReadyNote;

/// The version of the file's format that this program reads and writes.
pub const VERSION: u64 = 1;

/// The nodes of one ring on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkState {
    /// The version of the format.
    pub version: u64,
    /// In the order in which they were added.
    pub nodes: Vec<NodeEntry>,
    /// The secret file of the ring, if it is closed to strangers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// The directory with the certificates of the ring, if its nodes speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certs: Option<PathBuf>,
    /// The bootstrap service that keeps them, or kept them last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<ServiceNote>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// A bootstrap service that keeps the nodes of a state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNote {
    /// Its process.
    pub pid: u32,
    /// Identifies that process: `<boot id>:<start time in clock ticks>`.
    pub started: String,
    /// The id of the nodes' ring, 32 hex digits, once it is known.
    pub ring: Option<String>,
    /// Members of the ring that are not in this file, `host:port`, seen last.
    #[serde(default)]
    pub contacts: Vec<String>,
}

/// A node of this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// `node-1` and so on.
    pub name: String,
    /// The advertised host.
    pub host: String,
    /// The advertised port; 0 until it is known.
    pub port: u16,
    /// The node's id; null until it is known.
    pub id: Option<Id>,
    /// Its process, or the last one that it had.
    pub pid: u32,
    /// Identifies that process: `<boot id>:<start time in clock ticks>`.
    pub started: String,
    /// Where its output goes.
    pub log: PathBuf,
    /// Where its content is; null if that is in memory.
    pub data_dir: Option<PathBuf>,
    /// What it does, as far as the writer of the file knew.
    pub status: Status,
    /// Further arguments of `chordal start` that it needs whenever it is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// What else stands there.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its process has been started and is not ready yet.
    Starting,
    /// It was ready, and its process runs.
    Running,
    /// Its process is gone.
    Stopped,
}

impl Status {
    /// The word in the file and on the screen.
    pub fn word(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Running => "running",
            Status::Stopped => "stopped",
        }
    }
}

impl Default for NetworkState {
    fn default() -> NetworkState {
        NetworkState {
            version: VERSION,
            nodes: Vec::new(),
            secret_file: None,
            certs: None,
            bootstrap: None,
            unknown: Map::new(),
        }
    }
}

impl NetworkState {
    /// The node of this name.
    pub fn entry(&self, name: &str) -> Option<&NodeEntry> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node of this name, to be changed.
    pub fn entry_mut(&mut self, name: &str) -> Option<&mut NodeEntry> {
        self.nodes.iter_mut().find(|node| node.name == name)
    }

    /// The node that has this port, running or not.
    pub fn holder_of(&self, port: u16) -> Option<&NodeEntry> {
        self.nodes.iter().find(|node| node.port == port && port != 0)
    }

    /// `node-N`, one above the highest number in use.
    pub fn next_name(&self) -> String {
        let number = |node: &NodeEntry| node.name.strip_prefix("node-").and_then(|number| number.parse::<u32>().ok());
        format!("node-{}", self.nodes.iter().filter_map(number).max().unwrap_or(0).saturating_add(1))
    }

    /// The nodes that are ready and neither dead nor paused.
    pub fn awake(&self) -> Vec<NodeEntry> {
        let awake = |node: &&NodeEntry| node.status == Status::Running && process::is_awake(node.pid, &node.started);
        self.nodes.iter().filter(awake).cloned().collect()
    }

    /// Puts the statuses right: a node whose process is gone is stopped, however it ended and whatever has its pid now;
    /// one that became ready after its starter had died is running.
    pub fn refresh(&mut self) {
        for node in &mut self.nodes {
            if node.status == Status::Starting
                && let Some(note) = ReadyNote::read(&node.ready_file()).filter(|note| note.pid == node.pid)
            {
                node.is_ready_as(&note);
            }
            if !node.is_alive() {
                node.status = Status::Stopped;
            }
        }
    }
}

impl NodeEntry {
    /// `host:port`.
    pub fn addr(&self) -> String {
        join_host_port(&self.host, self.port)
    }

    /// Whether its process runs.
    pub fn is_alive(&self) -> bool {
        process::is_alive(self.pid, &self.started)
    }

    /// The first digits of its id.
    pub fn short_id(&self) -> String {
        self.id.map_or_else(|| "-".to_owned(), |id| id.short())
    }

    /// Where its process reports that it is ready.
    pub fn ready_file(&self) -> PathBuf {
        self.log.with_extension("ready")
    }

    /// Takes over what the process reported.
    pub fn is_ready_as(&mut self, note: &ReadyNote) {
        self.host.clone_from(&note.host);
        self.port = note.port;
        self.id = Some(note.id);
        self.status = Status::Running;
    }

    /// A new node that has just been spawned.
    pub fn starting(name: String, host: String, port: u16, log: PathBuf, data_dir: Option<PathBuf>) -> NodeEntry {
        NodeEntry {
            name,
            host,
            port,
            id: None,
            pid: 0,
            started: String::new(),
            log,
            data_dir,
            status: Status::Starting,
            options: Vec::new(),
            unknown: Map::new(),
        }
    }
}

#[cfg(test)]
#[path = "network_state_tests.rs"]
mod tests;
