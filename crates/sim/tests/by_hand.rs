//! Rings to which things happen that are written down: what a seed would seldom do.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use chordal_sim::protocol::{Entry, Outcome, Scenario};
use serde_json::{Value, json};

/// A ring of these nodes, a hexadecimal digit each, that join one after the other within its first seconds.
fn ring(digits: &str, seconds: f64, factor: Option<usize>, then: &[Value]) -> Scenario {
    let name = |digit: char| format!("n{digit}");
    let nodes: BTreeMap<String, String> = digits.chars().map(|digit| (name(digit), digit.to_string())).collect();
    let first = name(digits.chars().next().unwrap());
    let mut events = vec![json!({"at": 0.0, "create": first})];
    for (i, digit) in digits.chars().enumerate().skip(1) {
        events.push(json!({"at": i as f64 * 0.4, "join": {"node": name(digit), "through": first}}));
    }
    events.extend_from_slice(then);
    let scenario = json!({
        "title": "", "text": "", "successors": 8, "delay": 5, "seconds": seconds,
        "replication_factor": factor, "nodes": nodes, "event": events,
    });
    serde_json::from_value(scenario).unwrap()
}

fn play(scenario: &Scenario) -> (Outcome, Vec<String>) {
    let mut lines = Vec::new();
    let outcome = scenario.play(None, Some(&mut |entry: &Entry| lines.push(entry.to_string()))).unwrap();
    (outcome, lines)
}

/// Nothing was violated, the ring is ideal in the end, and what was put is there.
fn must_be_whole(scenario: &Scenario) -> (Outcome, Vec<String>) {
    let (outcome, lines) = play(scenario);
    assert_eq!(outcome.violation, None, "{}", lines.join("\n"));
    assert!(outcome.rounds_to_ready.is_some());
    (outcome, lines)
}

fn put(at: f64, key: &str, through: &str) -> Value {
    json!({"at": at, "put": {"key": key, "value": format!("value of {key}"), "through": through}})
}

fn wire(at: f64, node: char, side: &str, to: char) -> Value {
    json!({"at": at, "wire": {"node": format!("n{node}"), "side": side, "to": format!("n{to}")}})
}

#[test]
fn a_ring_heals_after_it_was_wired_by_hand() {
    let wires =
        [wire(8.0, '1', "successor", '9'), wire(8.0, '5', "predecessor", 'd'), wire(8.0, '9', "successor", '3')];
    let then = [&[put(7.0, "a", "n1"), put(7.0, "b", "n9")][..], &wires].concat();
    let (_, lines) = must_be_whole(&ring("13579bdf", 10.0, Some(3), &then));
    assert!(lines.iter().any(|line| line.contains("n1: successors") && line.contains("=> n9")), "it was wired");
}

#[test]
fn two_halves_that_were_wired_into_rings_of_their_own_find_each_other() {
    let mut then = vec![put(7.0, "a", "n1"), put(7.0, "b", "n9")];
    for half in ["159d", "37bf"] {
        let digits: Vec<char> = half.chars().collect();
        for (i, digit) in digits.iter().enumerate() {
            let next = digits[(i + 1) % digits.len()];
            then.push(wire(8.0, *digit, "successor", next));
            then.push(wire(8.0, next, "predecessor", *digit));
        }
    }
    must_be_whole(&ring("13579bdf", 10.0, Some(3), &then));
}

#[test]
fn a_lone_survivor_is_isolated_and_comes_back_when_the_other_does() {
    let then = [put(5.0, "a", "n1"), json!({"at": 6.0, "crash": "n9"}), json!({"at": 12.0, "restart": "n9"})];
    let (_, lines) = must_be_whole(&ring("19", 16.0, Some(2), &then));
    assert!(lines.iter().any(|line| line.contains("n1 is isolated")), "{}", lines.join("\n"));
}

#[test]
fn a_ring_that_was_stopped_whole_comes_back_with_everything() {
    for digits in ["1", "19", "159d", "13579bdf"] {
        let mut then = vec![put(8.0, "a", "n1"), put(8.0, "b", "n1"), put(8.0, "c", "n1")];
        for digit in digits.chars() {
            then.push(json!({"at": 10.0, "crash": format!("n{digit}")}));
            then.push(json!({"at": 11.0, "restart": format!("n{digit}")}));
        }
        let (outcome, _) = must_be_whole(&ring(digits, 12.0, Some(3), &then));
        assert_eq!((outcome.content.operations, outcome.content.unknown), (3, 0), "{digits}");
    }
}

#[test]
fn a_ring_shrinks_to_one_node_with_everything() {
    let mut then = vec![put(6.0, "a", "n1"), put(6.0, "b", "n1"), put(6.0, "c", "n1")];
    for (i, digit) in "59d3".chars().enumerate() {
        then.push(json!({"at": 7.0 + 3.0 * i as f64, "leave": format!("n{digit}")}));
    }
    let (_, lines) = must_be_whole(&ring("1359d", 25.0, Some(3), &then));
    assert_eq!(lines.iter().filter(|line| line.contains("has left")).count(), 4, "{}", lines.join("\n"));
}

#[test]
fn a_write_outlives_its_primary() {
    // The key lies in the range of n9, whose members are n9, n5 and n1.
    let then = [
        json!({"at": 9.0, "put": {"key": "moon", "value": "full", "through": "nd"}}),
        json!({"at": 9.0, "crash_primary_in_write": "moon"}),
        json!({"at": 16.0, "get": {"key": "moon", "through": "n1"}}),
    ];
    let (outcome, lines) = must_be_whole(&ring("159d", 20.0, Some(3), &then));
    assert_eq!(outcome.content.unknown, 0);
    let wanted = [
        "keeps version",
        "n9 crashes",
        "does not hear the primary",
        "prepare",
        "promises",
        "stage",
        "votes for",
        "has installed",
        "the client is told: done",
        "the client is told: full",
    ];
    assert!(lines.iter().any(|line| line.contains("asks again, with the same request id")), "{}", lines.join("\n"));
    let mut rest = &lines[lines.iter().position(|line| line.contains("put moon")).unwrap()..];
    for word in wanted {
        let at = rest.iter().position(|line| line.contains(word));
        let at = at.unwrap_or_else(|| panic!("no `{word}` where it should be in\n{}", lines.join("\n")));
        rest = &rest[at..];
    }
    // The version that the dead primary gave is the one that the client is told.
    let version = |word: &str| {
        let line = lines.iter().find_map(|line| line.split(word).nth(1)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(version("keeps version "), version("told: done, version "));
}

#[test]
fn what_needs_content_is_refused_without_it() {
    let scenario = ring("19", 9.0, None, &[put(5.0, "a", "n1")]);
    assert!(scenario.check().unwrap_err().to_string().contains("give the scenario a `replication_factor`"));
}
