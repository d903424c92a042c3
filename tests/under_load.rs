//! Clients that store, look up, overwrite and delete through random nodes while the ring changes under them. Each key has one
//! writer, so what every answer must be is known; an answer that is late or wrong, or a value that is missing even for one
//! lookup, fails the test.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Lab, addr_of, escape, get_json, rewire, version};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

/// How many clients there are, and how many keys each has.
const CLIENTS: usize = 6;
const KEYS: usize = 12;
/// How many values lie there all the while and are only read.
const RESTING: usize = 200;
/// Within this a node must answer, whatever happens to the ring: its own deadline, and something for the way.
const DEADLINE: Duration = Duration::from_secs(12);
/// How many operations each client does at least, however soon the ring is done.
const LEAST: u64 = 150;

/// What the clients share.
struct Load {
    http: reqwest::Client,
    /// Whom they may ask.
    targets: Mutex<Vec<String>>,
    /// Those who have been asked to leave. One that is about to end may break off; what it does answer counts.
    leaving: Mutex<BTreeSet<String>>,
    resting: Vec<String>,
    done: AtomicBool,
    operations: AtomicU64,
    /// How often a node that was leaving gave no answer, so that what became of a write is not known.
    unknown: AtomicU64,
    slowest_ms: AtomicU64,
}

/// What one key must be.
#[derive(Debug, Clone)]
enum State {
    Absent,
    Present { value: String, version: (u64, u64) },
}

/// A key and what is known of it. A key with an unknown state is given up for a new one.
struct Key {
    name: String,
    state: State,
    /// The greatest version that was told.
    newest: (u64, u64),
}

impl Load {
    fn on(lab: &Lab, resting: Vec<String>) -> Arc<Load> {
        // Connections are kept, as a client does.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(2).timeout(DEADLINE).build().unwrap();
        Arc::new(Load {
            http,
            targets: Mutex::new(lab.addrs()),
            leaving: Mutex::default(),
            resting,
            done: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            slowest_ms: AtomicU64::new(0),
        })
    }

    /// An exchange with a random node: `None` if it was leaving and broke off, so that it may have done what it was asked.
    async fn ask(&self, rng: &mut StdRng, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        loop {
            let target = self.targets.lock().unwrap().choose(rng).expect("somebody to ask").clone();
            let began = Instant::now();
            let answer = self.exchange(&target, method, path, body.as_ref()).await;
            let took = u64::try_from(began.elapsed().as_millis()).unwrap();
            self.slowest_ms.fetch_max(took, Ordering::Relaxed);
            self.operations.fetch_add(1, Ordering::Relaxed);
            let leaves = self.leaving.lock().unwrap().contains(&target);
            let failed = match answer {
                Ok((status @ (200 | 404), json)) => return Some((status, json)),
                Ok((status, json)) => format!("{status}: {json}"),
                Err(error) if leaves && error.is_connect() => {
                    // It has gone, and has not seen the request.
                    self.targets.lock().unwrap().retain(|addr| *addr != target);
                    continue;
                }
                Err(error) => format!("{error:?}"),
            };
            assert!(leaves, "{method} {path} through {target} after {took} ms: {failed}");
            println!("through {target}, which was leaving: {failed}");
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return None;
        }
    }

    async fn exchange(
        &self,
        target: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("http://{target}{path}"));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await?;
        let (status, text) = (response.status().as_u16(), response.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))))
    }

    /// One client, to the end. Returns its keys with what they must be.
    async fn client(self: Arc<Load>, number: usize, seed: u64) -> Vec<Key> {
        let mut rng = StdRng::seed_from_u64(seed);
        let fresh = |slot: usize, generation: u64| Key {
            name: format!("client {number} key {slot}/{generation}"),
            state: State::Absent,
            newest: (0, 0),
        };
        let mut keys: Vec<Key> = (0..KEYS).map(|slot| fresh(slot, 0)).collect();
        let mut given_up = 0;
        let mut round = 0;
        while round < LEAST || !self.done.load(Ordering::Relaxed) {
            round += 1;
            let slot = rng.random_range(0..KEYS);
            let known = match rng.random_range(0..10) {
                0..=3 => keys[slot].store(&self, &mut rng, round).await,
                4..=5 => keys[slot].look_up(&self, &mut rng).await,
                6 => keys[slot].delete(&self, &mut rng).await,
                _ => {
                    self.read_one_that_rests(&mut rng).await;
                    true
                }
            };
            if !known {
                given_up += 1;
                keys[slot] = fresh(slot, given_up);
            }
        }
        keys
    }

    async fn read_one_that_rests(&self, rng: &mut StdRng) {
        let value = self.resting.choose(rng).unwrap().clone();
        if let Some((status, found)) =
            self.ask(rng, "GET", &format!("/dht/lookup?value={}", escape(&value)), None).await
        {
            assert_eq!(status, 200, "{value:?} was missing for a moment: {found}");
            assert_eq!(found["value"], value);
        }
    }
}

