//! Rings against what the papers say and what is computed by looking at all nodes.

use chordal_protocol::Mode;

use super::*;
use crate::overlay::{DelayRange, Distribution, Hash, NodeId, Simulated, Workload, WorkloadReport, micros, on_threads};

fn ring(nodes: usize, successors: usize, mode: Mode, seed: u64) -> Ring {
    Ring::new(RingSettings { nodes, successors, mode, seed, ..RingSettings::default() }).unwrap()
}

fn run(ring: &Ring, lookups: usize, initiators: usize) -> WorkloadReport {
    Workload { lookups, initiators, seed: 11, ..Workload::default() }.run(ring, &|_| {})
}

#[test]
fn links_are_those_of_looking_at_all_nodes() {
    for (nodes, seed) in [(1, 1), (2, 2), (9, 3), (300, 4), (2000, 5)] {
        let ring = ring(nodes, 8, Mode::Fingers, seed);
        let members = ring.members();
        let all = members.in_order();
        for node in all.iter().copied().step_by(1 + nodes / 200) {
            let me = members.hash(node);
            let first_after =
                |point: Hash| *all.iter().min_by_key(|other| point.clockwise_distance(&members.hash(**other))).unwrap();
            let mut fingers: Vec<NodeId> = (0..256).map(|i| first_after(me.plus_power_of_two(i))).collect();
            fingers.dedup();
            fingers.retain(|finger| *finger != node);
            assert_eq!(ring.links(node).fingers(), fingers, "seed {seed}: fingers of {node} of {nodes}");
            let mut others: Vec<NodeId> = all.iter().copied().filter(|other| *other != node).collect();
            others.sort_by_key(|other| me.clockwise_distance(&members.hash(*other)));
            others.truncate(8);
            assert_eq!(ring.links(node).successors(), others, "seed {seed}: successors of {node} of {nodes}");
        }
    }
}

#[test]
fn every_mode_finds_the_owner() {
    for mode in [Mode::Linear, Mode::Fingers, Mode::Cached] {
        for (nodes, virtual_nodes) in [(1, 1), (2, 1), (300, 1), (60, 5)] {
            let settings = RingSettings { nodes, virtual_nodes, mode, seed: 6, ..RingSettings::default() };
            let ring = Ring::new(settings).unwrap();
            let report = run(&ring, 500, 5);
            assert_eq!((report.failures(), report.recall()), (0, 1.0), "{mode} {nodes}x{virtual_nodes}");
        }
    }
}

/// Stoica et al. 2003, section VI-D: a path has ½ log2 N nodes on average, and its length is that of a random walk of log2 N
/// bits, each to be mended with probability one half: variance ¼ log2 N. The lowest bits count for less, since the nodes are
/// not spread evenly: a constant that doesn't grow with N.
#[test]
fn the_mean_path_is_half_of_log2_n_and_its_variance_a_quarter() {
    let mut variances = Vec::new();
    for (nodes, expected) in [(256, 3.89), (1024, 4.86), (4096, 5.87), (16_384, 6.88)] {
        let ring = ring(nodes, 1, Mode::Fingers, 3);
        let hops = run(&ring, 10_000, 0).hops();
        let log2 = (nodes as f64).log2();
        assert!((hops.mean - expected).abs() < 0.05, "{nodes}: mean {}", hops.mean);
        assert!((hops.mean - log2 / 2.0).abs() < 0.25, "{nodes}: mean {}", hops.mean);
        assert!((hops.variance - log2 / 4.0).abs() < 0.35, "{nodes}: variance {}", hops.variance);
        variances.push(hops.variance);
    }
    let growth = (variances[3] - variances[0]) / 6.0;
    assert!((growth - 0.25).abs() < 0.03, "each doubling adds {growth} to the variance");
}

#[test]
fn linear_lookups_pass_half_of_the_ring_and_long_successor_lists_shorten_the_way() {
    let linear = run(&ring(200, 1, Mode::Linear, 2), 4000, 0).hops().mean;
    assert!((95.0..105.0).contains(&linear), "{linear}");
    let mean = |successors| run(&ring(1024, successors, Mode::Fingers, 2), 4000, 0).hops().mean;
    let (one, eight) = (mean(1), mean(8));
    assert!(eight < one - 0.3, "{eight} {one}");
}

