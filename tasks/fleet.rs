//! Bringing nodes up: put on the list, spawned, seen through until they are ready, or taken off the list again.
//!
//! A node is spawned *under the lock* of the state file, where its name and port are chosen and its entry, with pid and
//! start time, is written as `starting`. Its readiness is waited for without the lock, so several come up at once. So at
//! any moment the file names every process that there is, and any `tasks` can tell from it what became of them.

use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use chordal::node::member_in;
use rand::seq::IndexedRandom as _;

use crate::cli::{self, NodeOptions};
use crate::closed_by::ClosedBy;
use crate::context::Context;
use crate::network_state::{NetworkState, NodeEntry, Status};
use crate::output;
use crate::places::Places;
use crate::spawn::{self, ReadyNote};
use crate::state_file::StateError;

/// How long a node may take to get ready.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How many running nodes a new one is told of: the first is the one it joins through, the others stand in.
const CONTACTS: usize = 3;

/// How often a new node is started again because the system gave it the port of a stopped one.
const PORT_TRIES: usize = 5;

/// A node that is to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    name: Option<String>,
    host: String,
    port: u16,
    memory: bool,
    options: Vec<String>,
    closed_by: ClosedBy,
    contacts: Contacts,
}

/// Through whom a node joins.
#[derive(Debug, Clone)]
pub(crate) enum Contacts {
    /// Through nobody: it begins a ring.
    Nobody,
    /// Through randomly picked running nodes of the state.
    Running,
    /// Through this one (`host:port`).
    At(String),
}

impl Plan {
    /// A node with these options.
    pub(crate) fn new(context: &Context, options: &NodeOptions, contacts: Contacts) -> Plan {
        let mut arguments = Vec::new();
        if options.lab {
            arguments.push("--lab".to_owned());
        }
        if let Some(routing) = options.routing {
            arguments.extend(["--routing".to_owned(), routing.word().to_owned()]);
        }
        let (host, memory) = (options.host.clone(), options.memory);
        let closed_by = context.closed_by.clone();
        Plan { name: None, host, port: 0, memory, options: arguments, closed_by, contacts }
    }

    /// A node with the options of `add` and `join`.
    pub(crate) fn of_newcomer(context: &Context, newcomer: &cli::Newcomer, contacts: Contacts) -> Plan {
        let plan = Plan::new(context, &newcomer.options, contacts).port(newcomer.port).placed(newcomer.id.as_deref());
        Plan { name: newcomer.name.clone(), ..plan }
    }

    /// On this port; 0 is any.
    pub(crate) fn port(self, port: u16) -> Plan {
        Plan { port, ..self }
    }

    /// At this place of the circle, a hex prefix.
    pub(crate) fn placed(mut self, id: Option<&str>) -> Plan {
        self.options.extend(id.into_iter().flat_map(|id| ["--id".to_owned(), id.to_owned()]));
        self
    }

    /// With how many copies of each value a ring begins.
    pub(crate) fn copies(mut self, copies: Option<&str>) -> Plan {
        let option = |copies: &str| ["--replication-factor".to_owned(), copies.to_owned()];
        self.options.extend(copies.into_iter().flat_map(option));
        self
    }
}

/// A node whose process has been spawned.
pub(crate) struct Spawned {
    pub(crate) entry: NodeEntry,
    child: Child,
    /// Whether its entry and its files came with it and go if it fails.
    is_new: bool,
}

/// Spawns what `start` spawns and writes it down, or does neither.
pub(crate) fn enlist(
    context: &Context,
    start: impl FnOnce(&mut NetworkState, &Places) -> Result<Spawned>,
) -> Result<Spawned> {
    let places = context.state.places();
    let mut spawned = None;
    let written = context.state.update(|state| {
        spawned = Some(start(state, places)?);
        Ok(())
    });
    match (written, spawned) {
        (Ok(()), Some(spawned)) => Ok(spawned),
        (Err(error), Some(mut spawned)) => {
            let _ = spawned.child.kill();
            let _ = spawned.child.wait();
            if spawned.is_new {
                places.clear(&spawned.entry);
            }
            Err(error)
        }
        (written, None) => Err(written.err().unwrap_or_else(|| anyhow!("nothing was started"))),
    }
}

/// Spawns a new node and adds it to the state.
pub(crate) fn spawn_new(state: &mut NetworkState, places: &Places, plan: &Plan) -> Result<Spawned> {
    let name = plan.name.clone().unwrap_or_else(|| state.next_name());
    ensure!(state.entry(&name).is_none(), "there is a node called {name} already; choose another name");
    if let Some(holder) = state.holder_of(plan.port) {
        let holder = &holder.name;
        return Err(anyhow!("port {} belongs to {holder}; choose another, or see `tasks start {holder}`", plan.port));
    }
    let contacts = match &plan.contacts {
        Contacts::Nobody => Vec::new(),
        Contacts::At(addr) => vec![addr.clone()],
        Contacts::Running => running_contacts(state)?,
    };
    plan.closed_by.remember(state);
    let (log, data_dir) = places.make(&name, plan.memory)?;
    let mut entry = NodeEntry::starting(name, plan.host.clone(), plan.port, log, data_dir);
    entry.options.clone_from(&plan.options);
    entry.options.extend(plan.closed_by.options());
    match spawn::spawn(&mut entry, &contacts) {
        Ok(child) => {
            state.nodes.push(entry.clone());
            Ok(Spawned { entry, child, is_new: true })
        }
        Err(error) => {
            places.clear(&entry);
            Err(error.into())
        }
    }
}

