//! Pointers that were rewired by hand: the ring heals, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use crate::common::{Lab, Ran, addr_of, escape, eventually, exchange, get, get_json, rewire, send};
use serde_json::json;

/// Asks each value of some node, whatever state the pointers are in.
fn all_found(lab: &Lab, values: &[String]) {
    let addrs = lab.addrs();
    for (number, value) in values.iter().enumerate() {
        let answer = get(&addrs[number % addrs.len()], &format!("/dht/lookup?value={}", escape(value)));
        assert_eq!(answer.expect(200)["value"], **value);
    }
}

#[test]
fn successors_that_were_wired_wrongly_heal() {
    let lab = Lab::with_nodes(7);
    let values = lab.fill(70);
    let (addrs, model) = (lab.addrs(), lab.model());
    for (number, addr) in addrs.iter().enumerate() {
        rewire(addr, "/succ", model.after(addr, 2 + number % 4));
    }
    all_found(&lab, &values);
    lab.heals();
    lab.holds(&values);
}

#[test]
fn predecessors_that_were_wired_wrongly_heal() {
    let lab = Lab::with_nodes(7);
    let values = lab.fill(70);
    let (addrs, model) = (lab.addrs(), lab.model());
    for (number, addr) in addrs.iter().enumerate() {
        rewire(addr, "/pred", model.after(addr, 1 + number % 4));
    }
    all_found(&lab, &values);
    lab.heals();
    lab.holds(&values);
}

#[test]
fn a_ring_wired_backwards_heals() {
    let lab = Lab::with_nodes(5);
    let values = lab.fill(50);
    let (addrs, model) = (lab.addrs(), lab.model());
    for addr in &addrs {
        rewire(addr, "/succ", model.before(addr));
        rewire(addr, "/pred", model.after(addr, 1));
    }
    all_found(&lab, &values);
    lab.heals();
    lab.holds(&values);
}

#[test]
fn two_rings_wired_out_of_one_find_together_again() {
    let lab = Lab::with_nodes(6);
    let values = lab.fill(60);
    let (addrs, model) = (lab.addrs(), lab.model());
    // Every other node: two rings, each in order and content with itself.
    for addr in &addrs {
        rewire(addr, "/succ", model.after(addr, 2));
        rewire(addr, "/pred", model.after(addr, model.len() - 2));
    }
    lab.heals();
    lab.holds(&values);
}

#[test]
fn writes_while_the_pointers_are_wrong_are_kept() {
    let lab = Lab::with_nodes(6);
    let (addrs, model) = (lab.addrs(), lab.model());
    let mut values = lab.fill(30);
    for round in 0..4 {
        for addr in &addrs {
            rewire(addr, "/succ", model.after(addr, 2 + round));
            rewire(addr, "/pred", model.after(addr, 1 + round));
            let value = format!("written in round {round} through {addr}");
            send("POST", addr, "/dht/store", &json!({ "value": value })).expect(200);
            values.push(value);
        }
        all_found(&lab, &values);
    }
    lab.heals();
    lab.holds(&values);
}

#[test]
fn a_node_that_was_wired_to_itself_comes_back() {
    let lab = Lab::with_nodes(4);
    let values = lab.fill(40);
    let addr = lab.addrs()[1].clone();
    rewire(&addr, "/succ", &addr);
    rewire(&addr, "/pred", &addr);
    lab.heals();
    lab.holds(&values);
}

