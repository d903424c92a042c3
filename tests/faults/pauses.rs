//! SIGSTOP and SIGCONT: a node that hangs keeps its sockets open, and says nothing. When it wakes it does not know that it
//! was away.

use nix::sys::signal::Signal;

use crate::clients::{Clients, PATIENCE, Stored, all_are_found, all_are_in_groups, fill, none_is_served, overwrite};
use crate::common::{Lab, eventually, signal};
use crate::crashes::Picked;

/// Wakes the processes when it is dropped, so that a test that fails leaves none paused.
struct Paused(Vec<u64>);

impl Paused {
    fn pause(pids: Vec<u64>) -> Paused {
        for pid in &pids {
            signal(*pid, Signal::SIGSTOP);
        }
        Paused(pids)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        for pid in self.0.drain(..) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGCONT);
        }
    }
}

#[test]
fn what_has_a_majority_is_overwritten_while_a_quarter_hangs_and_its_old_value_is_never_seen_again() {
    let lab = Lab::with_nodes(16);
    let addrs = lab.addrs();
    all_are_in_groups(&lab.model());
    let stored = fill(&addrs, 120, "key", "before");
    let Picked { victims, hurt, others, open, closed } = Picked::at_random(&lab, 4, &stored);
    let clients = Clients::start(&open, &closed, &others);
    let paused = Paused::pause(victims.iter().map(|(_, _, pid)| *pid).collect());
    let doctor = lab.json(&["doctor", "--only", "ring", "--wait", "60s"]);
    assert_eq!((&doctor["ok"], &doctor["nodes"]), (&true.into(), &12.into()), "{doctor}");
    all_are_found(&open, &others);
    let tally = clients.end();
    assert!(tally.right > 0 && tally.unavailable > 0, "{tally:?}");

    // Half of each kind stays as it is: what was not written meanwhile is there as before.
    let (untouched, rewritten): (Vec<_>, Vec<_>) =
        open.into_iter().enumerate().partition(|(number, _)| number % 2 == 0);
    let [untouched, rewritten] =
        [untouched, rewritten].map(|them| them.into_iter().map(|(_, it)| it).collect::<Vec<Stored>>());
    assert!(rewritten.iter().any(|it| hurt.contains(&it.primary)), "some primaries hang: {rewritten:?}");
    let rewritten = overwrite(&rewritten, &others, "while four were paused");
    assert!(rewritten.iter().all(|it| !hurt.contains(&it.primary)), "{rewritten:?}");
    let closed = none_is_served(&closed, &others, "while four were paused");

    // Readers are under way when the nodes wake, through those that were awake and at once through those that wake.
    let clients = Clients::start(&rewritten, &closed, &others);
    drop(paused);
    let through_woken = Clients::start(&rewritten, &closed, &hurt);
    eventually("the ring of sixteen is ideal again", PATIENCE, || {
        let doctor = lab.json(&["doctor", "--only", "ring", "--wait", "60s"]);
        (doctor["nodes"] == 16).then_some(())
    });
    let all: Vec<Stored> = rewritten.iter().chain(&untouched).chain(&closed).cloned().collect();
    let found = all_are_found(&all, &addrs);
    clients.end();
    assert!(through_woken.end().right > 0, "those that were paused serve");
    all_are_in_groups(&lab.model());
    all_are_found(&found, &addrs);
}
