//! Scenarios: a few nodes, and what happens to them at which moment, written down for teaching.

use std::collections::BTreeMap;

use chordal_protocol::{Contact, Id, Procedure, Side, keeper};
use serde::Deserialize;

use super::faults::{Delay, Faults};
use super::host::State;
use super::network::Cut;
use super::run::{Outcome, go_on_until, outcome, recover};
use super::setup::{Setup, Variant};
use super::trace::Sink;
use super::world::{Event, FATE, MS, World};

/// The longest scenario, in simulated seconds.
const LONGEST: f64 = 3_600.0;

/// For how long a write is waited for that a primary is to crash in, in simulated microseconds.
const WRITE_WITHIN: u64 = 5_000 * MS;

/// A few nodes and what happens to them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// In one line, what it shows.
    pub title: String,
    /// What to look at.
    pub text: String,
    /// `zave` or `2001`.
    #[serde(default)]
    variant: Protocol,
    /// How long successor lists are.
    successors: usize,
    /// How long each message is under way, in simulated milliseconds.
    delay: u64,
    /// How long the scenario goes on, in simulated seconds.
    seconds: f64,
    /// Reads and writes of clients per simulated second.
    #[serde(default)]
    operations: f64,
    /// How many members a view has; nodes keep content if this is given.
    #[serde(default)]
    replication_factor: Option<usize>,
    /// The nodes, each with the first hexadecimal digits of its id.
    nodes: BTreeMap<String, String>,
    /// What happens.
    #[serde(rename = "event")]
    events: Vec<Line>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
enum Protocol {
    #[default]
    #[serde(rename = "zave")]
    Zave,
    #[serde(rename = "2001")]
    Stoica2001,
}

/// Something that happens at a moment: exactly one of these.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// When, in simulated seconds.
    at: f64,
    /// This node begins the ring.
    create: Option<String>,
    /// A node joins through another.
    join: Option<Join>,
    /// A node leaves in order.
    leave: Option<String>,
    /// A node ends without a word; its machine refuses connections.
    crash: Option<String>,
    /// It is started again on its disk.
    restart: Option<String>,
    /// A node stands still.
    pause: Option<Pause>,
    /// These nodes cannot reach the others.
    partition: Option<Partition>,
    /// Somebody points a node to another one by hand.
    wire: Option<Wire>,
    /// A client writes a value through a node.
    put: Option<Put>,
    /// A client reads a key through a node.
    get: Option<Get>,
    /// As soon as a write of this key is at another member, and before anybody is told, the key's primary crashes.
    crash_primary_in_write: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    node: String,
    through: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    node: String,
    seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Partition {
    nodes: Vec<String>,
    seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    node: String,
    side: WireSide,
    to: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireSide {
    Predecessor,
    Successor,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    key: String,
    value: String,
    through: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    key: String,
    through: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    Create(String),
    Join(Join),
    Leave(String),
    Crash(String),
    Restart(String),
    Pause(Pause),
    Partition(Partition),
    Wire(Wire),
    Put(Put),
    Get(Get),
    CrashPrimaryInWrite(String),
}

impl Line {
    fn action(&self) -> Result<Action, ScenarioError> {
        let line = self.clone();
        let Line { at, create, join, leave, crash, restart, pause, partition, wire, put, get, .. } = line;
        let all = [
            create.map(Action::Create),
            join.map(Action::Join),
            leave.map(Action::Leave),
            crash.map(Action::Crash),
            restart.map(Action::Restart),
            pause.map(Action::Pause),
            partition.map(Action::Partition),
            wire.map(Action::Wire),
            put.map(Action::Put),
            get.map(Action::Get),
            line.crash_primary_in_write.map(Action::CrashPrimaryInWrite),
        ];
        let mut given = all.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(action), None) => Ok(action),
            _ => Err(ScenarioError::NotOne(at)),
        }
    }
}

/// Why a scenario makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScenarioError {
    /// A number is out of its range.
    #[error("`{0}` must be {1}")]
    Number(&'static str, &'static str),
    /// An event is none, or several.
    #[error(
        "the event at {0} s must have exactly one of create, join, leave, crash, restart, pause, partition, wire, put, get, crash_primary_in_write"
    )]
    NotOne(f64),
    /// A node is named that is none.
    #[error("there is no node called `{0}`; the scenario has {1}")]
    Nobody(String, String),
    /// An id cannot be read.
    #[error("`{1}` is no id for the node {0}: give its first hexadecimal digits, such as 40")]
    Id(String, String),
    /// Two nodes stand at one id.
    #[error("the nodes {0} and {1} have the same id")]
    Twice(String, String),
    /// Something is done with content, and no node keeps any.
    #[error("the event at {0} s needs nodes that keep content: give the scenario a `replication_factor`")]
    NoContent(f64),
    /// Something happens to a node to which it cannot happen then.
    #[error("at {at} s: {what}")]
    Impossible {
        /// When.
        at: f64,
        /// What was to happen, and why it can't.
        what: String,
    },
}

