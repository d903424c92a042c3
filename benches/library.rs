//! `cargo bench --bench library`: how long a node takes from its start until it is ready, alone and joining; and what the ring's
//! client makes of a ring of processes, beside the same client of HTTP that asks a random node and has it find the owner. Both run
//! in turns; compare the shares, for absolute figures drift from machine to machine.
//!
//! Settings: `LIBRARY_NODES` (12), `LIBRARY_CONCURRENCY` (32), `LIBRARY_SECONDS` (5, for each line), `LIBRARY_STARTS` (20).

#[path = "load/mod.rs"]
mod load;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chordal::client::NodeClient;
use chordal::node::mint;
use chordal::{Client, Condition};
use load::clients::measure;
use load::{Load, Measured, Ring, setting};
use rand::RngExt;

/// How many keys a worker goes through.
const KEYS: usize = 1000;

/// How many times the lines are run.
const ROUNDS: usize = 3;

const VALUE: [u8; 100] = [b'v'; 100];

fn main() {
    let load = Load {
        concurrency: setting("LIBRARY_CONCURRENCY", 32),
        time: Duration::from_secs(setting("LIBRARY_SECONDS", 5) as u64),
    };
    let ring = Ring::start(setting("LIBRARY_NODES", 12));
    let starts = setting("LIBRARY_STARTS", 20);
    let alone = Measured::of((0..starts).map(|_| start_to_ready(&ring, None)).collect(), 0, Instant::now());
    let joining = |i: usize| start_to_ready(&ring, Some(ring.addrs[i % ring.addrs.len()].as_str()));
    let joining = Measured::of((0..starts).map(joining).collect(), 0, Instant::now());
    println!("start to ready, {starts} times each: p50 and worst in ms");
    for (name, it) in [("alone", alone), ("joining", joining)] {
        println!("{name:<28} {:>8.1} {:>8.1}", it.p50.as_secs_f64() * 1e3, it.worst.as_secs_f64() * 1e3);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(compare(&ring, load));
}

/// Starts a node in memory, and ends it when it has said that it is ready.
fn start_to_ready(ring: &Ring, contact: Option<&str>) -> Duration {
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
    command.args(["start", "--memory"]).args(contact.into_iter().flat_map(|contact| ["--bootstrap", contact]));
    command.current_dir(ring.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut node = Started(command.spawn().expect("chordal can be run"));
    let mut line = String::new();
    let stdout = node.0.stdout.take().expect("its output is piped");
    BufReader::new(stdout).read_line(&mut line).expect("it says that it is ready");
    assert!(line.contains("is ready"), "{line}");
    let took = began.elapsed();
    if contact.is_some() {
        // In order, so that the next one meets a ring of the same size.
        let pid = nix::unistd::Pid::from_raw(node.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
        node.0.wait().expect("it ends");
    }
    took
}

/// A node that is killed if it has not ended.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn compare(ring: &Ring, load: Load) {
    let addrs: Arc<[String]> = ring.addrs.clone().into();
    let client = Client::new([&addrs[0]]).expect("an address");
    let node = NodeClient::new();
    let any = |addrs: &Arc<[String]>| addrs[rand::rng().random_range(0..addrs.len())].clone();
    println!(
        "\n{} nodes, {} operations at once, values of {} bytes, {} s a line\n\n{:<28} {:>10} {:>8} {:>9} {:>9} {:>7}",
        addrs.len(),
        load.concurrency,
        VALUE.len(),
        load.time.as_secs(),
        "",
        "per s",
        "% of /kv",
        "p50 ms",
        "p99 ms",
        "errors"
    );
    let mut shares = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let put_any = measure(load, KEYS, {
            let (node, addrs) = (node.clone(), Arc::clone(&addrs));
            move |key| {
                let (node, addr) = (node.clone(), any(&addrs));
                async move { node.kv(&addr).put(key.as_bytes(), &VALUE, None, Condition::Always, mint()).await.is_ok() }
            }
        });
        let put_any = put_any.await;
        let put = measure(load, KEYS, {
            let client = client.clone();
            move |key| {
                let client = client.clone();
                async move { client.put(key, VALUE).await.is_ok() }
            }
        });
        let put = put.await;
        let get_any = measure(load, KEYS, {
            let (node, addrs) = (node.clone(), Arc::clone(&addrs));
            move |key| {
                let (node, addr) = (node.clone(), any(&addrs));
                async move { node.kv(&addr).get(key.as_bytes()).await.is_ok() }
            }
        });
        let get_any = get_any.await;
        let get = measure(load, KEYS, {
            let client = client.clone();
            move |key| {
                let client = client.clone();
                async move { client.get(key).await.is_ok() }
            }
        });
        let get = get.await;
        line("PUT /kv, a random node", &put_any, &put_any);
        line("Client::put", &put, &put_any);
        line("GET /kv, a random node", &get_any, &get_any);
        line("Client::get", &get, &get_any);
        shares[0].push(put.per_second / put_any.per_second);
        shares[1].push(get.per_second / get_any.per_second);
    }
    for (name, mut shares) in ["put", "get"].into_iter().zip(shares) {
        shares.sort_by(f64::total_cmp);
        println!("Client::{name} against /kv, median of {ROUNDS} rounds: {:.2}", shares[ROUNDS / 2]);
    }
}

fn line(name: &str, it: &Measured, against: &Measured) {
    println!(
        "{name:<28} {:>10.0} {:>8.0} {:>9.2} {:>9.2} {:>7}",
        it.per_second,
        100.0 * it.per_second / against.per_second,
        it.p50.as_secs_f64() * 1e3,
        it.p99.as_secs_f64() * 1e3,
        it.errors
    );
}
