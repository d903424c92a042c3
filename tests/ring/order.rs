//! The ring's order, and who owns what, against a computation that knows nothing but the addresses.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;

use crate::common::{Lab, addr_of, fields, get, get_json, sha256};
use serde_json::Value;

/// How many successors a node keeps (the daemon's default).
const LIST: usize = 8;

const MODES: [&str; 3] = ["linear", "fingers", "cached"];

/// The addresses met when one walks all round by a pointer, and back.
fn round(from: &str, route: &str, at_most: usize) -> Vec<String> {
    let mut met = vec![from.to_owned()];
    loop {
        let next = addr_of(&get_json(met.last().unwrap(), route));
        if next == from {
            return met;
        }
        met.push(next);
        assert!(met.len() <= at_most, "{route} does not lead back to {from}: {met:?}");
    }
}

#[test]
fn many_nodes_stand_in_the_order_of_their_ids() {
    let lab = Lab::with_nodes(2);
    let added = lab.json(&["addmany", "10"]);
    assert_eq!(added["nodes"].as_array().unwrap().len(), 10);
    let names: BTreeSet<String> = lab.nodes().iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, (1..=12).map(|number| format!("node-{number}")).collect());
    lab.heals();

    let model = lab.model();
    assert_eq!(model.len(), 12);
    let sorted: Vec<String> = model.nodes.iter().map(|(_, addr)| addr.clone()).collect();
    assert_eq!(round(&sorted[0], "/succ", 12), sorted);
    let mut backwards = sorted.clone();
    backwards[1..].reverse();
    assert_eq!(round(&sorted[0], "/pred", 12), backwards);
    for (id, addr) in &model.nodes {
        let info = get_json(addr, "/nodeinfo");
        assert_eq!(info["id"], **id, "an id is the SHA-256 of host:port");
        assert_eq!(addr_of(&info["succ"]), model.after(addr, 1));
        assert_eq!(addr_of(&info["pred"]), model.before(addr));
        let list: Vec<String> = info["successors"].as_array().unwrap().iter().map(addr_of).collect();
        let expected: Vec<&str> = (1..=LIST).map(|places| model.after(addr, places)).collect();
        assert_eq!(list, expected, "the successor list of {addr}");
        assert_eq!(info["range"]["lo"], **id);
        assert_eq!(info["range"]["hi"], info["succ"]["id"]);
        assert_eq!((&info["membership"], &info["ready"]), (&"joined".into(), &true.into()));
    }
    let shares: f64 = sorted.iter().map(|addr| get_json(addr, "/nodeinfo")["range"]["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "the ranges make up the circle: {shares}");

    let doctor = lab.json(&["doctor"]);
    assert_eq!((&doctor["ok"], &doctor["nodes"]), (&true.into(), &12.into()));
    let checks = doctor["checks"].as_array().unwrap();
    assert!(checks.len() >= 7 && checks.iter().all(|check| check["ok"] == true), "{doctor}");
    assert_eq!((&doctor["absent"], &doctor["silent"]), (&Value::Array(vec![]), &Value::Array(vec![])));
}

#[test]
fn every_node_finds_the_same_owner_in_every_mode() {
    let lab = Lab::with_nodes(12);
    let model = lab.model();
    let mut hops = [0, 0, 0];
    // Keys, the ids of the nodes themselves (each owns its own), the ids just before them, and the ends of the circle.
    let mut ids: Vec<String> = (0..24).map(|number| sha256(format!("key {number}"))).collect();
    ids.extend(model.nodes.iter().step_by(3).map(|(id, _)| id.clone()));
    ids.extend(model.nodes.iter().step_by(3).map(|(id, _)| one_before(id)));
    ids.extend(["0".repeat(64), "f".repeat(64)]);
    for from in [&model.nodes[0].1, &model.nodes[5].1, &model.nodes[11].1] {
        for id in &ids {
            let owner = model.owner(id);
            for (mode, total) in MODES.iter().zip(&mut hops) {
                let found = get_json(from, &format!("/find/{id}?mode={mode}"));
                assert_eq!(fields(&found), ["hops", "id", "mode", "owner", "trace"]);
                assert_eq!(addr_of(&found["owner"]), owner, "{id} from {from}, {mode}");
                assert_eq!((&found["id"], &found["mode"]), (&Value::from(id.as_str()), &Value::from(*mode)));
                let trace = found["trace"].as_array().unwrap();
                assert_eq!(found["hops"], trace.len());
                for hop in trace {
                    assert_eq!(fields(hop), ["ms", "node", "why"]);
                    assert_eq!(fields(&hop["node"]), ["host", "id", "name", "port"]);
                    assert_eq!(hop["node"]["id"], sha256(addr_of(&hop["node"])));
                    assert!(hop["ms"].as_f64().unwrap() >= 0.0 && !hop["why"].as_str().unwrap().is_empty(), "{hop}");
                }
                let last = trace.last().map_or(from.clone(), |hop| addr_of(&hop["node"]));
                assert_eq!(last, owner, "the last one asked is the owner: {found}");
                let away = (model.position(owner) + model.len() - model.position(from)) % model.len();
                if *mode == "linear" {
                    let way: Vec<String> = trace.iter().map(|hop| addr_of(&hop["node"])).collect();
                    let expected: Vec<&str> = (1..=away).map(|places| model.after(from, places)).collect();
                    assert_eq!(way, expected, "successor by successor");
                } else {
                    assert!(trace.len() <= away, "never a longer way than the linear one: {found}");
                }
                *total += trace.len();
            }
        }
    }
    let [linear, fingers, cached] = hops;
    assert!(fingers * 2 < linear, "{hops:?} hops linear, by fingers, cached");
    assert!(cached <= fingers, "{hops:?} hops linear, by fingers, cached");
}

/// The id before another one.
fn one_before(id: &str) -> String {
    let mut bytes = hex::decode(id).unwrap();
    for byte in bytes.iter_mut().rev() {
        let borrowed;
        (*byte, borrowed) = byte.overflowing_sub(1);
        if !borrowed {
            break;
        }
    }
    hex::encode(bytes)
}

#[test]
fn a_key_is_found_by_the_hash_of_its_text() {
    let lab = Lab::with_nodes(3);
    let model = lab.model();
    for key in ["k", "a/b c+d%?&=", "Grüße", "100%"] {
        for from in lab.addrs() {
            let found = get_json(&from, &format!("/find?key={}", crate::common::escape(key)));
            assert_eq!(found["id"], sha256(key));
            assert_eq!(addr_of(&found["owner"]), model.owner(&sha256(key)), "{key}");
        }
    }
    let from = &lab.addrs()[0];
    get(from, "/find").problem(400, "malformed");
    get(from, "/find?key=").problem(400, "malformed");
    get(from, "/find?key=k&mode=teleport").problem(400, "malformed");
    get(from, "/find/abc").problem(400, "malformed");
    get(from, &format!("/find/{}", "g".repeat(64))).problem(400, "malformed");
}

#[test]
fn nodes_are_placed_by_hand_on_a_ring_for_lessons() {
    let lab = Lab::empty();
    lab.ok(&["boot", "--lab", "--id", "00,80"]);
    lab.ok(&["add", "--lab", "--id", "40", "--name", "forty"]);
    lab.ok(&["add", "--lab", "--id", "c"]);
    lab.heals();
    let places = [('0', "node-1"), ('4', "forty"), ('8', "node-2"), ('c', "node-3")];
    for (digit, name) in places {
        assert_eq!(lab.node(name)["id"], format!("{digit}{}", "0".repeat(63)));
        let info = get_json(&lab.addr(name), "/nodeinfo");
        assert!((info["range"]["share"].as_f64().unwrap() - 0.25).abs() < 1e-9, "{info}");
        assert_eq!(info["lab"], true);
    }
    for number in 0..16 {
        let value = format!("value {number}");
        let id = sha256(&value);
        let stored = lab.json(&["store", &value]);
        let (_, owner) = places.iter().rev().find(|(digit, _)| id.chars().next().unwrap() >= *digit).unwrap();
        assert_eq!(stored["owner"]["name"], *owner, "{id}");
    }
    // A node without --id still stands where its address puts it.
    lab.ok(&["add"]);
    assert_eq!(lab.node("node-4")["id"], sha256(lab.addr("node-4")));
}

#[test]
fn other_rings_take_no_node_that_is_placed_by_hand() {
    let lab = Lab::with_nodes(2);
    let before = lab.state();
    let refused = lab.tasks(&["add", "--lab", "--id", "40"]);
    assert!(!refused.ok);
    assert!(refused.stderr.trim_end().lines().last().unwrap().contains("--lab"), "{refused:?}");
    assert_eq!(lab.state(), before);
    assert_eq!(crate::common::processes_of(lab.path()).len(), 2);
    assert!(!lab.tasks(&["add", "--id", "40"]).ok, "--id needs --lab");
    lab.heals();
}

#[test]
fn names_and_ports_are_given_out_once() {
    let lab = Lab::with_nodes(2);
    lab.ok(&["add", "--name", "seven"]);
    assert!(lab.fails(&["add", "--name", "seven"]).contains("seven"));
    let port = lab.node("node-1")["port"].to_string();
    assert!(lab.fails(&["add", "--port", &port]).contains("node-1"));
    assert_eq!(lab.nodes().len(), 3);
    assert_eq!(lab.json(&["add"])["nodes"][0]["name"], "node-3");
}
