//! `tasks` as people meet it: anywhere, several at once, interrupted.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use crate::common::{Lab, Ran, addr_of, eventually, fields, get, processes_of, runs, signal};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn in_an_empty_directory_every_task_says_how_to_begin() {
    let lab = Lab::empty();
    let tasks: [&[&str]; 19] = [
        &["add"],
        &["addmany", "2"],
        &["leave", "node-1"],
        &["kill", "node-1"],
        &["start", "node-1"],
        &["start", "--all"],
        &["list"],
        &["logs", "node-1"],
        &["store", "v"],
        &["storemany", "5"],
        &["lookup", "v"],
        &["delete", "v"],
        &["put", "k", "v"],
        &["get", "k"],
        &["cas", "k", "old", "new"],
        &["export", "all.ndjson"],
        &["import", "all.ndjson"],
        &["monitor", "--once"],
        &["doctor"],
    ];
    for task in tasks {
        let refusal = lab.fails(task);
        assert!(refusal.contains("tasks boot"), "{task:?}: {refusal}");
        let json = lab.tasks(&[&["--json"], task].concat());
        assert!(!json.ok && json.stdout.is_empty(), "{task:?}: {json:?}");
    }
    assert!(lab.ok(&["killall"]).contains("nothing to end"));
    assert_eq!(std::fs::read_dir(lab.path()).unwrap().count(), 0, "and touches nothing");
}

