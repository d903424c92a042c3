//! The nodes of a bootstrap service, written down in a state file: each a process of its own, or all in this one.
//!
//! As with `tasks`, a node is started *under the lock* of the state file, where its entry is written, and waited for without
//! it. So the file names every process that there is at any moment, and a service that is started again after it was killed
//! takes them over.

use std::net::TcpListener;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::member::Running;
use crate::bootstrap::{Here, Order, Recalled, RingNote, SetAside, SpawnError, Spawner};
use crate::client::NodeClient;
use crate::machine::network_state::{NetworkState, NodeEntry, ServiceNote, Status};
use crate::machine::process;
use crate::machine::spawn::{self, NotReady};
use crate::machine::state_file::{StateError, StateFile};
use crate::node::{Config, Data, member_in};

/// How long a node may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many ports are looked at for one that nobody has.
const PORTS: u16 = 1000;

/// How long a node that is asked for its ring may take.
const ASKING: Duration = Duration::from_secs(1);

/// A [`Spawner`] that keeps its nodes in a state file.
pub(super) struct Roster {
    kept: Kept,
    in_process: bool,
    client: NodeClient,
}

/// What is needed to change the file.
#[derive(Clone)]
struct Kept {
    state: StateFile,
    /// Where nodes listen.
    host: String,
    /// The first port for nodes; 0 lets the system pick.
    first_port: u16,
    /// What is remembered of the ring.
    ring: Arc<Mutex<RingNote>>,
}

/// A node whose entry is in the file.
enum Enlisted {
    /// It runs already.
    Living(NodeEntry),
    /// It was started just now.
    Spawned(NodeEntry, Child),
    /// It is to be run in this process.
    Here(NodeEntry),
}

impl Roster {
    /// The nodes of this file; new ones listen at this host, from this port on.
    pub(super) fn new(state: StateFile, host: String, first_port: u16, in_process: bool) -> Roster {
        let kept = Kept { state, host, first_port, ring: Arc::default() };
        Roster { kept, in_process, client: NodeClient::with_timeout(ASKING) }
    }

    /// Changes the file on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(Kept) -> Result<T, SpawnError> + Send + 'static,
    ) -> Result<T, SpawnError> {
        let kept = self.kept.clone();
        let acted = tokio::task::spawn_blocking(move || act(kept)).await;
        acted.unwrap_or_else(|error| Err(SpawnError::Failed(error.to_string())))
    }

    /// The ring of nodes of which no service has written it down.
    async fn ring_of(&self, nodes: &[NodeEntry]) -> Option<String> {
        for node in nodes {
            let ring = if node.is_alive() {
                self.client.node_info(&node.addr()).await.ok().and_then(|node| node.ring)
            } else {
                let Some(directory) = node.data_dir.clone() else { continue };
                self.with(move |_| Ok(member_in(&directory).ok().flatten())).await.ok().flatten().and_then(|it| it.ring)
            };
            if ring.is_some() {
                return ring;
            }
        }
        None
    }

    /// Sees an enlisted node through until it can be asked.
    async fn see_through(&self, enlisted: Enlisted, order: &Order) -> Result<Running, SpawnError> {
        let is_new = order.name.is_none();
        match enlisted {
            Enlisted::Living(mut entry) => {
                if entry.status == Status::Starting && entry.port == 0 {
                    let ready = spawn::wait_ready(&entry, None, PATIENCE, &order.stop).await;
                    entry.is_ready_as(&self.or_give_up(ready, &entry, None, false, &order.stop).await?);
                }
                Ok(Running::process(self.kept.state.clone(), entry, None))
            }
            Enlisted::Spawned(mut entry, mut child) if is_new => {
                let ready = spawn::wait_ready(&entry, Some(&mut child), PATIENCE, &order.stop).await;
                let note = self.or_give_up(ready, &entry, Some(&mut child), true, &order.stop).await?;
                entry.is_ready_as(&note);
                let (name, pid) = (entry.name.clone(), entry.pid);
                self.with(move |kept| {
                    kept.update(|state| {
                        if let Some(entry) = state.entry_mut(&name).filter(|entry| entry.pid == pid) {
                            let _ = std::fs::remove_file(entry.ready_file());
                            entry.is_ready_as(&note);
                        }
                    })
                })
                .await?;
                Ok(Running::process(self.kept.state.clone(), entry, Some(child)))
            }
            Enlisted::Spawned(entry, mut child) => {
                // It knows its address; whether it finds its ring is for the checks to see.
                let listens = spawn::wait_listening(&entry, Some(&mut child), PATIENCE, &order.stop).await;
                self.or_give_up(listens, &entry, Some(&mut child), false, &order.stop).await?;
                Ok(Running::process(self.kept.state.clone(), entry, Some(child)))
            }
            Enlisted::Here(entry) => self.start_here(entry, order).await,
        }
    }

    async fn start_here(&self, mut entry: NodeEntry, order: &Order) -> Result<Running, SpawnError> {
        let config = Config {
            host: entry.host.clone(),
            port: entry.port,
            name: Some(entry.name.clone()),
            bootstrap: order.contacts.clone(),
            data: entry.data_dir.clone().map_or(Data::Memory, Data::Dir),
            ..Config::default()
        };
        // The entry's directory goes with the entry.
        let here = match Here::start(config, None, &order.stop).await {
            Ok(here) => here,
            Err(error) => {
                self.forget(&entry, order.name.is_none()).await?;
                return Err(error);
            }
        };
        let contact = here.node().contact();
        (entry.host, entry.port) = (contact.host().to_owned(), contact.port());
        (entry.id, entry.status) = (Some(contact.id), Status::Running);
        let running = entry.clone();
        self.with(move |kept| {
            kept.update(|state| {
                if let Some(entry) = state.entry_mut(&running.name) {
                    *entry = running;
                }
            })
        })
        .await?;
        Ok(Running::here(self.kept.state.clone(), entry, here))
    }

    /// Ends a node that did not come up, and takes it off the list if it is new and holds nothing.
    async fn or_give_up<T>(
        &self,
        outcome: Result<T, NotReady>,
        entry: &NodeEntry,
        child: Option<&mut Child>,
        is_new: bool,
        stop: &CancellationToken,
    ) -> Result<T, SpawnError> {
        let failed = match outcome {
            Ok(it) => return Ok(it),
            Err(failed) => failed,
        };
        spawn::terminate(entry).await;
        if let Some(child) = child {
            let _ = child.try_wait();
        }
        self.forget(entry, is_new).await?;
        Err(if stop.is_cancelled() { SpawnError::Stopping } else { SpawnError::Failed(failed.reason) })
    }

    async fn forget(&self, entry: &NodeEntry, is_new: bool) -> Result<(), SpawnError> {
        let entry = entry.clone();
        self.with(move |kept| {
            let holds = entry.data_dir.as_deref().and_then(|directory| member_in(directory).ok().flatten());
            if is_new && holds.is_none_or(|member| member.values == 0) {
                kept.remove(&entry)?;
            } else {
                kept.update(|state| {
                    if let Some(entry) = state.entry_mut(&entry.name) {
                        entry.status = Status::Stopped;
                    }
                })?;
            }
            Ok(())
        })
        .await
    }
}

