//! Rings that stop whole, in order or not, and are started again.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Lab, eventually};
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
