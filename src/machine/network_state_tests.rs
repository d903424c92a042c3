use std::fs;
use std::thread;

use super::*;
use crate::machine::state_file::{StateError, StateFile};

fn file_in(directory: &tempfile::TempDir) -> StateFile {
    StateFile::at(&directory.path().join("network_state.json")).unwrap()
}

fn nothing(_: &mut NetworkState) -> Result<(), StateError> {
    Ok(())
}

fn entry(name: &str, port: u16) -> NodeEntry {
    let log = PathBuf::from(format!("/nowhere/logs/{name}.log"));
    NodeEntry::starting(name.to_owned(), "127.0.0.1".to_owned(), port, log, None)
}

/// An entry whose process is this test.
fn living(name: &str, port: u16) -> NodeEntry {
    let pid = std::process::id();
    NodeEntry { pid, started: process::started(pid).unwrap(), status: Status::Running, ..entry(name, port) }
}

#[test]
fn several_at_once_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = file_in(&directory);
    let add = |state: &mut NetworkState| {
        let name = state.next_name();
        state.nodes.push(living(&name, 0));
        Ok::<_, StateError>(())
    };
    thread::scope(|scope| {
        for _ in 0..8 {
            // Each with a StateFile of its own, as in processes of their own.
            scope.spawn(|| (0..5).for_each(|_| file_in(&directory).update(add).unwrap()));
        }
    });
    let names: Vec<String> = file.load().unwrap().unwrap().nodes.into_iter().map(|node| node.name).collect();
    let expected: Vec<String> = (1..=40).map(|number| format!("node-{number}")).collect();
    assert_eq!(names, expected);
    assert!(!directory.path().join("network_state.json.tmp").exists());
}

#[test]
fn unknown_fields_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let file = file_in(&directory);
    let node = r#"{"name":"node-7","host":"h","port":1,"id":null,"pid":1,"started":"x:1","log":"l","data_dir":null,"status":"stopped","colour":"red"}"#;
    fs::write(file.path(), format!(r#"{{"version":1,"nodes":[{node}],"owner":{{"a":1}}}}"#)).unwrap();
    file.update(|state| {
        state.nodes.push(living("node-8", 0));
        nothing(state)
    })
    .unwrap();
    let json: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
    assert_eq!(json["owner"]["a"], 1);
    assert_eq!(json["nodes"][0]["colour"], "red");
    assert_eq!(json["nodes"][1]["name"], "node-8");
    let mut fields: Vec<&String> = json["nodes"][1].as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["data_dir", "host", "id", "log", "name", "pid", "port", "started", "status"]);
}

#[test]
fn a_damaged_or_newer_file_is_named_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = file_in(&directory);
    for text in ["", "{", "[]", r#"{"nodes":[]}"#, r#"{"version":1}"#, r#"{"version":2,"nodes":"elsewhere"}"#] {
        fs::write(file.path(), text).unwrap();
        for error in [file.load().unwrap_err(), file.update(nothing).unwrap_err(), file.remove(|_| Ok(())).unwrap_err()]
        {
            let message = format!("{error:#}");
            assert!(message.contains(&file.path().display().to_string()), "{message}");
            assert!(message.contains("remove") && !message.contains('\n'), "{message}");
            assert_eq!(message.contains("has version 2"), text.contains('2'), "{message}");
        }
        assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
    }
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = file_in(&directory);
    let failed: Result<(), StateError> = file.update(|state| {
        state.nodes.push(living("node-1", 0));
        Err(StateError::Unfit("no".to_owned()))
    });
    assert!(failed.is_err());
    assert!(file.load().unwrap().is_none());
    assert!(format!("{:#}", file.ring().unwrap_err()).contains("tasks boot"));
}

#[test]
fn a_dead_or_recycled_process_counts_as_stopped() {
    let mut state = NetworkState::default();
    state.nodes.push(living("node-1", 4000));
    state.nodes.push(NodeEntry { started: "another-boot:1".to_owned(), ..living("node-2", 4001) });
    state.refresh();
    assert_eq!(state.nodes[0].status, Status::Running);
    assert_eq!(state.nodes[1].status, Status::Stopped);
    assert_eq!(state.awake().len(), 1);
    assert_eq!(state.holder_of(4001).unwrap().name, "node-2");
    assert!(state.holder_of(0).is_none());
}

#[test]
fn a_node_that_got_ready_unwatched_is_running() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("node-1.log");
    let mut state = NetworkState::default();
    state.nodes.push(NodeEntry { status: Status::Starting, log, ..living("node-1", 0) });
    state.refresh();
    assert_eq!(state.nodes[0].status, Status::Starting);
    let id = Id::of("127.0.0.1:4000");
    for (pid, status) in [(1, Status::Starting), (std::process::id(), Status::Running)] {
        let note = format!(r#"{{"name":"node-1","host":"127.0.0.1","port":4000,"id":"{id}","pid":{pid}}}"#);
        fs::write(directory.path().join("node-1.ready"), note).unwrap();
        state.refresh();
        assert_eq!(state.nodes[0].status, status);
    }
    assert_eq!((state.nodes[0].port, state.nodes[0].id), (4000, Some(id)));
}

#[test]
fn names_go_on_after_the_highest() {
    let mut state = NetworkState::default();
    assert_eq!(state.next_name(), "node-1");
    state.nodes.extend([entry("node-9", 0), entry("node-10", 0), entry("mine", 0), entry("node-x", 0)]);
    assert_eq!(state.next_name(), "node-11");
}

#[test]
fn what_a_look_puts_right_reaches_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = file_in(&directory);
    file.update(|state| {
        state.nodes.push(NodeEntry { started: "another-boot:1".to_owned(), ..living("node-1", 4000) });
        nothing(state)
    })
    .unwrap();
    assert!(fs::read_to_string(file.path()).unwrap().contains("running"));
    file.update(nothing).unwrap();
    assert!(fs::read_to_string(file.path()).unwrap().contains("stopped"));
}
