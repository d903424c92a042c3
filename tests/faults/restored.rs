//! A data directory that comes back from a copy: what it says is from the past, and counts for nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::clients::{PATIENCE, Stored, all_are_found, fill, overwrite};
use crate::common::{Lab, escape, eventually, get_json, signal, try_exchange};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Waits until all three keep everything, and have all of it.
fn all_keep_all(lab: &Lab) {
    eventually("all three keep everything", PATIENCE, || {
        let keeps = |addr: &String| {
            let views = get_json(addr, "/nodeinfo")["views"].as_array().cloned().unwrap_or_default();
            let is_well =
                |view: &Value| view["members"].as_array().is_some_and(|all| all.len() == 3) && view["lag"] == 0;
            !views.is_empty() && views.iter().all(is_well)
        };
        lab.addrs().iter().all(keeps).then_some(())
    });
}

#[test]
fn a_node_whose_directory_is_a_copy_from_an_earlier_life_has_no_voice() {
    let lab = Lab::with_nodes(3);
    all_keep_all(&lab);
    let mut newer = fill(&lab.addrs(), 24, "key", "before");
    all_keep_all(&lab);
    let directory = lab.path().join("data/node-3");
    let before = lab.path().join("copy");
    lab.ok(&["kill", "node-3"]);
    copy(&directory, &before);
    // Two more lives, in which the others hear of it, and write.
    for _ in 0..2 {
        lab.ok(&["start", "node-3"]);
        all_keep_all(&lab);
        let found = all_are_found(&newer, &lab.addrs());
        newer = overwrite(&found, &lab.addrs(), "in a later life");
        all_keep_all(&lab);
        lab.ok(&["kill", "node-3"]);
    }
    std::fs::remove_dir_all(&directory).unwrap();
    copy(&before, &directory);
    has_no_voice(&lab, &newer);
}

/// What others have heard of node-3 counts, whether it was copied while it ran or between two of its lives.
fn a_copy_from_the_same_life_has_no_voice(is_copied_while_it_runs: bool) {
    let lab = Lab::with_nodes(3);
    all_keep_all(&lab);
    let before = fill(&lab.addrs(), 24, "key", "before");
    all_keep_all(&lab);
    let (directory, older) = (lab.path().join("data/node-3"), lab.path().join("copy"));
    if is_copied_while_it_runs {
        // As the snapshot of a machine has it: all files at one moment.
        let pid = lab.node("node-3")["pid"].as_u64().expect("a pid");
        signal(pid, Signal::SIGSTOP);
        copy(&directory, &older);
        signal(pid, Signal::SIGCONT);
    } else {
        lab.ok(&["kill", "node-3"]);
        copy(&directory, &older);
        lab.ok(&["start", "node-3"]);
    }
    all_keep_all(&lab);
    // Each of the others hears from it that it has these.
    let newer = overwrite(&all_are_found(&before, &lab.addrs()), &lab.addrs(), "after the copy");
    all_keep_all(&lab);
    lab.ok(&["kill", "node-3"]);
    std::fs::rename(&directory, lab.path().join("newer")).unwrap();
    copy(&older, &directory);
    has_no_voice(&lab, &newer);
    let log = std::fs::read_to_string(lab.node("node-1")["log"].as_str().expect("a log")).expect("a log");
    assert!(log.contains("the data directory of a node is an older copy"), "{log}");
    // With an empty directory it comes in again, and counts.
    std::fs::remove_dir_all(&directory).unwrap();
    lab.ok(&["start", "node-3"]);
    // Views have three members all the while; now they come to have the new one.
    lab.ok(&["doctor", "--only", "content", "--wait", "60s"]);
    all_keep_all(&lab);
    lab.ok(&["kill", "node-2"]);
    all_are_found(&newer, &[lab.addr("node-1"), lab.addr("node-3")]);
}

#[test]
fn a_copy_that_was_taken_while_the_node_ran_has_no_voice() {
    a_copy_from_the_same_life_has_no_voice(true);
}

#[test]
fn a_copy_that_was_taken_before_the_last_life_has_no_voice() {
    a_copy_from_the_same_life_has_no_voice(false);
}

/// A program that is killed when this is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With a directory of node-3 that is an older copy, nothing is served that is not these, and nothing by its vote: it is told so, and
/// ends. node-1 and node-2 run when this returns.
fn has_no_voice(lab: &Lab, newer: &[Stored]) {
    // One of the others is dead. With a copy that counted, the third would have a majority, and serve.
    lab.ok(&["kill", "node-2"]);
    let (node, addr, log) = (lab.node("node-3"), lab.addr("node-3"), lab.path().join("restored.log"));
    // By hand, for `tasks start` looks after what it starts.
    let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
    command.args(["start", "--data-dir", "data/node-3", "--name", "node-3", "--port", &node["port"].to_string()]);
    command.current_dir(lab.path()).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut restored = Program(command.spawn().expect("chordal can be run"));
    let mut has_ended = || restored.0.try_wait().expect("it can be asked");
    eventually("the copy answers, or has ended", PATIENCE, || {
        has_ended().map(drop).or_else(|| try_exchange("GET", &addr, "/health/live", None).ok().map(drop))
    });
    // They wait for an owner and a majority for as long as a node tries, and that is longer than the copy needs.
    never_served(newer, &lab.addr("node-1"));
    let status = eventually("the copy ends", PATIENCE, has_ended);
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(!status.success() && log.contains("the data directory of this node is an older copy"), "{status} {log}");
    lab.ok(&["start", "node-2"]);
    all_are_found(newer, &[lab.addr("node-1"), lab.addr("node-2")]);
}

/// Where nobody has a majority none of these is found.
fn never_served(stored: &[Stored], node: &str) {
    std::thread::scope(|scope| {
        for it in stored {
            scope.spawn(move || {
                let answer = try_exchange("GET", node, &format!("/dht/lookup?key={}", escape(&it.key)), None).unwrap();
                assert!(matches!(answer.status, 503 | 504), "{it:?} through {node}: {answer:?}");
            });
        }
    });
}
