//! What `tasks` finds: files that are broken or from another time, processes that are strangers', names that nobody has.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::common::{Lab, get_json};

/// A process that is none of ours, and must live.
struct Stranger(Child);

impl Stranger {
    fn start() -> Stranger {
        Stranger(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep can be run"))
    }

    #[track_caller]
    fn lives(&mut self) {
        assert!(self.0.try_wait().expect("it can be waited for").is_none(), "a stranger's process was killed");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every task that needs a ring.
const NEED_A_RING: [&[&str]; 17] = [
    &["add"],
    &["addmany", "2"],
    &["store", "v"],
    &["storemany", "3"],
    &["lookup", "v"],
    &["lookup", "--key", "k", "--trace"],
    &["delete", "v"],
    &["leave", "node-1"],
    &["kill", "node-1"],
    &["start", "node-1"],
    &["start", "--all"],
    &["list"],
    &["logs", "node-1"],
    &["logs", "node-1", "-f"],
    &["monitor", "--once"],
    &["doctor"],
    &["doctor", "--wait", "1s"],
];

#[test]
fn without_a_ring_every_task_says_how_to_get_one() {
    let lab = Lab::empty();
    for args in NEED_A_RING {
        let line = lab.fails(args);
        assert!(line.contains("tasks boot"), "{args:?}: {line}");
        let with_json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        if !args.contains(&"-f") {
            let ran = lab.tasks(&with_json);
            assert!(!ran.ok && ran.stdout.is_empty(), "{args:?}: {ran:?}");
        }
    }
    assert!(!lab.path().join("logs").exists() && !lab.path().join("network_state.json").exists());
    lab.ok(&["killall"]);
    lab.ok(&["killall", "--keep-data"]);
}

#[test]
fn a_state_file_that_cannot_be_read_is_never_overwritten() {
    let lab = Lab::with_nodes(2);
    let path = lab.path().join("network_state.json");
    let good = std::fs::read(&path).unwrap();
    let addrs = lab.addrs();
    let mut newer: Value = serde_json::from_slice(&good).unwrap();
    newer["version"] = json!(2);
    let mut no_version = newer.clone();
    no_version.as_object_mut().unwrap().remove("version");
    let wrong_port = String::from_utf8(good.clone()).unwrap().replace("\"port\": ", "\"port\": 9999");
    let broken: Vec<(Vec<u8>, &str)> = vec![
        (b"".into(), "damaged"),
        (b"{".into(), "damaged"),
        (b"null".into(), "damaged"),
        (b"[]".into(), "damaged"),
        (b"{\"version\": 1}".into(), "damaged"),
        (b"{\"version\": \"one\", \"nodes\": []}".into(), "damaged"),
        (b"\xff\xfe\0\0".into(), "damaged"),
        (good[..good.len() / 2].into(), "damaged"),
        (no_version.to_string().into(), "damaged"),
        (wrong_port.into(), "damaged"),
        (newer.to_string().into(), "version 2"),
    ];
    let also: [&[&str]; 4] = [&["boot"], &["reboot"], &["killall"], &["killall", "--keep-data"]];
    for (bytes, says) in &broken {
        std::fs::write(&path, bytes).unwrap();
        for args in also.iter().chain(&NEED_A_RING) {
            let line = lab.fails(args);
            assert!(line.contains(says) && line.contains("network_state.json"), "{args:?}: {line}");
        }
        assert_eq!(&std::fs::read(&path).unwrap(), bytes, "it is as it was");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    for args in also.iter().chain(&NEED_A_RING) {
        let line = lab.fails(args);
        assert!(line.contains("network_state.json"), "{args:?}: {line}");
    }
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, &good).unwrap();
    // The nodes never noticed.
    assert_eq!(lab.addrs(), addrs);
    lab.ok(&["doctor"]);
}

#[test]
fn a_ring_that_runs_is_not_booted_over() {
    let lab = Lab::with_nodes(2);
    lab.ok(&["store", "kept"]);
    let before = lab.state();
    let line = lab.fails(&["boot"]);
    assert!(line.contains("still runs") && line.contains("tasks killall"), "{line}");
    assert_eq!(lab.state(), before);
    // Nor where only one of it is left, paused or not.
    lab.ok(&["kill", "node-1"]);
    assert!(lab.fails(&["boot"]).contains("1 node"));
    lab.ok(&["start", "--all"]);
    lab.ok(&["doctor", "--wait", "20s"]);
    lab.ok(&["lookup", "kept"]);
}

#[test]
fn names_ports_and_words_that_make_no_sense_change_nothing() {
    let lab = Lab::with_nodes(2);
    let before = lab.state();
    let port = before["nodes"][0]["port"].to_string();
    let cases: [(&[&str], &str); 31] = [
        (&["add", "--name", "node-1"], "node-1"),
        (&["add", "--name", "../x"], "letters"),
        (&["add", "--name", ""], "letters"),
        (&["add", "--port", &port], "belongs to node-1"),
        (&["add", "--port", "99999"], "65535"),
        (&["add", "--host", "0.0.0.0"], "127.0.0.1"),
        (&["add", "--id", "80"], "--lab"),
        (&["add", "--lab", "--id", "80"], "--lab"),
        (&["add", "--lab", "--id", "xyz"], "hex"),
        (&["addmany", "0"], "1..=1000"),
        (&["addmany", "-3"], "-3"),
        (&["addmany", "many"], "many"),
        (&["addmany", "100000"], "1..=1000"),
        (&["storemany", "0"], "1..="),
        (&["storemany", "1e3"], "1e3"),
        (&["storemany", "3", "--lipsum", "nowhere.txt"], "nowhere.txt"),
        (&["storemany", "3", "--lipsum", "."], "."),
        (&["monitor", "--once", "--interval", "0"], "0"),
        (&["monitor", "--once", "--interval", "-1s"], "-1"),
        (&["monitor", "--once", "--interval", "soon"], "2s"),
        (&["doctor", "--wait", "1h"], "2s"),
        (&["join", "nowhere"], "HOST:PORT"),
        (&["join", "127.0.0.1:1"], "does not answer"),
        (&["leave", "node-9"], "tasks list"),
        (&["kill", "node-9"], "tasks list"),
        (&["start", "node-9"], "tasks list"),
        (&["logs", "node-9"], "tasks list"),
        (&["start", "node-1"], "runs already"),
        (&["store", "v", "--via", "node-9"], "tasks list"),
        (&["lookup", "v", "--via", ""], "--via"),
        (&["fly"], "fly"),
    ];
    for (args, says) in cases {
        let ran = lab.tasks(args);
        let own: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("tasks: ")).collect();
        assert!(!ran.ok && own.len() == 1 && own[0].contains(says), "{args:?}: {ran:#?}");
        // Beside that line only what a node said that did not start.
        assert!(ran.stderr.lines().all(|line| line.starts_with("tasks: ") || line.starts_with("    ")), "{ran:#?}");
        assert_eq!(lab.state(), before, "{args:?}");
    }
    lab.ok(&["doctor"]);
}

#[test]
fn a_strangers_process_is_never_touched() {
    let lab = Lab::with_nodes(3);
    let mut stranger = Stranger::start();
    let path = lab.path().join("network_state.json");
    lab.ok(&["store", "kept"]);
    lab.ok(&["doctor"]);
    // Its pid as the system might have given it out again: with the start time of a process that is gone.
    lab.ok(&["kill", "node-1"]);
    let mut state = lab.state();
    state["nodes"][0]["pid"] = json!(stranger.0.id());
    state["nodes"][0]["status"] = json!("running");
    std::fs::write(&path, state.to_string()).unwrap();
    let entry = |name: &str| {
        let nodes = lab.json(&["list"])["nodes"].clone();
        nodes.as_array().unwrap().iter().find(|node| node["name"] == name).unwrap().clone()
    };
    assert_eq!(entry("node-1")["status"], "stopped");
    for args in [["kill", "node-1"], ["leave", "node-1"]] {
        let line = lab.fails(&args);
        assert!(line.contains("does not run"), "{args:?}: {line}");
        stranger.lives();
    }
    lab.ok(&["start", "node-1"]);
    stranger.lives();
    assert_eq!(entry("node-1")["status"], "running");
    lab.ok(&["doctor", "--wait", "20s"]);
    lab.ok(&["lookup", "kept"]);
    // The same with times that make no sense, or none, and with pids that are none, and an end to it all.
    let state = lab.state();
    let strange = [json!(""), json!("x"), json!(":"), json!("another-boot:1"), state["nodes"][0]["started"].clone()];
    for started in strange {
        let mut edited = lab.state();
        for pid in [stranger.0.id(), u32::MAX, 0, 1] {
            edited["nodes"][0]["pid"] = json!(pid);
            edited["nodes"][0]["started"] = started.clone();
            edited["nodes"][0]["status"] = json!("running");
            std::fs::write(&path, edited.to_string()).unwrap();
            assert!(lab.fails(&["kill", "node-1"]).contains("does not run"));
            stranger.lives();
        }
    }
    let pid = state["nodes"][0]["pid"].as_u64().unwrap();
    let addr = format!("127.0.0.1:{}", state["nodes"][0]["port"]);
    assert_eq!(get_json(&addr, "/nodeinfo")["pid"].as_u64(), Some(pid), "the forgotten one goes on");
    std::fs::write(&path, state.to_string()).unwrap();
    let mut edited = state.clone();
    edited["nodes"].as_array_mut().unwrap().push({
        let mut ghost = state["nodes"][1].clone();
        ghost["name"] = json!("ghost");
        ghost["pid"] = json!(stranger.0.id());
        ghost["port"] = json!(1);
        ghost["log"] = json!(lab.path().join("logs/ghost.log"));
        ghost["data_dir"] = Value::Null;
        ghost
    });
    std::fs::write(&path, edited.to_string()).unwrap();
    lab.ok(&["killall"]);
    stranger.lives();
    assert!(!path.exists());
}

#[test]
fn a_state_file_cannot_send_the_clearing_up_elsewhere() {
    let lab = Lab::with_nodes(2);
    let precious = lab.path().join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("letter"), b"dear").unwrap();
    std::fs::write(lab.path().join("notes.log"), b"mine").unwrap();
    let mut state = lab.state();
    state["nodes"][0]["data_dir"] = json!(precious);
    state["nodes"][0]["log"] = json!(lab.path().join("notes.log"));
    std::fs::write(lab.path().join("network_state.json"), state.to_string()).unwrap();
    lab.ok(&["killall"]);
    assert_eq!(std::fs::read(precious.join("letter")).unwrap(), b"dear");
    assert_eq!(std::fs::read(lab.path().join("notes.log")).unwrap(), b"mine");
}
