//! A ring under a secret, run by `tasks`; who joins it, and whom it believes.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use crate::common::{Daemon, Lab, escape, eventually};
use crate::support::{CLIENT, Key, NODE, Request, chordal, closed, refused, secret_file, stranger};

#[test]
fn tasks_run_a_ring_that_is_closed() {
    let lab = Lab::empty();
    lab.ok(&["secret", "new", "ring.secret", "--client", "client.secret"]);
    for file in ["ring.secret", "client.secret"] {
        let mode = std::fs::metadata(lab.path().join(file)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let listed = lab.json(&["secret", "list", "client.secret"]);
    assert_eq!(listed["keys"].as_array().expect("keys").len(), 1);
    assert_eq!(listed["keys"][0]["role"], "client");
    assert!(lab.fails(&["secret", "new", "ring.secret"]).contains("there already"));
    lab.ok(&["boot", "--secret-file", "ring.secret"]);
    lab.ok(&["addmany", "2"]);
    lab.ok(&["doctor", "--wait", "30s"]);
    let state = lab.state();
    assert_eq!(
        state["secret_file"],
        lab.path().join("ring.secret").canonicalize().expect("a path").to_str().expect("text")
    );
    lab.fill(20);
    lab.ok(&["store", "a value", "--key", "a key"]);
    assert!(lab.ok(&["lookup", "--key", "a key"]).contains("a value"));
    lab.ok(&["put", "k", "v"]);
    lab.ok(&["cas", "k", "v", "w"]);
    assert_eq!(lab.json(&["get", "k"])["value"], "w");
    lab.ok(&["monitor", "--once"]);
    stranger(&crate::common::get(&lab.addr("node-1"), &format!("/dht/lookup?key={}", escape("a key"))), "closed");
    lab.ok(&["kill", "node-2"]);
    lab.ok(&["start", "node-2"]);
    lab.ok(&["doctor", "--wait", "30s"]);
    // With the clients' keys: store and look up, and no more.
    lab.ok(&["--secret-file", "client.secret", "put", "k2", "v"]);
    let line = lab.fails(&["--secret-file", "client.secret", "leave", "node-3"]);
    assert!(line.contains("takes that of a node"), "{line}");
    let line = lab.fails(&["--json", "--secret-file", "client.secret", "add"]);
    assert!(line.contains("no [[node]] key"), "{line}");
    lab.ok(&["leave", "node-3"]);
    let line = lab.fails(&["--secret-file", "nowhere", "get", "k"]);
    assert!(line.contains("nowhere") && line.contains("tasks secret new"), "{line}");
    lab.ok(&["killall"]);
}

#[test]
fn programs_hold_keys_too() {
    let lab = Lab::empty();
    lab.ok(&["secret", "new", "ring.secret", "--client", "client.secret"]);
    lab.ok(&["boot", "--secret-file", "ring.secret"]);
    let node = lab.addr("node-1");
    let port = node.rsplit_once(':').expect("a port").1;
    let chordal = |args: &[&str]| chordal(lab.path(), &[args, &["--port", port]].concat());
    assert_eq!(chordal(&["put", "--secret-file", "client.secret", "k", "v"]).0, Some(0));
    assert_eq!(chordal(&["get", "--secret-file", "client.secret", "k"]), (Some(0), "v".to_owned()));
    // Who is refused is so at once, and is not told to look for firewalls.
    refused(lab.path(), &node, &[], "closed to strangers");
    lab.ok(&["secret", "new", "other.secret"]);
    refused(lab.path(), &node, &["--secret-file", "other.secret"], "no key with the id");
    let open = Daemon::start(lab.path(), &["--memory"]);
    refused(lab.path(), &open.addr, &["--secret-file", "ring.secret"], "if its ring is open, leave --secret-file out");
    // The library: a node that joins, and a client.
    let keys = chordal::auth::KeyRing::open(&lab.path().join("ring.secret")).expect("keys");
    let security = chordal::auth::Security { keys: Some(std::sync::Arc::new(keys)), ..Default::default() };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let joined =
            chordal::Node::builder().security(security.clone()).bootstrap([&node]).start().await.expect("it joins");
        let client = chordal::Client::new([joined.addr()]).expect("an address").with_security(&security);
        assert_eq!(client.get("k").await.expect("an answer").expect("a value").bytes, b"v");
        client.put("k", "w").await.expect("it is stored");
        assert_eq!(joined.get("k").await.expect("an answer").expect("a value").bytes, b"w");
        let stranger = chordal::Client::new([&node]).expect("an address");
        let refused = stranger.get("k").await.expect_err("it is a stranger").to_string();
        assert!(refused.contains("closed to strangers"), "{refused}");
        joined.leave().await.expect("it leaves");
    });
    lab.ok(&["killall"]);
}

#[test]
fn who_has_another_secret_does_not_join() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE], &[]);
    let other = secret_file(lab.path(), "other.secret", &[Key { secret: [8; 32], ..NODE }]);
    let others: [(&[&str], &str); 2] = [
        (&["--secret-file", other.to_str().expect("a path")], "the secret is another one"),
        (&[], "closed to strangers"),
    ];
    for (args, says) in others {
        let args = [&["--memory", "--bootstrap", &node.addr], args].concat();
        let ran = Daemon::try_start(lab.path(), &args).err().expect("it does not join");
        assert!(ran.stderr.lines().last().expect("a line").contains(says), "{ran:?}");
    }
    // One that is open, or has another secret, is not taken in either: it cannot prove that it has the secret.
    let open = Daemon::start(lab.path(), &["--memory"]);
    let (_, port) = open.addr.rsplit_once(':').expect("a port");
    let join = Request::new("POST", &node.addr, "/dht/join")
        .body("application/json", format!("{{\"host\": \"127.0.0.1\", \"port\": {port}}}"))
        .signed(&NODE)
        .send();
    let problem = join.problem(502, "unreachable");
    assert!(problem["detail"].as_str().unwrap().contains("not signed"), "{problem}");
    assert_eq!(
        Request::new("GET", &node.addr, "/nodeinfo").signed(&NODE).send().json()["successors"],
        serde_json::json!([])
    );
}

