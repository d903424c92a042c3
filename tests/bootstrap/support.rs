//! A bootstrap service whose pool is in the directory of a `Lab`, so that `tasks` can look after its nodes, and ends both
//! when the lab is dropped.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{Lab, Ran, eventually, get, get_json, signal, try_exchange};

/// For how long anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Service {
    pub(crate) child: Child,
    /// `host:port`.
    pub(crate) addr: String,
    pub(crate) log: PathBuf,
}

impl Service {
    /// A service with a pool in this lab, once it has a live node. It listens where the system likes, as its nodes do, and
    /// checks often, unless `args` say otherwise.
    pub(crate) fn start(lab: &Lab, args: &[&str]) -> Service {
        Service::try_start(lab, args)
            .unwrap_or_else(|ran| panic!("the service {args:?} failed: {ran:#?}\n{}", lab.logs()))
    }

    /// The same; if it ends instead, how it did.
    pub(crate) fn try_start(lab: &Lab, args: &[&str]) -> Result<Service, Ran> {
        let log = lab.path().join(format!("service-{}.log", rand::random::<u32>()));
        let stderr = std::fs::File::create(&log).expect("a log can be made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
        command.arg("bootstrap-service").args(args).current_dir(lab.path());
        for (option, default) in [("--data-dir", "."), ("--host-port", "0"), ("--check-interval", "300ms")] {
            if !args.contains(&option) {
                command.args([option, default]);
            }
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().expect("chordal can be run");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("its output can be read");
        // "chordal: bootstrap service at http://127.0.0.1:5000/return_dht_address, a pool of …"
        match line.split_once("http://").and_then(|(_, rest)| rest.split_once("/return_dht_address")) {
            Some((addr, _)) => Ok(Service { child, addr: addr.to_owned(), log }),
            None => {
                let status = child.wait().expect("it has ended");
                let stderr = std::fs::read_to_string(&log).unwrap_or_default();
                Err(Ran { ok: status.success(), code: status.code(), stdout: line, stderr })
            }
        }
    }

    /// The URL by which nodes join.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/return_dht_address", self.addr)
    }

    /// So many addresses, or fewer if not so many nodes are live; at least one.
    pub(crate) fn ask(&self, count: usize) -> Vec<String> {
        let answer = get(&self.addr, &format!("/return_dht_address?count={count}")).expect(200);
        let peers = answer["initial_peers"].as_array().expect("a list").iter();
        let peers: Vec<String> = peers.map(|peer| peer.as_str().expect("a text").to_owned()).collect();
        assert!(!peers.is_empty(), "{answer}");
        peers
    }

    /// How many nodes passed their last check.
    pub(crate) fn live(&self) -> usize {
        let health = try_exchange("GET", &self.addr, "/health", None).expect("the service answers");
        if health.status == 503 { 0 } else { health.expect(200)["live"].as_u64().expect("a number") as usize }
    }

    /// Waits until so many are live.
    pub(crate) fn fills(&self, lab: &Lab, size: usize) {
        let began = std::time::Instant::now();
        while self.live() != size {
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(began.elapsed() < PATIENCE, "{} of {size} are live\n{}\n{}", self.live(), log(), lab.logs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The id of the pool's ring.
    pub(crate) fn ring(&self) -> String {
        get_json(&self.addr, "/health")["ring"].as_str().expect("it knows its ring").to_owned()
    }

    /// A counter or gauge; 0 if it is not there yet.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = get(&self.addr, "/metrics");
        assert_eq!(text.status, 200);
        let value = text.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Ran {
        signal(self.child.id().into(), Signal::SIGTERM);
        let status = eventually("the service has ended", PATIENCE, || self.child.try_wait().expect("a child"));
        let stderr = std::fs::read_to_string(&self.log).unwrap_or_default();
        Ran { ok: status.success(), code: status.code(), stdout: String::new(), stderr }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Its nodes end with the lab.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pid of each node of the pool, by address.
pub(crate) fn pids(lab: &Lab) -> BTreeMap<String, u64> {
    let pid = |node: &Value| node["pid"].as_u64().expect("a pid");
    lab.nodes().iter().map(|node| (crate::common::addr_of(node), pid(node))).collect()
}

/// Stores so many values through the pool and returns their keys.
pub(crate) fn fill(service: &Service, values: usize) -> Vec<String> {
    let keys: Vec<String> = (0..values).map(|number| format!("key {number}")).collect();
    for key in &keys {
        let body = serde_json::json!({ "key": key, "value": format!("the value of {key}") });
        crate::common::send("POST", &service.ask(1)[0], "/dht/store", &body).expect(200);
    }
    keys
}

/// Waits until each of these keys is found through a node at this address.
pub(crate) fn all_found(addr: &str, keys: &[String]) {
    for key in keys {
        let path = format!("/dht/lookup?key={}", crate::common::escape(key));
        eventually(&format!("{key} is found through {addr}"), PATIENCE, || {
            let answer = get(addr, &path);
            (answer.status == 200 && answer.json()["value"] == format!("the value of {key}")).then_some(())
        });
    }
}
