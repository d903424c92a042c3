//! The protocol holds: in all sizes, under each kind of fault and all of them, and the simulator repeats itself.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::atomic::AtomicBool;

use chordal_protocol::Settings;
use chordal_sim::protocol::{Aim, Entry, Faults, Kind, Setup, Summary, run, simulate};

fn sound(setup: &Setup, seeds: std::ops::Range<u64>) -> Summary {
    let summary = simulate(setup, seeds, |_| {}, &AtomicBool::new(false));
    assert_eq!(summary.failures, [], "{setup:?}");
    assert_eq!(summary.missing(setup), [], "a fault that never happens proves nothing: {setup:?}");
    summary
}

fn trace(setup: &Setup, seed: u64) -> Vec<String> {
    let mut lines = Vec::new();
    run(setup, seed, Some(&mut |entry: &Entry| lines.push(entry.to_string())));
    lines
}

#[test]
fn a_seed_repeats_itself_step_by_step() {
    let setup = Setup { nodes: (2, 12), faults: Faults::ALL, seconds: 10.0, ..Setup::default() };
    for seed in 0..4 {
        let (one, other) = (trace(&setup, seed), trace(&setup, seed));
        assert!(one.len() > 100, "seed {seed} has only {} lines", one.len());
        assert_eq!(one, other, "seed {seed}");
        assert_eq!(run(&setup, seed, None), run(&setup, seed, None), "seed {seed}");
    }
    assert_ne!(trace(&setup, 0), trace(&setup, 1));
}

#[test]
fn a_trace_changes_nothing() {
    let setup = Setup { faults: Faults::ALL, seconds: 10.0, ..Setup::default() };
    let told = run(&setup, 5, Some(&mut |_: &Entry| {}));
    assert_eq!(told, run(&setup, 5, None));
}

#[test]
fn all_faults_at_once_break_nothing() {
    let summary = sound(&Setup { nodes: (1, 24), faults: Faults::ALL, ..Setup::default() }, 0..80);
    assert!(summary.passed > 60, "too many runs were outside the theorem: {summary:?}");
    assert!(summary.operations > 5_000 && summary.unavailable < summary.operations / 5, "{summary:?}");
}

#[test]
fn small_rings_are_as_sound_as_large_ones() {
    for n in 1..=9 {
        let setup = Setup { nodes: (n, n), faults: Faults::ALL, ..Setup::default() };
        let summary = simulate(&setup, 0..24, |_| {}, &AtomicBool::new(false));
        assert_eq!(summary.failures, [], "N = {n}");
        // Who is alone can lose no message, and of two none may be lost without all of the other's successors.
        let expected = if n < 3 { 1 } else { 12 };
        assert!(summary.passed >= expected, "N = {n}: {summary:?}");
    }
}

#[test]
fn each_kind_of_fault_breaks_nothing_by_itself() {
    for kind in Kind::ALL {
        if matches!(kind, Kind::Full | Kind::Unsynced) {
            // Without content there is nothing that a disk could refuse or lose.
            continue;
        }
        let (text, others) = match kind {
            Kind::Loss => ("loss=0.05", ""),
            Kind::Duplicate => ("duplicate=0.1", ""),
            Kind::Delay => ("delay=1..200ms", ""),
            Kind::Crash => ("crash=0.02", ""),
            Kind::Restart => ("restart=0.3", ",crash=0.03"),
            Kind::Pause => ("pause=0.03", ""),
            Kind::Partition => ("partition=0.05", ""),
            Kind::Drift => ("drift=0.3", ""),
            Kind::Full | Kind::Unsynced => unreachable!(),
        };
        let faults = format!("{text}{others}").parse().unwrap();
        let summary = sound(&Setup { nodes: (2, 16), faults, ..Setup::default() }, 0..16);
        assert!(summary.faults.of(kind) > 0);
    }
}

#[test]
fn faults_that_never_stop_break_nothing_that_must_always_hold() {
    let setup = Setup { nodes: (1, 16), faults: Faults::ALL, aim: Aim::Safety, seconds: 60.0, ..Setup::default() };
    let summary = sound(&setup, 0..24);
    assert_eq!(summary.rounds_to_ideal.spread(), None, "nobody waits for the ideal ring");
}

#[test]
fn without_faults_nothing_is_lost_and_nobody_is_outside() {
    let summary = sound(&Setup { nodes: (1, 16), churn: 0.03, ..Setup::default() }, 0..40);
    assert_eq!(summary.passed, 40);
    assert!(summary.unavailable * 100 < summary.operations, "{summary:?}");
    let ideal = summary.rounds_to_ideal.spread().unwrap();
    assert!(ideal.max <= 20, "{ideal:?}");
}

#[test]
fn a_fault_that_was_asked_for_and_never_happened_is_noticed() {
    let setup =
        Setup { nodes: (1, 1), faults: "loss=0.5,crash=0.5".parse().unwrap(), seconds: 5.0, ..Setup::default() };
    let summary = simulate(&setup, 0..3, |_| {}, &AtomicBool::new(false));
    assert_eq!(
        summary.missing(&setup),
        [Kind::Loss, Kind::Crash],
        "a node alone sends nothing, and the last one is spared"
    );
}

#[test]
fn strangers_stay_strangers() {
    let setup = Setup { nodes: (2, 10), faults: Faults::ALL, strangers: 3, ..Setup::default() };
    sound(&setup, 0..24);
}

#[test]
fn rings_that_were_cut_become_one_again_with_all_their_content() {
    let setup = Setup { nodes: (4, 16), faults: "partition=0.1".parse().unwrap(), ..Setup::default() };
    let summary = sound(&setup, 0..40);
    assert!(summary.faults.of(Kind::Partition) > 40, "{summary:?}");
    assert!(summary.passed > 20, "{summary:?}");
}

#[test]
fn who_leaves_passes_on_whom_it_remembers() {
    // The only nodes that knew both parts of a split ring left, and nobody could find the other part again.
    let setup = Setup { nodes: (3, 8), faults: Faults::ALL, churn: 0.1, ..Setup::default() };
    let setup = Setup { settings: Settings { successors: 3, ..setup.settings }, ..setup };
    for seed in [25, 132] {
        assert_eq!(run(&setup, seed, None).violation, None, "seed {seed}");
    }
}

#[test]
fn a_view_that_was_denied_before_it_had_arrived_is_believed_once_it_has() {
    // The receiver denied a range whose decision was still under way to it. Its neighbour never believed it again, and took by
    // force what was served.
    let faults = "loss=0.2,duplicate=0.3".parse().unwrap();
    let setup = Setup { nodes: (2, 9), faults, churn: 0.1, ..Setup::default() };
    assert_eq!(run(&setup, 88, None).violation, None);
}
