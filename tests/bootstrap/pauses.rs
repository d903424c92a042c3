//! A node that is paused answers TCP and not HTTP: its address must not be handed out, and it is replaced.

use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::clients::{Asking, is_member, join};
use crate::common::{Lab, eventually, runs, signal};
use crate::support::{PATIENCE, Service, all_found, fill, pids};

#[test]
fn a_paused_node_is_not_handed_out_and_is_replaced() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "4"]);
    service.fills(&lab, 4);
    let (ring, keys) = (service.ring(), fill(&service, 20));
    let asking = Asking::start(&service, 2);
    let (addr, pid) = pids(&lab).pop_first().expect("a node");
    signal(pid, Signal::SIGSTOP);
    assert!(TcpStream::connect(&addr).is_ok(), "the system answers for it");
    // From when the check has failed until another process has passed one, nobody is sent there.
    eventually("it has failed a check", PATIENCE, || (service.live() == 3).then_some(()));
    assert!(runs(pid), "it is given more than one chance");
    while runs(pid) {
        assert!(!service.ask(4).contains(&addr) || !runs(pid));
    }
    service.fills(&lab, 4);
    assert!(service.ask(4).contains(&addr), "on its old port and data");
    assert_ne!(pids(&lab)[&addr], pid);
    let tally = asking.end();
    assert!(tally.refused.is_empty() && tally.silent == 0 && tally.named > 0, "{tally:?}");
    assert_eq!(service.metric("chordal_bootstrap_replacements_total{lost=\"failed\"}"), 1);
    assert!(service.metric("chordal_bootstrap_checks_total{outcome=\"failed\"}") >= 3);
    all_found(&service.ask(1)[0], &keys);
    assert!(is_member(&join(&lab, &service), &ring));
}

#[test]
fn a_node_that_wakes_in_time_is_left_alone() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "3"]);
    service.fills(&lab, 3);
    let (addr, pid) = pids(&lab).pop_first().expect("a node");
    signal(pid, Signal::SIGSTOP);
    eventually("it has failed a check", PATIENCE, || (service.live() == 2).then_some(()));
    signal(pid, Signal::SIGCONT);
    service.fills(&lab, 3);
    assert_eq!(pids(&lab)[&addr], pid);
    assert_eq!(service.metric("chordal_bootstrap_replacements_total{lost=\"failed\"}"), 0);
}
