//! `cargo bench --bench healing`: a quarter of a ring of processes is killed, or paused, all at once. How long until
//! `tasks doctor --only ring` is content, and how long did lookups through the others take meanwhile?
//!
//! Half of the clients look up what living nodes serve (*kept*), half of them what the hurt nodes served (*lost*: others keep it, and
//! serve it once one of them has taken over). Where two of the three that keep a value are hurt there is no answer. *calm* is when
//! the last lookup that took more than 200 ms, or was not answered, had ended.
//!
//! Then, whatever the signal is: `kill -9` of all and `tasks start --all` at once after it, and `kill -9` of one node. How long after
//! the blow is the first good read, or put, of a key that the dead served answered, and how long until each key has had one?
//!
//! Settings: `HEALING_NODES` (16), `HEALING_HURT` (4), `HEALING_SIGNAL` (`KILL` or `STOP`), `HEALING_RUNS` (5),
//! `HEALING_CLIENTS` (4), `HEALING_AFTER` (seconds for which lookups go on when the doctor is content, 3), and
//! `HEALING_TASKS`, the program `tasks` of another build, to compare with.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chordal::client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::RngExt;
use rand::seq::SliceRandom;

/// How many values lie on the ring.
const VALUES: usize = 400;

/// How many keys are waited for after a kill.
const WATCHED: usize = 32;

/// What lookups brought while the ring healed.
#[derive(Default)]
struct Lookups {
    right: Vec<Duration>,
    /// "Nothing is stored there."
    absent: Vec<Duration>,
    /// An error that says so.
    unavailable: Vec<Duration>,
    wrong: usize,
    /// When, counted from the blow, the last lookup ended that took long or had no answer.
    trouble_until: Duration,
}

impl Lookups {
    fn line(&self) -> String {
        let longest = |times: &[Duration]| times.iter().max().copied().unwrap_or_default().as_millis();
        let group = |times: &[Duration]| format!("{:>6} {:>6}", times.len(), longest(times));
        let (right, absent, unavailable) = (group(&self.right), group(&self.absent), group(&self.unavailable));
        format!("{right} |{absent} |{unavailable} |{:>6} {:>6}", self.wrong, self.trouble_until.as_millis())
    }
}

