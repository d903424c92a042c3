//! Nodes that leave, die, come back and join, and what becomes of the values.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::TcpListener;
use std::time::Duration;

use crate::common::{
    Daemon, Lab, Place, addr_of, escape, eventually, exchange, fields, get, get_json, processes_of, runs, send, sha256,
    signal, version, whole_db,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// The body that names a node.
fn named(addr: &str) -> Value {
    let (host, port) = addr.rsplit_once(':').unwrap();
    json!({ "host": host, "port": port.parse::<u16>().unwrap() })
}

fn pid(lab: &Lab, name: &str) -> u64 {
    lab.node(name)["pid"].as_u64().unwrap()
}

/// Waits until a process that no task waits for has ended.
fn ends(pid: u64) {
    eventually("the process has ended", PATIENCE, || (!runs(pid)).then_some(()));
}

/// The ids that a node holds.
fn held(addr: &str) -> Vec<String> {
    whole_db(addr, 1000).iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn who_leaves_hands_everything_to_its_predecessor() {
    let lab = Lab::with_nodes(6);
    let values = lab.fill(90);
    for name in ["node-2", "node-5", "node-1"] {
        let (node, model) = (lab.node(name), lab.model());
        let addr = addr_of(&node);
        let predecessor = model.before(&addr);
        let (mine, theirs) = (held(&addr), held(predecessor));
        let left = lab.json(&["leave", name]);
        assert_eq!((&left["left"], &left["id"]), (&name.into(), &node["id"]));
        assert!(!runs(node["pid"].as_u64().unwrap()), "its process is gone");
        assert!(lab.nodes().iter().all(|entry| entry["name"] != name), "its entry is gone");
        for file in ["log", "data_dir"] {
            assert!(!std::path::Path::new(node[file].as_str().unwrap()).exists(), "its {file} is gone");
        }
        let mut all = [mine, theirs].concat();
        all.sort();
        eventually("its predecessor has both", PATIENCE, || (held(predecessor) == all).then_some(()));
        // At once, without waiting for the ring to settle.
        lab.holds(&values);
    }
    lab.heals();
    lab.holds(&values);
    assert!(lab.fails(&["leave", "node-2"]).contains("node-2"));
}

#[test]
fn two_neighbours_leave_at_the_same_time() {
    let lab = Lab::with_nodes(6);
    let values = lab.fill(90);
    for round in 0..2 {
        let (model, addrs) = (lab.model(), lab.addrs());
        let first = addrs[round].clone();
        let pair = [lab.name_at(&first), lab.name_at(model.after(&first, 1))];
        let leaving = pair
            .each_ref()
            .map(|name| lab.command(&["leave", name]).stdout(std::process::Stdio::null()).spawn().unwrap());
        for mut child in leaving {
            assert!(child.wait().unwrap().success(), "{}", lab.logs());
        }
        assert!(lab.nodes().iter().all(|entry| !pair.iter().any(|name| entry["name"] == **name)));
        lab.holds(&values);
        lab.heals();
    }
    assert_eq!(lab.addrs().len(), 2);
}

#[test]
fn a_request_to_leave_needs_no_task() {
    let lab = Lab::with_nodes(4);
    let values = lab.fill(60);
    let (addr, model) = (lab.addr("node-3"), lab.model());
    let predecessor = model.before(&addr).to_owned();
    let process = pid(&lab, "node-3");
    let left = exchange("POST", &addr, "/dht/leave", None).expect(200);
    assert_eq!(fields(&left), ["left"]);
    assert_eq!(addr_of(&left["left"]), addr);
    // It answers when all is handed over.
    assert_eq!(addr_of(&get_json(&predecessor, "/succ")), model.after(&addr, 1));
    ends(process);
    assert_eq!(lab.node("node-3")["name"], "node-3");
    assert_eq!(lab.json(&["list"])["nodes"][2]["status"], "stopped");
    lab.ok(&["kill", "node-4"]);
    lab.ok(&["start", "node-4"]);
    lab.holds(&values);
}

#[test]
fn who_has_left_is_started_again_as_a_member_of_the_same_ring() {
    let lab = Lab::with_nodes(4);
    let values = lab.fill(60);
    let addr = lab.addr("node-3");
    let process = pid(&lab, "node-3");
    exchange("POST", &addr, "/dht/leave", None).expect(200);
    ends(process);
    lab.ok(&["start", "node-3"]);
    assert_eq!(lab.addr("node-3"), addr);
    lab.heals();
    assert_eq!(lab.json(&["doctor"])["nodes"], 4);
    lab.holds(&values);
}

#[test]
fn a_node_that_is_told_to_stop_leaves_first() {
    for told in [Signal::SIGTERM, Signal::SIGINT] {
        let lab = Lab::with_nodes(4);
        let values = lab.fill(60);
        let addr = lab.addr("node-2");
        let before = lab.model();
        let process = pid(&lab, "node-2");
        let (mine, theirs) = (held(&addr), held(before.before(&addr)));
        signal(process, told);
        ends(process);
        let mut all = [mine, theirs].concat();
        all.sort();
        eventually("its predecessor has both", PATIENCE, || (held(before.before(&addr)) == all).then_some(()));
        assert_eq!(lab.json(&["list"])["nodes"][1]["status"], "stopped");
        lab.ok(&["start", "--all"]);
        lab.heals();
        assert_eq!(lab.json(&["doctor"])["nodes"], 4);
        lab.holds(&values);
    }
}

#[test]
fn a_ring_whose_machine_is_shut_down_comes_back() {
    let lab = Lab::with_nodes(6);
    let values = lab.fill(90);
    lab.ok(&["store", "before", "--key", "k"]);
    let before = lab.json(&["store", "before", "--key", "k"]);
    // A shutdown tells all processes at once, and kills those that take too long.
    let processes: Vec<u64> = lab.nodes().iter().map(|node| node["pid"].as_u64().unwrap()).collect();
    processes.iter().for_each(|process| signal(*process, Signal::SIGTERM));
    processes.iter().for_each(|process| ends(*process));
    let ports: Vec<String> = lab.nodes().iter().map(addr_of).collect();
    lab.ok(&["start", "--all"]);
    assert_eq!(lab.nodes().iter().map(addr_of).collect::<Vec<_>>(), ports);
    lab.heals();
    assert_eq!(lab.json(&["doctor"])["nodes"], 6);
    lab.holds(&values);
    let after = lab.json(&["store", "after", "--key", "k"]);
    assert!(version(&after) > version(&before), "it is the same ring: {before} and {after}");
}

#[test]
fn the_last_node_does_not_take_the_values_with_it() {
    let lab = Lab::with_nodes(2);
    let values = lab.fill(30);
    lab.ok(&["leave", "node-2"]);
    lab.holds(&values);
    let refusal = lab.fails(&["leave", "node-1"]);
    assert!(refusal.contains("last") && refusal.contains("killall"), "{refusal}");
    lab.holds(&values);
    exchange("POST", &lab.addr("node-1"), "/dht/leave", None).problem(409, "conflict");
    // Told to stop it does stop, and its ring goes on where it was.
    let process = pid(&lab, "node-1");
    signal(process, Signal::SIGTERM);
    ends(process);
    lab.ok(&["start", "node-1"]);
    lab.holds(&values);
    // With nothing to hand over it may go.
    for value in &values {
        lab.ok(&["delete", "--", value]);
    }
    lab.ok(&["leave", "node-1"]);
    assert_eq!(processes_of(lab.path()), [0; 0]);
    assert!(!lab.tasks(&["list"]).ok, "there is no ring any more");
    lab.ok(&["boot"]);
}

#[test]
fn who_was_killed_comes_back_with_its_data() {
    let lab = Lab::with_nodes(5);
    let values = lab.fill(80);
    // A node may own next to nothing: the one that holds most does not.
    let most = |name: &&str| held(&lab.addr(name)).len();
    let name = ["node-2", "node-3", "node-4", "node-5"].into_iter().max_by_key(most).unwrap();
    let before = lab.node(name);
    let addr = addr_of(&before);
    let (mine, model) = (held(&addr), lab.model());
    assert!(!mine.is_empty());
    lab.ok(&["kill", name]);
    assert!(!runs(before["pid"].as_u64().unwrap()));
    assert_eq!(lab.node(name)["status"], "stopped");
    assert!(lab.fails(&["kill", name]).contains("does not run"));
    assert!(lab.fails(&["leave", name]).contains(&format!("tasks start {name}")));
    // What the others hold is found all the while.
    let others: Vec<&String> = values.iter().filter(|value| model.owner(&sha256(value)) != addr).collect();
    for value in &others {
        lab.ok(&["lookup", "--", value]);
    }
    lab.heals();
    assert_eq!(lab.json(&["doctor"])["absent"], json!([{"name": name, "reason": "stopped"}]));

    lab.ok(&["start", name]);
    let after = lab.node(name);
    for field in ["name", "host", "port", "id", "log", "data_dir", "status"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_ne!(after["pid"], before["pid"]);
    // Ready is ready: its values are back at once.
    for value in &values {
        lab.ok(&["lookup", "--", value]);
    }
    lab.heals();
    assert_eq!(held(&addr), mine);
    lab.holds(&values);
}

#[test]
fn who_remembers_only_nodes_that_are_gone_finds_the_ring_all_the_same() {
    let lab = Lab::with_nodes(3);
    lab.ok(&["kill", "node-1"]);
    lab.heals();
    // None of these has it ever heard of, and all that it knew leave.
    lab.ok(&["addmany", "3"]);
    for name in ["node-2", "node-3"] {
        lab.ok(&["leave", name]);
    }
    let values = lab.fill(40);
    lab.ok(&["start", "node-1"]);
    lab.heals();
    assert_eq!(lab.json(&["doctor"])["nodes"], 4);
    lab.holds(&values);
}

#[test]
fn several_die_at_once_and_what_was_written_meanwhile_stays() {
    let lab = Lab::with_nodes(9);
    let mut values = lab.fill(80);
    let (addrs, model) = (lab.addrs(), lab.model());
    // One of each three: every value keeps two of the three nodes that keep it.
    let victims = [addrs[0].as_str(), model.after(&addrs[0], 3), model.after(&addrs[0], 6)];
    let all = || (0..).map(|number| format!("key {number}"));
    let theirs = |key: &String| victims.contains(&model.owner(&sha256(key)));
    let keys: Vec<String> = all().take(30).chain(all().skip(30).filter(theirs).take(10)).collect();
    for key in &keys {
        lab.ok(&["store", "old", "--key", key]);
    }
    for victim in victims {
        lab.ok(&["kill", &lab.name_at(victim)]);
    }
    lab.heals();
    let doctor = lab.json(&["doctor"]);
    assert_eq!((&doctor["nodes"], doctor["absent"].as_array().unwrap().len()), (&6.into(), 3));
    lab.holds(&values);
    // Half of the keys are overwritten, half of those deleted again, while their owners are dead.
    for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
        lab.ok(&["store", "new", "--key", key]);
        if number % 4 == 0 {
            lab.ok(&["delete", "--key", key]);
        }
    }
    for number in 0..30 {
        let value = format!("meanwhile {number}");
        lab.ok(&["store", &value]);
        values.push(value);
    }
    lab.ok(&["start", "--all"]);
    lab.heals();
    assert_eq!(lab.json(&["doctor"])["nodes"], 9);
    for (number, key) in keys.iter().enumerate() {
        let answer = get(&addrs[number % 9], &format!("/dht/lookup?key={}", escape(key)));
        match number % 4 {
            0 => drop(answer.problem(404, "no-such-value")),
            2 => assert_eq!(answer.expect(200)["value"], "new", "{key}"),
            _ => assert_eq!(answer.expect(200)["value"], "old", "{key}"),
        }
    }
    lab.holds(&values);
}

#[test]
fn a_node_joins_when_a_member_is_asked_to_take_it() {
    let lab = Lab::with_nodes(3);
    let values = lab.fill(60);
    let dir = tempfile::tempdir().unwrap();
    let joiner = Daemon::start(dir.path(), &["--memory", "--name", "newcomer"]);
    let members = lab.addrs();
    let owner = lab.model().owner(&sha256(&joiner.addr)).to_owned();
    let welcomed = send("POST", &members[0], "/dht/join", &named(&joiner.addr)).expect(200);
    assert_eq!(fields(&welcomed), ["joined", "welcomed_by"]);
    assert_eq!((addr_of(&welcomed["joined"]), &welcomed["joined"]["name"]), (joiner.addr.clone(), &"newcomer".into()));
    assert_eq!(addr_of(&welcomed["welcomed_by"]), owner, "the owner of its id has welcomed it");
    lab.heals();
    let doctor = lab.json(&["doctor"]);
    assert_eq!(doctor["nodes"], 4);
    let model = crate::common::Model::of(&[members.clone(), vec![joiner.addr.clone()]].concat());
    assert_eq!(addr_of(&get_json(&joiner.addr, "/pred")), owner);
    assert_eq!(addr_of(&get_json(&joiner.addr, "/succ")), model.after(&joiner.addr, 1));
    let expected = values.iter().filter(|value| model.owner(&sha256(value)) == joiner.addr).count();
    eventually("its part of the values has moved to it", Duration::from_secs(30), || {
        (held(&joiner.addr).len() == expected).then_some(())
    });
    for value in &values {
        let found = get_json(&joiner.addr, &format!("/dht/lookup?value={}", escape(value)));
        assert_eq!(addr_of(&found["owner"]), model.owner(&sha256(value)));
    }
    let rows = lab.json(&["monitor"]);
    let row = rows["nodes"].as_array().unwrap().iter().find(|row| row["name"] == "newcomer").unwrap();
    assert_eq!(row["status"], "elsewhere", "it is of the ring and not of this state");
    // Once more changes nothing.
    send("POST", &members[1], "/dht/join", &named(&joiner.addr)).expect(200);
    lab.heals();
    // It goes as it came.
    exchange("POST", &joiner.addr, "/dht/leave", None).expect(200);
    lab.holds(&values);
}

#[test]
fn a_node_alone_takes_another() {
    let _place = Place::take();
    let dir = tempfile::tempdir().unwrap();
    let one = Daemon::start(dir.path(), &["--memory", "--name", "one"]);
    let two = Daemon::start(dir.path(), &["--memory", "--name", "two"]);
    for number in 0..20 {
        send("POST", &one.addr, "/dht/store", &json!({ "value": number.to_string() })).expect(200);
    }
    let welcomed = send("POST", &one.addr, "/dht/join", &named(&two.addr)).expect(200);
    assert_eq!(welcomed["welcomed_by"]["name"], "one");
    for (me, other) in [(&one, &two), (&two, &one)] {
        eventually("they are each other's neighbours", PATIENCE, || {
            ["/pred", "/succ"]
                .iter()
                .all(|route| {
                    let answer = get(&me.addr, route);
                    answer.status == 200 && addr_of(&answer.json()) == other.addr
                })
                .then_some(())
        });
    }
    for number in 0..20 {
        assert_eq!(get_json(&two.addr, &format!("/dht/lookup?value={number}"))["value"], number.to_string());
    }
    eventually("each value is at one of them", PATIENCE, || {
        (held(&one.addr).len() + held(&two.addr).len() == 20).then_some(())
    });
}

#[test]
fn whom_nobody_can_take_is_refused() {
    let lab = Lab::with_nodes(2);
    let values = lab.fill(10);
    let addrs = lab.addrs();
    let dir = tempfile::tempdir().unwrap();
    let full = Daemon::start(dir.path(), &["--memory"]);
    send("POST", &full.addr, "/dht/store", &json!({ "value": "mine" })).expect(200);
    // A node does not give up a ring of its own that holds values, or in which there are others.
    let refusal = send("POST", &addrs[0], "/dht/join", &named(&full.addr)).problem(409, "conflict");
    assert!(refusal["detail"].as_str().unwrap().contains("1 value"), "{refusal}");
    assert_eq!(get_json(&full.addr, "/dht/lookup?value=mine")["value"], "mine");
    let other = Daemon::start(dir.path(), &["--memory", "--bootstrap", &full.addr]);
    send("POST", &addrs[0], "/dht/join", &named(&other.addr)).problem(409, "conflict");
    send("POST", &addrs[0], "/dht/join", &named(&addrs[0])).problem(409, "conflict");
    let dead = send("POST", &addrs[0], "/dht/join", &json!({"host": "127.0.0.1", "port": 1}));
    dead.problem(502, "unreachable");
    let no_node = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = no_node.local_addr().unwrap().to_string();
    let answer = send("POST", &addrs[0], "/dht/join", &named(&silent));
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    for body in
        [json!({}), json!({"host": "127.0.0.1"}), json!({"host": "", "port": 1}), json!({"host": "x", "port": 0})]
    {
        send("POST", &addrs[0], "/dht/join", &body).problem(400, "malformed");
    }
    lab.ok(&["doctor"]);
    lab.holds(&values);
}

#[test]
fn tasks_join_a_ring_elsewhere() {
    let there = Lab::with_nodes(2);
    let values = there.fill(30);
    let here = tempfile::tempdir().unwrap();
    let state = here.path().join("mine.json");
    let state = state.to_str().unwrap();
    let joined = there.json(&["--state", state, "join", &there.addrs()[0], "--name", "visitor"]);
    assert_eq!(joined["nodes"][0]["name"], "visitor");
    assert_eq!(processes_of(here.path()).len(), 1, "its data lies beside its own state");
    assert_eq!(there.nodes().len(), 2, "and it is not in the other one");
    there.ok(&["--state", state, "doctor", "--wait", "30s"]);
    assert_eq!(there.json(&["--state", state, "doctor"])["nodes"], 3);
    for value in &values {
        there.ok(&["--state", state, "lookup", "--via", "visitor", "--", value]);
    }
    there.ok(&["--state", state, "leave", "visitor"]);
    there.heals();
    there.holds(&values);
    assert!(there.fails(&["--state", state, "join", "127.0.0.1:1"]).contains("127.0.0.1:1"));
    assert_eq!(processes_of(here.path()), [0; 0]);
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Nodes that are wired by hand to a ring in the order of their ids, as in the first lab.
fn wired_by_hand<const N: usize>(dir: &std::path::Path) -> Vec<Daemon> {
    let addrs = free_ports::<N>().map(|port| format!("127.0.0.1:{port}"));
    let model = crate::common::Model::of(&addrs);
    let start = |addr: &String| {
        let port = addr.rsplit_once(':').unwrap().1;
        let (pred, succ) = (model.before(addr), model.after(addr, 1));
        Daemon::start(dir, &["--lab", "--memory", "--port", port, "--pred", pred, "--succ", succ])
    };
    std::thread::scope(|scope| {
        let starting: Vec<_> = addrs.iter().map(|addr| scope.spawn(move || start(addr))).collect();
        starting.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn is_one_ring(nodes: &[Daemon]) {
    let addrs: Vec<String> = nodes.iter().map(|node| node.addr.clone()).collect();
    let model = crate::common::Model::of(&addrs);
    let points = |addr: &str, route: &str, to: &str| {
        let answer = get(addr, route);
        answer.status == 200 && addr_of(&answer.json()) == to
    };
    // Each is ready as a ring of its own before it is wired, and serves the whole circle for another moment.
    let serves_its_own = |addr: &String| {
        let info = get_json(addr, "/nodeinfo");
        info["views"].as_array().unwrap().iter().any(|view| view["primary"] == true && view["range"] == info["range"])
    };
    eventually("the pointers are as they were wired", PATIENCE, || {
        let wired =
            |addr: &String| points(addr, "/pred", model.before(addr)) && points(addr, "/succ", model.after(addr, 1));
        addrs.iter().all(|addr| wired(addr) && serves_its_own(addr)).then_some(())
    });
    let values: Vec<String> = (0..20).map(|number| format!("value {number}")).collect();
    for (number, value) in values.iter().enumerate() {
        send("POST", &addrs[number % addrs.len()], "/dht/store", &json!({ "value": value })).expect(200);
    }
    for addr in &addrs {
        for value in &values {
            get(addr, &format!("/dht/lookup?value={}", escape(value))).expect(200);
        }
    }
    let theirs = |addr: &String| {
        let ids = values.iter().map(sha256).filter(|id| model.owner(id) == addr);
        ids.collect::<std::collections::BTreeSet<String>>()
    };
    eventually("each holds its own values and no others", PATIENCE, || {
        addrs
            .iter()
            .all(|addr| held(addr).into_iter().collect::<std::collections::BTreeSet<_>>() == theirs(addr))
            .then_some(())
    });
}

#[test]
fn two_nodes_are_wired_by_hand() {
    let _place = Place::take();
    let dir = tempfile::tempdir().unwrap();
    is_one_ring(&wired_by_hand::<2>(dir.path()));
}

#[test]
fn three_nodes_are_wired_by_hand_and_a_fourth_joins() {
    let _place = Place::take();
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = wired_by_hand::<3>(dir.path());
    is_one_ring(&nodes);
    nodes.push(Daemon::start(dir.path(), &["--lab", "--memory", "--bootstrap", &nodes[0].addr.clone()]));
    is_one_ring(&nodes);
}

#[test]
fn wiring_by_hand_is_for_lessons() {
    let _place = Place::take();
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        vec!["--memory", "--pred", "127.0.0.1:1", "--succ", "127.0.0.1:1"],
        vec!["--memory", "--lab", "--succ", "127.0.0.1:1", "--bootstrap", "127.0.0.1:1"],
        vec!["--memory", "--id", "40"],
    ] {
        let ran = Daemon::try_start(dir.path(), &arguments).err().expect("it is refused");
        assert!(!ran.ok && ran.stderr.trim_end().lines().count() == 1, "{arguments:?}: {ran:?}");
    }
}
