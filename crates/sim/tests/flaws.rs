//! A simulator that has never failed proves nothing: it must catch every planted bug within a stated number of seeds.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use chordal_protocol::Flaw;
use chordal_sim::protocol::{Faults, Setup, Variant, run};

/// How many seeds each may take, and by which invariant it is caught then, if it always is by the same.
fn bounds(flaw: Flaw) -> (u64, &'static [&'static str]) {
    match flaw {
        Flaw::Original2001 => (100, &["live_successor"]),
        Flaw::AdoptsUnasked => (10, &["live_successor"]),
        Flaw::AnswersWhileJoining => (40, &["live_successor", "ideal_ring", "at_most_one_ring"]),
        Flaw::ListsItself => (5, &["ordered_successor_lists"]),
        Flaw::SecondRing => (40, &["no_second_ring"]),
        Flaw::DropsWholeList => (10, &["isolated_for_a_reason"]),
        Flaw::MergesStrangers => (5, &["one_ring_id"]),
    }
}

/// Small rings with short lists are the easiest to break. The protocol holds there all the same, as `sound.rs` shows.
fn setup(flaw: Flaw) -> Setup {
    let mut setup = Setup {
        nodes: (4, 12),
        faults: Faults::ALL,
        churn: 0.02,
        variant: Variant::Flawed(flaw),
        strangers: if flaw == Flaw::MergesStrangers { 2 } else { 0 },
        ..Setup::default()
    };
    if flaw == Flaw::AnswersWhileJoining {
        // Joining must take long, so that somebody joins through a node that is still at it.
        setup.faults = "delay=50..300ms,crash=0.02".parse().unwrap();
        setup.churn = 0.1;
        setup.patience = (1_000, 3);
    }
    setup.settings.successors = 2;
    setup
}

#[test]
fn every_planted_bug_is_caught() {
    for flaw in Flaw::ALL {
        let (seeds, invariants) = bounds(flaw);
        let setup = setup(flaw);
        let caught = (0..seeds).find_map(|seed| run(&setup, seed, None).violation.map(|it| (seed, it)));
        let Some((seed, violation)) = caught else { panic!("{flaw:?} was not caught within {seeds} seeds") };
        assert!(invariants.contains(&violation.invariant), "{flaw:?}, seed {seed}: {violation:?}");
        println!("{flaw:?}: {} at seed {seed}, {} ms", violation.invariant, violation.at);
    }
}

#[test]
fn without_a_bug_the_same_runs_are_sound() {
    for flaw in [Flaw::Original2001, Flaw::AnswersWhileJoining, Flaw::MergesStrangers] {
        let setup = Setup { variant: Variant::Zave, ..setup(flaw) };
        for seed in 0..30 {
            assert_eq!(run(&setup, seed, None).violation, None, "seed {seed}, as for {flaw:?}");
        }
    }
}
