//! A node of a bootstrap service that runs: a process, or a part of this one.

use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::bootstrap::{Departure, Here, Member};
use crate::client::NodeClient;
use crate::machine::network_state::{NodeEntry, Status};
use crate::machine::process;
use crate::machine::state_file::{StateError, StateFile};
use crate::node::{NodeError, StoppedMember, member_in};
use crate::store::StoreError;
use crate::words::counted;

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// How long a node may take to leave, and its process to end after that or after SIGTERM.
const LEAVING: Duration = Duration::from_secs(15);

/// Why the last node of a ring that holds something does not leave.
const LAST: &str = "it is the last of its ring, and nobody could take what it holds";

/// How long the store of a node of this process may take to be closed by all who use it.
const CLOSING: Duration = Duration::from_secs(2);

/// A node that runs, and its entry.
pub(crate) struct Running {
    state: StateFile,
    entry: NodeEntry,
    addr: String,
    body: Body,
}

enum Body {
    /// Without a child where another process has started it.
    Process(Mutex<Option<Child>>),
    Here(Here),
}

impl Running {
    /// A process.
    pub(super) fn process(state: StateFile, entry: NodeEntry, child: Option<Child>) -> Running {
        Running { state, addr: entry.addr(), entry, body: Body::Process(Mutex::new(child)) }
    }

    /// A part of this process.
    pub(super) fn here(state: StateFile, entry: NodeEntry, here: Here) -> Running {
        Running { state, addr: entry.addr(), entry, body: Body::Here(here) }
    }

    /// Tells the system that nobody waits for the dead child any more.
    fn reap(&self) {
        if let Body::Process(child) = &self.body
            && let Some(child) = child.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
        {
            let _ = child.try_wait();
        }
    }

    /// Ends the process by asking it; whether it has left the ring is seen from what it kept.
    async fn leave_process(&self) -> Result<(), String> {
        let (pid, started) = (self.entry.pid, self.entry.started.as_str());
        let asked = NodeClient::with_timeout(LEAVING).leave(&self.addr).await;
        let mut gone = asked.is_ok() && process::wait_gone(pid, started, LEAVING).await;
        if !gone {
            process::signal(pid, started, Signal::SIGTERM);
            gone = process::wait_gone(pid, started, LEAVING).await;
        }
        if !gone {
            self.kill().await;
        }
        self.reap();
        asked.map_err(|error| match error.status() {
            Some(409) => LAST.to_owned(),
            _ => error.to_string(),
        })
    }
}

impl Member for Running {
    fn name(&self) -> &str {
        &self.entry.name
    }

    fn addr(&self) -> &str {
        &self.addr
    }

    async fn ended(&self) {
        match &self.body {
            Body::Process(_) => process::ended(self.entry.pid, &self.entry.started).await,
            Body::Here(here) => here.ended().await,
        }
        self.reap();
    }

    async fn kill(&self) {
        match &self.body {
            Body::Process(_) => {
                process::signal(self.entry.pid, &self.entry.started, Signal::SIGKILL);
                if !process::wait_gone(self.entry.pid, &self.entry.started, DEATH).await {
                    tracing::error!(pid = self.entry.pid, "was killed but is still there; look at it with ps");
                }
                self.reap();
            }
            Body::Here(here) => here.kill().await,
        }
    }

    async fn leave(self) -> Departure {
        let asked = match &self.body {
            Body::Process(_) => self.leave_process().await,
            Body::Here(here) => {
                let asked = here.node().leave().await.map_err(|error| match error {
                    NodeError::Conflict { .. } => LAST.to_owned(),
                    error => error.to_string(),
                });
                here.kill().await;
                asked
            }
        };
        let (state, entry) = (self.state, self.entry);
        drop(self.body);
        let settled = tokio::task::spawn_blocking(move || settle(&state, &entry, asked)).await;
        settled.unwrap_or_else(|error| Departure::Kept(error.to_string()))
    }
}

/// Who goes on in this directory, once nobody has its store open any more.
fn closed_member_in(directory: &Path) -> Result<Option<StoppedMember>, StoreError> {
    let deadline = Instant::now() + CLOSING;
    loop {
        match member_in(directory) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            outcome => return outcome,
        }
    }
}

/// Takes a node that has left off the list, and notes of any other that it is stopped.
fn settle(state: &StateFile, entry: &NodeEntry, asked: Result<(), String>) -> Departure {
    // What it has on disk says it best: it may have left although the answer was lost.
    let kept = match entry.data_dir.as_deref().map(closed_member_in) {
        Some(Ok(None)) | None => None,
        Some(Ok(Some(member))) if member.values == 0 => None,
        Some(Ok(Some(member))) => {
            Some(asked.err().unwrap_or_else(|| format!("it kept {}", counted(member.values, "value"))))
        }
        Some(Err(error)) => Some(error.to_string()),
    };
    let noted = state.update(|nodes| {
        match &kept {
            None => nodes.nodes.retain(|node| node.name != entry.name),
            Some(_) => nodes.entry_mut(&entry.name).into_iter().for_each(|node| node.status = Status::Stopped),
        }
        Ok::<_, StateError>(())
    });
    if let Err(error) = noted {
        tracing::warn!(%error, "could not be written down");
    }
    match kept {
        None => {
            state.places().clear(entry);
            Departure::Left
        }
        Some(reason) => Departure::Kept(reason),
    }
}