impl Scenario {
    /// Whether it makes sense, as far as that can be said before it runs.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let number = |holds: bool, name, range| if holds { Ok(()) } else { Err(ScenarioError::Number(name, range)) };
        number((1..=64).contains(&self.successors), "successors", "from 1 to 64")?;
        number(self.delay <= 10_000, "delay", "from 0 to 10000 ms")?;
        number((0.0..=LONGEST).contains(&self.seconds), "seconds", "from 0 to 3600")?;
        number((0.0..=1_000.0).contains(&self.operations), "operations", "from 0 to 1000")?;
        let factor = self.replication_factor.unwrap_or(1);
        number((1..=16).contains(&factor), "replication_factor", "from 1 to 16")?;
        number((1..=256).contains(&self.nodes.len()), "nodes", "a table of 1 to 256 nodes")?;
        let mut ids: BTreeMap<Id, &String> = BTreeMap::new();
        for (name, prefix) in &self.nodes {
            let id = Id::from_hex_prefix(prefix).map_err(|_| ScenarioError::Id(name.clone(), prefix.clone()))?;
            if let Some(other) = ids.insert(id, name) {
                return Err(ScenarioError::Twice(other.clone(), name.clone()));
            }
        }
        for line in &self.events {
            number((0.0..=self.seconds).contains(&line.at), "at", "from 0 to the scenario's `seconds`")?;
            let action = line.action()?;
            if let Action::Pause(Pause { seconds, .. }) | Action::Partition(Partition { seconds, .. }) = &action {
                number((0.0..=LONGEST).contains(seconds), "seconds", "from 0 to 3600")?;
            }
            if action.needs_content() && self.replication_factor.is_none() {
                return Err(ScenarioError::NoContent(line.at));
            }
            for name in action.names() {
                if !self.nodes.contains_key(name) {
                    let known: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
                    return Err(ScenarioError::Nobody(name.clone(), known.join(", ")));
                }
            }
        }
        Ok(())
    }

    /// The setup that it stands for, with another protocol if one is named.
    pub fn setup(&self, variant: Option<Variant>) -> Setup {
        let own = match self.variant {
            Protocol::Zave => Variant::Zave,
            Protocol::Stoica2001 => Variant::Stoica2001,
        };
        let mut setup = Setup {
            nodes: (self.nodes.len(), self.nodes.len()),
            seconds: self.seconds,
            faults: Faults { delay: Some(Delay { from: self.delay, to: self.delay }), ..Faults::NONE },
            churn: 0.0,
            operations: self.operations,
            variant: variant.unwrap_or(own),
            keys: if self.operations > 0.0 { 24 } else { 0 },
            content: self
                .replication_factor
                .map(|replication_factor| keeper::Settings { replication_factor, ..keeper::Settings::default() }),
            ..Setup::default()
        };
        setup.settings.successors = self.successors;
        setup
    }

    /// Plays it. Afterwards the ring is given its time to become ideal.
    pub fn play(&self, variant: Option<Variant>, sink: Option<Sink<'_>>) -> Result<Outcome, ScenarioError> {
        self.check()?;
        let setup = self.setup(variant);
        let mut world = World::empty(&setup, 0, sink);
        world.sparing = false;
        world.scripted = true;
        world.wanted = 0;
        for (name, prefix) in &self.nodes {
            let id = Id::from_hex_prefix(prefix).map_err(|_| ScenarioError::Id(name.clone(), prefix.clone()))?;
            let host = world.add(name, id, 0, Vec::new());
            world.hosts[host].state = State::Gone;
        }
        world.at(FATE, Event::Fate);
        world.at(FATE, Event::Client);
        world.watch_service();
        let mut lines: Vec<&Line> = self.events.iter().collect();
        lines.sort_by(|one, other| one.at.total_cmp(&other.at));
        for line in lines {
            go_on_until(&mut world, (line.at * 1e6) as u64);
            if world.checker.violation.is_some() {
                break;
            }
            world.act(&line.action()?).map_err(|what| ScenarioError::Impossible { at: line.at, what })?;
            world.check();
        }
        go_on_until(&mut world, (self.seconds * 1e6) as u64);
        let rounds = if world.checker.violation.is_none() { recover(&mut world) } else { (None, None) };
        world.wanted = self.nodes.len();
        Ok(outcome(world, 0, rounds))
    }
}

