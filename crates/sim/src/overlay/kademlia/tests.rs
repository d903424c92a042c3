//! A whole network against what is computed by looking at all pairs.

use super::*;
use crate::overlay::{ANSWER_BYTES, Conditions, DelayRange, Hash, NodeId};

fn network(nodes: usize, k: usize, seed: u64) -> Network {
    let kademlia = Settings { k, beta: k, ..Settings::default() };
    Network::new(NetworkSettings { nodes, kademlia, seed, ..NetworkSettings::default() }).unwrap()
}

/// The table of a node by looking at all others: buckets as sorted lists, up to the last that has a node.
fn naive_table(network: &Network, node: NodeId, k: usize) -> Vec<Vec<NodeId>> {
    let members = network.members();
    let me = members.hash(node);
    let mut buckets: Vec<Vec<NodeId>> = Vec::new();
    for other in members.in_order().iter().copied().filter(|other| *other != node) {
        let at = me.shared_prefix(&members.hash(other)) as usize;
        buckets.resize(buckets.len().max(at + 1), Vec::new());
        buckets[at].push(other);
    }
    for bucket in &mut buckets {
        bucket.sort_by_key(|other| me.xor_distance(&members.hash(*other)));
        bucket.truncate(k);
        bucket.sort();
    }
    buckets
}

fn buckets(table: &RoutingTable) -> Vec<Vec<NodeId>> {
    let sorted = |i| {
        let mut bucket = table.entries_of(i).to_vec();
        bucket.sort();
        bucket
    };
    (0..table.buckets()).map(sorted).collect()
}

#[test]
fn tables_are_those_of_comparing_all_pairs() {
    for (nodes, k, seed) in [
        (1, 20, 1),
        (2, 20, 2),
        (3, 1, 3),
        (40, 3, 4),
        (500, 20, 5),
        (500, 1, 6),
        (2000, 20, 7),
        (2000, 20, 8),
        (1999, 7, 9),
    ] {
        let network = network(nodes, k, seed);
        for node in 0..nodes as NodeId {
            let table = network.table(node).unwrap();
            assert_eq!(buckets(table), naive_table(&network, node, k), "seed {seed}: node {node} of {nodes}");
        }
    }
}

#[test]
fn nodes_that_come_one_by_one_make_the_same_network_as_all_at_once() {
    for seed in 0..4 {
        let mut grown = network(20, 5, seed);
        for _ in 20..400 {
            grown.add_node();
        }
        let whole = network(400, 5, seed);
        let by_hash = |network: &Network| {
            let hash = |node: NodeId| network.members().hash(node);
            let table = |node: &NodeId| {
                let table = network.table(*node).unwrap();
                let sorted = |i| {
                    let mut hashes: Vec<Hash> = table.entries_of(i).iter().copied().map(hash).collect();
                    hashes.sort();
                    hashes
                };
                (hash(*node), (0..table.buckets()).map(sorted).collect::<Vec<_>>())
            };
            network.members().in_order().iter().map(table).collect::<Vec<_>>()
        };
        assert!(by_hash(&grown) == by_hash(&whole), "seed {seed}");
    }
}

#[test]
fn a_table_filled_in_any_order_is_the_best_there_is() {
    let mut network = network(300, 4, 8);
    let best = network.table(7).unwrap().clone();
    let settings = *network.settings();
    let mut empty = Network::without_tables(settings).unwrap();
    for step in 0..300 {
        empty.client(7).unwrap().discover((step * 7 + 3) % 300);
    }
    assert_eq!(buckets(empty.table(7).unwrap()), buckets(&best));
    assert_eq!(empty.client(9).unwrap().bootstrap(), network.client(9).unwrap().table());
    assert_eq!(buckets(&empty.best_table(11).unwrap()), buckets(network.table(11).unwrap()));
}

#[test]
fn the_closest_to_a_hash_are_those_of_sorting_all() {
    for seed in 0..3 {
        let network = network(1500, 8, seed);
        let members = network.members();
        for i in 0..100u64 {
            let target = Hash::of(i.to_be_bytes());
            let mut expected: Vec<NodeId> = (0..1500).collect();
            expected.sort_by_key(|node| members.hash(*node).xor_distance(&target));
            assert_eq!(network.closest_nodes(&target, 25), expected[..25]);
        }
    }
}