fn main() {
    let (nodes, hurt) = (setting("HEALING_NODES", 16), setting("HEALING_HURT", 4));
    let (runs, clients) = (setting("HEALING_RUNS", 5), setting("HEALING_CLIENTS", 4));
    let signal = match std::env::var("HEALING_SIGNAL").as_deref() {
        Ok("STOP") => Signal::SIGSTOP,
        Ok("KILL") | Err(_) => Signal::SIGKILL,
        Ok(other) => panic!("HEALING_SIGNAL is KILL or STOP, not {other}"),
    };
    println!("{signal:?} to {hurt} of {nodes} nodes at once; {clients} clients; times in ms\n");
    println!("{:>3} {:>7}  lookups   right   max |absent  max |no ans.  max | wrong   calm", "run", "doctor");
    for run in 1..=runs {
        let ring = Ring::start(nodes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (healed, kept, lost) = runtime.block_on(hurt_and_watch(&ring, hurt, signal, clients));
        println!("{run:>3} {:>7}  of kept {}", healed.as_millis(), kept.line());
        println!("{:>3} {:>7}  of lost {}", "", "", lost.line());
    }
    println!("\nKilled, in ms from the blow; {WATCHED} keys of all, and up to as many of one node\n");
    println!("{:>3} | all: started, first read, each read | one: first put, each put", "run");
    for run in 1..=runs {
        let mut ring = Ring::start(nodes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (started, reads) = runtime.block_on(kill_all(&mut ring));
        let puts = runtime.block_on(kill_one(&ring));
        let [(first_read, each_read), (first_put, each_put)] = [reads, puts].map(|times| {
            let millis = |time: Option<&Duration>| time.map_or(0, Duration::as_millis);
            (millis(times.iter().min()), millis(times.iter().max()))
        });
        let started = started.as_millis();
        println!("{run:>3} | {started:>12} {first_read:>11} {each_read:>10} | {first_put:>14} {each_put:>9}");
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Hurts so many nodes, picked at random, and looks values up through the others until some time after the doctor is
/// content. Returns how long that took, and what the lookups brought of what living nodes kept and of what the hurt ones did.
async fn hurt_and_watch(ring: &Ring, hurt: usize, signal: Signal, clients: usize) -> (Duration, Lookups, Lookups) {
    let client = Client::new();
    let mut nodes = ring.nodes.clone();
    nodes.shuffle(&mut rand::rng());
    let (victims, others) = nodes.split_at(hurt);
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for number in 0..VALUES {
        let addr = &ring.nodes[number % ring.nodes.len()].0;
        let stored = client.store(addr, value(number).as_bytes(), Some(key(number).as_bytes())).await;
        let owner = stored.expect("it is stored").owner.addr();
        if victims.iter().any(|(addr, _)| *addr == owner) { lost.push(number) } else { kept.push(number) }
    }
    let others: Arc<[String]> = others.iter().map(|(addr, _)| addr.clone()).collect();
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    for (_, pid) in victims {
        kill(Pid::from_raw(*pid), signal).expect("the signal is sent");
    }
    let watch = |numbers: Vec<usize>| {
        let numbers: Arc<[usize]> = numbers.into();
        let watchers = (0..clients.div_ceil(2)).map(|_| {
            let (through, over) = (Arc::clone(&others), Arc::clone(&over));
            tokio::spawn(look_up(client.clone(), Arc::clone(&numbers), through, over, began))
        });
        watchers.collect::<Vec<_>>()
    };
    let (kept, lost) = (watch(kept), watch(lost));
    let mut doctor = ring.command(&["doctor", "--only", "ring", "--wait", "60s"]);
    let doctor = tokio::task::spawn_blocking(move || (doctor.output(), began.elapsed()));
    let (doctor, healed) = doctor.await.expect("the doctor was waited for");
    succeeded(&doctor.expect("tasks can be run"));
    tokio::time::sleep(Duration::from_secs(setting("HEALING_AFTER", 3) as u64)).await;
    over.store(true, Ordering::Relaxed);
    (healed, all(kept).await, all(lost).await)
}

/// Kills all nodes and starts them again. How long that took, and until each key was read.
async fn kill_all(ring: &mut Ring) -> (Duration, Vec<Duration>) {
    let client = Client::new();
    let addrs: Vec<String> = ring.nodes.iter().map(|(addr, _)| addr.clone()).collect();
    for number in 0..WATCHED {
        let addr = &addrs[number % addrs.len()];
        client.store(addr, value(number).as_bytes(), Some(key(number).as_bytes())).await.expect("it is stored");
    }
    let began = Instant::now();
    for (_, pid) in &ring.nodes {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).expect("the signal is sent");
    }
    let mut start = ring.command(&["start", "--all"]);
    let start = tokio::task::spawn_blocking(move || (start.output(), began.elapsed()));
    let reads = served_again(&client, (0..WATCHED).collect(), &addrs, began, Asked::Read).await;
    let (ran, started) = start.await.expect("it was waited for");
    succeeded(&ran.expect("tasks can be run"));
    succeeded(&ring.command(&["doctor", "--wait", "60s"]).output().expect("tasks can be run"));
    ring.look_up_nodes();
    (started, reads)
}

/// Kills the node that serves the most of some keys. How long until each of these was written through the others.
async fn kill_one(ring: &Ring) -> Vec<Duration> {
    let client = Client::new();
    let mut served: Vec<Vec<usize>> = vec![Vec::new(); ring.nodes.len()];
    for number in 0..VALUES {
        let addr = &ring.nodes[number % ring.nodes.len()].0;
        let stored = client.store(addr, value(number).as_bytes(), Some(key(number).as_bytes())).await;
        let owner = stored.expect("it is stored").owner.addr();
        served[ring.nodes.iter().position(|(addr, _)| *addr == owner).expect("it is a node of the ring")].push(number);
    }
    let victim = (0..served.len()).max_by_key(|at| served[*at].len()).expect("there are nodes");
    let others: Vec<String> =
        ring.nodes.iter().enumerate().filter(|(at, _)| *at != victim).map(|(_, (addr, _))| addr.clone()).collect();
    served[victim].truncate(WATCHED);
    let began = Instant::now();
    kill(Pid::from_raw(ring.nodes[victim].1), Signal::SIGKILL).expect("the signal is sent");
    served_again(&client, served.swap_remove(victim), &others, began, Asked::Write).await
}

/// What is asked of a key until it is served.
#[derive(Clone, Copy)]
enum Asked {
    Read,
    Write,
}

/// How long after the blow each of these keys was served, all asked for at once, through one node after the other.
async fn served_again(
    client: &Client,
    numbers: Vec<usize>,
    through: &[String],
    began: Instant,
    asked: Asked,
) -> Vec<Duration> {
    let mut waiting = Vec::new();
    for number in numbers {
        let (client, through) = (client.clone(), through.to_vec());
        waiting.push(tokio::spawn(async move {
            let mut tries = number;
            loop {
                let addr = &through[tries % through.len()];
                let (key, value) = (key(number), value(number));
                let is_served = match asked {
                    Asked::Read => {
                        let found = client.lookup(addr, key.as_bytes()).await;
                        let expected = chordal::api::Text::of(value.as_bytes());
                        found.is_ok_and(|found| found.expect("nothing is lost").value == expected)
                    }
                    Asked::Write => client.store(addr, value.as_bytes(), Some(key.as_bytes())).await.is_ok(),
                };
                if is_served {
                    return began.elapsed();
                }
                tries += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
    }
    let mut times = Vec::new();
    for served in waiting {
        times.push(served.await.expect("a key is served"));
    }
    times
}

async fn all(watchers: Vec<tokio::task::JoinHandle<Lookups>>) -> Lookups {
    let mut all = Lookups::default();
    for watcher in watchers {
        let its = watcher.await.expect("a client");
        all.right.extend(its.right);
        all.absent.extend(its.absent);
        all.unavailable.extend(its.unavailable);
        all.wrong += its.wrong;
        all.trouble_until = all.trouble_until.max(its.trouble_until);
    }
    all
}

async fn look_up(
    client: Client,
    numbers: Arc<[usize]>,
    through: Arc<[String]>,
    over: Arc<AtomicBool>,
    began: Instant,
) -> Lookups {
    /// What takes longer is trouble.
    const AT_ONCE: Duration = Duration::from_millis(200);
    let mut seen = Lookups::default();
    while !over.load(Ordering::Relaxed) && !numbers.is_empty() {
        let number = numbers[rand::rng().random_range(0..numbers.len())];
        let addr = &through[rand::rng().random_range(0..through.len())];
        let asked = Instant::now();
        let answer = client.lookup(addr, key(number).as_bytes()).await;
        let took = asked.elapsed();
        let expected = chordal::api::Text::of(value(number).as_bytes());
        let trouble = took > AT_ONCE || answer.is_err();
        match answer {
            Ok(Some(found)) if found.value == expected => seen.right.push(took),
            Ok(Some(_)) => seen.wrong += 1,
            Ok(None) => seen.absent.push(took),
            Err(_) => seen.unavailable.push(took),
        }
        if trouble {
            seen.trouble_until = began.elapsed();
        }
        // A pause, so that the load is that of a few clients and not all that the machine can do.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    seen
}

fn key(number: usize) -> String {
    format!("key {number}")
}

fn value(number: usize) -> String {
    format!("the value of key {number}")
}

/// A ring of processes in a directory of its own, gone when it is dropped.
struct Ring {
    dir: tempfile::TempDir,
    tasks: PathBuf,
    /// Address and process of each node.
    nodes: Vec<(String, i32)>,
}

impl Ring {
    fn start(nodes: usize) -> Ring {
        let tasks = std::env::var_os("HEALING_TASKS").unwrap_or_else(|| env!("CARGO_BIN_EXE_tasks").into());
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut ring = Ring { dir, tasks: tasks.into(), nodes: Vec::new() };
        let more = nodes.saturating_sub(2).to_string();
        for args in [&["boot"][..], &["addmany", &more], &["doctor", "--wait", "30s"]] {
            succeeded(&ring.command(args).output().expect("tasks can be run"));
        }
        ring.look_up_nodes();
        ring
    }

    /// Who runs, by the state file.
    fn look_up_nodes(&mut self) {
        let state = std::fs::read(self.dir.path().join("network_state.json")).expect("a state file");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        let nodes = state["nodes"].as_array().expect("a list of nodes").iter();
        let node = |it: &serde_json::Value| {
            let pid = it["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
            (format!("{}:{}", it["host"].as_str().expect("a host"), it["port"]), pid)
        };
        self.nodes = nodes.map(node).collect();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.tasks);
        command.args(args).current_dir(self.dir.path());
        command
    }
}

fn succeeded(ran: &Output) {
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

impl Drop for Ring {
    fn drop(&mut self) {
        let _ = self.command(&["killall"]).output();
    }
}