#[test]
fn the_last_one_alive_says_that_it_is_cut_off_and_can_be_made_a_ring() {
    let lab = Lab::with_nodes(3);
    let values = lab.fill(40);
    let (survivor, victims) = ("node-1", ["node-2", "node-3"]);
    let addr = lab.addr(survivor);
    for victim in victims {
        lab.ok(&["kill", victim]);
    }
    eventually("it is not ready", Duration::from_secs(20), || {
        (get(&addr, "/health/ready").status == 503).then_some(())
    });
    get(&addr, "/health/ready").problem(503, "not-ready");
    assert_eq!(get_json(&addr, "/health/live")["status"], "live", "the process is well");
    eventually("it knows that it is cut off", Duration::from_secs(20), || {
        (get_json(&addr, "/nodeinfo")["membership"] == "isolated").then_some(())
    });
    let doctor = lab.tasks(&["doctor", "--json"]);
    assert!(!doctor.ok && doctor.stdout.contains("\"ok\":false"), "the doctor sees it: {doctor:?}");
    // It has lost both others at once and must not believe that it is the ring. One comes back: so do all its values.
    lab.ok(&["start", "node-2"]);
    eventually("it has its ring again", Duration::from_secs(20), || {
        (get(&addr, "/health/ready").status == 200).then_some(())
    });
    lab.ok(&["start", "node-3"]);
    lab.heals();
    lab.holds(&values);

    for victim in victims {
        lab.ok(&["kill", victim]);
    }
    eventually("it knows that it is cut off", Duration::from_secs(20), || {
        (get_json(&addr, "/nodeinfo")["membership"] == "isolated").then_some(())
    });
    let alone = exchange("PUT", &addr, "/succ", Some(("", addr.as_bytes()))).expect(200);
    assert_eq!(addr_of(&alone), addr);
    eventually("it is a ring of one", Duration::from_secs(20), || {
        (get_json(&addr, "/nodeinfo")["membership"] == "joined").then_some(())
    });
    // Of the others, who kept what it keeps too, no majority answers: it says so, and tells nothing that may be old.
    let reason = get(&addr, "/health/ready").problem(503, "not-ready");
    assert!(reason["detail"].as_str().unwrap().contains("serve"), "{reason}");
    get(&addr, &format!("/dht/lookup?value={}", crate::common::escape(&values[0]))).problem(503, "unavailable");
    // And when the others do come back after all, nothing of either side is lost.
    lab.ok(&["start", "--all"]);
    lab.heals();
    lab.holds(&values);
}

#[test]
fn of_two_nodes_the_one_that_is_left_goes_on_alone_when_a_person_says_so() {
    let lab = Lab::empty();
    lab.ok(&["boot"]);
    lab.heals();
    let values = lab.fill(10);
    let (left, gone) = (lab.addr("node-1"), lab.addr("node-2"));
    lab.ok(&["kill", "node-2"]);
    // Whoever has little time hears what stands in the way all the same.
    let mut put = std::process::Command::new(env!("CARGO_BIN_EXE_chordal"));
    put.args(["put", "--port", left.rsplit_once(':').unwrap().1, "--timeout", "4", "a", "b"]);
    let put = Ran::of(put.stdin(std::process::Stdio::null()).output().unwrap());
    let told = [gone.as_str(), "lost all its successors"].iter().any(|text| put.stderr.contains(text));
    assert!(!put.ok && told, "{put:#?}");
    eventually("it knows that it is cut off", Duration::from_secs(20), || {
        (get_json(&left, "/nodeinfo")["membership"] == "isolated").then_some(())
    });

    // From elsewhere, where no state file knows the ring.
    let elsewhere = lab.beside();
    let lost = elsewhere.json(&["recover", "--node", &left])["lost"].as_array().unwrap().clone();
    assert!(!lost.is_empty());
    let told = elsewhere.tasks(&["recover", "--key", &values[0], "--node", &left]);
    assert!(!told.ok && told.stderr.contains(&format!("--node {left} --accept-loss")), "{told:#?}");
    assert_eq!(get_json(&left, "/nodeinfo")["membership"], "isolated", "nothing has changed");
    for view in &lost {
        let end = |of: &str| view["range"][of].as_str().unwrap()[..16].to_owned();
        let range = format!("{}..{}", end("lo"), end("hi"));
        let done = elsewhere.json(&["recover", &range, "--node", &left, "--accept-loss"]);
        assert_eq!(done["recovered"]["forced"], true, "{done}");
    }
    eventually("it serves all that it has again", Duration::from_secs(20), || {
        (get(&left, "/health/ready").status == 200).then_some(())
    });
    for value in &values {
        get(&left, &format!("/dht/lookup?value={}", crate::common::escape(value))).expect(200);
    }
    // And it is joined like any other.
    lab.ok(&["add"]);
    lab.heals();
    assert!(elsewhere.fails(&["recover", "--node", &gone]).contains("does not answer"));
}
