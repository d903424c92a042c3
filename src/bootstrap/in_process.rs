//! Nodes in this process: for programs that want a pool without processes, and for tests.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::spawner::{Departure, Member, Order, Recalled, RingNote, SetAside, SpawnError, Spawner};
use crate::node::{Config, Data, Node, NodeError, member_in};

/// For how long a node that is told to stop while it starts is waited for.
const STARTING: Duration = Duration::from_secs(3);

/// A [`Spawner`] of nodes that run in this process, on ports that the system picks.
///
/// With a directory each node keeps what it holds in a directory within it, and goes on there in the next process; what is
/// remembered of the ring beyond that (members that are not of the pool) is forgotten with this value.
#[derive(Debug)]
pub struct InProcess {
    directory: Option<PathBuf>,
    host: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ring: RingNote,
    /// The highest number that was given to a node.
    numbers: u64,
}

/// A node of this process.
pub struct Here {
    node: Node,
    name: String,
    addr: String,
    directory: Option<PathBuf>,
}

impl InProcess {
    /// Nodes on 127.0.0.1 that keep everything in memory.
    pub fn in_memory() -> InProcess {
        InProcess { directory: None, host: "127.0.0.1".to_owned(), state: Mutex::default() }
    }

    /// Nodes on 127.0.0.1 that keep what they hold within this directory.
    pub fn within(directory: impl Into<PathBuf>) -> InProcess {
        InProcess { directory: Some(directory.into()), ..InProcess::in_memory() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_name(&self) -> String {
        let mut state = self.state();
        state.numbers += 1;
        format!("node-{}", state.numbers)
    }
}

impl Spawner for InProcess {
    type Member = Here;

    async fn recall(&self) -> Result<Recalled, SpawnError> {
        let failed = |error: std::io::Error| SpawnError::Failed(format!("cannot read the pool's directory: {error}"));
        let mut members = Vec::new();
        if let Some(directory) = &self.directory {
            std::fs::create_dir_all(directory).map_err(failed)?;
            for entry in std::fs::read_dir(directory).map_err(failed)? {
                let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
                let Some(number) = name.strip_prefix("node-").and_then(|number| number.parse().ok()) else { continue };
                let mut state = self.state();
                state.numbers = state.numbers.max(number);
                members.push((number, name));
            }
        }
        members.sort();
        if let Some(directory) = &self.directory {
            let of = |(_, name): &(u64, String)| member_in(&directory.join(name)).ok().flatten()?.ring;
            let ring = members.iter().find_map(of);
            let mut state = self.state();
            state.ring.id = state.ring.id.take().or(ring);
        }
        Ok(Recalled { members: members.into_iter().map(|(_, name)| name).collect(), ring: self.state().ring.clone() })
    }

    async fn remember(&self, ring: RingNote) -> Result<(), SpawnError> {
        self.state().ring = ring;
        Ok(())
    }

    async fn start(&self, order: Order) -> Result<Here, SpawnError> {
        let is_new = order.name.is_none();
        let name = order.name.unwrap_or_else(|| self.next_name());
        let directory = self.directory.as_ref().map(|within| within.join(&name));
        if !is_new {
            let Some(directory) = &directory else { return Err(SpawnError::Gone(name)) };
            match member_in(directory) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let _ = std::fs::remove_dir_all(directory);
                    return Err(SpawnError::Gone(name));
                }
                Err(error) => return Err(SpawnError::Failed(error.to_string())),
            }
        }
        let data = directory.clone().map_or(Data::Memory, Data::Dir);
        let config =
            Config { host: self.host.clone(), name: Some(name), bootstrap: order.contacts, data, ..Config::default() };
        let started = Here::start(config, directory.clone(), &order.stop).await;
        if let (Err(_), Some(directory)) = (&started, directory.filter(|_| is_new)) {
            let _ = std::fs::remove_dir_all(directory);
        }
        started
    }

    async fn set_aside(&self, name: &str, even_if_it_holds: bool) -> Result<SetAside, SpawnError> {
        let Some(directory) = self.directory.as_ref().map(|within| within.join(name)) else {
            return Ok(SetAside::Forgotten);
        };
        if member_in(&directory).is_ok_and(|member| member.is_none_or(|member| member.values == 0)) {
            let _ = std::fs::remove_dir_all(&directory);
            return Ok(SetAside::Forgotten);
        }
        Ok(SetAside::holding(directory.display().to_string(), even_if_it_holds))
    }
}

impl Here {
    /// Starts a node in this process, in a directory of its own if there is one. If it is told to stop meanwhile it may still
    /// find its place, and leaves.
    pub(crate) async fn start(
        config: Config,
        directory: Option<PathBuf>,
        stop: &CancellationToken,
    ) -> Result<Here, SpawnError> {
        // In a task of its own: a start that is broken off would leave half a node running.
        let mut start = tokio::spawn(Node::start(config));
        let here = |node: Node| {
            let contact = node.contact();
            Here { node, name: contact.name, addr: contact.addr, directory }
        };
        tokio::select! {
            started = &mut start => return match started {
                Ok(Ok(node)) => Ok(here(node)),
                Ok(Err(error)) => Err(SpawnError::Failed(error.to_string())),
                Err(error) => Err(SpawnError::Failed(error.to_string())),
            },
            () = stop.cancelled() => {}
        }
        let ending = tokio::spawn(async move {
            if let Ok(Ok(node)) = start.await {
                here(node).leave().await;
            }
        });
        let _ = tokio::time::timeout(STARTING, ending).await;
        Err(SpawnError::Stopping)
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

impl Member for Here {
    fn name(&self) -> &str {
        &self.name
    }

    fn addr(&self) -> &str {
        &self.addr
    }

    async fn ended(&self) {
        self.node.shutdown_token().cancelled().await;
        self.node.stopped().await;
    }

    async fn kill(&self) {
        self.node.stop().await;
    }

    async fn leave(self) -> Departure {
        let left = self.node.leave().await;
        self.node.stop().await;
        match left {
            Ok(()) => {
                if let Some(directory) = &self.directory {
                    let _ = std::fs::remove_dir_all(directory);
                }
                Departure::Left
            }
            Err(NodeError::Conflict { .. }) => {
                Departure::Kept("it is the last one, and nobody could take what it holds".to_owned())
            }
            Err(error) => Departure::Kept(error.to_string()),
        }
    }
}
