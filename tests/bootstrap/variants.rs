//! A pool that joins a ring, one behind an external address, one in a single process, and one that `tasks` keeps.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::clients::is_member;
use crate::common::{Daemon, Lab, Ran, eventually, get_json, runs, signal};
use crate::support::{PATIENCE, Service, all_found, fill, pids};

#[test]
fn a_pool_joins_a_ring_by_a_member_and_by_another_service() {
    let lab = Lab::empty();
    let first = Service::start(&lab, &["--pool", "2"]);
    first.fills(&lab, 2);
    let keys = fill(&first, 20);
    for source in [first.ask(1)[0].clone(), first.url()] {
        let beside = lab.beside();
        let second = Service::start(&beside, &["--pool", "2", "--bootstrap", &source]);
        second.fills(&beside, 2);
        assert_eq!(second.ring(), first.ring());
        assert_eq!(second.metric("chordal_bootstrap_rings_begun_total"), 0);
        all_found(&second.ask(1)[0], &keys);
        assert!(second.stop().ok);
        assert!(beside.nodes().is_empty(), "{}", beside.state());
    }
    first.fills(&lab, 2);
    all_found(&first.ask(1)[0], &keys);
}

#[test]
fn clients_are_told_the_external_address() {
    let lab = Lab::empty();
    let service =
        Service::start(&lab, &["--pool", "2", "--external_address", "localhost", "--host_address", "127.0.0.1"]);
    service.fills(&lab, 2);
    let mut inside: Vec<String> = pids(&lab).into_keys().map(|addr| addr.replace("127.0.0.1", "localhost")).collect();
    let mut named = service.ask(2);
    inside.sort();
    named.sort();
    assert_eq!(named, inside);
    // Names of the DNS do as well, for the service and for the members that it names.
    let url = service.url().replace("127.0.0.1", "localhost");
    assert!(is_member(&Daemon::start(lab.path(), &["--memory", "--bootstrap", &url]), &service.ring()));
}

#[test]
fn a_pool_in_one_process_comes_back_after_a_kill() {
    let lab = Lab::empty();
    let mut service = Service::start(&lab, &["--pool", "3", "--in-process"]);
    service.fills(&lab, 3);
    let (ring, keys) = (service.ring(), fill(&service, 20));
    let own = u64::from(service.child.id());
    assert!(pids(&lab).values().all(|pid| *pid == own), "{}", lab.state());
    service.kill();
    let service = Service::start(&lab, &["--pool", "3", "--in-process"]);
    service.fills(&lab, 3);
    assert_eq!(service.ring(), ring);
    all_found(&service.ask(1)[0], &keys);
    assert!(service.stop().ok);
    assert_eq!(lab.nodes().len(), 1, "the last one keeps what it holds");
    // The same pool, each node in a process of its own.
    let service = Service::start(&lab, &["--pool", "2"]);
    service.fills(&lab, 2);
    assert_eq!(service.ring(), ring);
    all_found(&service.ask(1)[0], &keys);
}

#[test]
fn tasks_manage_keeps_the_ring_of_its_state_file() {
    let lab = Lab::with_nodes(2);
    let booted = pids(&lab);
    let mut command =
        lab.command(&["manage", "--json", "--host-port", "0", "--pool", "4", "--check-interval", "300ms"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tasks can be run");
    let pid = u64::from(child.id());
    eventually("the pool is full", PATIENCE, || (lab.addrs().len() == 4).then_some(()));
    let ring = get_json(&lab.addrs()[0], "/nodeinfo")["ring"].clone();
    lab.heals();
    for addr in lab.addrs() {
        assert_eq!(get_json(&addr, "/nodeinfo")["ring"], ring);
    }
    for (addr, pid) in booted {
        assert_eq!(pids(&lab)[&addr], pid, "what ran goes on");
    }
    signal(pid, Signal::SIGTERM);
    let ran = Ran::of(child.wait_with_output().expect("it has ended"));
    assert!(ran.ok, "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON value");
    assert_eq!(report["left"].as_array().map(Vec::len), Some(4), "{report}");
    assert!(lab.nodes().is_empty());
}

#[test]
fn killall_ends_the_service_first() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "2"]);
    service.fills(&lab, 2);
    let nodes = pids(&lab);
    assert_eq!(lab.json(&["killall"])["killed"], 2);
    assert!(!runs(service.child.id().into()));
    assert!(!nodes.values().any(|pid| runs(*pid)));
}