impl Spawner for Roster {
    type Member = Running;

    async fn recall(&self) -> Result<Recalled, SpawnError> {
        let (members, mut ring) = self
            .with(|kept| {
                let state = kept.state.load().map_err(failed)?.unwrap_or_default();
                let note = state.bootstrap.map(|note| RingNote { id: note.ring, contacts: note.contacts });
                Ok((state.nodes, note.unwrap_or_default()))
            })
            .await?;
        if ring.id.is_none() {
            ring.id = self.ring_of(&members).await;
        }
        *self.kept.ring.lock().unwrap_or_else(PoisonError::into_inner) = ring.clone();
        // Written down at once, so that `tasks killall` knows whom to end first.
        self.with(|kept| kept.update(|_| ())).await?;
        Ok(Recalled { members: members.into_iter().map(|node| node.name).collect(), ring })
    }

    async fn remember(&self, ring: RingNote) -> Result<(), SpawnError> {
        *self.kept.ring.lock().unwrap_or_else(PoisonError::into_inner) = ring;
        self.with(|kept| kept.update(|_| ())).await
    }

    async fn start(&self, order: Order) -> Result<Running, SpawnError> {
        let (name, contacts, in_process) = (order.name.clone(), order.contacts.clone(), self.in_process);
        let enlisted = self
            .with(move |kept| match name {
                Some(name) => kept.enlist_again(&name, &contacts, in_process),
                None => kept.enlist_new(&contacts, in_process),
            })
            .await?;
        self.see_through(enlisted, &order).await
    }

    async fn set_aside(&self, name: &str, even_if_it_holds: bool) -> Result<SetAside, SpawnError> {
        let name = name.to_owned();
        self.with(move |kept| {
            let Some(entry) = kept.state.load().map_err(failed)?.and_then(|state| state.entry(&name).cloned()) else {
                return Ok(SetAside::Forgotten);
            };
            let directory = entry.data_dir.clone().unwrap_or_default();
            if member_in(&directory).is_ok_and(|member| member.is_none_or(|member| member.values == 0)) {
                kept.remove(&entry)?;
                return Ok(SetAside::Forgotten);
            }
            Ok(SetAside::holding(directory.display().to_string(), even_if_it_holds))
        })
        .await
    }
}

impl Kept {
    /// Changes the file, and notes in it who keeps its nodes.
    fn update(&self, change: impl FnOnce(&mut NetworkState)) -> Result<(), SpawnError> {
        self.try_update(|state| {
            change(state);
            Ok(())
        })
    }

