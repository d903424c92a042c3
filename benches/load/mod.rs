//! What the benches share: requests back to back over kept connections, and an empty axum server to compare with.
#![allow(dead_code, reason = "each bench uses its own part of this")]

pub(crate) mod clients;

use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::serve::ListenerExt;
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// With what a line is measured.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) concurrency: usize,
    pub(crate) time: Duration,
}

/// What came of a line.
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) worst: Duration,
    pub(crate) errors: usize,
    pub(crate) elapsed: Duration,
}

pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

impl Measured {
    /// Of how long each took.
    pub(crate) fn of(mut times: Vec<Duration>, errors: usize, began: Instant) -> Measured {
        times.sort();
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
        let elapsed = began.elapsed();
        Measured {
            per_second: times.len() as f64 / elapsed.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
            worst: times.last().copied().unwrap_or_default(),
            errors,
            elapsed,
        }
    }
}

/// Runs requests back to back on so many workers, each with a connection to every address, and counts what is answered.
pub(crate) async fn measure(
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
                        Ok(200..=299) => times.push(sent.elapsed()),
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
    Measured::of(times, errors, began)
}

/// A ring of processes in a directory of its own, gone when it is dropped.
pub(crate) struct Ring {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) addrs: Vec<String>,
    pids: Vec<u64>,
}

impl Ring {
    pub(crate) fn start(nodes: usize) -> Ring {
        Ring::replicated(nodes, 3)
    }

    /// A ring that keeps each value on so many nodes.
    pub(crate) fn replicated(nodes: usize, factor: usize) -> Ring {
        let mut ring = Ring::empty();
        ring.boot(nodes, &["--replication-factor", &factor.to_string()]);
        ring
    }

    /// A directory without a ring yet.
    pub(crate) fn empty() -> Ring {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Ring { dir, addrs: Vec::new(), pids: Vec::new() }
    }

    /// Begins the ring, with these options of `tasks boot`.
    pub(crate) fn boot(&mut self, nodes: usize, options: &[&str]) {
        self.tasks(&[&["boot"], options].concat());
        if nodes > 2 {
            self.tasks(&["addmany", &(nodes - 2).to_string()]);
        }
        self.tasks(&["doctor", "--wait", "30s"]);
        let state = std::fs::read(self.dir.path().join("network_state.json")).expect("a state file");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        let nodes = state["nodes"].as_array().expect("a list of nodes");
        self.addrs = nodes.iter().map(|it| format!("{}:{}", it["host"].as_str().unwrap_or(""), it["port"])).collect();
        self.pids = nodes.iter().filter_map(|it| it["pid"].as_u64()).collect();
    }

    /// How long all its nodes together have kept processors busy.
    pub(crate) fn processor_time(&self) -> Duration {
        // Linux counts these in hundredths of a second (proc(5), `/proc/pid/stat`, fields 14 and 15).
        let ticks = |pid: &u64| -> Option<u64> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        };
        Duration::from_millis(10 * self.pids.iter().filter_map(ticks).sum::<u64>())
    }

    /// How many bytes the data directories of all its nodes together take on disk: files have holes.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        let files = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let nodes = files(self.dir.path().join("data")).map(|node| node.path());
        nodes.flat_map(files).filter_map(|file| file.metadata().ok()).map(|file| 512 * file.blocks()).sum()
    }

    pub(crate) fn tasks(&self, args: &[&str]) {
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

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: ring\r\n\r\n").into_bytes()
}

pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    with_body("POST", path, "application/json", body)
}

pub(crate) fn put(path: &str, body: &str) -> Vec<u8> {
    with_body("PUT", path, "application/octet-stream", body)
}

fn with_body(verb: &str, path: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{verb} {path} HTTP/1.1\r\nhost: ring\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends a request on a kept connection and reads the whole answer; returns its status.
pub(crate) async fn exchange(connection: &mut Option<TcpStream>, addr: &str, request: &[u8]) -> io::Result<u16> {
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

/// The yardstick: this program again, as a server with one empty handler.
pub(crate) struct Empty {
    child: Child,
    pub(crate) addr: String,
}

impl Empty {
    pub(crate) fn start() -> Empty {
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

pub(crate) fn empty_server() {
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