#[test]
fn the_state_may_lie_elsewhere() {
    let lab = Lab::empty();
    let elsewhere = tempfile::tempdir().unwrap();
    let (one, two) = (elsewhere.path().join("a/one.json"), elsewhere.path().join("b/two.json"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    lab.ok(&["--state", one, "boot"]);
    let by_variable = |args: &[&str]| {
        let ran = Ran::of(lab.command(args).env("CHORDAL_STATE", two).output().unwrap());
        assert!(ran.ok, "{ran:?}");
        ran.stdout
    };
    by_variable(&["boot"]);
    assert_eq!(std::fs::read_dir(lab.path()).unwrap().count(), 0, "nothing in the directory itself");
    lab.ok(&["--state", one, "store", "in one"]);
    by_variable(&["store", "in two"]);
    lab.ok(&["lookup", "in one", "--state", one]);
    assert!(!lab.tasks(&["lookup", "in two", "--state", one]).ok, "they are two rings");
    by_variable(&["lookup", "in two"]);
    for directory in ["a", "b"] {
        for file in ["logs/node-1.log", "data/node-2"] {
            assert!(elsewhere.path().join(directory).join(file).exists(), "{file} lies beside its state");
        }
    }
    // An option goes before a variable.
    let ran = Ran::of(lab.command(&["--state", one, "lookup", "in one"]).env("CHORDAL_STATE", two).output().unwrap());
    assert!(ran.ok, "{ran:?}");
    by_variable(&["killall"]);
    assert_eq!(processes_of(elsewhere.path()).len(), 2);
    lab.ok(&["--state", one, "lookup", "in one"]);
    lab.ok(&["--state", one, "killall"]);
    assert_eq!(processes_of(elsewhere.path()), [0; 0]);
}

#[test]
fn nodes_hold_nothing_of_the_one_who_started_them() {
    let lab = Lab::empty();
    // `output` returns when both pipes are closed: a node that had inherited one would hold this up for ever.
    lab.ok(&["boot"]);
    for process in processes_of(lab.path()) {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let session: i32 = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(3).unwrap().parse().unwrap();
        assert_eq!(session, process, "it has a session of its own");
        let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let targets: Vec<_> = open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
        assert!(targets.iter().any(|target| target == std::path::Path::new("/dev/null")), "{targets:?}");
        assert!(targets.iter().any(|target| target.extension().is_some_and(|it| it == "log")), "{targets:?}");
    }
}

#[test]
fn list_and_logs_tell_of_nodes_that_run_and_of_those_that_do_not() {
    let lab = Lab::with_nodes(3);
    lab.ok(&["kill", "node-2"]);
    let listed = lab.json(&["list"]);
    assert_eq!(listed, json!({ "nodes": lab.state()["nodes"] }));
    let text = lab.ok(&["list"]);
    for node in lab.nodes() {
        let name = node["name"].as_str().unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in\n{text}"));
        assert!(line.contains(&addr_of(&node)) && line.contains(&node["id"].as_str().unwrap()[..8]), "{line}");
        assert_eq!(line.contains("stopped"), name == "node-2", "{line}");
    }
    assert!(text.contains("2 of 3"), "{text}");
    for name in ["node-1", "node-2"] {
        let log = std::fs::read_to_string(lab.node(name)["log"].as_str().unwrap()).unwrap();
        let shown = lab.ok(&["logs", name, "-n", "100000"]);
        assert!(log.starts_with(shown.trim_end()), "the log of {name}");
        assert!(shown.contains("is ready"), "{shown}");
        let last = lab.json(&["logs", name, "-n", "2"]);
        assert_eq!((fields(&last), last["lines"].as_array().unwrap().len()), (vec!["lines", "log", "name"], 2));
    }
    assert!(lab.fails(&["logs", "node-9"]).contains("node-9"));
}

#[test]
fn logs_are_followed_until_interrupted() {
    let lab = Lab::empty();
    // Requests are told of at this level.
    assert!(lab.command(&["boot"]).env("RUST_LOG", "debug").output().unwrap().status.success());
    let seen = lab.path().join("followed");
    let out = std::fs::File::create(&seen).unwrap();
    let mut follow = Following(lab.command(&["logs", "node-1", "-f", "-n", "1"]).stdout(out).spawn().unwrap());
    let addr = lab.addr("node-1");
    eventually("what is added appears", PATIENCE, || {
        get(&addr, "/find?key=followed");
        std::fs::read_to_string(&seen).unwrap().contains("path=\"/find\"").then_some(())
    });
    signal(follow.0.id().into(), Signal::SIGINT);
    assert!(follow.0.wait().unwrap().success());
    std::fs::remove_file(&seen).unwrap();
}

/// A task that goes on by itself, ended at the latest when the test is.
struct Following(std::process::Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_monitor_shows_who_holds_what() {
    let lab = Lab::with_nodes(4);
    lab.fill(50);
    lab.ok(&["kill", "node-4"]);
    lab.heals();
    let rows = lab.json(&["monitor"]);
    let rows = rows["nodes"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    let expected = ["addr", "id", "keys", "moved", "name", "pred", "share", "status", "succ"];
    let mut keys = 0;
    for row in rows {
        assert_eq!(fields(row), expected);
        let node = lab.node(row["name"].as_str().unwrap());
        assert_eq!((&row["id"], row["addr"].as_str().unwrap()), (&node["id"], addr_of(&node).as_str()));
        assert_eq!(row["status"], node["status"]);
        if node["status"] == "running" {
            assert_eq!(row["keys"], crate::common::whole_db(&addr_of(&node), 1000).len());
            keys += row["keys"].as_u64().unwrap();
        } else {
            assert_eq!((&row["keys"], &row["share"], &row["succ"]), (&Value::Null, &Value::Null, &Value::Null));
        }
    }
    let ids: Vec<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted(), "in ring order");
    let text = lab.ok(&["monitor", "--once"]);
    assert!(text.contains(&format!("3 of 4 nodes answer and hold {keys} keys")), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours and no cursor movements where there is no terminal");
}

#[test]
fn the_monitor_goes_on_while_nodes_come_go_and_die() {
    let lab = Lab::with_nodes(3);
    lab.fill(40);
    let seen = lab.path().join("monitored");
    let out = std::fs::File::create(&seen).unwrap();
    let mut monitor = lab.command(&["monitor", "--interval", "100ms"]).stdout(out).spawn().unwrap();
    let mut shows = |what: &str| {
        eventually(what, PATIENCE, || {
            let text = std::fs::read_to_string(&seen).unwrap();
            let last = text.rsplit("NAME ").next().unwrap_or_default().to_owned();
            assert!(monitor.try_wait().unwrap().is_none(), "the monitor has ended:\n{text}");
            (last.contains(what) || (what == "The ring is gone" && text.contains(what))).then_some(())
        });
    };
    shows("3 of 3 nodes");
    lab.ok(&["add"]);
    shows("4 of 4 nodes");
    lab.ok(&["leave", "node-2"]);
    shows("3 of 3 nodes");
    lab.ok(&["kill", "node-3"]);
    shows("stopped");
    lab.ok(&["killall"]);
    shows("The ring is gone");
    lab.ok(&["boot"]);
    shows("2 of 2 nodes");
    signal(monitor.id().into(), Signal::SIGINT);
    assert!(monitor.wait().unwrap().success());
    std::fs::remove_file(&seen).unwrap();
}

#[test]
fn the_demo_runs_to_its_end_and_leaves_nothing_behind() {
    let lab = Lab::empty();
    let temporary = tempfile::tempdir().unwrap();
    let demo = |args: &[&str]| {
        let ran = Ran::of(lab.command(args).env("TMPDIR", temporary.path()).output().unwrap());
        assert!(ran.ok, "{ran:#?}");
        assert_eq!(processes_of(temporary.path()), [0; 0]);
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(lab.path()).unwrap().count(), 0);
        ran.stdout
    };
    let told = demo(&["demo"]);
    for task in ["boot", "addmany", "store", "storemany", "lookup", "leave", "kill", "doctor", "start", "monitor"] {
        assert!(told.contains(&format!("$ tasks {task}")), "{task} in\n{told}");
    }
    assert!(told.trim_end().lines().last().unwrap().contains("tasks killall"), "it ends with what to try next");
    let told: Value = serde_json::from_str(&demo(&["demo", "--json"])).unwrap();
    assert!(told["steps"].as_array().unwrap().len() >= 10);
}

#[test]
fn an_interrupted_demo_cleans_up() {
    let lab = Lab::empty();
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = lab.command(&["demo"]);
    demo.env("TMPDIR", temporary.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut demo = demo.spawn().unwrap();
    eventually("its ring grows", PATIENCE, || (processes_of(temporary.path()).len() > 3).then_some(()));
    signal(demo.id().into(), Signal::SIGINT);
    assert!(!demo.wait().unwrap().success());
    assert_eq!(processes_of(temporary.path()), [0; 0]);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn completions_are_printed_for_the_usual_shells() {
    let lab = Lab::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = lab.ok(&["completions", shell]);
        assert!(script.contains("tasks") && script.contains("addmany") && script.contains("storemany"), "{shell}");
    }
    assert_eq!(lab.tasks(&["completions", "cobol"]).code, Some(2));
    assert_eq!(std::fs::read_dir(lab.path()).unwrap().count(), 0);
}

#[test]
fn several_tasks_at_once_lose_nothing() {
    let lab = Lab::with_nodes(5);
    let values = lab.fill(50);
    let mut tasks: Vec<Vec<String>> = Vec::new();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for number in 0..6 {
        tasks.push(words(&format!("store at-once-{number}")));
    }
    tasks.extend(["add", "add", "addmany 2", "addmany 2", "add --name twin", "add --name twin"].map(words));
    tasks.extend(["leave node-3", "leave node-5", "list", "monitor --once"].map(words));
    let children: Vec<_> = tasks
        .iter()
        .map(|task| {
            let words: Vec<&str> = ["--json"].into_iter().chain(task.iter().map(String::as_str)).collect();
            lab.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let ran: Vec<Ran> = children.into_iter().map(|child| Ran::of(child.wait_with_output().unwrap())).collect();
    let mut twins = 0;
    for (task, ran) in tasks.iter().zip(&ran) {
        if task.contains(&"twin".to_owned()) {
            twins += usize::from(ran.ok);
            continue;
        }
        assert!(ran.ok, "{task:?}: {ran:#?}\n{}", lab.logs());
        serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|error| panic!("{task:?}: {error}: {ran:#?}"));
    }
    assert_eq!(twins, 1, "one of them got the name: {ran:#?}");
    let nodes = lab.nodes();
    let names: BTreeSet<&str> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), nodes.len()), (10, 10), "5, 7 more, 2 fewer: {nodes:#?}");
    assert!(!names.contains("node-3") && !names.contains("node-5"));
    assert!(nodes.iter().all(|node| node["status"] == "running"), "{nodes:#?}");
    state_is_true(&lab);
    lab.heals();
    let all: Vec<String> = values.into_iter().chain((0..6).map(|number| format!("at-once-{number}"))).collect();
    lab.holds(&all);
}

/// Whoever the state calls running answers, and there is no process that it does not name.
fn state_is_true(lab: &Lab) {
    let listed = lab.json(&["list"]);
    let nodes = listed["nodes"].as_array().unwrap();
    let mut named = BTreeSet::new();
    for node in nodes {
        assert_ne!(node["status"], "starting", "{node}");
        if node["status"] == "running" {
            assert_eq!(get(&addr_of(node), "/health/live").status, 200, "{node}");
            assert!(runs(node["pid"].as_u64().unwrap()), "{node}");
            assert_eq!(get(&addr_of(node), "/nodeinfo").json()["name"], node["name"]);
            named.insert(i32::try_from(node["pid"].as_u64().unwrap()).unwrap());
        }
    }
    let processes: BTreeSet<i32> = processes_of(lab.path()).into_iter().collect();
    assert_eq!(processes, named, "{nodes:#?}");
    // Nor files of nodes that are not there.
    for directory in ["logs", "data"] {
        let files = std::fs::read_dir(lab.path().join(directory)).unwrap();
        let files: BTreeSet<_> = files.map(|entry| entry.unwrap().path()).collect();
        let field = if directory == "logs" { "log" } else { "data_dir" };
        let expected = nodes.iter().map(|node| std::path::PathBuf::from(node[field].as_str().unwrap()));
        assert_eq!(files, expected.collect(), "{directory}");
    }
}

#[test]
fn an_interrupted_addmany_leaves_a_state_that_tells_the_truth() {
    for told in [Signal::SIGINT, Signal::SIGTERM] {
        let lab = Lab::with_nodes(2);
        let values = lab.fill(40);
        let adding = lab.command(&["addmany", "60"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("some are up and others are starting", PATIENCE, || {
            let nodes = lab.nodes();
            let count = |status: &str| nodes.iter().filter(|node| node["status"] == status).count();
            (count("running") > 4 && count("starting") > 0).then_some(())
        });
        signal(adding.id().into(), told);
        let ran = Ran::of(adding.wait_with_output().unwrap());
        assert!(!ran.ok && ran.stderr.contains("interrupted"), "{ran:#?}");
        let nodes = lab.nodes().len();
        assert!((5..62).contains(&nodes), "{nodes} nodes");
        state_is_true(&lab);
        lab.heals();
        assert_eq!(lab.json(&["doctor"])["nodes"], nodes);
        lab.holds(&values);
        lab.ok(&["add"]);
    }
}
