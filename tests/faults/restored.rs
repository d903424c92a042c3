//! A data directory that comes back from a copy: what it says is from the past, and counts for nothing.

use std::path::Path;

use serde_json::Value;

use crate::clients::{PATIENCE, Stored, all_are_found, fill, overwrite};
use crate::common::{Lab, escape, eventually, get_json, try_exchange};

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
    // It is not ready, for nobody heeds it; the process runs all the same.
    let started = lab.tasks(&["start", "node-3"]);
    println!("{started:?}");
    never_older(&newer, &lab.addrs(), true);
    // With another one dead nobody has a majority: one that counted the copy would serve now.
    lab.ok(&["kill", "node-2"]);
    never_older(&newer, &lab.addrs(), false);
    lab.ok(&["start", "node-2"]);
    all_are_found(&newer, &[lab.addr("node-1"), lab.addr("node-2")]);
}

/// No value is other than these, or missing. Where nobody has a majority none is found at all.
fn never_older(stored: &[Stored], through: &[String], may_be_found: bool) {
    std::thread::scope(|scope| {
        for (number, it) in stored.iter().enumerate() {
            let node = &through[number % through.len()];
            scope.spawn(move || {
                let answer = try_exchange("GET", node, &format!("/dht/lookup?key={}", escape(&it.key)), None).unwrap();
                match answer.status {
                    200 => assert!(
                        may_be_found && answer.json()["value"] == *it.value,
                        "{it:?} through {node}: {answer:?}"
                    ),
                    status => assert!(matches!(status, 503 | 504), "{it:?} through {node}: {answer:?}"),
                }
            });
        }
    });
}