#[test]
fn who_cannot_sign_is_not_believed() {
    let lab = Lab::empty();
    lab.ok(&["secret", "new", "ring.secret"]);
    lab.ok(&["boot", "--secret-file", "ring.secret"]);
    lab.ok(&["put", "k", "v"]);
    // An impostor at the address of a dead node says that there is no such value.
    let node = lab.addr("node-2");
    lab.ok(&["kill", "node-2"]);
    let listener = eventually("the port is free", Duration::from_secs(20), || TcpListener::bind(&node).ok());
    let impostor = std::thread::spawn(move || {
        let body = r#"{"type":"/problems/no-such-value","title":"","status":404,"detail":""}"#;
        let head = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        // The ring looks for its dead node as well.
        for socket in listener.incoming() {
            let (mut socket, mut asked) = (socket.expect("somebody asks"), [0; 4096]);
            let length = socket.read(&mut asked).unwrap_or(0);
            let _ = socket.write_all(format!("{head}{body}").as_bytes());
            if asked[..length].starts_with(b"GET /kv/k ") {
                return;
            }
        }
    });
    let keys = chordal::auth::KeyRing::open(&lab.path().join("ring.secret")).expect("keys");
    let client = chordal::client::NodeClient::new()
        .with_security(&chordal::auth::Security { keys: Some(std::sync::Arc::new(keys)), ..Default::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(client.kv(&node).get(b"k")).expect_err("it is not believed");
    assert!(error.to_string().contains("not signed with the ring's secret"), "{error}");
    impostor.join().expect("it was asked");
}

#[test]
fn secret_files_that_cannot_be_used_are_told_in_a_line() {
    let lab = Lab::empty();
    let good = secret_file(lab.path(), "good", &[NODE]);
    let read = std::fs::read_to_string(&good).expect("a text");
    let write = |name: &str, text: &str, mode: u32| {
        let path = lab.path().join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    write("open", &read, 0o644);
    write("empty", "", 0o600);
    write("junk", "secret: 5\n", 0o600);
    write("short", &read.replace("0101", "01"), 0o600);
    secret_file(lab.path(), "client", &[CLIENT]);
    for (file, says) in [
        ("open", "chmod 600"),
        ("empty", "no key"),
        ("junk", "line 1"),
        ("short", "64 hex digits"),
        ("client", "no [[node]] key"),
        ("nowhere", "cannot read"),
        (".", "cannot read"),
    ] {
        let ran = Daemon::try_start(lab.path(), &["--memory", "--secret-file", file]).err().expect(file);
        let line = ran.stderr.lines().last().expect("a line");
        assert!(line.starts_with("chordal: ") && line.contains(says), "{file}: {ran:?}");
        assert!(!ran.stderr.contains("010101"), "{ran:?}");
        assert_eq!(ran.code, Some(1));
    }
}

/// In a network of its own, where an address can be had that is not of the loopback net and reaches nobody.
#[test]
fn an_address_that_others_reach_needs_a_secret() {
    let lab = Lab::empty();
    let file = secret_file(lab.path(), "ring.secret", &[NODE]);
    let name = format!("chordal-security-{}", std::process::id());
    let ip = |args: &[&str]| Command::new("ip").args(args).output().is_ok_and(|ran| ran.status.success());
    if !ip(&["netns", "add", &name]) {
        println!("this machine allows no network of one's own: nothing was tried");
        return;
    }
    let inside = || {
        let namespace = std::fs::File::open(format!("/run/netns/{name}")).expect("it is there");
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("it can be entered");
        let refused = |args: &[&str]| {
            let ran = Daemon::try_start(lab.path(), &[&["--memory"], args].concat()).err().expect("it is refused");
            let line = ran.stderr.lines().last().expect("a line").to_owned();
            assert!(line.contains("--secret-file") && line.contains("127.0.0.1"), "{args:?}: {line}");
        };
        refused(&["--host", "10.7.7.7"]);
        refused(&["--host", "0.0.0.0"]);
        refused(&["--advertise", "10.7.7.7:4000"]);
        refused(&["--advertise", "nowhere.invalid:4000"]);
        let secret = ["--memory", "--secret-file", file.to_str().expect("a path")];
        let ran = Daemon::try_start(lab.path(), &[&secret[..], &["--host", "0.0.0.0"]].concat())
            .err()
            .expect("it is refused");
        assert!(ran.stderr.contains("--advertise"), "{ran:?}");
        let node = Daemon::start(lab.path(), &[&secret[..], &["--host", "10.7.7.7"]].concat());
        stranger(&crate::common::get(&node.addr, "/nodeinfo"), "closed to strangers");
        assert_eq!(Request::new("GET", &node.addr, "/nodeinfo").signed(&NODE).send().status, 200);
    };
    let set_up = ip(&["-n", &name, "link", "set", "lo", "up"])
        && ip(&["-n", &name, "address", "add", "10.7.7.7/32", "dev", "lo"]);
    let done = std::thread::scope(|scope| scope.spawn(inside).join());
    assert!(ip(&["netns", "delete", &name]) && set_up);
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
