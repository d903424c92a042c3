//! Nodes of a pool are killed, one after another and all at once, while clients keep asking and joining.

use nix::sys::signal::Signal;

use crate::clients::{Asking, is_member, join};
use crate::common::{Daemon, Lab, eventually, get_json, signal};
use crate::support::{PATIENCE, Service, all_found, fill, pids};

#[test]
fn killed_one_after_another_they_are_all_replaced() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "5"]);
    service.fills(&lab, 5);
    let (ring, keys) = (service.ring(), fill(&service, 30));
    let before = pids(&lab);
    let asking = Asking::start(&service, 3);
    let mut joined = Vec::new();
    for (round, (addr, pid)) in before.iter().enumerate() {
        signal(*pid, Signal::SIGKILL);
        if round % 2 == 0 {
            joined.push(join(&lab, &service));
        }
        eventually("another process stands there", PATIENCE, || (pids(&lab).get(addr) != Some(pid)).then_some(()));
        service.fills(&lab, 5);
    }
    let tally = asking.end();
    assert!(tally.refused.is_empty() && tally.silent == 0 && tally.named > 0, "{tally:?}");
    assert_eq!(service.metric("chordal_bootstrap_replacements_total{lost=\"ended\"}"), 5);
    assert_eq!(service.metric("chordal_bootstrap_rings_begun_total"), 1);
    assert_eq!(joined.len(), 3);
    for node in &joined {
        assert!(is_member(node, &ring));
    }
    // They came back on what they had: nothing is lost.
    all_found(&joined[0].addr, &keys);
    lab.heals();
}

#[test]
fn killed_all_at_once_the_ring_comes_back_with_all_that_it_held() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "4"]);
    service.fills(&lab, 4);
    let (ring, keys) = (service.ring(), fill(&service, 30));
    let outsider = join(&lab, &service);
    let asking = Asking::start(&service, 3);
    // These live on, for what they take over is in their memory alone.
    let mut newcomers = Vec::new();
    for _ in 0..2 {
        let before = pids(&lab);
        before.values().for_each(|pid| signal(*pid, Signal::SIGKILL));
        // At once: this one asks while there is nobody.
        newcomers.push(join(&lab, &service));
        assert!(newcomers.iter().all(|newcomer| is_member(newcomer, &ring)));
        eventually("all are other processes", PATIENCE, || {
            pids(&lab).iter().all(|(addr, pid)| before.get(addr) != Some(pid)).then_some(())
        });
        service.fills(&lab, 4);
    }
    let tally = asking.end();
    assert!(tally.refused.is_empty() && tally.silent == 0 && tally.named > 0, "{tally:?}");
    assert_eq!(service.ring(), ring);
    assert_eq!(service.metric("chordal_bootstrap_rings_begun_total"), 1);
    eventually("the outsider is a member still", PATIENCE, || is_member(&outsider, &ring).then_some(()));
    all_found(&service.ask(1)[0], &keys);
}

#[test]
fn a_node_that_has_left_makes_room_for_a_new_one() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "3"]);
    service.fills(&lab, 3);
    let keys = fill(&service, 10);
    lab.ok(&["leave", "node-2"]);
    eventually("a new node stands in its place", PATIENCE, || {
        lab.nodes().iter().any(|node| node["name"] == "node-4" && node["status"] == "running").then_some(())
    });
    service.fills(&lab, 3);
    assert_eq!(lab.nodes().len(), 3, "{}", lab.state());
    all_found(&service.ask(1)[0], &keys);
}

#[test]
fn a_pool_of_one_that_has_lost_its_majority_names_nobody_until_the_other_is_back() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "1"]);
    service.fills(&lab, 1);
    let ring = service.ring();
    let outsider = Daemon::start(lab.path(), &["--data-dir", "outsider", "--bootstrap", &service.url()]);
    eventually("both keep everything", PATIENCE, || {
        let views = get_json(&outsider.addr, "/nodeinfo")["views"].as_array().cloned().unwrap_or_default();
        let is_kept = |view: &serde_json::Value| view["members"].as_array().is_some_and(|members| members.len() == 2);
        (views.len() == 2 && views.iter().all(is_kept)).then_some(())
    });
    drop(outsider);
    eventually("the node has lost its majority", PATIENCE, || (service.live() == 0).then_some(()));
    let outsider = Daemon::start(lab.path(), &["--data-dir", "outsider"]);
    service.fills(&lab, 1);
    assert_eq!(service.ring(), ring);
    assert!(is_member(&outsider, &ring));
    assert_eq!(service.metric("chordal_bootstrap_rings_begun_total"), 1);
}

#[test]
fn ports_in_use_are_stepped_over() {
    let lab = Lab::empty();
    let mine = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = mine.local_addr().expect("an address").port();
    let mut service = Service::start(&lab, &["--pool", "3", "--node-port", &taken.to_string()]);
    service.fills(&lab, 3);
    let addrs: Vec<String> = pids(&lab).into_keys().collect();
    let port = |addr: &String| addr.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).expect("a port");
    assert!(addrs.iter().all(|addr| port(addr) > taken), "{taken} of {addrs:?}");
    // A port that a killed node had is taken by another program: a new node takes its place elsewhere, and what the old one
    // holds is kept.
    fill(&service, 20);
    // Of two nodes that keep something neither can be missed; of three any one can.
    eventually("everything is kept by three", PATIENCE, || {
        let views = |addr: &String| get_json(addr, "/nodeinfo")["views"].as_array().cloned().unwrap_or_default();
        let is_kept = |view: &serde_json::Value| view["members"].as_array().is_some_and(|members| members.len() == 3);
        addrs.iter().all(|addr| views(addr).iter().all(is_kept)).then_some(())
    });
    service.kill();
    let (addr, pid) = pids(&lab).pop_first().expect("a node");
    signal(pid, Signal::SIGKILL);
    let _thief = eventually("its port is free", PATIENCE, || std::net::TcpListener::bind(&addr).ok());
    let service = Service::start(&lab, &["--pool", "3", "--node-port", &taken.to_string()]);
    service.fills(&lab, 3);
    let now: Vec<String> = service.ask(3);
    assert!(!now.contains(&addr), "{addr} in {now:?}");
    let old = lab.nodes().into_iter().find(|node| crate::common::addr_of(node) == addr).expect("it is remembered");
    let place = old["data_dir"].as_str().expect("a directory").to_owned();
    assert!(std::fs::read_to_string(&service.log).expect("a log").contains(&place), "the log says where");
    assert!(std::path::Path::new(&place).join("store.redb").exists());
}
