//! A node joins a ring that holds much, while clients read and write what it is to keep.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Daemon, Lab, eventually, get_json, raw, sha256};

/// How large each value is.
const VALUE: usize = 100 << 10;

/// How many MiB the ring holds; another figure by this variable, to measure with.
const SIZE: &str = "CHORDAL_JOIN_MIB";

/// The first digits of the joiner's id: it takes half of the circle.
const JOINER: &str = "80";

/// What a client has seen.
struct Seen {
    answers: u64,
    longest_without: Duration,
}

/// Reads and writes keys of the joiner's part, one after the other, until told to stop.
fn client(addr: &str, keys: &[String], stops: &AtomicBool) -> Seen {
    let mut seen = Seen { answers: 0, longest_without: Duration::ZERO };
    let mut last = Instant::now();
    for (number, key) in keys.iter().cycle().enumerate() {
        if stops.load(Ordering::Relaxed) {
            break;
        }
        let path = format!("/kv/{key}");
        let answer = match number % 2 {
            0 => raw("GET", addr, &path, &[], b""),
            _ => raw("PUT", addr, &path, &[], &[b'w'; 100]),
        };
        if matches!(answer.status, 200 | 201 | 204) {
            seen.answers += 1;
            seen.longest_without = seen.longest_without.max(last.elapsed());
            last = Instant::now();
        }
    }
    seen
}

#[test]
fn a_join_into_a_range_that_holds_much_sends_it_while_it_is_served() {
    let mib: usize = std::env::var(SIZE).ok().and_then(|size| size.parse().ok()).unwrap_or(6);
    let lab = Lab::empty();
    let first = Daemon::start(lab.path(), &["--lab", "--id", "02"]);
    let join = |id: &str| Daemon::start(lab.path(), &["--lab", "--id", id, "--bootstrap", &first.addr]);
    let _others = ["00", "01"].map(join);
    eventually("each value is on three", Duration::from_secs(60), || {
        let views = get_json(&first.addr, "/nodeinfo")["views"].as_array()?.clone();
        views.iter().all(|view| view["members"].as_array().is_some_and(|members| members.len() == 3)).then_some(())
    });
    let keys: Vec<String> = (0..mib * (1 << 20) / VALUE).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        let stored = raw("PUT", &first.addr, &format!("/kv/{key}"), &[], &[b'v'; VALUE]);
        assert!(matches!(stored.status, 201 | 204), "{stored:?}");
    }
    let moves = |key: &&String| sha256(key).as_str() >= JOINER;
    // What is written over is not looked at in the end.
    let (busy, resting): (Vec<String>, Vec<String>) =
        keys.iter().filter(moves).cloned().partition(|key| key.ends_with(['3', '7']));
    assert!(busy.len() > 2 && resting.len() > 15);
    let stops = Arc::new(AtomicBool::new(false));
    let works = {
        let (stops, addr) = (Arc::clone(&stops), first.addr.clone());
        thread::spawn(move || client(&addr, &busy, &stops))
    };
    let joiner = join(JOINER);
    eventually("the joiner serves its half", Duration::from_secs(120), || {
        let views = get_json(&joiner.addr, "/nodeinfo")["views"].as_array()?.clone();
        views.iter().any(|view| view["status"] == "serving").then_some(())
    });
    stops.store(true, Ordering::Relaxed);
    let seen = works.join().unwrap();
    println!("{mib} MiB: {} answers, at most {:?} without one", seen.answers, seen.longest_without);
    assert!(seen.answers > 0);
    let log = std::fs::read_to_string(&first.log).unwrap();
    assert!(log.contains("content was sent ahead"), "{log}");
    for key in resting {
        let found = raw("GET", &joiner.addr, &format!("/kv/{key}"), &[], b"");
        assert_eq!((found.status, found.body.len()), (200, VALUE), "{key}");
    }
}
