//! `kill -9` of a quarter of a ring at once.

use nix::sys::signal::Signal;
use rand::seq::SliceRandom as _;

use crate::clients::{Clients, all_come_back, fill};
use crate::common::{Lab, addr_of, signal};

/// Names, addresses and processes of so many nodes, picked at random.
pub(crate) fn some_nodes(lab: &Lab, count: usize) -> Vec<(String, String, u64)> {
    let mut nodes = lab.nodes();
    nodes.shuffle(&mut rand::rng());
    let node =
        |it: &serde_json::Value| (it["name"].as_str().unwrap().to_owned(), addr_of(it), it["pid"].as_u64().unwrap());
    let picked: Vec<_> = nodes.iter().take(count).map(node).collect();
    println!("picked: {picked:?}");
    picked
}

#[test]
fn a_ring_closes_over_a_quarter_of_its_nodes_and_has_their_values_again_when_they_return() {
    let lab = Lab::with_nodes(16);
    let stored = fill(&lab.addrs(), 120, "key", "before");
    let victims = some_nodes(&lab, 4);
    let hurt: Vec<String> = victims.iter().map(|(_, addr, _)| addr.clone()).collect();
    let others: Vec<String> = lab.addrs().into_iter().filter(|addr| !hurt.contains(addr)).collect();
    let clients = Clients::start(&stored, &others, &hurt);
    for (_, _, pid) in &victims {
        signal(*pid, Signal::SIGKILL);
    }
    let doctor = lab.json(&["doctor", "--only", "ring", "--wait", "60s"]);
    assert_eq!((&doctor["ok"], &doctor["nodes"]), (&true.into(), &12.into()), "{doctor}");
    let tally = clients.end();
    assert!(tally.right > 0, "{tally:?}");

    // What the others keep is all there, and a dead node's disk is not lost: it comes back with what it kept.
    let kept: Vec<_> = stored.iter().filter(|it| !hurt.contains(&it.owner)).cloned().collect();
    assert!(!kept.is_empty() && kept.len() < stored.len(), "both kinds are tested: {}", kept.len());
    all_come_back(&kept, &others);
    lab.ok(&["start", "--all"]);
    let doctor = lab.json(&["doctor", "--only", "ring", "--wait", "60s"]);
    assert_eq!((&doctor["ok"], &doctor["nodes"]), (&true.into(), &16.into()), "{doctor}");
    all_come_back(&stored, &lab.addrs());
}
