//! Churn in both overlays.

use super::*;
use crate::overlay::chord::{Ring, RingSettings};
use crate::overlay::conditions::{Conditions, micros};
use crate::overlay::kademlia::{Network, NetworkSettings};

fn conditions() -> Conditions {
    Conditions { timeout_us: micros(1000.0), ..Conditions::default() }
}

fn ring(nodes: usize) -> Ring {
    Ring::new(RingSettings { nodes, conditions: conditions(), seed: 2, ..RingSettings::default() }).unwrap()
}

fn network(nodes: usize) -> Network {
    Network::new(NetworkSettings { nodes, conditions: conditions(), seed: 2, ..NetworkSettings::default() }).unwrap()
}

fn churn(mean_s: f64, refresh_s: f64, stabilize_s: f64) -> Churn {
    Churn {
        sessions: Sessions::exponential(mean_s).unwrap(),
        join_rate: None,
        leave_rate: 0.0,
        duration_s: 1200.0,
        refresh_s,
        stabilize_s,
    }
}

fn run(churn: &Churn, overlay: &mut dyn Simulated) -> ChurnReport {
    let workload = Workload { lookups: 1200, seed: 5, ..Workload::default() };
    churn.run(overlay, &workload, &|_| {}).unwrap()
}

fn dead_met(report: &ChurnReport) -> f64 {
    report.lookups.distribution(|row| f64::from(row.dead_met)).mean
}

#[test]
fn a_population_stays_as_large_as_it_is_and_turns_over_as_fast_as_sessions_are_short() {
    for overlay in [&mut ring(400) as &mut dyn Simulated, &mut network(400)] {
        let report = run(&churn(600.0, 300.0, 10.0), overlay);
        assert_eq!((report.living, report.joined), (400, report.gone));
        // 400 nodes with a mean of 600 s, in 1200 s: 800, give or take.
        assert!((700..900).contains(&report.gone), "{}", report.gone);
        assert_eq!(report.lookups.rows.len(), 1200);
        assert_eq!(report.windows.len(), WINDOWS);
        assert_eq!(report.windows.iter().map(|window| window.lookups).sum::<usize>(), 1200);
    }
}

#[test]
fn more_maintenance_means_fewer_dead_entries_and_more_that_is_found() {
    let (lax, busy) = (churn(300.0, 1200.0, 300.0), churn(300.0, 60.0, 5.0));
    let (rare, often) = (run(&lax, &mut ring(300)), run(&busy, &mut ring(300)));
    assert!(dead_met(&rare) > 2.0 * dead_met(&often), "chord: {} {}", dead_met(&rare), dead_met(&often));
    assert!(rare.lookups.recall() < often.lookups.recall() - 0.1);
    assert!(often.lookups.recall() > 0.9, "{}", often.lookups.recall());
    let (rare, often) = (run(&lax, &mut network(300)), run(&busy, &mut network(300)));
    assert!(dead_met(&rare) > 2.0 * dead_met(&often), "kademlia: {} {}", dead_met(&rare), dead_met(&often));
    assert!(rare.lookups.recall() < often.lookups.recall());
    assert!(often.lookups.recall() > 0.85, "{}", often.lookups.recall());
    for row in often.lookups.rows.iter().filter(|row| row.dead_met > 0) {
        assert!(row.delay_ms >= 1000.0 * f64::from(row.dead_met), "with alpha 1 each dead node takes a time-out");
    }
}

#[test]
fn without_churn_everything_is_found() {
    let still = Churn { sessions: Sessions::Measured(vec![1e9]), ..churn(1.0, 100.0, 100.0) };
    for overlay in [&mut ring(200) as &mut dyn Simulated, &mut network(200)] {
        let report = run(&still, overlay);
        assert_eq!((report.gone, report.lookups.recall(), report.lookups.connections.not_found), (0, 1.0, 0));
    }
}

#[test]
fn rates_make_a_population_grow_or_shrink() {
    let still = Sessions::Measured(vec![1e9]);
    let growing = Churn { sessions: still.clone(), join_rate: Some(0.5), ..churn(1.0, 100.0, 10.0) };
    let report = run(&growing, &mut network(100));
    assert_eq!(report.gone, 0);
    assert!((520..680).contains(&report.joined), "{}: half a node a second", report.joined);
    assert_eq!(report.living, 100 + report.joined);
    let shrinking = Churn { leave_rate: 0.5, join_rate: Some(1e-9), ..growing };
    let report = run(&shrinking, &mut ring(100));
    assert_eq!((report.living, report.gone), (1, 99), "the last one stays");
}

#[test]
fn a_trace_is_followed_to_the_letter() {
    let mut rows: Vec<(f64, f64)> = (0..50).map(|i| (0.0, if i < 20 { 600.0 } else { 1e9 })).collect();
    rows.extend((0..30).map(|i| (100.0 + f64::from(i), 900.0)));
    rows.push((1199.0, 5000.0));
    let sessions = Sessions::Replayed(rows);
    assert_eq!(sessions.nodes_at_start(), Some(50));
    let report = run(&Churn { sessions, ..churn(1.0, 60.0, 10.0) }, &mut network(50));
    assert_eq!((report.joined, report.gone, report.living), (31, 50, 31));
    let living = |at: f64| report.windows.iter().find(|window| window.until_s >= at).unwrap().living;
    assert_eq!((living(50.0), living(300.0), living(700.0), living(1000.0)), (50, 80, 60, 30));
}

#[test]
fn the_same_seed_gives_the_same_churn() {
    let one = run(&churn(200.0, 100.0, 10.0), &mut ring(150));
    assert!(one == run(&churn(200.0, 100.0, 10.0), &mut ring(150)));
    assert!(one.gone > 500);
}

#[test]
fn nonsense_is_refused() {
    let workload = Workload { lookups: 1, ..Workload::default() };
    let good = churn(1.0, 1.0, 1.0);
    let nonsense = [
        Churn { duration_s: 0.0, ..good.clone() },
        Churn { refresh_s: -1.0, ..good.clone() },
        Churn { stabilize_s: f64::NAN, ..good.clone() },
        Churn { join_rate: Some(0.0), ..good.clone() },
        Churn { leave_rate: f64::INFINITY, ..good.clone() },
    ];
    for churn in nonsense {
        assert!(churn.run(&mut ring(3), &workload, &|_| {}).is_err(), "{churn:?}");
    }
}