#[test]
fn lookups_find_the_true_closest_also_when_half_of_the_connections_fail() {
    for (fast_error, slow_error, alpha) in [(0.0, 0.0, 1), (0.0, 0.0, 3), (50.0, 0.0, 1), (0.0, 50.0, 3)] {
        let conditions = Conditions {
            fast_error,
            slow_error,
            connect_delay: DelayRange::of_ms(10.0, 100.0).unwrap(),
            ..Conditions::default()
        };
        let kademlia = Settings { alpha, ..Settings::default() };
        let settings = NetworkSettings { nodes: 3000, kademlia, conditions, seed: 4, ..NetworkSettings::default() };
        let mut network = Network::new(settings).unwrap();
        for i in 0..300 {
            let key = Hash::of(format!("key {i}"));
            let summary = network.client(i * 7).unwrap().lookup(&key, false);
            assert_eq!(summary.closest, network.closest_nodes(&key, 20), "lookup {i}");
            assert_eq!(summary.accuracy, 1.0);
        }
        // Of all that were begun: those that a lookup ends without waiting for are more often the slow ones.
        let metrics = network.metrics();
        let share = 100.0 * metrics.failures() as f64 / metrics.attempts as f64;
        assert!((share - fast_error - slow_error).abs() < 4.0, "{share}% of the connections failed");
    }
}

#[test]
fn accuracy_is_a_share_and_not_all_or_nothing() {
    // Tables of one entry per bucket lead to the closest node, and rarely to all twenty.
    let kademlia = Settings { k: 1, beta: 20, steps_to_stop: 1, alpha: 1 };
    let settings = NetworkSettings { nodes: 500, kademlia, ..NetworkSettings::default() };
    let mut network = Network::new(settings).unwrap();
    let accuracies: Vec<f64> =
        (0..50).map(|i| network.client(i).unwrap().lookup(&Hash::of(i.to_be_bytes()), false).accuracy).collect();
    assert!(accuracies.iter().any(|accuracy| *accuracy > 0.0 && *accuracy < 1.0), "{accuracies:?}");
}

#[test]
fn segments_are_provided_found_and_retrieved() {
    let mut network = network(1000, 20, 3);
    let provided = network.client(5).unwrap().provide_block_segment(b"row 3, column 9");
    assert_eq!(provided.stored_at, network.closest_nodes(&provided.key, 20));
    assert!(provided.failed_at.is_empty());
    let found = network.client(800).unwrap().lookup(&provided.key, true);
    assert_eq!(found.value.as_deref(), Some(&b"row 3, column 9"[..]));
    let whole = network.client(800).unwrap().lookup(&provided.key, false);
    assert!(found.attempts < whole.attempts, "the first value ends a lookup: {} {}", found.attempts, whole.attempts);
    let missing = network.client(800).unwrap().lookup(&Hash::of("never stored"), true);
    assert_eq!(missing.value, None);

    let holder = provided.stored_at[0];
    assert_eq!(network.client(holder).unwrap().retrieve_segment(&provided.key).unwrap(), b"row 3, column 9");
    let absent = NotStored { node: 800, key: Hash::of("never stored") };
    assert_eq!(network.client(800).unwrap().retrieve_segment(&absent.key), Err(absent));
    let connection = network.connect(800, holder).unwrap();
    assert_eq!(connection.retrieve(&mut network, &absent.key).outcome, None);
    let answer = connection.closest_nodes(&mut network, &provided.key);
    assert_eq!(answer.value.as_deref(), Some(&b"row 3, column 9"[..]));
    assert_eq!(answer.closest.len(), 20);
    let bytes = network.metrics().bytes;
    let key = connection.store(&mut network, b"by hand").outcome;
    assert_eq!(connection.retrieve(&mut network, &key).outcome.as_deref(), Some(&b"by hand"[..]));
    let moved = network.metrics().bytes - bytes;
    assert_eq!(moved, 2 * (ANSWER_BYTES + 7), "the segment there and back, and an answer to either");
}