impl Key {
    fn path(&self, route: &str) -> String {
        format!("{route}?key={}", escape(&self.name))
    }

    /// Each returns whether the state of the key is known afterwards.
    async fn store(&mut self, load: &Load, rng: &mut StdRng, round: u64) -> bool {
        let value = format!("round {round} of {}", self.name);
        let body = json!({ "value": value, "key": self.name });
        let Some((status, stored)) = load.ask(rng, "POST", "/dht/store", Some(body)).await else { return false };
        assert_eq!(status, 200, "{}: {stored}", self.name);
        let version = version(&stored);
        assert!(version > self.newest, "{}: {stored} after {:?}", self.name, self.newest);
        self.newest = version;
        self.state = State::Present { value, version };
        true
    }

    async fn look_up(&mut self, load: &Load, rng: &mut StdRng) -> bool {
        if let Some((status, found)) = load.ask(rng, "GET", &self.path("/dht/lookup"), None).await {
            match &self.state {
                State::Absent => assert_eq!(status, 404, "{} was deleted and has come back: {found}", self.name),
                State::Present { value, version: stored } => {
                    assert_eq!(status, 200, "{} is missing, it should be {:?}: {found}", self.name, self.state);
                    assert_eq!(found["value"], **value, "{} is {found}, and not {:?}", self.name, self.state);
                    assert_eq!(version(&found), *stored, "{}: {found}", self.name);
                }
            }
        }
        true
    }

    async fn delete(&mut self, load: &Load, rng: &mut StdRng) -> bool {
        let Some((status, deleted)) = load.ask(rng, "DELETE", &self.path("/dht/delete"), None).await else {
            return false;
        };
        match &self.state {
            State::Absent => assert_eq!(status, 404, "{} was deleted already: {deleted}", self.name),
            State::Present { .. } => {
                assert_eq!(status, 200, "{} is missing, it should be {:?}: {deleted}", self.name, self.state);
                assert!(version(&deleted) > self.newest, "{}: {deleted} after {:?}", self.name, self.newest);
                self.newest = version(&deleted);
            }
        }
        self.state = State::Absent;
        true
    }
}

/// Runs the clients while `change` changes the ring, then checks every key and every value once more. `change` gets the
/// load, to say whom the clients shall not ask any more.
fn unnoticed(lab: &Lab, change: impl FnOnce(&Load)) {
    let resting = lab.fill(RESTING);
    let load = Load::on(lab, resting.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| runtime.spawn(load.clone().client(number, seed + number as u64))).collect();
    let before = loaded(&load, 200, &clients);
    change(&load);
    let during = load.operations.load(Ordering::Relaxed) - before;
    assert!(during > 50, "only {during} operations while the ring changed: that proves nothing");
    load.done.store(true, Ordering::Relaxed);
    let keys: Vec<Key> = clients
        .into_iter()
        .flat_map(|client| runtime.block_on(client).expect("a client has seen something wrong"))
        .collect();
    let (total, unknown) = (load.operations.load(Ordering::Relaxed), load.unknown.load(Ordering::Relaxed));
    println!(
        "{total} operations, {during} of them during the change, {unknown} without an answer, slowest {:?} ms",
        load.slowest_ms
    );
    assert!(unknown <= 40, "{unknown} of {total} operations had no answer");

    lab.heals();
    let mut rng = StdRng::seed_from_u64(seed);
    *load.targets.lock().unwrap() = lab.addrs();
    load.leaving.lock().unwrap().clear();
    for mut key in keys {
        for _ in 0..2 {
            runtime.block_on(key.look_up(&load, &mut rng));
        }
    }
    lab.holds(&resting);
}

