//! `chordal` without a state file: operations on a ring of which a node is known, and starts that join or say why not.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Daemon, Lab, Ran, eventually, get, get_json};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(60);

/// `chordal` with these arguments, to its end; the code must be this one.
#[track_caller]
fn chordal(dir: &Path, args: &[&str], input: &[u8], code: i32) -> (Vec<u8>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
    command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHORDAL_")) {
        command.env_remove(name);
    }
    let mut child = command.spawn().expect("chordal can be run");
    // Who does not want it may have ended.
    let _ = child.stdin.take().expect("its input is piped").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    (output.stdout, stderr)
}

fn port(addr: &str) -> &str {
    addr.rsplit_once(':').expect("host:port").1
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port().to_string()
}

#[test]
fn values_go_in_and_come_out_byte_for_byte() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--memory"]);
    let run = |args: &[&str], input: &[u8], code| {
        let args: Vec<&str> =
            args[..1].iter().chain(&["--port", port(&node.addr)]).chain(&args[1..]).copied().collect();
        chordal(lab.path(), &args, input, code)
    };
    let bytes: Vec<u8> = (0..70_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(lab.path().join("file"), &bytes).unwrap();
    let (tag, _) = run(&["put", "text", "a value"], b"", 0);
    assert_eq!(tag, b"\"1-1\"\n");
    run(&["put", "from a file", "--file", "file", "--content-type", "image/png"], b"", 0);
    run(&["put", "from input", "-"], b"in\n\xff", 0);
    run(&["put", "ü/?#", "--file", "-"], b"", 0);
    assert_eq!(run(&["get", "text"], b"", 0).0, b"a value");
    assert_eq!(run(&["get", "from a file"], b"", 0).0, bytes);
    assert_eq!(get(&node.addr, "/kv/from%20a%20file").header("content-type"), "image/png");
    assert_eq!(run(&["get", "from input"], b"", 0).0, b"in\n\xff");
    assert_eq!(run(&["get", "ü/?#"], b"", 0).0, b"");
    let (_, error) = run(&["put", "text", "another", "--if-absent"], b"", 1);
    assert!(error.contains("has a value already") && error.contains("1-1"), "{error}");
    assert_eq!(run(&["get", "text"], b"", 0).0, b"a value");
    let info = String::from_utf8(run(&["info"], b"", 0).0).unwrap();
    let id = crate::common::sha256(&node.addr);
    for expected in [&*id, &node.addr, "joined, ready", "4 served", "successors", "predecessor"] {
        assert!(info.contains(expected), "{expected}: {info}");
    }
    let json: serde_json::Value = serde_json::from_slice(&run(&["info", "--json"], b"", 0).0).unwrap();
    assert_eq!((json["id"].as_str(), json["keys"].as_u64()), (Some(&*id), Some(4)));
    run(&["delete", "text"], b"", 0);
    for args in [["get", "text"], ["delete", "text"]] {
        let (out, error) = run(&args, b"", 3);
        assert!(out.is_empty() && error.contains("nothing is stored under `text`"), "{error}");
    }
    // Any node does.
    let other = Daemon::start(lab.path(), &["--memory", "--bootstrap", &node.addr]);
    let (out, _) =
        chordal(lab.path(), &["get", "--host", "localhost", "--port", port(&other.addr), "from input"], b"", 0);
    assert_eq!(out, b"in\n\xff");
}

