//! The replicated views explored: the very code of crates/protocol/src/replica, every order in which messages can arrive or
//! be lost, crashes, two proposers, clients.
//!
//! `cargo test` explores to the end what takes well under a minute; `make model` the larger runs. Every planted bug must be
//! found, after as many steps as are written down: the search is breadth first, so there is no shorter way.

#[path = "model/check.rs"]
mod check;
#[path = "model/explorer.rs"]
mod explorer;
#[path = "model/history.rs"]
mod history;
#[path = "model/planted.rs"]
mod planted;
#[path = "model/run.rs"]
mod run;
#[path = "model/scenario.rs"]
mod scenario;
#[path = "model/scenarios.rs"]
mod scenarios;
#[path = "model/table.rs"]
mod table;
#[path = "model/trace.rs"]
mod trace;
#[path = "model/world.rs"]
mod world;

use explorer::{Found, explore};
use scenario::Scenario;

/// More than any of the runs of `cargo test` has.
const SMALL: usize = 900_000;

/// What fits into the memory of a small machine.
const LARGE: usize = 12_000_000;

fn run(scenario: &Scenario, most: usize) -> Found {
    let found = explore(scenario, most);
    println!(
        "{}: {} states, depth {}{}; {:?}",
        scenario.name,
        found.states,
        found.depth,
        if found.exhausted { "" } else { ", not all" },
        found.reached
    );
    if let Some((wrong, trace)) = &found.violation {
        println!("  {wrong}");
        trace.iter().enumerate().for_each(|(i, line)| println!("  {:>3}. {line}", i + 1));
    }
    found
}

/// All states are seen, nothing is wrong with any, and the run is not one in which nothing can happen.
fn must_be_clean(scenario: &Scenario, most: usize) {
    let found = run(scenario, most);
    assert!(found.violation.is_none(), "{}: see the trace", scenario.name);
    assert!(found.exhausted, "{}: more than {most} states", scenario.name);
    assert!(found.reached.epoch > 1, "{}: no view has changed", scenario.name);
    let ended = (found.reached.ended, found.reached.ended_later);
    // The write that a script begins with loses its primary, unless the script has it answered.
    let has_others = scenario.views.iter().any(|(.., members)| members.len() > 1);
    let is_lost = has_others
        && scenario.first.contains(&"operation 0")
        && !scenario.first.iter().any(|line| line.contains("Stored"));
    let all = scenario.ops.len() - usize::from(is_lost);
    assert_eq!(ended, (all, all), "{}: some operation never ends, or not in a later view", scenario.name);
}

#[test]
fn small_runs_are_clean() {
    scenarios::small().iter().for_each(|scenario| must_be_clean(scenario, SMALL));
}

#[test]
fn planted_bugs_are_found() {
    let mut found: Vec<(&str, Option<usize>)> = Vec::new();
    let mut expected = Vec::new();
    for planted in planted::planted() {
        println!("planted: {}", planted.name);
        let steps = run(&planted.scenario, SMALL).violation.map(|(_, trace)| trace.len());
        found.push((planted.name, steps));
        expected.push((planted.name, Some(planted.steps)));
    }
    assert_eq!(found, expected);
}

#[test]
#[ignore = "two minutes in the release profile: make model"]
fn large_runs_are_clean() {
    let mut too_large = Vec::new();
    for scenario in scenarios::large() {
        let found = run(&scenario, LARGE);
        assert!(found.violation.is_none(), "{}: see the trace", scenario.name);
        too_large.extend((!found.exhausted).then_some(scenario.name));
    }
    assert!(too_large.is_empty(), "clean as far as they were explored, but not to the end: {}", too_large.join(", "));
}

/// Planting is a value at run time, so that nobody turns it on by a feature for the whole build. The daemon must not name it.
#[test]
fn the_daemon_plants_nothing() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut open = vec![root.join("src"), root.join("tasks")];
    let mut looked_at = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains(".planted(") && !text.contains("replica::Bug"), "{} plants a bug", path.display());
            looked_at += 1;
        }
    }
    assert!(looked_at > 10, "the sources of the daemon are not where they were");
}
