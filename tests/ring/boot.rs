//! `tasks boot`, `reboot` and `killall`: a ring begins, begins anew, and ends.

use crate::common::{Lab, addr_of, get_json, processes_of, runs, sha256};

#[test]
fn boot_wires_two_nodes_as_each_others_neighbours() {
    let lab = Lab::empty();
    lab.ok(&["boot"]);
    // At once, without any wait: boot returns when they are wired.
    let addrs = lab.addrs();
    assert_eq!(addrs.len(), 2);
    for (me, other) in [(0, 1), (1, 0)] {
        for route in ["/pred", "/succ"] {
            assert_eq!(addr_of(&get_json(&addrs[me], route)), addrs[other], "{route} of {}", addrs[me]);
        }
        assert_eq!(get_json(&addrs[me], "/health/ready")["status"], "ready");
    }
}

#[test]
fn the_state_file_tells_what_boot_has_started() {
    let lab = Lab::empty();
    let booted = lab.json(&["boot"]);
    let state = lab.state();
    assert_eq!(state["version"], 1);
    assert_eq!(booted["nodes"], state["nodes"]);
    assert!(booted["seconds"].as_f64().unwrap() > 0.0);
    for (node, name) in lab.nodes().iter().zip(["node-1", "node-2"]) {
        assert_eq!(
            crate::common::fields(node),
            ["data_dir", "host", "id", "log", "name", "pid", "port", "started", "status"],
            "{node}"
        );
        assert_eq!(node["name"], name);
        assert_eq!(node["host"], "127.0.0.1");
        assert_eq!(node["status"], "running");
        assert_eq!(node["id"], sha256(addr_of(node)), "an id is the SHA-256 of host:port");
        assert!(runs(node["pid"].as_u64().unwrap()), "{node}");
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(node["started"].as_str().unwrap().starts_with(boot_id.trim()), "{node}");
        for (field, directory) in [("log", "logs"), ("data_dir", "data")] {
            let path = std::path::Path::new(node[field].as_str().unwrap());
            assert!(path.exists(), "{node}");
            let beside = lab.path().canonicalize().unwrap().join(directory);
            assert_eq!(path.parent().unwrap().canonicalize().unwrap(), beside, "logs and data lie beside the state");
        }
        let info = get_json(&addr_of(node), "/nodeinfo");
        for field in ["name", "id", "host", "port", "pid"] {
            assert_eq!(info[field], node[field], "{field}");
        }
    }
}

#[test]
fn boot_refuses_while_a_ring_runs_and_overwrites_one_that_does_not() {
    let lab = Lab::empty();
    lab.ok(&["boot"]);
    let before = lab.state();
    let refusal = lab.fails(&["boot"]);
    assert!(refusal.contains("still runs") && refusal.contains("tasks killall"), "{refusal}");
    lab.ok(&["kill", "node-1"]);
    assert!(lab.fails(&["boot"]).contains("a ring of 1 node"), "one that runs is enough");
    lab.ok(&["start", "node-1"]);
    assert_eq!(addr_of(&lab.node("node-1")), addr_of(&before["nodes"][0]));
    assert_eq!(lab.node("node-2"), before["nodes"][1], "a refused boot touches nothing");

    lab.ok(&["store", "of the old ring"]);
    lab.ok(&["kill", "node-1"]);
    lab.ok(&["kill", "node-2"]);
    lab.ok(&["boot"]);
    assert_eq!(lab.addrs().len(), 2);
    assert!(!lab.tasks(&["lookup", "of the old ring"]).ok, "a new ring has nothing of the old one");
    assert_eq!(processes_of(lab.path()).len(), 2);
}

#[test]
fn reboot_ends_the_old_ring_and_begins_another() {
    let lab = Lab::with_nodes(3);
    let before = lab.nodes();
    lab.ok(&["store", "of the old ring"]);
    let booted = lab.json(&["reboot"]);
    assert_eq!(booted["nodes"].as_array().unwrap().len(), 2, "standard output is about the new ring alone");
    assert_eq!(booted["nodes"], lab.state()["nodes"]);
    for node in before {
        assert!(!runs(node["pid"].as_u64().unwrap()), "{node}");
    }
    assert!(!lab.tasks(&["lookup", "of the old ring"]).ok);
}

#[test]
fn a_ring_in_memory_writes_no_data() {
    let lab = Lab::empty();
    lab.ok(&["boot", "--memory"]);
    lab.ok(&["add", "--memory"]);
    let values = lab.fill(20);
    lab.heals();
    lab.holds(&values);
    assert!(lab.nodes().iter().all(|node| node["data_dir"].is_null()));
    assert!(!lab.path().join("data").exists());
}

#[test]
fn killall_leaves_nothing_behind() {
    let lab = Lab::with_nodes(4);
    lab.fill(10);
    lab.ok(&["kill", "node-2"]);
    assert_eq!(processes_of(lab.path()).len(), 3);
    let ended = lab.json(&["killall"]);
    assert_eq!((&ended["killed"], &ended["kept_data"]), (&3.into(), &false.into()));
    assert_eq!(processes_of(lab.path()), [0; 0]);
    let left: Vec<_> = std::fs::read_dir(lab.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(lab.json(&["killall"])["killed"], 0, "a second one finds nothing to do");
}

#[test]
fn killall_ends_paused_nodes_too() {
    let lab = Lab::with_nodes(2);
    crate::common::signal(lab.node("node-1")["pid"].as_u64().unwrap(), nix::sys::signal::Signal::SIGSTOP);
    assert_eq!(lab.json(&["killall"])["killed"], 2);
    assert_eq!(processes_of(lab.path()), [0; 0]);
}

#[test]
fn what_killall_kept_comes_back() {
    let lab = Lab::with_nodes(5);
    let values = lab.fill(60);
    let before = lab.nodes();
    assert_eq!(lab.json(&["killall", "--keep-data"])["killed"], 5);
    assert_eq!(processes_of(lab.path()), [0; 0]);
    assert!(lab.nodes().iter().all(|node| node["status"] == "stopped"));
    assert!(lab.fails(&["lookup", &values[0]]).contains("tasks start --all"));

    let started = lab.json(&["start", "--all"]);
    assert_eq!(started["nodes"].as_array().unwrap().len(), 5);
    for (node, old) in lab.nodes().iter().zip(&before) {
        for field in ["name", "host", "port", "id", "data_dir", "log"] {
            assert_eq!(node[field], old[field], "{field}");
        }
        assert_ne!(node["pid"], old["pid"]);
    }
    // Ready means that everything is served again.
    for value in &values {
        lab.ok(&["lookup", value]);
    }
    lab.heals();
    lab.holds(&values);
}
