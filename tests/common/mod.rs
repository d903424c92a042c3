//! What the tests on real processes share: a ring in a directory of its own, driven by the real `tasks`, gone when it is
//! dropped; a daemon started by hand; and waits that have a condition and a deadline.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    _place: Place,
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
        Lab { dir: tempfile::tempdir().expect("a temporary directory"), _place: place }
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
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
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
        running.map(|node| format!("{}:{}", node["host"].as_str().expect("a host"), node["port"])).collect()
    }

    /// The node of this name in the state.
    pub(crate) fn node(&self, name: &str) -> Value {
        let state = self.state();
        let found = state["nodes"].as_array().expect("a list of nodes").iter().find(|node| node["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {state}")).clone()
    }

    /// `host:port` of the node of this name.
    pub(crate) fn addr(&self, name: &str) -> String {
        let node = self.node(name);
        format!("{}:{}", node["host"].as_str().expect("a host"), node["port"])
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
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let inside = command
            .split(|byte| *byte == 0)
            .any(|argument| std::str::from_utf8(argument).is_ok_and(|argument| Path::new(argument).starts_with(dir)));
        if inside && pid != std::process::id() as i32 {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
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
        let log = dir.join(format!("daemon-{}.log", rand::random::<u32>()));
        let stderr = std::fs::File::create(&log).expect("a log can be made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
        command.arg("start").args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
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

/// A blocking HTTP exchange: status, and body as text.
pub(crate) fn http(method: &str, addr: &str, path: &str, body: Option<(&str, &[u8])>) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client");
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = client.request(method, format!("http://{addr}{path}"));
        if let Some((content_type, body)) = body {
            if !content_type.is_empty() {
                request = request.header("content-type", content_type);
            }
            request = request.body(body.to_vec());
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{addr}{path}: {error:?}"));
        (response.status().as_u16(), response.text().await.expect("a body"))
    })
}

/// The same, with JSON out; the status must be 200.
pub(crate) fn get_json(addr: &str, path: &str) -> Value {
    let (status, body) = http("GET", addr, path, None);
    assert_eq!(status, 200, "{addr}{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{addr}{path}: {body:?}: {error}"))
}

/// The same, with JSON in and out.
pub(crate) fn post_json(addr: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = http("POST", addr, path, Some(("application/json", body.to_string().as_bytes())));
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
