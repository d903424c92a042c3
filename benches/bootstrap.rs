//! `cargo bench --bench bootstrap`: a bootstrap service with a pool of processes.
//!
//! - Addresses per second, beside an empty axum server that answers the same client in the same run. Absolute figures drift
//!   from machine to machine; compare the share.
//! - Half of the pool is killed at once, and then all of it: how long until all are live again, and the worst request for an
//!   address meanwhile.
//! - A node is killed each second: of the addresses that were handed out, which share answered at once, that is within 100 ms?
//!
//! Settings: `BOOTSTRAP_POOL` (10), `BOOTSTRAP_CONCURRENCY` (32), `BOOTSTRAP_SECONDS` (5, for each line of the first part),
//! `BOOTSTRAP_RUNS` (5), `BOOTSTRAP_KILLS` (30, one a second), `BOOTSTRAP_CLIENTS` (4, in the second and third part),
//! `BOOTSTRAP_INTERVAL` (100s, between the checks of a node).

#[path = "load/mod.rs"]
mod load;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use load::{Empty, Load, Measured, empty_server, get, measure, setting};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::seq::IndexedRandom;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// What takes longer has not answered at once.
const AT_ONCE: Duration = Duration::from_millis(100);

/// After how long a node counts as one that came up well.
const SETTLED: Duration = Duration::from_secs(11);

/// How long a pool may take to fill.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    if std::env::args().any(|argument| argument == "--empty-server") {
        return empty_server();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let size = setting("BOOTSTRAP_POOL", 10);
        let service = Service::start(size).await;
        throughput(&service).await;
        refills(&service, size).await;
        answers(&service, size).await;
    });
}

/// Addresses per second.
async fn throughput(service: &Service) {
    let empty = Empty::start();
    let load = Load {
        concurrency: setting("BOOTSTRAP_CONCURRENCY", 32),
        time: Duration::from_secs(setting("BOOTSTRAP_SECONDS", 5) as u64),
    };
    println!("{} requests at once, {} s a line\n", load.concurrency, load.time.as_secs());
    println!(
        "{:<28} {:>10} {:>8} {:>9} {:>9} {:>9} {:>7}",
        "", "per s", "% of Y", "p50 ms", "p99 ms", "worst ms", "errors"
    );
    let yardstick = measure(load, std::slice::from_ref(&empty.addr), Arc::new(|_, _| get("/"))).await;
    let line = |name: &str, it: &Measured| {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let share = 100.0 * it.per_second / yardstick.per_second;
        let (p50, p99, worst) = (ms(it.p50), ms(it.p99), ms(it.worst));
        println!("{name:<28} {:>10.0} {share:>8.1} {p50:>9.2} {p99:>9.2} {worst:>9.2} {:>7}", it.per_second, it.errors);
    };
    line("Y: an empty axum server", &yardstick);
    for (name, path) in [("one address", "/return_dht_address"), ("three", "/return_dht_address?count=3")] {
        let request = Arc::new(move |_, _| get(path));
        line(name, &measure(load, std::slice::from_ref(&service.addr), request).await);
    }
}

/// How long a pool takes to be whole again, and the worst request meanwhile.
async fn refills(service: &Service, size: usize) {
    println!("\n{:<28} {:>12} {:>12} {:>10} {:>7}", "killed at once", "all live, ms", "worst ms", "requests", "errors");
    for victims in [size.div_ceil(2), size] {
        for _ in 0..setting("BOOTSTRAP_RUNS", 5) {
            let over = Arc::new(AtomicBool::new(false));
            // Nodes that are lost again soon after they came up are not brought up at once.
            sleep(SETTLED).await;
            let clients: Vec<_> = (0..setting("BOOTSTRAP_CLIENTS", 4))
                .map(|_| tokio::spawn(ask(service.url(), Arc::clone(&over))))
                .collect();
            let replaced = service.replaced().await + victims as u64;
            let began = Instant::now();
            service.kill(victims);
            while service.replaced().await < replaced || service.live().await != size {
                assert!(began.elapsed() < PATIENCE, "the pool does not fill");
                sleep(Duration::from_millis(5)).await;
            }
            let took = began.elapsed();
            over.store(true, Ordering::Relaxed);
            let (mut times, mut errors) = (Vec::new(), 0);
            for client in clients {
                let (its_times, its_errors) = client.await.expect("a client");
                times.extend(its_times);
                errors += its_errors;
            }
            let worst = times.iter().max().copied().unwrap_or_default();
            let name = format!("{victims} of {size}");
            println!("{name:<28} {:>12} {:>12} {:>10} {errors:>7}", took.as_millis(), worst.as_millis(), times.len());
        }
    }
}

/// Asks for addresses, with a small pause between.
async fn ask(url: String, over: Arc<AtomicBool>) -> (Vec<Duration>, usize) {
    let (client, mut times, mut errors) = (client(Duration::from_secs(30)), Vec::new(), 0);
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match client.get(&url).send().await {
            Ok(answer) if answer.status() == 200 => times.push(asked.elapsed()),
            _ => errors += 1,
        }
        sleep(Duration::from_millis(1)).await;
    }
    (times, errors)
}

