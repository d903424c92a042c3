//! `cargo bench --bench ring`: stores and lookups through random nodes of a ring of processes, beside an empty axum server
//! that answers the same client in the same run. Absolute figures drift from machine to machine; compare the shares.
//!
//! Settings: `RING_NODES` (12), `RING_CONCURRENCY` (32), `RING_SECONDS` (5, for each line), `RING_VALUE_BYTES` (100).

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::serve::ListenerExt;
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What one run is measured with.
#[derive(Clone, Copy)]
struct Load {
    nodes: usize,
    concurrency: usize,
    time: Duration,
    value_bytes: usize,
}

/// What came of a line.
struct Measured {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    errors: usize,
}

fn main() {
    if std::env::args().any(|argument| argument == "--empty-server") {
        return empty_server();
    }
    let load = Load {
        nodes: setting("RING_NODES", 12),
        concurrency: setting("RING_CONCURRENCY", 32),
        time: Duration::from_secs(setting("RING_SECONDS", 5) as u64),
        value_bytes: setting("RING_VALUE_BYTES", 100),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(load));
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

async fn run(load: Load) {
    let empty = Empty::start();
    let ring = Ring::start(load.nodes);
    println!(
        "{} nodes, {} requests at once through random nodes, values of {} bytes, {} s a line\n",
        load.nodes,
        load.concurrency,
        load.value_bytes,
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
    let bytes = load.value_bytes;
    let store = Arc::new(move |worker: usize, i: usize| {
        let value = "v".repeat(bytes);
        post("/dht/store", &format!(r#"{{"key":"key-{worker}-{}","value":"{value}"}}"#, i % 1000))
    });
    line("POST /dht/store", &measure(load, &ring.addrs, store).await);
    let lookup = Arc::new(|worker: usize, i: usize| get(&format!("/dht/lookup?key=key-{worker}-{}", i % 100)));
    line("GET /dht/lookup", &measure(load, &ring.addrs, lookup).await);
}

/// Runs requests back to back on so many workers, each with a connection to every address, and counts what is answered.
async fn measure(
    load: Load,
    addrs: &[String],
    request: Arc<dyn Fn(usize, usize) -> Vec<u8> + Send + Sync>,
) -> Measured {
    let began = Instant::now();
    let workers: Vec<_> = (0..load.concurrency)
        .map(|worker| {
            let (addrs, request) = (addrs.to_vec(), Arc::clone(&request));
            tokio::spawn(async move {
                let mut connections: Vec<Option<TcpStream>> = addrs.iter().map(|_| None).collect();
                let (mut times, mut errors, mut i) = (Vec::new(), 0, 0);
                while began.elapsed() < load.time {
                    let pick = rand::rng().random_range(0..addrs.len());
                    let sent = Instant::now();
                    match exchange(&mut connections[pick], &addrs[pick], &request(worker, i)).await {
                        Ok(200) => times.push(sent.elapsed()),
                        Ok(_) => errors += 1,
                        Err(_) => {
                            connections[pick] = None;
                            errors += 1;
                        }
                    }
                    i += 1;
                }
                (times, errors)
            })
        })
        .collect();
    let (mut times, mut errors) = (Vec::new(), 0);
    for worker in workers {
        let (its_times, its_errors) = worker.await.expect("a worker");
        times.extend(its_times);
        errors += its_errors;
    }
    times.sort();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Measured { per_second: times.len() as f64 / began.elapsed().as_secs_f64(), p50: at(0.5), p99: at(0.99), errors }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: ring\r\n\r\n").into_bytes()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: ring\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends a request on a kept connection and reads the whole answer; returns its status.
async fn exchange(connection: &mut Option<TcpStream>, addr: &str, request: &[u8]) -> io::Result<u16> {
    if connection.is_none() {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        *connection = Some(stream);
    }
    let Some(stream) = connection else { return Err(io::ErrorKind::NotConnected.into()) };
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(1024);
    let head = loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or(0);
    while answer.len() < head + length {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(status)
}

/// A ring of processes in a directory of its own, gone when it is dropped.
struct Ring {
    dir: tempfile::TempDir,
    addrs: Vec<String>,
}

impl Ring {
    fn start(nodes: usize) -> Ring {
        let mut ring = Ring { dir: tempfile::tempdir().expect("a temporary directory"), addrs: Vec::new() };
        ring.tasks(&["boot"]);
        ring.tasks(&["addmany", &nodes.saturating_sub(2).to_string()]);
        ring.tasks(&["doctor", "--wait", "30s"]);
        let state = std::fs::read(ring.dir.path().join("network_state.json")).expect("a state file");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        let nodes = state["nodes"].as_array().expect("a list of nodes");
        ring.addrs = nodes.iter().map(|it| format!("{}:{}", it["host"].as_str().unwrap_or(""), it["port"])).collect();
        ring
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

/// The yardstick: this program again, as a server with one empty handler.
struct Empty {
    child: Child,
    addr: String,
}

impl Empty {
    fn start() -> Empty {
        let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
            .arg("--empty-server")
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be run again");
        let mut addr = String::new();
        let stdout = child.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut addr).expect("it says where it listens");
        Empty { child, addr: addr.trim().to_owned() }
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn empty_server() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("an address"));
        let router = axum::Router::new().route("/", axum::routing::get(|| async { "" }));
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket"));
        axum::serve(listener, router).await.expect("it serves");
    });
}
