//! `cargo bench --bench security`: what a ring's secret and mutual TLS cost. The same client puts and gets through random nodes of
//! a ring that is open, one with a secret, one of mutual TLS and one with both, in turns and in one run. Absolute figures drift
//! from machine to machine; compare the shares.
//!
//! Settings: `SECURITY_NODES` (3), `SECURITY_CONCURRENCY` (16), `SECURITY_SECONDS` (3, for each line of a turn),
//! `SECURITY_TURNS` (3), `SECURITY_VALUE_BYTES` (100).

#[path = "load/mod.rs"]
mod load;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chordal::auth::{KeyRing, Security, Tls};
use chordal::client::NodeClient;
use chordal::node::mint;
use chordal_protocol::Condition;
use load::setting;
use rand::RngExt;

/// How the ring is closed: the options of `tasks boot`.
const KINDS: [(&str, &[&str]); 4] = [
    ("open", &[]),
    ("secret", &["--secret-file", "ring.secret"]),
    ("TLS", &["--certs", "certs"]),
    ("secret and TLS", &["--secret-file", "ring.secret", "--certs", "certs"]),
];

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let (nodes, concurrency) = (setting("SECURITY_NODES", 3), setting("SECURITY_CONCURRENCY", 16));
    let (seconds, turns) = (setting("SECURITY_SECONDS", 3), setting("SECURITY_TURNS", 3));
    let bytes = setting("SECURITY_VALUE_BYTES", 100);
    println!(
        "{nodes} nodes, {concurrency} requests at once, values of {bytes} bytes, {turns} turns of {seconds} s a line\n"
    );
    let rings: Vec<(&str, Ring)> = KINDS.iter().map(|(name, options)| (*name, Ring::start(nodes, options))).collect();
    // (puts, gets) in all turns, by ring.
    let mut counts = vec![(0, 0); rings.len()];
    for _ in 0..turns {
        for ((_, ring), (puts, gets)) in rings.iter().zip(&mut counts) {
            let time = Duration::from_secs(seconds as u64);
            *puts += ring.measure(concurrency, time, Some(vec![b'v'; bytes])).await;
            *gets += ring.measure(concurrency, time, None).await;
        }
    }
    println!("{:<16} {:>10} {:>8} {:>10} {:>8}", "", "puts/s", "% open", "gets/s", "% open");
    let (open, time) = (counts[0], (seconds * turns) as f64);
    for ((name, _), (puts, gets)) in rings.iter().zip(&counts) {
        let share = |count: usize, of: usize| 100.0 * count as f64 / of.max(1) as f64;
        let (put_share, get_share) = (share(*puts, open.0), share(*gets, open.1));
        println!(
            "{name:<16} {:>10.0} {put_share:>8.1} {:>10.0} {get_share:>8.1}",
            *puts as f64 / time,
            *gets as f64 / time
        );
    }
}

/// A ring of processes in a directory of its own, gone when it is dropped.
struct Ring {
    dir: tempfile::TempDir,
    addrs: Arc<Vec<String>>,
    client: NodeClient,
}

impl Ring {
    fn start(nodes: usize, options: &[&str]) -> Ring {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut ring = Ring { dir, addrs: Arc::default(), client: NodeClient::new() };
        ring.tasks(&["secret", "new", "ring.secret"]);
        ring.tasks(&["certs", "--dir", "certs"]);
        ring.tasks(&[&["boot"], options].concat());
        if nodes > 2 {
            ring.tasks(&["addmany", &(nodes - 2).to_string()]);
        }
        ring.tasks(&["doctor", "--wait", "30s"]);
        let path = |name: &str| ring.dir.path().join(name);
        let keys = || KeyRing::open(&path("ring.secret")).expect("keys");
        let tls = || {
            Tls::open(&path("certs/node.pem"), &path("certs/node.key"), &path("certs/ca.pem")).expect("certificates")
        };
        ring.client = NodeClient::new().with_security(&Security {
            keys: options.contains(&"--secret-file").then(|| Arc::new(keys())),
            tls: options.contains(&"--certs").then(tls),
            ..Security::default()
        });
        let state = std::fs::read(path("network_state.json")).expect("a state file");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        let nodes = state["nodes"].as_array().expect("a list of nodes");
        let addr = |node: &serde_json::Value| format!("{}:{}", node["host"].as_str().unwrap_or(""), node["port"]);
        ring.addrs = Arc::new(nodes.iter().map(addr).collect());
        ring
    }

    /// Puts this value, or gets what was put, back to back on so many workers; how often that was done.
    async fn measure(&self, concurrency: usize, time: Duration, value: Option<Vec<u8>>) -> usize {
        let began = Instant::now();
        let workers: Vec<_> = (0..concurrency)
            .map(|worker| {
                let (client, addrs, value) = (self.client.clone(), Arc::clone(&self.addrs), value.clone());
                tokio::spawn(async move {
                    let mut done = 0;
                    while began.elapsed() < time {
                        let kv = client.kv(&addrs[rand::rng().random_range(0..addrs.len())]);
                        let key = format!("key-{worker}-{}", done % 100);
                        match &value {
                            Some(value) => {
                                let put = kv.put(key.as_bytes(), value, None, Condition::Always, mint()).await;
                                put.expect("it is put");
                            }
                            None => drop(kv.get(key.as_bytes()).await.expect("it is there or not")),
                        }
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut done = 0;
        for worker in workers {
            done += worker.await.expect("a worker");
        }
        done
    }

    fn tasks(&self, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tasks"));
        let ran = command.args(args).current_dir(self.dir.path()).output().expect("tasks can be run");
        assert!(ran.status.success(), "tasks {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.tasks(&["killall"]);
    }
}