#[test]
fn bad_input_is_told_apart() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--memory"]);
    let to = ["--port", port(&node.addr)];
    std::fs::write(lab.path().join("10M"), vec![b'x'; 10 << 20]).unwrap();
    std::fs::write(lab.path().join("2M"), vec![b'x'; 2 << 20]).unwrap();
    let long = "k".repeat((64 << 10) + 1);
    let cases: [(&[&str], &str); 14] = [
        (&["put", "--port", to[1], "key", "--file", "10M"], "4194304"),
        (&["put", "--port", to[1], "key", "--file", "2M"], "1048576"),
        (&["put", "--port", to[1], &long, "x"], "65536"),
        (&["put", "--port", to[1], "key", "--file", "nowhere"], "cannot open nowhere"),
        (&["put", "--port", to[1], "key"], "--file"),
        (&["put", "--port", to[1], "key", "value", "--file", "2M"], "cannot be used with"),
        (&["put", "--port", to[1], "", "value"], "KEY"),
        (&["get", "--port", to[1]], "KEY"),
        (&["get", "key"], "--port"),
        (&["get", "--port", "0", "key"], "--port"),
        (&["get", "--port", "65536", "key"], "--port"),
        (&["get", "--port", to[1], "--host", "a:1", "key"], "127.0.0.1"),
        (&["get", "--port", to[1], "--timeout", "-1s", "key"], "500ms"),
        (&["info", "--port", to[1], "key"], "unexpected argument"),
    ];
    for (args, says) in cases {
        let (out, error) = chordal(lab.path(), args, b"", 2);
        assert!(error.contains(says) && error.lines().count() == 1, "{args:?}: {error}");
        assert!(out.is_empty());
    }
    assert_eq!(get_json(&node.addr, "/nodeinfo")["keys"], 0, "nothing was stored");
}

