//! What clients are told is checked by a checker that has failed: rules of the replicated views are left out, and machines are
//! made careless, and that must be noticed within a stated number of seeds. What the simulator would need too many seeds for,
//! the model of crates/protocol finds (docs/simulator.md has the table).
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use chordal_protocol::keeper;
use chordal_protocol::replica::Bug;
use chordal_sim::protocol::{Negligence, Setup, run};

/// Who finds a bug.
enum FoundBy {
    /// The simulator, within so many seeds of this kind of run.
    Simulator(Kind, u64),
    /// `cargo test -p chordal-protocol --test model`.
    Model,
}

/// What a run is like. All have few nodes and keys and many operations, and spare nothing that Zave's theorem would: what
/// clients are told must be right on a broken ring, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Crashes,
    ManyCrashes,
    Cuts,
    Pauses,
    HastySuspicion,
    ShortMemory,
    OneCopy,
}

const KINDS: [Kind; 7] = [
    Kind::Crashes,
    Kind::ManyCrashes,
    Kind::Cuts,
    Kind::Pauses,
    Kind::HastySuspicion,
    Kind::ShortMemory,
    Kind::OneCopy,
];

const BUGS: [Bug; 23] = [
    Bug::MergeAgain,
    Bug::AcceptBeforeStage,
    Bug::AcceptWithoutSealing,
    Bug::KeepOwnRecords,
    Bug::LayUponAnything,
    Bug::SpeakBeforeInstall,
    Bug::RestartedPrimaryServes,
    Bug::OldConfirmation,
    Bug::UnconfirmedRead,
    Bug::ConfirmWhenSealed,
    Bug::StoreWhenSealed,
    Bug::ReadPending,
    Bug::OutcomesStayBehind,
    Bug::PurgeWithoutMark,
    Bug::CollectAtMajority,
    Bug::NoFloor,
    Bug::ThawFreely,
    Bug::ForgetWithoutTrace,
    Bug::AcknowledgeByMinority,
    Bug::PrepareByMinority,
    Bug::MarkNotHeld,
    Bug::CopyOfAnyBallot,
    Bug::CopyWithoutTail,
];

fn found_by(bug: Bug) -> FoundBy {
    match bug {
        Bug::RestartedPrimaryServes => FoundBy::Simulator(Kind::ManyCrashes, 10),
        Bug::OutcomesStayBehind => FoundBy::Simulator(Kind::Cuts, 10),
        Bug::PurgeWithoutMark => FoundBy::Simulator(Kind::ShortMemory, 10),
        Bug::CollectAtMajority => FoundBy::Simulator(Kind::Crashes, 200),
        Bug::AcknowledgeByMinority | Bug::PrepareByMinority => FoundBy::Simulator(Kind::Cuts, 60),
        Bug::MergeAgain
        | Bug::AcceptBeforeStage
        | Bug::AcceptWithoutSealing
        | Bug::KeepOwnRecords
        | Bug::LayUponAnything
        | Bug::SpeakBeforeInstall
        | Bug::OldConfirmation
        | Bug::UnconfirmedRead
        | Bug::ConfirmWhenSealed
        | Bug::StoreWhenSealed
        | Bug::ReadPending
        | Bug::NoFloor
        | Bug::ThawFreely
        | Bug::ForgetWithoutTrace
        | Bug::MarkNotHeld
        | Bug::CopyOfAnyBallot
        | Bug::CopyWithoutTail => FoundBy::Model,
    }
}

fn setup(kind: Kind, bug: Option<Bug>) -> Setup {
    let mut content = keeper::Settings::default();
    if let Some(bug) = bug {
        content.replica = content.replica.planted(bug);
    }
    let (faults, nodes, seconds, operations) = match kind {
        Kind::Crashes => ("loss=0.1,duplicate=0.1,delay=1..50ms,crash=0.2,restart=1,partition=0.3", (3, 4), 15.0, 60.0),
        Kind::ShortMemory => ("loss=0.1,delay=1..50ms,crash=0.2,restart=1,partition=0.3", (3, 4), 15.0, 60.0),
        Kind::ManyCrashes => ("loss=0.2,delay=1..100ms,crash=0.3,restart=2", (3, 4), 20.0, 60.0),
        Kind::Cuts => ("loss=0.1,delay=1..50ms,partition=0.5", (3, 4), 15.0, 60.0),
        Kind::Pauses => ("delay=1..50ms,pause=0.3", (4, 4), 20.0, 60.0),
        Kind::HastySuspicion => ("loss=0.3,delay=1..200ms,pause=0.3", (4, 4), 20.0, 60.0),
        Kind::OneCopy => ("delay=1..50ms,crash=0.3,restart=2", (3, 3), 20.0, 40.0),
    };
    let mut setup = Setup { nodes, seconds, operations, keys: 1, churn: 0.0, sparing: Some(false), ..Setup::default() };
    setup.faults = faults.parse().unwrap();
    match kind {
        Kind::Crashes => setup.churn = 0.02,
        Kind::ShortMemory => setup.outcomes_kept = 500,
        Kind::ManyCrashes => setup.patience.0 = 2_000,
        Kind::Cuts => content.replica.suspicion = 300,
        Kind::Pauses => (setup.patience.0, setup.keys) = (3_000, 2),
        Kind::HastySuspicion => (setup.patience.0, content.replica.suspicion) = (2_000, 150),
        Kind::OneCopy => (setup.keys, content.replication_factor) = (3, 1),
    }
    Setup { content: Some(content), ..setup }
}

/// The first seed in which clients are told what no register says, with that.
fn caught(setup: &Setup, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let violation = run(setup, seed, None).violation?;
        let is_told = matches!(violation.invariant, "linearizable" | "acknowledged_writes_survive");
        is_told.then_some((seed, violation.text))
    })
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    for bug in BUGS {
        let FoundBy::Simulator(kind, seeds) = found_by(bug) else { continue };
        let caught = caught(&setup(kind, Some(bug)), seeds);
        let Some((seed, text)) = caught else { panic!("{bug:?} was not noticed within {seeds} seeds") };
        println!("{bug:?}: seed {seed} of {kind:?}: {}", text.lines().next().unwrap_or_default());
    }
}

#[test]
fn careless_machines_are_noticed() {
    // A disk that shows torn writes is noticed by three replicas that crash all the time (disk_ring.rs).
    let (negligence, seeds) = (Negligence::AnswersBeforeDurable, 20);
    let setup = Setup { negligence: Some(negligence), ..setup(Kind::OneCopy, None) };
    let caught = caught(&setup, seeds);
    let Some((seed, text)) = caught else { panic!("{negligence:?} was not noticed within {seeds} seeds") };
    println!("{negligence:?}: seed {seed}: {}", text.lines().next().unwrap_or_default());
}

#[test]
fn without_a_bug_the_same_runs_are_sound() {
    for kind in KINDS {
        let setup = setup(kind, None);
        for seed in 0..10 {
            assert_eq!(run(&setup, seed, None).violation, None, "{kind:?}, seed {seed}");
        }
    }
}
