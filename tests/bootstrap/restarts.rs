//! Services that are killed and started again, and services that stop in order.

use std::time::Duration;

use crate::clients::{Asking, is_member, join};
use crate::common::{Daemon, Lab, eventually, runs};
use crate::support::{PATIENCE, Service, all_found, fill, pids};

#[test]
fn a_service_that_was_killed_under_load_takes_its_living_nodes_over() {
    let lab = Lab::empty();
    let mut service = Service::start(&lab, &["--pool", "4"]);
    service.fills(&lab, 4);
    let (ring, keys, before) = (service.ring(), fill(&service, 20), pids(&lab));
    let port = service.addr.rsplit_once(':').expect("a port").1.to_owned();
    let asking = Asking::start(&service, 3);
    service.kill();
    assert!(before.values().all(|pid| runs(*pid)), "its nodes live on");
    // One of them does not live to see it again.
    let (lost, pid) = before.first_key_value().expect("a node");
    crate::common::signal(*pid, nix::sys::signal::Signal::SIGKILL);
    // This one asks for addresses while nobody is there to answer.
    let (dir, url) = (lab.path().to_owned(), service.url());
    let joining = std::thread::spawn(move || Daemon::start(&dir, &["--memory", "--bootstrap", &url]));

    let again = Service::start(&lab, &["--pool", "4", "--host-port", &port]);
    again.fills(&lab, 4);
    let joined = joining.join().expect("it has joined");
    assert!(is_member(&joined, &ring));
    let after = pids(&lab);
    assert_eq!(after.len(), 4);
    for (addr, pid) in &after {
        assert_eq!(before.get(addr) == Some(pid), addr != lost, "{addr}");
    }
    assert_eq!(again.ring(), ring);
    assert_eq!(again.metric("chordal_bootstrap_rings_begun_total"), 0);
    let tally = asking.end();
    // Whether anybody asked in the moment in which nobody was there is chance.
    assert!(tally.refused.is_empty() && tally.named > 0, "{tally:?}");
    all_found(&joined.addr, &keys);
}

#[test]
fn a_service_that_stops_hands_everything_over_and_comes_back_to_its_ring() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "4"]);
    service.fills(&lab, 4);
    let (ring, keys, nodes) = (service.ring(), fill(&service, 30), pids(&lab));
    let outsider = join(&lab, &service);
    // Who is to be remembered has to be seen first.
    eventually("the service knows of the outsider", PATIENCE, || {
        let note = &lab.state()["bootstrap"]["contacts"];
        note.as_array().is_some_and(|contacts| contacts.iter().any(|addr| *addr == *outsider.addr)).then_some(())
    });
    let ended = service.stop();
    assert!(ended.ok, "{ended:?}");
    assert!(!nodes.values().any(|pid| runs(*pid)));
    assert_eq!(lab.nodes(), Vec::<serde_json::Value>::new(), "all have left");
    // It holds all that they did.
    all_found(&outsider.addr, &keys);

    let service = Service::start(&lab, &["--pool", "3"]);
    service.fills(&lab, 3);
    assert_eq!(service.ring(), ring, "no second ring");
    all_found(&service.ask(1)[0], &keys);
}

#[test]
fn what_nobody_takes_is_there_at_the_next_start() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "3"]);
    service.fills(&lab, 3);
    let (ring, keys) = (service.ring(), fill(&service, 30));
    assert!(service.stop().ok);
    assert_eq!(lab.nodes().len(), 1, "the last one keeps what it holds");
    let service = Service::start(&lab, &["--pool", "3"]);
    service.fills(&lab, 3);
    assert_eq!(service.ring(), ring);
    all_found(&service.ask(1)[0], &keys);
}

#[test]
fn a_pool_that_held_nothing_leaves_nothing() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "3"]);
    service.fills(&lab, 3);
    let ring = service.ring();
    assert!(service.stop().ok);
    assert!(lab.nodes().is_empty(), "{}", lab.state());
    let service = Service::start(&lab, &["--pool", "2"]);
    service.fills(&lab, 2);
    assert_ne!(service.ring(), ring, "a ring of which nobody is left is not remembered");
}

#[test]
fn a_ring_of_which_nobody_is_left_is_given_up_aloud() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "2"]);
    service.fills(&lab, 2);
    let ring = service.ring();
    let outsider = join(&lab, &service);
    eventually("the service knows of the outsider", PATIENCE, || {
        (lab.state()["bootstrap"]["contacts"].as_array().map_or(0, Vec::len) == 1).then_some(())
    });
    assert!(service.stop().ok);
    drop(outsider);
    let service = Service::start(&lab, &["--pool", "2"]);
    service.fills(&lab, 2);
    assert_ne!(service.ring(), ring);
    let log = std::fs::read_to_string(&service.log).expect("a log");
    assert!(log.contains("begins a new ring") && log.contains(&ring), "{log}");
    eventually("it fits the metrics", Duration::from_secs(5), || {
        (service.metric("chordal_bootstrap_rings_begun_total") == 1).then_some(())
    });
}