#[test]
fn delays_add_up_and_gamma_grows_until_it_is_reset() {
    let conditions = Conditions {
        connect_delay: DelayRange::of_ms(10.0, 10.0).unwrap(),
        gamma_us: 500,
        timeout_us: 77_000,
        ..Conditions::default()
    };
    let settings = NetworkSettings { nodes: 50, conditions, ..NetworkSettings::default() };
    let mut network = Network::new(settings).unwrap();
    for contact in 1..=3 {
        let summary = network.connect(1, 2).unwrap().summary();
        assert_eq!((summary.origin_overhead_us, summary.remote_overhead_us), (contact * 500, contact * 500));
        assert_eq!(summary.total_delay_us(), 10_000 + contact * 1000);
    }
    network.remove_node(2);
    let error = network.connect(3, 2).unwrap_err();
    assert_eq!(error.kind, crate::overlay::ErrorKind::NotFound);
    assert_eq!(error.summary.total_delay_us(), 77_000 + 500 + 4 * 500);
    assert!(network.connect(3, 4_000_000).is_err(), "nor is one that has never been there");
    let metrics = network.metrics();
    assert_eq!((metrics.attempts, metrics.successes, metrics.not_found), (5, 3, 2));
    assert_eq!(network.connections().len(), 5);
    network.reset_metrics();
    assert_eq!(network.summary().to_string(), "49 nodes; 0 connections tried, 0 made, 0 failed");
    assert_eq!(network.connect(1, 3).unwrap().summary().total_delay_us(), 11_000);
}

#[test]
fn questions_under_way_at_once_take_less_time_and_more_questions() {
    let lookup = |alpha| {
        let conditions = Conditions { connect_delay: DelayRange::of_ms(50.0, 50.0).unwrap(), ..Conditions::default() };
        let kademlia = Settings { alpha, ..Settings::default() };
        let settings = NetworkSettings { nodes: 5000, kademlia, conditions, ..NetworkSettings::default() };
        let mut network = Network::new(settings).unwrap();
        let all: Vec<LookupSummary> =
            (0..100).map(|i| network.client(i).unwrap().lookup(&Hash::of(i.to_be_bytes()), false)).collect();
        let asked: u32 = all.iter().map(|lookup| lookup.attempts).sum();
        let delay: u64 = all.iter().map(|lookup| lookup.delay_us).sum();
        if alpha == 1 {
            assert!(all.iter().all(|it| it.delay_us == u64::from(it.attempts) * 100_000), "one after the other");
        } else {
            assert!(all.iter().all(|it| it.delay_us < u64::from(it.attempts) * 100_000));
        }
        (asked, delay)
    };
    let (one, three) = (lookup(1), lookup(3));
    assert!(three.0 > one.0 && three.1 < one.1, "{one:?} {three:?}");
}

#[test]
fn nonsense_is_refused_before_anything_is_built() {
    let refused = |change: &dyn Fn(&mut NetworkSettings)| {
        let mut settings = NetworkSettings { nodes: 10, ..NetworkSettings::default() };
        change(&mut settings);
        Network::new(settings).err().expect("it is refused").to_string()
    };
    assert_eq!(refused(&|it| it.nodes = 0), "the number of nodes must be at least 1");
    assert_eq!(refused(&|it| it.kademlia.k = 0), "k must be at least 1");
    assert_eq!(refused(&|it| it.kademlia.alpha = 21), "alpha (21) must not exceed k (20)");
    assert_eq!(refused(&|it| it.kademlia.beta = 0), "beta must be at least 1");
    assert_eq!(refused(&|it| it.kademlia.steps_to_stop = 0), "steps-to-stop must be at least 1");
    assert!(refused(&|it| it.conditions.fast_error = 101.0).contains("from 0 to 100, not 101"));
    assert!(refused(&|it| it.nodes = usize::MAX).contains("at most 2147483648"));
}
