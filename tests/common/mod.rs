//! What the tests on real processes share: a ring in a directory of its own, driven by the real `tasks`, gone when it is
//! dropped; a daemon started by hand; and waits that have a condition and a deadline.
#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(unused_imports, reason = "likewise")]

mod described;
pub(crate) mod namespace;
pub(crate) mod namespaces;
mod raw;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use described::Described;
pub(crate) use raw::{Raw, raw};
use serde_json::Value;

/// How many tests may have processes running at once.
const AT_ONCE: usize = 2;

static PLACES: (Mutex<usize>, Condvar) = (Mutex::new(AT_ONCE), Condvar::new());

/// Permission to run processes; others wait until it is dropped.
pub(crate) struct Place(());

impl Place {
    pub(crate) fn take() -> Place {
        let mut free = lock(&PLACES.0);
        while *free == 0 {
            free = PLACES.1.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Place(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&PLACES.0) += 1;
        PLACES.1.notify_one();
    }
}

fn lock(mutex: &Mutex<usize>) -> MutexGuard<'_, usize> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty directory in which `tasks` is run. Its ring ends when this is dropped.
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    _place: Option<Place>,
}

/// How a run of a program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Lab {
    /// An empty directory.
    pub(crate) fn empty() -> Lab {
        let place = Place::take();
        Lab { dir: tempfile::tempdir().expect("a temporary directory"), _place: Some(place) }
    }

    /// Another empty directory for the same test, which has its permission to run processes already.
    pub(crate) fn beside(&self) -> Lab {
        Lab { dir: tempfile::tempdir().expect("a temporary directory"), _place: None }
    }

    /// A ring of this many nodes (two or more), ideal and ready.
    pub(crate) fn with_nodes(nodes: usize) -> Lab {
        let lab = Lab::empty();
        lab.ok(&["boot"]);
        if nodes > 2 {
            lab.ok(&["addmany", &(nodes - 2).to_string()]);
        }
        lab.ok(&["doctor", "--wait", "30s"]);
        lab
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The command `tasks` with these arguments, in this directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tasks"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHORDAL_")) {
            command.env_remove(name);
        }
        command
    }

    /// Runs `tasks` to its end.
    pub(crate) fn tasks(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("tasks can be run"))
    }

    /// Runs `tasks`, which must succeed, and returns its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.tasks(args);
        assert!(ran.ok, "tasks {args:?} failed: {ran:#?}\n{}", self.logs());
        ran.stdout
    }

    /// Runs `tasks … --json`, which must succeed with one JSON value on standard output.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        // In front, because what follows `--` is no option.
        let args: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
        let stdout = self.ok(&args);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("tasks {args:?} printed {stdout:?}: {error}"))
    }

    /// Runs `tasks`, which must fail with one line on standard error, and returns that line.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let ran = self.tasks(args);
        assert!(!ran.ok, "tasks {args:?} should have failed: {ran:#?}");
        assert_eq!(ran.stderr.trim_end().lines().count(), 1, "one line, please: {ran:#?}");
        ran.stderr
    }

    /// What network_state.json says.
    pub(crate) fn state(&self) -> Value {
        let text = std::fs::read_to_string(self.path().join("network_state.json")).expect("there is a state file");
        serde_json::from_str(&text).expect("the state file is JSON")
    }

    /// `host:port` of every node that the state calls running.
    pub(crate) fn addrs(&self) -> Vec<String> {
        let nodes = self.state()["nodes"].as_array().expect("a list of nodes").clone();
        let running = nodes.iter().filter(|node| node["status"] == "running");
        running.map(addr_of).collect()
    }

    /// The node of this name in the state.
    pub(crate) fn node(&self, name: &str) -> Value {
        let state = self.state();
        let found = state["nodes"].as_array().expect("a list of nodes").iter().find(|node| node["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {state}")).clone()
    }

    /// `host:port` of the node of this name.
    pub(crate) fn addr(&self, name: &str) -> String {
        addr_of(&self.node(name))
    }

    /// The nodes of the state.
    pub(crate) fn nodes(&self) -> Vec<Value> {
        self.state()["nodes"].as_array().expect("a list of nodes").clone()
    }

    /// The name of the node at this address.
    pub(crate) fn name_at(&self, addr: &str) -> String {
        let found = self.nodes().into_iter().find(|node| addr_of(node) == addr);
        let node = found.unwrap_or_else(|| panic!("nobody at {addr} in {}", self.state()));
        node["name"].as_str().expect("a name").to_owned()
    }

    /// What the ring should be, from the addresses of the nodes that run.
    pub(crate) fn model(&self) -> Model {
        Model::of(&self.addrs())
    }

    /// Stores so many values and returns them.
    pub(crate) fn fill(&self, values: usize) -> Vec<String> {
        let stored = self.json(&["storemany", &values.to_string()]);
        assert_eq!(stored["stored"], values);
        let values = stored["values"].as_array().expect("a list of values").iter();
        values.map(|value| value.as_str().expect("a text").to_owned()).collect()
    }

    /// Asserts that each value is found through some node, and that it comes to lie with its owner and with nobody else.
    #[track_caller]
    pub(crate) fn holds(&self, values: &[String]) {
        let addrs = self.addrs();
        for (number, value) in values.iter().enumerate() {
            let through = &addrs[number % addrs.len()];
            let found = get(through, &format!("/dht/lookup?value={}", escape(value)));
            assert_eq!(found.status, 200, "{value:?} through {through}: {found:?}");
            assert_eq!(found.json()["value"], **value);
        }
        let model = self.model();
        // Pointers settle first, and content follows them.
        let began = Instant::now();
        while let Err(misplaced) = in_place(&model, values) {
            assert!(began.elapsed() < Duration::from_secs(20), "{misplaced}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the doctor is content.
    pub(crate) fn heals(&self) {
        self.ok(&["doctor", "--wait", "30s"]);
    }

    /// The ends of all logs, for the message of a test that fails.
    pub(crate) fn logs(&self) -> String {
        let Ok(entries) = std::fs::read_dir(self.path().join("logs")) else { return String::new() };
        let mut text = String::new();
        for path in
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "log"))
        {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(8).collect();
            text += &format!("--- {}\n", path.display());
            tail.iter().rev().for_each(|line| text += &format!("{line}\n"));
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Also where the test has broken the state file: then its nodes are found by what they were started with.
        let killed = self.tasks(&["killall"]).ok;
        if !killed {
            kill_by_data_dir(self.path());
        }
    }
}

/// Ends processes that were started with a data directory inside `dir`.
fn kill_by_data_dir(dir: &Path) {
    for pid in processes_of(dir) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Ran {
        Ran {
            ok: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A daemon that was started by hand, killed when this is dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) addr: String,
    pub(crate) log: PathBuf,
}

impl Daemon {
    /// `chordal start` with these arguments, once it has said that it is ready.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Daemon {
        Daemon::try_start(dir, args).unwrap_or_else(|ran| panic!("chordal start {args:?} failed: {ran:#?}"))
    }

    /// The same; if it ends instead, how it did.
    pub(crate) fn try_start(dir: &Path, args: &[&str]) -> Result<Daemon, Ran> {
        Daemon::try_start_with(dir, args, &[])
    }

    /// The same with these variables.
    pub(crate) fn try_start_with(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Result<Daemon, Ran> {
        let log = dir.join(format!("daemon-{}.log", rand::random::<u32>()));
        let stderr = std::fs::File::create(&log).expect("a log can be made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
        command.arg("start").args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        command.envs(variables.iter().copied());
        let mut child = command.spawn().expect("chordal can be run");
        let mut stdout = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its output can be read");
        // "chordal: node-1 (127.0.0.1:9000) is ready, id …"
        match line.split_once('(').and_then(|(_, rest)| rest.split_once(')')) {
            Some((addr, _)) => Ok(Daemon { child, addr: addr.to_owned(), log }),
            None => {
                let status = child.wait().expect("it has ended");
                let stderr = std::fs::read_to_string(&log).unwrap_or_default();
                Err(Ran { ok: status.success(), code: status.code(), stdout: line, stderr })
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks every few milliseconds until there is something, and fails with what was missing when the deadline has passed.
pub(crate) fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < deadline, "after {deadline:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What came back over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// A header; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header is text"))
    }

    /// The body, which must be that of an answer with this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// The problem document, which this must be, with this status and this name of the kind.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{self:?}");
        problem
    }
}

thread_local! {
    static HTTP: (tokio::runtime::Runtime, reqwest::Client) = (
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        client(),
    );
}

/// An HTTP client for the loopback.
pub(crate) fn client() -> reqwest::Client {
    // reqwest wants one even for plain HTTP; who was first stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    // No connection is kept: the peer may be gone the next time.
    builder.pool_max_idle_per_host(0).timeout(Duration::from_secs(20)).build().expect("a client")
}

/// A blocking HTTP exchange; `Err` where there is no answer.
pub(crate) fn try_exchange(
    method: &str,
    addr: &str,
    path: &str,
    body: Option<(&str, &[u8])>,
) -> Result<Answer, reqwest::Error> {
    HTTP.with(|(runtime, client)| {
        runtime.block_on(async {
            let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
            let mut request = client.request(method, format!("http://{addr}{path}"));
            if let Some((content_type, body)) = body {
                if !content_type.is_empty() {
                    request = request.header("content-type", content_type);
                }
                request = request.body(body.to_vec());
            }
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok(Answer { status, headers, body: response.text().await? })
        })
    })
}

/// A blocking HTTP exchange.
pub(crate) fn exchange(method: &str, addr: &str, path: &str, body: Option<(&str, &[u8])>) -> Answer {
    try_exchange(method, addr, path, body).unwrap_or_else(|error| panic!("{method} {addr}{path}: {error:?}"))
}

/// GET.
pub(crate) fn get(addr: &str, path: &str) -> Answer {
    exchange("GET", addr, path, None)
}

/// An exchange with JSON in.
pub(crate) fn send(method: &str, addr: &str, path: &str, body: &Value) -> Answer {
    exchange(method, addr, path, Some(("application/json", body.to_string().as_bytes())))
}

/// GET with JSON out; the status must be 200.
pub(crate) fn get_json(addr: &str, path: &str) -> Value {
    get(addr, path).expect(200)
}

/// PUT of a pointer in the labs' raw form, which must be answered with the node that is pointed to now.
#[track_caller]
pub(crate) fn rewire(addr: &str, path: &str, to: &str) {
    assert_eq!(addr_of(&exchange("PUT", addr, path, Some(("", to.as_bytes()))).expect(200)), to);
}

/// Text as a query or a path segment carries it.
pub(crate) fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// SHA-256 in hex, computed without the help of the code under test.
pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(<sha2::Sha256 as sha2::Digest>::digest(bytes))
}

/// `host:port` of a node object, with brackets round an IPv6 host.
pub(crate) fn addr_of(node: &Value) -> String {
    let host = node["host"].as_str().expect("a host");
    if host.contains(':') { format!("[{host}]:{}", node["port"]) } else { format!("{host}:{}", node["port"]) }
}

/// The names of an object's fields, sorted.
pub(crate) fn fields(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap_or_else(|| panic!("{object} is no object"));
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// A version as (epoch, sequence).
pub(crate) fn version(of: &Value) -> (u64, u64) {
    let text = of["version"].as_str().unwrap_or_else(|| panic!("no version in {of}"));
    let (epoch, sequence) = text.split_once('.').unwrap_or_else(|| panic!("{text} is no version"));
    (epoch.parse().expect("an epoch"), sequence.parse().expect("a sequence"))
}

/// All that a node holds, page by page; each page must be in id order and begin after the one before.
pub(crate) fn whole_db(addr: &str, limit: usize) -> Vec<Value> {
    let mut items: Vec<Value> = Vec::new();
    let mut after = String::new();
    loop {
        let page = get_json(addr, &format!("/db?limit={limit}{after}"));
        assert_eq!(fields(&page), ["items", "next"]);
        let new = page["items"].as_array().expect("items");
        assert!(new.len() <= limit, "{} items of at most {limit}", new.len());
        items.extend(new.iter().cloned());
        match page["next"].as_str() {
            Some(next) => {
                assert_eq!(items.last().map(|item| &item["id"]), Some(&page["next"]), "next is the last id");
                after = format!("&after={next}");
            }
            None => break,
        }
    }
    let ids: Vec<&str> = items.iter().map(|item| item["id"].as_str().expect("an id")).collect();
    assert!(ids.is_sorted_by(|one, other| one < other), "in id order, each once: {ids:?}");
    items
}

/// What a ring should be, from nothing but the addresses of its nodes.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Id and address, in ring order from zero upwards.
    pub(crate) nodes: Vec<(String, String)>,
}

impl Model {
    /// Of nodes whose ids are the hashes of their addresses.
    pub(crate) fn of(addrs: &[String]) -> Model {
        let mut nodes: Vec<_> = addrs.iter().map(|addr| (sha256(addr), addr.clone())).collect();
        nodes.sort();
        Model { nodes }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where a node stands.
    pub(crate) fn position(&self, addr: &str) -> usize {
        self.nodes.iter().position(|(_, there)| there == addr).unwrap_or_else(|| panic!("{addr} is not in {self:?}"))
    }

    /// The node so many places clockwise of another.
    pub(crate) fn after(&self, addr: &str, places: usize) -> &str {
        &self.nodes[(self.position(addr) + places) % self.len()].1
    }

    /// The node before another.
    pub(crate) fn before(&self, addr: &str) -> &str {
        self.after(addr, self.len() - 1)
    }

    /// The owner of an id: the last node at or before it, clockwise.
    pub(crate) fn owner(&self, id: &str) -> &str {
        let at_or_before = self.nodes.iter().rev().find(|(node, _)| node.as_str() <= id);
        &at_or_before.or(self.nodes.last()).expect("a ring has a node").1
    }
}

/// Whether each of these values, which are their own keys, lies with its owner, and everything else with its own.
fn in_place(model: &Model, values: &[String]) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for (_, addr) in &model.nodes {
        for item in whole_db(addr, 50) {
            let id = item["id"].as_str().expect("an id").to_owned();
            let owner = model.owner(&id);
            if owner != addr {
                return Err(format!("{item} is held by {addr}, and {owner} owns it"));
            }
            seen.insert(id);
        }
    }
    match values.iter().find(|value| !seen.contains(&sha256(value))) {
        Some(value) => Err(format!("{value:?} is not held by its owner, {}", model.owner(&sha256(value)))),
        None => Ok(()),
    }
}

/// Whether a process runs. Zombies don't.
pub(crate) fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X') | None))
}

/// The pids of all processes that were started with an argument that is a path inside `dir`.
pub(crate) fn processes_of(dir: &Path) -> Vec<i32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
    let inside = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = command.split(|byte| *byte == 0).filter_map(|argument| std::str::from_utf8(argument).ok());
        *pid != std::process::id() as i32 && arguments.any(|argument| Path::new(argument).starts_with(dir))
    };
    pids.filter(inside).collect()
}

/// Sends a signal to a process that this test has started.
pub(crate) fn signal(pid: u64, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, signal).unwrap_or_else(|error| panic!("cannot signal {pid}: {error}"));
}
