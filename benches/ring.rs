//! `cargo bench --bench ring`: stores and lookups through random nodes of a ring of processes, beside an empty axum server
//! that answers the same client in the same run. Absolute figures drift from machine to machine; compare the shares.
//!
//! Settings: `RING_NODES` (12), `RING_CONCURRENCY` (32), `RING_SECONDS` (5, for each line), `RING_VALUE_BYTES` (100).

#[path = "load/mod.rs"]
mod load;

use std::sync::Arc;
use std::time::Duration;

use load::{Empty, Load, Measured, Ring, empty_server, get, measure, post, setting};

fn main() {
    if std::env::args().any(|argument| argument == "--empty-server") {
        return empty_server();
    }
    let load = Load {
        concurrency: setting("RING_CONCURRENCY", 32),
        time: Duration::from_secs(setting("RING_SECONDS", 5) as u64),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(load, setting("RING_NODES", 12), setting("RING_VALUE_BYTES", 100)));
}

async fn run(load: Load, nodes: usize, bytes: usize) {
    let empty = Empty::start();
    let ring = Ring::start(nodes);
    println!(
        "{} nodes, {} requests at once through random nodes, values of {} bytes, {} s a line\n",
        nodes,
        load.concurrency,
        bytes,
        load.time.as_secs()
    );
    println!("{:<28} {:>10} {:>8} {:>9} {:>9} {:>7}", "", "per s", "% of Y", "p50 ms", "p99 ms", "errors");
    let yardstick = measure(load, std::slice::from_ref(&empty.addr), Arc::new(|_, _| get("/"))).await;
    let line = |name: &str, it: &Measured| {
        println!(
            "{name:<28} {:>10.0} {:>8.1} {:>9.2} {:>9.2} {:>7}",
            it.per_second,
            100.0 * it.per_second / yardstick.per_second,
            it.p50.as_secs_f64() * 1e3,
            it.p99.as_secs_f64() * 1e3,
            it.errors
        );
    };
    line("Y: an empty axum server", &yardstick);
    let store = Arc::new(move |worker: usize, i: usize| {
        let value = "v".repeat(bytes);
        post("/dht/store", &format!(r#"{{"key":"key-{worker}-{}","value":"{value}"}}"#, i % 1000))
    });
    line("POST /dht/store", &measure(load, &ring.addrs, store).await);
    let lookup = Arc::new(|worker: usize, i: usize| get(&format!("/dht/lookup?key=key-{worker}-{}", i % 100)));
    line("GET /dht/lookup", &measure(load, &ring.addrs, lookup).await);
}