/// Waits until the clients have done so many operations; how many they have done.
fn loaded<T>(load: &Load, operations: u64, clients: &[tokio::task::JoinHandle<T>]) -> u64 {
    common::eventually("the clients are at work", Duration::from_secs(30), || {
        assert!(!clients.iter().any(tokio::task::JoinHandle::is_finished), "a client has seen something wrong");
        let done = load.operations.load(Ordering::Relaxed);
        (done >= operations).then_some(done)
    })
}

/// How many records have moved from node to node so far.
fn moved(lab: &Lab) -> u64 {
    let moved = |addr: &String| -> u64 {
        let info = get_json(addr, "/nodeinfo");
        info["handovers"].as_array().unwrap().iter().map(|handover| handover["records"].as_u64().unwrap()).sum()
    };
    lab.addrs().iter().map(moved).sum()
}

/// Has these nodes leave at the same time. They are asked for other things as long as they are there. On a slow machine others may not
/// have taken over in time what one keeps; it stays then, and is to be asked again.
fn leave_at_once(lab: &Lab, load: &Load, names: &[String]) {
    let addrs: Vec<String> = names.iter().map(|name| lab.addr(name)).collect();
    load.leaving.lock().unwrap().extend(addrs.iter().cloned());
    std::thread::scope(|scope| {
        for name in names {
            scope.spawn(move || {
                common::eventually(&format!("{name} has left"), Duration::from_secs(60), || {
                    let left = lab.tasks(&["leave", name]);
                    assert!(left.ok || left.stderr.contains("try again when a majority"), "{left:?}\n{}", lab.logs());
                    left.ok.then_some(())
                });
            });
        }
    });
    load.targets.lock().unwrap().retain(|addr| !addrs.contains(addr));
}

/// Points every node to wrong ones.
fn wire_wrongly(lab: &Lab, places: usize) {
    let (addrs, model) = (lab.addrs(), lab.model());
    for addr in &addrs {
        rewire(addr, "/succ", model.after(addr, places));
        rewire(addr, "/pred", model.after(addr, places + 1));
    }
}

#[test]
fn nobody_notices_that_four_nodes_join_at_once() {
    let lab = Lab::with_nodes(12);
    unnoticed(&lab, |load| {
        lab.ok(&["addmany", "4"]);
        *load.targets.lock().unwrap() = lab.addrs();
        lab.heals();
        assert!(moved(&lab) > 0, "nothing has moved: that proves nothing");
    });
    assert_eq!(lab.addrs().len(), 16);
}

#[test]
fn nobody_notices_that_nodes_leave() {
    let lab = Lab::with_nodes(12);
    unnoticed(&lab, |load| {
        let (model, addrs) = (lab.model(), lab.addrs());
        // First one, then two that are neighbours, then two more.
        leave_at_once(&lab, load, &[lab.name_at(&addrs[0])]);
        let pair = [model.after(&addrs[0], 2), model.after(&addrs[0], 3)].map(|addr| lab.name_at(addr));
        leave_at_once(&lab, load, &pair);
        let pair = [model.after(&addrs[0], 6), model.after(&addrs[0], 9)].map(|addr| lab.name_at(addr));
        leave_at_once(&lab, load, &pair);
        assert!(moved(&lab) > 0, "nothing has moved: that proves nothing");
    });
    assert_eq!(lab.addrs().len(), 7);
}

#[test]
fn nobody_notices_that_pointers_are_rewired() {
    let lab = Lab::with_nodes(12);
    unnoticed(&lab, |_| {
        for places in [2, 3, 5, 7] {
            wire_wrongly(&lab, places);
            lab.heals();
        }
    });
}

#[test]
fn nobody_notices_joins_leaves_and_rewiring_together() {
    let lab = Lab::with_nodes(12);
    unnoticed(&lab, |load| {
        let leavers = ["node-3", "node-7", "node-8"].map(str::to_owned);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                lab.ok(&["addmany", "4"]);
            });
            leave_at_once(&lab, load, &leavers);
        });
        let joined: Vec<String> = lab.nodes().iter().map(addr_of).collect();
        *load.targets.lock().unwrap() = joined;
        wire_wrongly(&lab, 2);
        lab.heals();
    });
    assert_eq!(lab.addrs().len(), 13);
}