impl Action {
    fn names(&self) -> Vec<&String> {
        match self {
            Action::Create(node) | Action::Leave(node) | Action::Crash(node) | Action::Restart(node) => vec![node],
            Action::Join(Join { node, through }) => vec![node, through],
            Action::Pause(Pause { node, .. }) => vec![node],
            Action::Partition(Partition { nodes, .. }) => nodes.iter().collect(),
            Action::Wire(Wire { node, to, .. }) => vec![node, to],
            Action::Put(Put { through, .. }) | Action::Get(Get { through, .. }) => vec![through],
            Action::CrashPrimaryInWrite(_) => Vec::new(),
        }
    }

    fn needs_content(&self) -> bool {
        matches!(self, Action::Put(_) | Action::Get(_) | Action::CrashPrimaryInWrite(_))
    }
}

impl World<'_> {
    fn act(&mut self, action: &Action) -> Result<(), String> {
        let place = |world: &World<'_>, name: &str| {
            world.place_of(&format!("{name}:1")).ok_or_else(|| format!("there is no node called {name}"))
        };
        match action {
            Action::Create(name) => {
                let host = self.switched_off(place(self, name)?)?;
                self.hosts[host].state = State::Running;
                self.create_for_lessons(host);
            }
            Action::Join(Join { node, through }) => {
                let through: Contact = self.hosts[place(self, through)?].chord.me().clone();
                let host = self.switched_off(place(self, node)?)?;
                self.hosts[host].state = State::Running;
                self.hosts[host].bootstrap = vec![through.clone()];
                self.tell(super::About::Fault, |_| format!("{node} joins through {}", through.name));
                self.begin_alone(host, Procedure::Join { contacts: vec![through] });
            }
            Action::Leave(name) => {
                let host = self.running(place(self, name)?)?;
                self.leave(host);
            }
            Action::Crash(name) => {
                let host = self.running(place(self, name)?)?;
                self.crash_of(host, false);
            }
            Action::Restart(name) => {
                let host = place(self, name)?;
                if !matches!(self.hosts[host].state, State::Crashed { .. }) {
                    return Err(format!("{name} has not crashed, so it cannot be started again"));
                }
                self.restart(host);
            }
            Action::Pause(Pause { node, seconds }) => {
                let host = self.running(place(self, node)?)?;
                self.pause_for(host, (seconds * 1e6) as u64);
            }
            Action::Partition(Partition { nodes, seconds }) => {
                let mut side = vec![false; self.hosts.len()];
                for name in nodes {
                    side[place(self, name)?] = true;
                }
                self.cut(side, Cut::Both, (seconds * 1e3) as u64 * MS);
            }
            Action::Wire(Wire { node, side, to }) => {
                let to = self.hosts[place(self, to)?].chord.me().clone();
                let host = self.running(place(self, node)?)?;
                let side = match side {
                    WireSide::Predecessor => Side::Predecessor,
                    WireSide::Successor => Side::Successor,
                };
                self.tell(super::About::Fault, |_| format!("somebody points {node} to {} by hand", to.name));
                self.outside("pointers were set by hand".to_owned());
                self.begin(host, Procedure::Rewire { side, to });
            }
            Action::Put(Put { key, value, through }) => {
                let host = self.running(place(self, through)?)?;
                self.want_by_name(host, key, Some(value));
            }
            Action::Get(Get { key, through }) => {
                let host = self.running(place(self, through)?)?;
                self.want_by_name(host, key, None);
            }
            Action::CrashPrimaryInWrite(key) => self.crash_primary_in_write(key)?,
        }
        Ok(())
    }

    /// Lets time pass until a write of the key is at a member beside the primary, which does not know that yet.
    fn crash_primary_in_write(&mut self, key: &str) -> Result<(), String> {
        let end = self.now + WRITE_WITHIN;
        while self.checker.violation.is_none() {
            if let Some(primary) = self.primary_in_write(&Id::of(key)) {
                self.crash_of(primary, false);
                return Ok(());
            }
            if !self.step(end) {
                return Err(format!("no write of {key} was under way within {} s", WRITE_WITHIN / 1_000_000));
            }
        }
        Ok(())
    }

    fn running(&self, host: usize) -> Result<usize, String> {
        match self.hosts[host].state {
            State::Running => Ok(host),
            _ => Err(format!("{} does not run then", self.hosts[host].name())),
        }
    }

    fn switched_off(&self, host: usize) -> Result<usize, String> {
        match self.hosts[host].state {
            State::Gone => Ok(host),
            _ => Err(format!("{} has been started already", self.hosts[host].name())),
        }
    }
}
