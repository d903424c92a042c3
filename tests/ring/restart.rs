//! Rings that stop whole, in order or not, and are started again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Lab, addr_of, eventually, get, signal, try_exchange};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn keys() -> Vec<String> {
    (0..60).map(|i| format!("key {i}")).collect()
}

fn store_all(lab: &Lab) {
    for key in keys() {
        lab.ok(&["store", &format!("value of {key}"), "--key", &key]);
    }
}

fn assert_all_found(lab: &Lab) {
    for key in keys() {
        let found = lab.json(&["lookup", "--key", &key]);
        assert_eq!(found["value"], format!("value of {key}"), "{}", lab.logs());
    }
}

fn pids(lab: &Lab) -> BTreeSet<i32> {
    let state = lab.state();
    let nodes = state["nodes"].as_array().expect("a list of nodes");
    nodes.iter().filter_map(|node| node["pid"].as_i64()).map(|pid| pid as i32).collect()
}

fn signal_all(lab: &Lab, signal: Signal) {
    let pids = pids(lab);
    for pid in &pids {
        kill(Pid::from_raw(*pid), signal).expect("the node runs");
    }
    let gone = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
    };
    eventually("all nodes have ended", Duration::from_secs(20), || pids.iter().all(gone).then_some(()));
}

#[test]
fn a_ring_whose_machine_is_shut_down_in_order_comes_back_with_everything() {
    let lab = Lab::with_nodes(6);
    store_all(&lab);
    // Everybody leaves at once, as when an operator's machine stops; the last one has nobody to hand over to.
    signal_all(&lab, Signal::SIGTERM);
    lab.ok(&["start", "--all"]);
    lab.ok(&["doctor", "--wait", "30s"]);
    assert_eq!(lab.addrs().len(), 6);
    assert_all_found(&lab);
}

#[test]
fn a_ring_that_was_killed_whole_comes_back_with_everything() {
    let lab = Lab::with_nodes(6);
    store_all(&lab);
    signal_all(&lab, Signal::SIGKILL);
    lab.ok(&["start", "--all"]);
    lab.ok(&["doctor", "--wait", "30s"]);
    assert_all_found(&lab);
}

/// Writes one key over and over, through one node after the other, and reads it back now and then.
struct Writer {
    key: String,
    /// The number of the last write that was acknowledged, and of the last that was tried.
    acknowledged: AtomicU64,
    tried: AtomicU64,
}

impl Writer {
    fn new(number: usize) -> Writer {
        Writer { key: format!("/kv/written-{number}"), acknowledged: AtomicU64::new(0), tried: AtomicU64::new(0) }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Nobody else writes this key, so what is read is what was acknowledged last, or what was tried after that.
    #[track_caller]
    fn check(&self, value: &str) {
        let (least, most) = (self.acknowledged(), self.tried.load(Ordering::Relaxed));
        let number: u64 = value.parse().unwrap_or_else(|error| panic!("{}: {error} in {value:?}", self.key));
        assert!((least..=most).contains(&number), "{} is {number}, and not {least} to {most}", self.key);
    }

    fn run(&self, addrs: &[String], over: &AtomicBool) {
        let mut nodes = addrs.iter().cycle();
        while !over.load(Ordering::Relaxed) {
            let node = nodes.next().expect("there are nodes");
            let number = self.tried.fetch_add(1, Ordering::Relaxed) + 1;
            let put = try_exchange("PUT", node, &self.key, Some(("text/plain", number.to_string().as_bytes())));
            if put.is_ok_and(|answer| answer.status == 204) {
                self.acknowledged.store(number, Ordering::Relaxed);
            }
            match try_exchange("GET", node, &self.key, None) {
                Ok(answer) if answer.status == 200 => self.check(&answer.body),
                Ok(answer) if answer.status == 404 => assert_eq!(self.acknowledged(), 0, "{} is gone", self.key),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Waits until this writer has had so many more writes acknowledged than now.
    #[track_caller]
    fn goes_on(&self, writes: u64) {
        let enough = self.acknowledged() + writes;
        let what = format!("{writes} more writes to {} are acknowledged", self.key);
        eventually(&what, Duration::from_secs(60), || (self.acknowledged() >= enough).then_some(()));
    }
}

/// Stops the writers also where the test fails, so that it can end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_ring_that_is_killed_whole_in_the_middle_of_writing_keeps_every_acknowledged_write() {
    let lab = Lab::with_nodes(6);
    let addrs = lab.addrs();
    let over = AtomicBool::new(false);
    let writers: Vec<Writer> = (0..6).map(Writer::new).collect();
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for writer in &writers {
            scope.spawn(|| writer.run(&addrs, &over));
        }
        // More than once: what came back must be as good as what was there first.
        for _ in 0..2 {
            writers.iter().for_each(|writer| writer.goes_on(3));
            signal_all(&lab, Signal::SIGKILL);
            lab.ok(&["start", "--all"]);
        }
        writers.iter().for_each(|writer| writer.goes_on(3));
    });
    lab.ok(&["doctor", "--wait", "30s"]);
    for (number, writer) in writers.iter().enumerate() {
        for addr in [&addrs[number % addrs.len()], &addrs[(number + 1) % addrs.len()]] {
            let found = get(addr, &writer.key);
            assert_eq!(found.status, 200, "{found:?}\n{}", lab.logs());
            writer.check(&found.body);
        }
    }
}

/// Writes a key of its own after the other through one node, until one is not acknowledged. Returns each with its status; 0 is
/// for no answer.
fn write_until_refused(node: &str, writer: usize) -> Vec<(String, u16)> {
    let mut ends = Vec::new();
    for number in 0.. {
        let path = format!("/kv/written-{writer}-{number}");
        let status =
            try_exchange("PUT", node, &path, Some(("text/plain", b"written"))).map_or(0, |answer| answer.status);
        ends.push((path, status));
        if status != 204 {
            break;
        }
    }
    ends
}

#[test]
fn a_write_that_was_refused_while_all_others_died_has_not_happened() {
    const WRITERS: usize = 32;
    let lab = Lab::with_nodes(3);
    for round in 0..3 {
        let nodes = lab.nodes();
        let (survivor, victims) = nodes.split_first().expect("there are three");
        let node = addr_of(survivor);
        let ends: Vec<(String, u16)> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|it| (round * WRITERS + it, &node)).collect();
            let writers: Vec<_> =
                writers.into_iter().map(|(it, node)| scope.spawn(move || write_until_refused(node, it))).collect();
            let busy = format!("/kv/written-{}-5", round * WRITERS);
            eventually("writes are under way", Duration::from_secs(60), || {
                (get(&node, &busy).status == 200).then_some(())
            });
            victims.iter().for_each(|victim| signal(victim["pid"].as_u64().expect("a pid"), Signal::SIGKILL));
            writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect()
        });
        lab.ok(&["start", "--all"]);
        lab.ok(&["doctor", "--wait", "60s"]);
        for (path, status) in &ends {
            let found = get(&node, path).status;
            match status {
                204 => assert_eq!(found, 200, "{path} was acknowledged"),
                503 => assert_eq!(found, 404, "{path} was refused"),
                _ => assert!(matches!(found, 200 | 404), "{path}: {found}"),
            }
        }
        let count = |status: u16| ends.iter().filter(|(_, is)| *is == status).count();
        println!("{} acknowledged, {} refused, {} unknown", count(204), count(503), count(504) + count(0));
    }
}
