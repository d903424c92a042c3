//! `cargo bench --bench ring`: puts and gets through random nodes of a ring of processes, with each value on three nodes and
//! on one, beside an empty axum server that answers the same client in the same run. Absolute figures drift from machine to
//! machine; compare the shares. *cpu* is the processor time of all nodes together for one request, in microseconds: it hardly
//! depends on what else the machine does.
//!
//! Settings: `RING_NODES` (5), `RING_CONCURRENCY` (32), `RING_SECONDS` (5, for each line), `RING_VALUE_BYTES` (100),
//! `RING_ROUNDS` (1, how often all is done with each ring), `RING_FACTORS` (`3,1`).

#[path = "load/mod.rs"]
mod load;

use std::sync::Arc;
use std::time::Duration;

use load::{Empty, Load, Measured, Ring, empty_server, get, measure, post, put, setting};

/// How many records travel in one request of the bulk form.
const BULK: usize = 100;

/// How many keys each client goes through.
const KEYS: usize = 1000;

/// How many records the size on disk is counted with.
const COUNTED: usize = 20_000;

type Request = Arc<dyn Fn(usize, usize) -> Vec<u8> + Send + Sync>;

fn main() {
    if std::env::args().any(|argument| argument == "--empty-server") {
        return empty_server();
    }
    let load = Load {
        concurrency: setting("RING_CONCURRENCY", 32),
        time: Duration::from_secs(setting("RING_SECONDS", 5) as u64),
    };
    let (nodes, bytes) = (setting("RING_NODES", 5), setting("RING_VALUE_BYTES", 100));
    let factors = std::env::var("RING_FACTORS").unwrap_or_else(|_| "3,1".to_owned());
    let (clients, seconds) = (load.concurrency, load.time.as_secs());
    println!(
        "{nodes} nodes, {clients} requests at once through random nodes, values of {bytes} bytes, {seconds} s a line"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for factor in factors.split(',') {
        let factor = factor.parse().unwrap_or_else(|_| panic!("RING_FACTORS has no numbers: {factors}"));
        runtime.block_on(run(load, nodes, factor, bytes));
    }
}

async fn run(load: Load, nodes: usize, factor: usize, bytes: usize) {
    let empty = Empty::start();
    let ring = Ring::replicated(nodes, factor);
    let value = "v".repeat(bytes);
    println!("\nEach value on {factor} of the nodes");
    println!(
        "{:<28} {:>10} {:>8} {:>9} {:>9} {:>8} {:>7}",
        "", "per s", "% of Y", "p50 ms", "p99 ms", "cpu us", "errors"
    );
    for _ in 0..setting("RING_ROUNDS", 1) {
        let yardstick = measure(load, std::slice::from_ref(&empty.addr), Arc::new(|_, _| get("/"))).await;
        line("Y: an empty axum server", &yardstick, &yardstick, 1, Duration::ZERO);
        for (name, request, records) in requests(&value) {
            let before = ring.processor_time();
            let measured = measure(load, &ring.addrs, request).await;
            line(name, &measured, &yardstick, records, ring.processor_time() - before);
        }
    }
    let (before, store) = (ring.bytes_on_disk(), bulk("new", &value));
    let mut connection = None;
    for page in 0..COUNTED / BULK {
        let status = load::exchange(&mut connection, &ring.addrs[0], &store(0, page)).await.expect("an answer");
        assert_eq!(status, 200);
    }
    let bytes = (ring.bytes_on_disk() - before) as f64 / COUNTED as f64;
    println!("on disk, all nodes together, for each of {COUNTED} records more: {bytes:.0} bytes");
}

/// What is asked, and how many records each request has.
fn requests(value: &str) -> Vec<(&'static str, Request, usize)> {
    let key = |worker: usize, i: usize| format!("/kv/key-{worker}-{}", i % KEYS);
    let (raw, quoted) = (value.to_owned(), value.to_owned());
    let store = move |worker: usize, i: usize| {
        post("/dht/store", &format!(r#"{{"key":"key-{worker}-{}","value":"{quoted}"}}"#, i % KEYS))
    };
    let lookup = |worker: usize, i: usize| get(&format!("/dht/lookup?key=key-{worker}-{}", i % 100));
    vec![
        ("PUT /kv", Arc::new(move |worker, i| put(&key(worker, i), &raw)), 1),
        ("GET /kv", Arc::new(move |worker, i| get(&key(worker, i % 100))), 1),
        ("POST /kv, 100 records each", bulk("bulk", value), BULK),
        ("POST /dht/store", Arc::new(store), 1),
        ("GET /dht/lookup", Arc::new(lookup), 1),
    ]
}

/// Puts of keys that nobody has put before, as long as each page is asked for once.
fn bulk(name: &'static str, value: &str) -> Request {
    let value = value.to_owned();
    Arc::new(move |worker, page| {
        let record = |i: usize| format!(r#"{{"key":"{name}-{worker}-{page}-{i}","value":"{value}"}}"#);
        let records: Vec<String> = (0..BULK).map(record).collect();
        post("/kv", &format!("[{}]", records.join(",")))
    })
}

fn line(name: &str, it: &Measured, yardstick: &Measured, records: usize, busy: Duration) {
    let requests = (it.per_second * it.elapsed.as_secs_f64()).max(1.0);
    println!(
        "{name:<28} {:>10.0} {:>8.1} {:>9.2} {:>9.2} {:>8.0} {:>7}",
        it.per_second * records as f64,
        100.0 * it.per_second * records as f64 / yardstick.per_second,
        it.p50.as_secs_f64() * 1e3,
        it.p99.as_secs_f64() * 1e3,
        busy.as_secs_f64() * 1e6 / requests / records as f64,
        it.errors
    );
}