/// The share of handed out addresses that answer at once while a node is killed each second.
async fn answers(service: &Service, size: usize) {
    let kills = setting("BOOTSTRAP_KILLS", 30);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..setting("BOOTSTRAP_CLIENTS", 4))
        .map(|_| tokio::spawn(ask_and_visit(service.url(), Arc::clone(&over))))
        .collect();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..kills {
        seconds.tick().await;
        service.kill(1);
    }
    seconds.tick().await;
    over.store(true, Ordering::Relaxed);
    let (mut all, mut at_once, mut none) = (0, 0, 0);
    for client in clients {
        let its = client.await.expect("a client");
        (all, at_once, none) = (all + its.0, at_once + its.1, none + its.2);
    }
    println!(
        "\n{kills} kills, one a second, in a pool of {size}: of {all} addresses that were handed out {at_once} ({:.3} %) answered \
         within {} ms; {none} requests for an address were not answered",
        100.0 * at_once as f64 / f64::from(all.max(1)),
        AT_ONCE.as_millis()
    );
}

/// Asks for an address, goes there at once, and counts: addresses, those that answered at once, requests without an address.
async fn ask_and_visit(url: String, over: Arc<AtomicBool>) -> (u32, u32, u32) {
    let (client, visitor) = (client(Duration::from_secs(30)), client(AT_ONCE));
    let (mut all, mut at_once, mut none) = (0, 0, 0);
    while !over.load(Ordering::Relaxed) {
        let answer = match client.get(&url).send().await {
            Ok(answer) => answer.json::<serde_json::Value>().await.unwrap_or_default(),
            Err(_) => serde_json::Value::Null,
        };
        match answer["initial_peers"][0].as_str() {
            Some(addr) => {
                all += 1;
                let visited = visitor.get(format!("http://{addr}/nodeinfo")).send().await;
                at_once += u32::from(visited.is_ok_and(|answer| answer.status() == 200));
            }
            None => none += 1,
        }
        sleep(Duration::from_millis(1)).await;
    }
    (all, at_once, none)
}

fn client(timeout: Duration) -> reqwest::Client {
    // No connection is kept to nodes that may be killed; one that breaks would count as no answer.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(timeout).build().expect("a client")
}

/// A service and its pool in a directory of their own, gone when it is dropped.
struct Service {
    dir: tempfile::TempDir,
    child: Child,
    addr: String,
    client: reqwest::Client,
}

impl Service {
    async fn start(size: usize) -> Service {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let interval = std::env::var("BOOTSTRAP_INTERVAL").unwrap_or_else(|_| "100s".to_owned());
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
        command.args(["bootstrap-service", "--host-port", "0", "--data-dir", ".", "--check-interval", &interval]);
        command.args(["--pool", &size.to_string()]).current_dir(dir.path());
        let log = std::fs::File::create(dir.path().join("service.log")).expect("a log");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("chordal can be run");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output is piped")).read_line(&mut line).expect("its output");
        let addr =
            line.split_once("http://").and_then(|(_, rest)| rest.split_once('/')).expect("it is ready").0.to_owned();
        let service = Service { dir, child, addr, client: client(Duration::from_secs(10)) };
        let began = Instant::now();
        while service.live().await != size {
            assert!(began.elapsed() < PATIENCE, "the pool does not fill");
            sleep(Duration::from_millis(5)).await;
        }
        service
    }

    fn url(&self) -> String {
        format!("http://{}/return_dht_address", self.addr)
    }

    async fn text(&self, path: &str) -> String {
        let answer = self.client.get(format!("http://{}{path}", self.addr)).send().await.expect("the service answers");
        answer.text().await.expect("a text")
    }

    async fn live(&self) -> usize {
        let health: serde_json::Value = serde_json::from_str(&self.text("/health").await).expect("JSON");
        health["live"].as_u64().unwrap_or(0) as usize
    }

    /// How many nodes were replaced so far.
    async fn replaced(&self) -> u64 {
        let metrics = self.text("/metrics").await;
        let of = |line: &str| {
            line.strip_prefix("chordal_bootstrap_replacements_total")?.rsplit_once(' ')?.1.parse::<u64>().ok()
        };
        metrics.lines().filter_map(of).sum::<u64>()
    }

    /// Kills so many of the nodes that run, picked at random.
    fn kill(&self, victims: usize) {
        let state = std::fs::read(self.dir.path().join("network_state.json")).expect("a state file");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        let nodes = state["nodes"].as_array().expect("a list of nodes").iter();
        let pids: Vec<i32> =
            nodes.filter_map(|node| i32::try_from(node["pid"].as_i64()?).ok()).filter(|pid| *pid > 0).collect();
        for pid in pids.sample(&mut rand::rng(), victims) {
            // One that has just ended is no victim; that is seen in the count of those that are replaced.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = Command::new(env!("CARGO_BIN_EXE_tasks")).arg("killall").current_dir(self.dir.path()).output();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