#[test]
fn lookups_fail_for_the_lost_keys_only() {
    for percent in [10.0, 30.0] {
        let mut ring = ring(1000, 8, Mode::Fingers, 3);
        let before = ring.clone();
        assert_eq!(ring.kill(percent, 5), (10.0 * percent) as usize);
        let report = run(&ring, 2000, 0);
        let failed = 100.0 * report.failures() as f64 / 2000.0;
        assert!((failed - percent).abs() < 4.0, "{percent}% died, {failed}% failed");
        assert!(report.connections.not_found > 0, "the dead were met");
        let workload = Workload { lookups: 2000, seed: 11, ..Workload::default() };
        let is_lost = |i| !ring.members().is_alive(before.owner(&workload.key(i)).unwrap());
        let others = report.rows.iter().filter(|row| !row.found && !is_lost(row.lookup)).count();
        assert!(others <= 5, "{others} failed though their owner lives: all ways that were named to them were dead");
        assert!(report.rows.iter().all(|row| !(row.found && is_lost(row.lookup))), "lost is lost");
    }
}

#[test]
fn a_cache_in_which_a_share_of_the_ring_is_known_shortens_the_way_to_the_rest() {
    let ring = ring(4096, 1, Mode::Cached, 4);
    let report = run(&ring, 6000, 1);
    let mean = |rows: &[crate::overlay::LookupRow]| Distribution::of(rows.iter().map(|row| f64::from(row.hops))).mean;
    let (cold, warm) = (mean(&report.rows[..20]), mean(&report.rows[5000..]));
    // 5,000 lookups of one node have shown it about 1 - e^(-5000/4096), seven tenths, of the owners.
    assert!(cold > 4.0 && warm < 2.5, "cold {cold}, warm {warm}");
    assert_eq!(report.recall(), 1.0);
}

#[test]
fn a_stale_cache_is_gone_round() {
    let mut ring = ring(500, 8, Mode::Cached, 9);
    ring.kill(20.0, 1);
    let report = run(&ring, 3000, 2);
    let failed = report.failures() as f64 / 3000.0;
    assert!((0.14..0.26).contains(&failed), "{failed}");
}

#[test]
fn virtual_nodes_even_out_the_load() {
    let greatest = |virtual_nodes| {
        let settings = RingSettings { nodes: 10_000, virtual_nodes, seed: 1, ..RingSettings::default() };
        let shares = Ring::new(settings).unwrap().shares();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        shares.into_iter().fold(0.0, f64::max) * 10_000.0
    };
    let (one, twenty) = (greatest(1), greatest(20));
    assert!((7.0..16.0).contains(&one), "{one}");
    assert!((1.5..2.4).contains(&twenty), "{twenty}");
}

#[test]
fn errors_are_tried_again_as_often_as_asked() {
    let failed = |tries| {
        let conditions = Conditions {
            fast_error: 40.0,
            fast_delay: DelayRange::of_ms(1.0, 1.0).unwrap(),
            connect_delay: DelayRange::of_ms(5.0, 5.0).unwrap(),
            timeout_us: micros(100.0),
            ..Conditions::default()
        };
        let settings = RingSettings { nodes: 1000, tries, conditions, ..RingSettings::default() };
        let ring = Ring::new(settings).unwrap();
        let report = run(&ring, 3000, 0);
        for row in &report.rows {
            let expected = f64::from(row.hops) * 10.0 + f64::from(row.failed);
            assert!((row.delay_ms - expected).abs() < 1e-9, "connecting and asking take 5 ms each, an error 1");
        }
        let share = 100.0 * report.connections.failures() as f64 / report.connections.attempts as f64;
        assert!((share - 40.0).abs() < 2.0, "{share}");
        report.failures() as f64 / 3000.0
    };
    let (once, thrice) = (failed(1), failed(3));
    assert!((once - 0.4).abs() < 0.04, "the owner is asked once: {once}");
    assert!((thrice - 0.064).abs() < 0.03, "and here three times: {thrice}");
}

#[test]
fn the_same_on_any_number_of_threads() {
    let result = |threads: usize| {
        on_threads(threads, || {
            let ring = ring(3000, 4, Mode::Cached, 8);
            let links: Vec<Links> = (0..3000).map(|node| ring.links(node).clone()).collect();
            (links, run(&ring, 4000, 50))
        })
    };
    let one = result(1);
    assert!(one == result(2) && one == result(5));
}

#[test]
fn nonsense_is_refused() {
    let refused = |change: &dyn Fn(&mut RingSettings)| {
        let mut settings = RingSettings { nodes: 10, ..RingSettings::default() };
        change(&mut settings);
        Ring::new(settings).expect_err("it is refused").to_string()
    };
    assert_eq!(refused(&|it| it.nodes = 0), "the number of nodes must be at least 1");
    assert_eq!(refused(&|it| it.successors = 0), "the number of successors must be at least 1");
    assert_eq!(refused(&|it| it.tries = 0), "the number of tries must be at least 1");
    assert!(refused(&|it| it.virtual_nodes = 1 << 30).contains("at most"));
    assert!(refused(&|it| (it.nodes, it.virtual_nodes) = (1 << 30, 1 << 10)).contains("at most"));
    assert!(refused(&|it| it.conditions.slow_error = -1.0).contains("from 0 to 100"));
}
