//! What a node holds on to: descriptors, threads, memory, under load and after it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::common::{Lab, eventually};
use crate::support::{post, resident_mib};

#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    threads: usize,
    mib: f64,
}

fn held(pid: u32) -> Held {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).expect("its threads");
    Held {
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count(),
        threads: threads.trim().parse().expect("a number"),
        mib: resident_mib(pid),
    }
}

#[test]
fn what_a_node_of_twelve_holds_is_bounded_and_goes_back() {
    let lab = Lab::with_nodes(12);
    let nodes = lab.state()["nodes"].as_array().unwrap().clone();
    let pids: BTreeMap<String, u32> = nodes
        .iter()
        .map(|node| (node["name"].as_str().unwrap().to_owned(), node["pid"].as_u64().unwrap() as u32))
        .collect();
    let most = |when: &str| {
        let all: Vec<Held> = pids.values().map(|pid| held(*pid)).collect();
        let descriptors = all.iter().map(|held| held.descriptors).max().unwrap();
        let threads = all.iter().map(|held| held.threads).max().unwrap();
        let mib = all.iter().map(|held| held.mib).fold(0.0, f64::max);
        println!("{when}: at most {descriptors} descriptors, {threads} threads, {mib:.1} MiB in a node");
        (descriptors, threads, mib)
    };
    most("idle at first");
    let addrs = lab.addrs();
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let addrs = &addrs;
            scope.spawn(move || {
                for i in 0..100 {
                    let body = json!({ "key": format!("{worker}-{i}"), "value": "v".repeat(1000) });
                    let answer = post(&addrs[(worker + i) % addrs.len()], "/dht/store", &body);
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
    let (descriptors, threads, mib) = most("under load");
    // To each of 11 peers 4 idle connections and as many from it, 16 clients, and what a process has anyway.
    assert!(descriptors < 11 * 8 + 16 + 40, "{descriptors} descriptors");
    assert!(threads <= 2 + 16 + 4, "{threads} threads");
    assert!(mib < 120.0, "{mib} MiB");
    // Threads that blocked on the store end after 10 s without work; connections stay open for those who come back.
    eventually("threads go back", Duration::from_secs(20), || {
        let threads = pids.values().map(|pid| held(*pid).threads).max();
        threads.is_some_and(|threads| threads <= 10).then_some(())
    });
    most("idle again");
}