#[test]
fn nobody_there_is_tried_three_times_and_said_with_advice() {
    let lab = Lab::empty();
    let (free, began) = (free_port(), Instant::now());
    for command in [&["info"][..], &["get", "key"], &["put", "key", "value"], &["delete", "key"]] {
        let args = [&command[..1], &["--port", &free], &command[1..]].concat();
        let (_, error) = chordal(lab.path(), &args, b"", 4);
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        assert!(lines[0].contains("connection attempt 1/3") && lines[0].contains("retrying"), "{error}");
        assert!(lines[1].contains("connection attempt 2/3"), "{error}");
        for advice in ["refused", "3 attempts", "chordal start --port"] {
            assert!(lines[2].contains(advice), "{advice}: {error}");
        }
        // No firewall is between this machine and itself.
        assert!(!lines[2].contains("firewall"), "{error}");
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn a_silent_node_is_given_up_in_time() {
    let lab = Lab::empty();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let began = Instant::now();
    let (_, error) = chordal(lab.path(), &["get", "--port", &port, "--timeout", "1.5s", "key"], b"", 4);
    assert!(error.contains("no answer within 0.5 s") && error.contains("connection attempt"), "{error}");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[test]
fn a_write_without_an_outcome_has_a_status_of_its_own() {
    let lab = Lab::with_nodes(2);
    let addrs = lab.addrs();
    let (asked, paused) = (port(&addrs[0]), lab.node(&lab.name_at(&addrs[1]))["pid"].as_u64().unwrap());
    chordal(lab.path(), &["put", "--port", asked, "key", "value"], b"", 0);
    // Two nodes keep everything, and both are needed.
    crate::common::signal(paused, Signal::SIGSTOP);
    let (_, error) = chordal(lab.path(), &["put", "--port", asked, "--timeout", "3s", "key", "other"], b"", 5);
    assert!(error.contains("may or may not have happened"), "{error}");
    let (_, error) = chordal(lab.path(), &["get", "--port", asked, "--timeout", "3s", "key"], b"", 4);
    assert!(error.contains("nothing has changed"), "{error}");
    crate::common::signal(paused, Signal::SIGCONT);
}

#[test]
fn the_exit_statuses_stand_in_the_help() {
    let lab = Lab::empty();
    for command in ["put", "get", "delete", "info"] {
        let help = String::from_utf8(chordal(lab.path(), &[command, "--help"], b"", 0).0).unwrap();
        for status in 0..=5 {
            assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{status}  "))), "{status}: {help}");
        }
    }
}

#[test]
fn who_has_the_port_is_named() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--memory"]);
    let ran = refused(lab.path(), &["--memory", "--port", port(&node.addr)]);
    let holder = format!("(chordal, pid {})", node.child.id());
    assert!(ran.stderr.contains(&holder) && ran.stderr.contains("--port"), "{ran:?}");
    let (_, error) = chordal(lab.path(), &["bootstrap-service", "--port", port(&node.addr), "--pool", "1"], b"", 1);
    assert!(error.contains(&holder) && error.contains("--host-port"), "{error}");
    // What a node that ended said last is the reason, and is told once.
    let said = lab.tasks(&["boot", "--port", port(&node.addr)]).stderr;
    assert!(said.matches("cannot listen on").count() == 1 && said.contains(&holder), "{said}");
}

#[test]
fn what_is_wrong_with_a_command_line_is_told_with_what_would_be_right() {
    let lab = Lab::empty();
    let cases: [(&[&str], &str); 7] = [
        (&["--nonsense"], "; `chordal --help` tells more"),
        (&["put", "--nonsense"], "; `chordal put --help` tells more"),
        (&["start", "--name", "put", "--port", "x"], "; `chordal start --help` tells more"),
        (&["start", "--allow-net", "bogus"], "10.0.0.0/8"),
        (&["start", "--client-connections", "0"], "a number from 1"),
        (&["start", "--name", ""], "1 to"),
        (&["bootstrap-service", "--host-por", "1"], "'--host-port'"),
    ];
    for (args, says) in cases {
        let (_, error) = chordal(lab.path(), args, b"", 2);
        assert!(error.contains(says) && error.lines().count() == 1, "{args:?}: {error}");
    }
    for (source, says) in [("[::1]", "the port is missing"), ("", "it is empty"), ("::1:4000", "in brackets")] {
        let ran = refused(lab.path(), &["--memory", "--bootstrap", source]);
        let said = ran.stderr.lines().last().expect("a line");
        assert!(said.contains(says) && said.contains("[2001:db8::1]:9000"), "{source}: {said}");
    }
    let (help, _) = chordal(lab.path(), &["put", "--help"], b"", 0);
    assert!(String::from_utf8_lossy(&help).contains("<KEY> <VALUE|--file <FILE>>"));
}

#[test]
fn who_joins_is_told_which_settings_of_the_ring_are_others() {
    let lab = Lab::empty();
    let begin = ["--memory", "--replication-factor", "2", "--value-limit", "100"];
    let node = Daemon::start(lab.path(), &begin);
    let mut joined = Vec::new();
    let mut join = |more: &[&str]| {
        joined.push(Daemon::start(lab.path(), &[&["--memory", "--bootstrap", &node.addr], more].concat()));
        std::fs::read_to_string(&joined[joined.len() - 1].log).expect("a log")
    };
    let log = join(&["--replication-factor", "3", "--value-limit", "100"]);
    assert!(log.contains("--replication-factor 3 is not heeded: this ring was begun with 2"), "{log}");
    assert_eq!(log.matches("not heeded").count(), 1, "{log}");
    let log = join(&["--value-limit", "1048576"]);
    assert!(log.contains("--value-limit 1048576 is not heeded: this ring was begun with 100"), "{log}");
    assert!(!join(&[]).contains("not heeded"));
    let (_, error) = chordal(lab.path(), &["put", "--port", port(&node.addr), "k", &"v".repeat(101)], b"", 2);
    assert!(error.contains("100 bytes") && error.contains("--value-limit"), "{error}");
}

#[track_caller]
fn refused(dir: &Path, args: &[&str]) -> Ran {
    match Daemon::try_start(dir, args) {
        Ok(node) => panic!("{args:?} started {}", node.addr),
        Err(ran) => {
            assert_eq!(ran.code, Some(1), "{ran:?}");
            ran
        }
    }
}

#[test]
fn one_who_answers_is_enough_to_join() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--memory"]);
    let by_name = format!("localhost:{}", port(&node.addr));
    let dead = [free_port(), free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let service = format!("http://{}/return_dht_address", dead[2]);
    let two = format!("{},{service}", dead[1]);
    let joiner =
        Daemon::start(lab.path(), &["--memory", "--bootstrap", &dead[0], "--bootstrap", &two, "--bootstrap", &by_name]);
    let ring = |addr: &str| get_json(addr, "/nodeinfo")["ring"].clone();
    assert_eq!(ring(&joiner.addr), ring(&node.addr));
}

#[test]
fn a_node_that_cannot_join_says_so_and_is_no_ring_of_its_own() {
    let lab = Lab::empty();
    let (mine, dead) = (free_port(), [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}")));
    let list = dead.join(",");
    let ran = refused(lab.path(), &["--memory", "--port", &mine, "--bootstrap", &list, "--join-attempts", "2"]);
    assert!(ran.stderr.contains("attempt 1 of 2"), "each attempt is shown: {ran:?}");
    let last = ran.stderr.lines().last().unwrap();
    for says in ["2 attempts", &dead[0], &dead[1], "refused", "firewall", "--join-attempts"] {
        assert!(last.contains(says), "{says}: {last}");
    }
    for wrong in ["0", "-1", "many"] {
        let ran = Daemon::try_start(lab.path(), &["--memory", "--bootstrap", &list, "--join-attempts", wrong]);
        let Err(ran) = ran else { panic!("{wrong} is taken") };
        assert!(ran.code == Some(2) && ran.stderr.contains("forever"), "{ran:?}");
    }
}

#[test]
fn a_node_that_shall_try_for_ever_joins_when_somebody_comes() {
    let lab = Lab::empty();
    let coming = free_port();
    let start = |dir: &Path, log: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
        let contact = format!("127.0.0.1:{coming}");
        command.args(["start", "--memory", "--join-attempts", "forever", "--bootstrap", &contact]).current_dir(dir);
        let log = std::fs::File::create(dir.join(log)).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    };
    let text = |log: &str| std::fs::read_to_string(lab.path().join(log)).unwrap();
    let mut waits = Killed(start(lab.path(), "waits"));
    let mut ended = Killed(start(lab.path(), "ended"));
    for log in ["waits", "ended"] {
        // More often than it would by itself.
        eventually("it has tried nine times", PATIENCE, || text(log).contains("attempt 9 of").then_some(()));
    }
    crate::common::signal(ended.0.id().into(), Signal::SIGTERM);
    assert_eq!(ended.0.wait().unwrap().code(), Some(0), "{}", text("ended"));
    let node = Daemon::start(lab.path(), &["--memory", "--port", &coming]);
    eventually("it has joined", PATIENCE, || text("waits").contains(" is ready, id ").then_some(()));
    let info = get_json(&node.addr, "/nodeinfo");
    assert!(info["succ"].is_object(), "{info}");
    assert!(waits.0.try_wait().unwrap().is_none());
}

#[test]
fn a_ring_where_all_keep_all_takes_no_more_than_it_can() {
    let lab = Lab::empty();
    lab.ok(&["boot", "--replication-factor", "all"]);
    // Each join changes every view: all at once would keep a busy machine so long that some give up.
    for _ in 0..7 {
        lab.ok(&["addmany", "2"]);
    }
    lab.heals();
    let contact = &lab.addrs()[5];
    let ran = refused(lab.path(), &["--memory", "--bootstrap", contact]);
    assert!(ran.stderr.contains("takes 16 nodes") && ran.stderr.contains("--replication-factor 3"), "{ran:?}");
    // Neither by an invitation.
    let alone = Daemon::start(lab.path(), &["--memory"]);
    let named = serde_json::json!({ "host": "127.0.0.1", "port": port(&alone.addr).parse::<u16>().unwrap() });
    let problem = crate::common::send("POST", contact, "/dht/join", &named).problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains("takes 16 nodes"), "{problem}");
    assert_eq!(get_json(&alone.addr, "/nodeinfo")["succ"], serde_json::Value::Null, "it stays where it is");
}

/// A process that is killed when this is dropped.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn contacts_are_known_after_a_restart_when_those_who_were_named_are_gone() {
    let lab = Lab::empty();
    let first = Daemon::start(lab.path(), &["--memory"]);
    let contact = first.addr.clone();
    let others = [(); 2].map(|()| Daemon::start(lab.path(), &["--memory", "--bootstrap", &contact]));
    let args = ["--data-dir", "d", "--bootstrap", &contact];
    let mut node = Daemon::start(lab.path(), &args);
    let ring = get_json(&node.addr, "/nodeinfo")["ring"].clone();
    // In order: it has left, and joins anew.
    crate::common::signal(node.child.id().into(), Signal::SIGTERM);
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    drop(first);
    let node = Daemon::start(lab.path(), &args);
    let info = get_json(&node.addr, "/nodeinfo");
    assert_eq!(info["ring"], ring);
    assert!(others.iter().any(|other| crate::common::addr_of(&info["succ"]) == other.addr), "{info}");
    // By a crash: it goes on as the member that it was.
    drop(node);
    let node = Daemon::start(lab.path(), &args);
    assert_eq!(get_json(&node.addr, "/nodeinfo")["ring"], ring);
}
