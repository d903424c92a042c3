//! `cargo bench --bench security`: what a ring's secret and mutual TLS cost. The same client puts and gets through random nodes of
//! a ring that is open, one with a secret, one of mutual TLS and one with both, in turns and in one run. Absolute figures drift
//! from machine to machine; compare the shares.
//!
//! Settings: `SECURITY_NODES` (3), `SECURITY_CONCURRENCY` (16), `SECURITY_SECONDS` (3, for each line of a turn),
//! `SECURITY_TURNS` (3), `SECURITY_VALUE_BYTES` (100).

#[path = "load/mod.rs"]
mod load;

use std::sync::Arc;
use std::time::Duration;

use chordal::auth::{KeyRing, Security, Tls};
use chordal::client::NodeClient;
use chordal::node::mint;
use chordal_protocol::Condition;
use load::clients::measure;
use load::{Load, Ring, setting};
use rand::RngExt;

/// How many keys a worker goes through.
const KEYS: usize = 100;

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
    let (nodes, turns) = (setting("SECURITY_NODES", 3), setting("SECURITY_TURNS", 3));
    let (seconds, bytes) = (setting("SECURITY_SECONDS", 3), setting("SECURITY_VALUE_BYTES", 100));
    let load = Load { concurrency: setting("SECURITY_CONCURRENCY", 16), time: Duration::from_secs(seconds as u64) };
    println!(
        "{nodes} nodes, {} requests at once, values of {bytes} bytes, {turns} turns of {seconds} s a line\n",
        load.concurrency
    );
    let rings: Vec<(&str, Closed)> =
        KINDS.iter().map(|(name, options)| (*name, Closed::start(nodes, options))).collect();
    // (puts, gets) a second, over all turns, by ring.
    let mut rates = vec![(0.0, 0.0); rings.len()];
    for _ in 0..turns {
        for ((_, ring), (puts, gets)) in rings.iter().zip(&mut rates) {
            *puts += ring.measure(load, Some(vec![b'v'; bytes])).await / turns as f64;
            *gets += ring.measure(load, None).await / turns as f64;
        }
    }
    println!("{:<16} {:>10} {:>8} {:>10} {:>8}", "", "puts/s", "% open", "gets/s", "% open");
    let open = rates[0];
    for ((name, _), (puts, gets)) in rings.iter().zip(&rates) {
        let (put_share, get_share) = (100.0 * puts / open.0, 100.0 * gets / open.1);
        println!("{name:<16} {puts:>10.0} {put_share:>8.1} {gets:>10.0} {get_share:>8.1}");
    }
}

/// A ring that is closed in some way, and a client that may ask it.
struct Closed {
    ring: Ring,
    client: NodeClient,
}

impl Closed {
    fn start(nodes: usize, options: &[&str]) -> Closed {
        let mut ring = Ring::empty();
        ring.tasks(&["secret", "new", "ring.secret"]);
        ring.tasks(&["certs", "--dir", "certs"]);
        ring.boot(nodes, options);
        let path = |name: &str| ring.dir.path().join(name);
        let keys = || KeyRing::open(&path("ring.secret")).expect("keys");
        let tls = || {
            Tls::open(&path("certs/node.pem"), &path("certs/node.key"), &path("certs/ca.pem")).expect("certificates")
        };
        let client = NodeClient::new().with_security(&Security {
            keys: options.contains(&"--secret-file").then(|| Arc::new(keys())),
            tls: options.contains(&"--certs").then(tls),
            ..Security::default()
        });
        Closed { ring, client }
    }

    /// Puts this value, or gets what was put, through random nodes; how often in a second.
    async fn measure(&self, load: Load, value: Option<Vec<u8>>) -> f64 {
        let (client, addrs) = (self.client.clone(), Arc::<[String]>::from(self.ring.addrs.clone()));
        let measured = measure(load, KEYS, move |key| {
            let (client, value) = (client.clone(), value.clone());
            let addr = addrs[rand::rng().random_range(0..addrs.len())].clone();
            async move {
                let kv = client.kv(&addr);
                match value {
                    Some(value) => kv.put(key.as_bytes(), &value, None, Condition::Always, mint()).await.is_ok(),
                    None => kv.get(key.as_bytes()).await.is_ok(),
                }
            }
        });
        let measured = measured.await;
        assert_eq!(measured.errors, 0, "all must succeed");
        measured.per_second
    }
}