    fn try_update<T>(&self, change: impl FnOnce(&mut NetworkState) -> Result<T, SpawnError>) -> Result<T, SpawnError> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.state
            .update(|state| {
                let outcome = change(state).map_err(Refused::Spawner)?;
                let pid = std::process::id();
                let started = process::started(pid).unwrap_or_default();
                state.bootstrap = Some(ServiceNote { pid, started, ring: ring.id, contacts: ring.contacts });
                Ok(outcome)
            })
            .map_err(|refused| match refused {
                Refused::State(error) => failed(error),
                Refused::Spawner(error) => error,
            })
    }

    /// Starts a node that is in the file, unless it runs.
    fn enlist_again(&self, name: &str, contacts: &[String], in_process: bool) -> Result<Enlisted, SpawnError> {
        let gone = || SpawnError::Gone(name.to_owned());
        let enlisted = self.enlist(|state| {
            let entry = state.entry_mut(name).ok_or_else(gone)?;
            if entry.is_alive() && entry.pid != std::process::id() {
                return Ok(Enlisted::Living(entry.clone()));
            }
            let member = match entry.data_dir.as_deref().map(member_in) {
                Some(Ok(Some(member))) => member,
                Some(Ok(None)) | None => return Err(gone()),
                Some(Err(error)) => return Err(SpawnError::Failed(error.to_string())),
            };
            (entry.host, entry.port) = (member.contact.host().to_owned(), member.contact.port());
            (entry.id, entry.status) = (Some(member.contact.id), Status::Starting);
            begin(entry, contacts, in_process)
        });
        if matches!(enlisted, Err(SpawnError::Gone(_)))
            && let Some(entry) = self.state.load().map_err(failed)?.and_then(|state| state.entry(name).cloned())
        {
            // It has left, or had not joined: there is nothing to go on with.
            self.remove(&entry)?;
        }
        enlisted
    }

    /// Starts what `start` starts and writes it down, or does neither.
    fn enlist(
        &self,
        start: impl FnOnce(&mut NetworkState) -> Result<Enlisted, SpawnError>,
    ) -> Result<Enlisted, SpawnError> {
        let mut enlisted = None;
        let written = self.try_update(|state| {
            enlisted = Some(start(state)?);
            Ok(())
        });
        match (written, enlisted) {
            (Ok(()), Some(enlisted)) => Ok(enlisted),
            (Err(error), Some(Enlisted::Spawned(_, mut child))) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
            (written, _) => Err(written.err().unwrap_or_else(|| SpawnError::Failed("nothing was started".to_owned()))),
        }
    }

    /// Starts a new node.
    fn enlist_new(&self, contacts: &[String], in_process: bool) -> Result<Enlisted, SpawnError> {
        let places = self.state.places();
        self.enlist(|state| {
            let name = state.next_name();
            let port = self.free_port(state)?;
            let (log, data_dir) = places.make(&name, false).map_err(failed)?;
            let mut entry = NodeEntry::starting(name, self.host.clone(), port, log, data_dir);
            match begin(&mut entry, contacts, in_process) {
                Ok(enlisted) => {
                    state.nodes.push(entry);
                    Ok(enlisted)
                }
                Err(error) => {
                    places.clear(&entry);
                    Err(error)
                }
            }
        })
    }

    /// The first port that neither another node nor another program has. Should another program take it meanwhile, the node
    /// does not come up, and the next attempt steps over it.
    fn free_port(&self, state: &NetworkState) -> Result<u16, SpawnError> {
        if self.first_port == 0 {
            return Ok(0);
        }
        let last = self.first_port.saturating_add(PORTS);
        let is_free =
            |port: &u16| state.holder_of(*port).is_none() && TcpListener::bind((self.host.as_str(), *port)).is_ok();
        (self.first_port..=last).find(is_free).ok_or_else(|| {
            SpawnError::Failed(format!(
                "the ports {} to {last} are all taken; choose others with --node-port, or 0 for any",
                self.first_port
            ))
        })
    }

    /// Takes a node off the list, and what is left of it off the disk.
    fn remove(&self, entry: &NodeEntry) -> Result<(), SpawnError> {
        self.update(|state| state.nodes.retain(|node| node.name != entry.name))?;
        self.state.places().clear(entry);
        Ok(())
    }
}

/// Starts the node's process, or makes it one of this process.
fn begin(entry: &mut NodeEntry, contacts: &[String], in_process: bool) -> Result<Enlisted, SpawnError> {
    if in_process {
        entry.pid = std::process::id();
        entry.started = process::started(entry.pid).unwrap_or_default();
        return Ok(Enlisted::Here(entry.clone()));
    }
    let child = spawn::spawn(entry, contacts).map_err(|error| SpawnError::Failed(error.to_string()))?;
    Ok(Enlisted::Spawned(entry.clone(), child))
}

/// Why the file was not changed.
enum Refused {
    State(StateError),
    Spawner(SpawnError),
}

impl From<StateError> for Refused {
    fn from(error: StateError) -> Refused {
        Refused::State(error)
    }
}

fn failed(error: StateError) -> SpawnError {
    SpawnError::Failed(error.to_string())
}