/// Spawns a node that is in the state already, on its old port and data.
pub(crate) fn spawn_again(state: &mut NetworkState, name: &str, contacts: &[String]) -> Result<Spawned> {
    let entry = state.entry_mut(name).with_context(|| format!("{name} is no longer there"))?;
    ensure!(!entry.is_alive(), "{name} runs already");
    let child = spawn::spawn(entry, contacts)?;
    entry.status = Status::Starting;
    Ok(Spawned { entry: entry.clone(), child, is_new: false })
}

/// A few running nodes, in random order; an error if there are none.
pub(crate) fn running_contacts(state: &NetworkState) -> Result<Vec<String>> {
    let awake = state.awake();
    ensure!(
        !awake.is_empty(),
        "no node of this ring runs that could be joined; `tasks boot` begins a ring, `tasks start --all` brings one back"
    );
    Ok(awake.sample(&mut rand::rng(), CONTACTS).map(NodeEntry::addr).collect())
}

/// Starts a new node and returns it when it is ready. If it fails or is interrupted nothing of it is left.
pub(crate) async fn bring_up(context: &Context, plan: &Plan) -> Result<NodeEntry, NotReady> {
    for _ in 0..PORT_TRIES {
        let spawned = enlist(context, |state, places| spawn_new(state, places, plan))?;
        if let Some(entry) = see_through(context, spawned, PATIENCE).await? {
            return Ok(entry);
        }
    }
    Err(anyhow!("the system gives out nothing but ports of stopped nodes; choose one with --port").into())
}

/// Waits until the node is ready and writes that down. If it fails or is interrupted it is ended; a new one goes from the
/// state with all that it left, another is then stopped. `None` if the system had given it the port of another entry: it
/// has left again, and can be tried anew.
pub(crate) async fn see_through(
    context: &Context,
    mut spawned: Spawned,
    patience: Duration,
) -> Result<Option<NodeEntry>, NotReady> {
    match spawn::wait_ready(&spawned.entry, Some(&mut spawned.child), patience, &context.interrupt).await {
        Ok(note) => {
            let entry = context.state.update(|state| write_ready(state, &spawned.entry, &note))?;
            if entry.is_none() {
                // It has joined, so it goes as a node goes; should that fail it is ended below all the same.
                let addr = NodeEntry { host: note.host, port: note.port, ..spawned.entry.clone() }.addr();
                let _ = context.client.leave(&addr).await;
                give_up(context, spawned).await?;
            } else {
                let _ = std::fs::remove_file(spawned.entry.ready_file());
            }
            Ok(entry)
        }
        Err(not_ready) => {
            give_up(context, spawned).await?;
            Err(not_ready.into())
        }
    }
}

/// `None` if another entry has that port.
fn write_ready(state: &mut NetworkState, spawned: &NodeEntry, note: &ReadyNote) -> Result<Option<NodeEntry>> {
    if state.holder_of(note.port).is_some_and(|holder| holder.name != spawned.name) {
        return Ok(None);
    }
    let entry = state.entry_mut(&spawned.name).filter(|entry| entry.pid == spawned.pid);
    let entry = entry.with_context(|| format!("another task took {} away while it was started", spawned.name))?;
    entry.is_ready_as(note);
    Ok(Some(entry.clone()))
}

/// Ends a node. One that could not leave in order may hold values by now: its entry stays, as a stopped one.
async fn give_up(context: &Context, mut spawned: Spawned) -> Result<()> {
    spawn::terminate(&spawned.entry).await;
    let _ = spawned.child.try_wait();
    let gone = &spawned.entry;
    let member = gone.data_dir.as_deref().and_then(|directory| member_in(directory).ok().flatten());
    let nothing_stays = spawned.is_new && member.as_ref().is_none_or(|member| member.values == 0);
    context.state.update(|state| {
        if nothing_stays {
            state.nodes.retain(|node| node.name != gone.name || node.pid != gone.pid);
        } else if let Some(entry) = state.entry_mut(&gone.name) {
            entry.status = Status::Stopped;
            if let Some(member) = &member {
                entry.port = member.contact.port();
                entry.id = Some(member.contact.id);
            }
        }
        Ok::<_, StateError>(())
    })?;
    if nothing_stays {
        context.state.places().clear(gone);
    }
    Ok(())
}

/// Shows what a node that failed had to say, to people; the rest of the error fits in a line.
pub(crate) fn explain(context: &Context, failed: NotReady) -> anyhow::Error {
    if !context.json {
        failed.log_tail.iter().for_each(|line| output::warn(&format!("    {line}")));
    }
    failed.reason
}

/// Why a node did not get ready.
pub(crate) struct NotReady {
    /// In one line.
    pub(crate) reason: anyhow::Error,
    /// The last lines of its log.
    log_tail: Vec<String>,
}

impl From<spawn::NotReady> for NotReady {
    fn from(failed: spawn::NotReady) -> NotReady {
        NotReady { reason: anyhow!(failed.reason), log_tail: failed.log_tail }
    }
}

impl From<anyhow::Error> for NotReady {
    fn from(reason: anyhow::Error) -> NotReady {
        NotReady { reason, log_tail: Vec::new() }
    }
}
