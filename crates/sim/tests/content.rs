//! Content on rings under faults: what clients are told fits one register for each key, acknowledged writes are there in the end,
//! and ranges come back to service.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::atomic::AtomicBool;

use chordal_protocol::keeper;
use chordal_sim::protocol::{Aim, Faults, Kind, Setup, Summary, run, simulate};

fn with_content() -> Setup {
    Setup { content: Some(keeper::Settings::default()), ..Setup::default() }
}

fn sound(setup: &Setup, seeds: std::ops::Range<u64>) -> Summary {
    let summary = simulate(setup, seeds, |_| {}, &AtomicBool::new(false));
    assert_eq!(summary.failures, [], "{setup:?}");
    assert_eq!(summary.missing(setup), [], "a fault that never happens proves nothing: {setup:?}");
    assert_eq!((summary.writes_lost, summary.stale_reads), (0, 0));
    summary
}

#[test]
fn all_faults_at_once_break_no_promise() {
    let summary = sound(&Setup { nodes: (1, 24), faults: Faults::ALL, ..with_content() }, 0..60);
    assert!(summary.passed >= 48, "too many runs were outside the theorem: {summary:?}");
    assert!(summary.operations > 3_000 && summary.unavailable < summary.operations / 20, "{summary:?}");
    assert!(summary.view_changes > 600 && summary.histories_checked > 600, "{summary:?}");
    assert!(summary.faults.of(Kind::Full) > 0 && summary.faults.of(Kind::Unsynced) > 0, "{summary:?}");
}

#[test]
fn small_rings_keep_what_they_promise_too() {
    for n in 1..=6 {
        sound_or_quiet(&Setup { nodes: (n, n), faults: Faults::ALL, ..with_content() }, 0..6);
    }
}

/// As [`sound`], where a fault may find nobody to happen to.
fn sound_or_quiet(setup: &Setup, seeds: std::ops::Range<u64>) {
    let summary = simulate(setup, seeds, |_| {}, &AtomicBool::new(false));
    assert_eq!(summary.failures, [], "{setup:?}");
}

#[test]
fn any_factor_keeps_what_it_promises() {
    for replication_factor in [1, 2, 5] {
        let content = Some(keeper::Settings { replication_factor, ..keeper::Settings::default() });
        sound(&Setup { nodes: (2, 9), faults: Faults::ALL, content, ..Setup::default() }, 0..8);
    }
}

#[test]
fn content_stays_with_faults_that_never_stop() {
    let setup = Setup { nodes: (3, 9), faults: Faults::ALL, aim: Aim::Safety, seconds: 60.0, ..with_content() };
    sound(&setup, 0..8);
}

#[test]
fn without_faults_everything_is_answered_and_service_hardly_stops() {
    let summary = sound(&Setup { nodes: (1, 12), churn: 0.03, ..with_content() }, 0..16);
    assert_eq!((summary.passed, summary.unavailable), (16, 0), "{summary:?}");
    // A condition that fails when a client asks again says nothing of the first time.
    assert!(summary.unknown * 50 < summary.operations, "{summary:?}");
    let longest = summary.longest_without_service.spread().unwrap();
    assert!(longest.max <= 4_000, "joins and leaves seal a range for a moment: {longest:?}");
}

#[test]
fn a_run_with_content_repeats_itself() {
    let setup = Setup { nodes: (3, 9), faults: Faults::ALL, ..with_content() };
    assert_eq!(run(&setup, 3, None), run(&setup, 3, None));
}

#[test]
fn who_leaves_takes_no_content_with_it() {
    // A node that was asked to leave had staged a view, heard nothing of the decision, and left: one of two members was gone
    // for good.
    let mut content = keeper::Settings::default();
    content.replica.suspicion = 200;
    let faults =
        "loss=0.1,duplicate=0.1,delay=1..100ms,crash=0.05,restart=0.5,pause=0.05,partition=0.05".parse().unwrap();
    let setup = Setup { nodes: (3, 5), seconds: 20.0, operations: 40.0, keys: 3, churn: 0.1, faults, ..with_content() };
    sound_or_quiet(&Setup { content: Some(content), ..setup }, 0..16);
}

#[test]
fn a_node_that_remains_alone_comes_to_rest() {
    // It merged its two views over its own place on the circle, and had to split the whole again, three times a second.
    let mut content = keeper::Settings::default();
    content.replica.suspicion = 200;
    let faults = "loss=0.1,duplicate=0.1,delay=1..100ms,crash=0.05,restart=0.5,pause=0.05,partition=0.05,full=0.02";
    let setup = Setup { nodes: (3, 5), seconds: 20.0, operations: 40.0, keys: 3, churn: 0.03, ..with_content() };
    let setup = Setup { faults: faults.parse().unwrap(), sparing: Some(false), content: Some(content), ..setup };
    for seed in [122, 147] {
        assert_eq!(run(&setup, seed, None).violation, None, "seed {seed}");
    }
}
