//! A ring of mutual TLS, with an authority of its own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use chordal::auth::{Security, Tls};
use chordal::client::{Error, NodeClient};

use chordal::node::mint;
use chordal_protocol::Condition;

use crate::common::{Daemon, Lab, Ran, eventually};
use crate::support::refused;

/// A client with a certificate of this role, from this directory.
fn client(dir: &Path, role: &str) -> NodeClient {
    let file = |name: &str| dir.join(name);
    let tls =
        Tls::open(&file(&format!("{role}.pem")), &file(&format!("{role}.key")), &file("ca.pem")).expect("certificates");
    NodeClient::new().with_security(&Security { tls: Some(tls), ..Security::default() })
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// The options of a node with a certificate from this directory.
fn options(dir: &Path, role: &str) -> Vec<String> {
    let file = |name: String| dir.join(name).display().to_string();
    let pairs = [
        ("--tls-cert", file(format!("{role}.pem"))),
        ("--tls-key", file(format!("{role}.key"))),
        ("--tls-ca", file("ca.pem".into())),
    ];
    pairs.into_iter().flat_map(|(option, file)| [option.to_owned(), file]).collect()
}

fn start(lab: &Lab, certs: &str, role: &str, more: &[&str]) -> Result<Daemon, Ran> {
    let options = options(&lab.path().join(certs), role);
    let args: Vec<&str> =
        ["--memory"].into_iter().chain(options.iter().map(String::as_str)).chain(more.iter().copied()).collect();
    // So that the log tells of connections for calls.
    Daemon::try_start_with(lab.path(), &args, &[("RUST_LOG", "info,chordal::node::transport=debug")])
}

#[test]
fn tasks_run_a_ring_of_tls() {
    let lab = Lab::empty();
    lab.ok(&["certs", "--dir", "certs", "--host", "node.example"]);
    lab.ok(&["boot", "--certs", "certs"]);
    lab.ok(&["add"]);
    lab.ok(&["doctor", "--wait", "30s"]);
    lab.fill(10);
    lab.ok(&["put", "k", "v"]);
    assert_eq!(lab.json(&["get", "k"])["value"], "v");
    let (addr, certs) = (lab.addr("node-1"), lab.path().join("certs"));
    // What each certificate may do.
    assert!(wait(client(&certs, "reader").kv(&addr).get(b"k")).expect("it reads").is_some());
    let forbidden = |error: Error| assert_eq!(error.status(), Some(403), "{error}");
    forbidden(wait(client(&certs, "reader").store(&addr, b"v", None)).expect_err("a reader does not write"));
    wait(client(&certs, "client").store(&addr, b"v", None)).expect("a client does");
    forbidden(wait(client(&certs, "client").leave(&addr)).expect_err("but it does not run the ring"));
    // New certificates of the same authority are taken.
    lab.ok(&["certs", "--dir", "certs"]);
    lab.ok(&["add"]);
    lab.ok(&["doctor", "--wait", "30s"]);
    lab.ok(&["leave", "node-2"]);
}

#[test]
fn another_authority_is_told_on_both_sides() {
    let lab = Lab::empty();
    lab.ok(&["certs", "--dir", "certs"]);
    lab.ok(&["certs", "--dir", "other"]);
    let node = start(&lab, "certs", "node", &[]).unwrap_or_else(|ran| panic!("{ran:?}"));
    let (certs, other) = (lab.path().join("certs"), lab.path().join("other"));
    let error = wait(client(&other, "node").node_info(&node.addr)).expect_err("it is another ring's");
    assert!(error.to_string().contains("of another authority"), "{error}");
    // Who knows the ring's authority, and shows a certificate of another.
    let mixed = Tls::open(&other.join("node.pem"), &other.join("node.key"), &certs.join("ca.pem")).expect("files");
    let mixed = NodeClient::new().with_security(&Security { tls: Some(mixed), ..Security::default() });
    let error = wait(mixed.node_info(&node.addr)).expect_err("it is not taken");
    assert!(error.to_string().contains("does not take this certificate"), "{error}");
    let error = wait(NodeClient::new().node_info(&node.addr)).expect_err("it is no HTTP");
    assert!(matches!(error, Error::Handshake { .. }), "{error}");
    assert!(error.to_string().contains("is asked with --tls-cert"), "{error}");
    let ran = start(&lab, "other", "node", &["--bootstrap", &node.addr]).err().expect("it does not join");
    assert!(ran.stderr.lines().last().expect("a line").contains("of another authority"), "{ran:?}");
    let open = Daemon::start(lab.path(), &["--memory"]);
    let error = wait(client(&certs, "node").node_info(&open.addr)).expect_err("it does not speak TLS");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    // The same from the shell.
    let holding = |dir: &str| options(&lab.path().join(dir), "client");
    let refused = |addr: &str, options: &[String], says: &str| {
        refused(lab.path(), addr, &options.iter().map(String::as_str).collect::<Vec<_>>(), says);
    };
    refused(&node.addr, &[], "is asked with --tls-cert, --tls-key and --tls-ca");
    refused(&node.addr, &holding("other"), "of another authority");
    refused(&open.addr, &holding("certs"), "it does not speak TLS");
    assert!(wait(client(&certs, "node").node_info(&node.addr)).is_ok(), "the node goes on");
}

#[test]
fn who_joins_without_tls_a_ring_that_has_it_is_told_and_the_other_way_round() {
    let lab = Lab::empty();
    lab.ok(&["certs", "--dir", "certs"]);
    let closed = start(&lab, "certs", "node", &[]).unwrap_or_else(|ran| panic!("{ran:?}"));
    let open = Daemon::start(lab.path(), &["--memory"]);
    let last_line = |ran: Option<Ran>| {
        let ran = ran.expect("it does not join");
        assert_eq!(ran.code, Some(1), "{ran:?}");
        ran.stderr.lines().last().expect("a line").to_owned()
    };
    let plain = ["--memory", "--join-attempts", "1", "--bootstrap", &closed.addr];
    let said = last_line(Daemon::try_start(lab.path(), &plain).err());
    assert!(said.contains("1 attempt through") && said.contains("is asked with --tls-cert"), "{said}");
    let said = last_line(start(&lab, "certs", "node", &["--join-attempts", "1", "--bootstrap", &open.addr]).err());
    assert!(said.contains("does not speak TLS"), "{said}");
    assert!(!said.contains("?."), "{said}");
}

/// How many calls have been answered on connections to this node that have ended, as a log tells.
fn answered(log: &Path, node: &str) -> u64 {
    let log = std::fs::read_to_string(log).expect("a log");
    let ended = log.lines().filter(|line| line.contains("a connection for calls has ended") && line.contains(node));
    let counts = ended.filter_map(|line| line.split_once("answered=")?.1.split(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

#[test]
fn nodes_call_each_other_on_connections_that_are_kept() {
    let lab = Lab::empty();
    lab.ok(&["certs", "--dir", "certs"]);
    let begin = |more: &[&str]| start(&lab, "certs", "node", more).unwrap_or_else(|ran| panic!("{ran:?}"));
    let first = begin(&[]);
    let (second, third) = (begin(&["--bootstrap", &first.addr]), begin(&["--bootstrap", &first.addr]));
    let client = client(&lab.path().join("certs"), "client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let nodes = [&first, &second, &third];
    // Whoever owns a key, the other two of its view are called for each write, and it is called by those who do not own it.
    let mut written = 0;
    let mut write_and_read = |times: usize| {
        for _ in 0..times {
            written += 1;
            let (key, value) = (format!("key-{written}"), format!("value-{written}"));
            for (through, other) in [(0, 1), (1, 2), (2, 0)] {
                let (kv, other) = (client.kv(&nodes[through].addr), client.kv(&nodes[other].addr));
                let put = kv.put(key.as_bytes(), value.as_bytes(), None, Condition::Always, mint());
                runtime.block_on(put).expect("it is stored");
                let read = runtime.block_on(other.get(key.as_bytes())).expect("it is read").expect("it is there");
                assert_eq!(read.bytes, value.as_bytes());
            }
        }
    };
    let is_kept = |from: &Daemon, to: &Daemon| {
        let log = std::fs::read_to_string(&from.log).expect("a log");
        log.lines().any(|line| line.contains("has a connection for calls now") && line.contains(&to.addr))
    };
    eventually("connections to the third node", Duration::from_secs(60), || {
        write_and_read(2);
        (is_kept(&first, &third) || is_kept(&second, &third)).then_some(())
    });
    write_and_read(10);
    // That they were used is told when they end.
    let addr = third.addr.clone();
    drop(third);
    eventually("calls on them", Duration::from_secs(30), || {
        (answered(&first.log, &addr) + answered(&second.log, &addr) >= 10).then_some(())
    });
}

#[test]
fn who_speaks_no_tls_is_cut_off_at_once() {
    let lab = Lab::empty();
    lab.ok(&["certs", "--dir", "certs"]);
    let node = start(&lab, "certs", "node", &[]).unwrap_or_else(|ran| panic!("{ran:?}"));
    for sent in
        [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(), b"\x16\x03\x01\x00\x05junk!", b"\x00\x00\x00\x00\x00\x00"]
    {
        let mut socket = TcpStream::connect(&node.addr).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        socket.write_all(sent).expect("it is sent");
        let mut answer = Vec::new();
        // A reset is an end as well; silence is not.
        let ended = socket.read_to_end(&mut answer).or_else(|error| match error.kind() {
            std::io::ErrorKind::ConnectionReset => Ok(0),
            _ => Err(error),
        });
        ended.unwrap_or_else(|error| panic!("{sent:?}: {error}"));
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
}

#[test]
fn certificates_that_cannot_be_used_are_told_in_a_line() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::empty();
    lab.ok(&["certs", "--dir", "certs"]);
    let path = |name: &str| lab.path().join(name).display().to_string();
    std::fs::write(path("junk"), "junk").expect("a file");
    std::fs::copy(path("certs/node.key"), path("open.key")).expect("a copy");
    std::fs::set_permissions(path("open.key"), std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let (cert, key, ca) = (path("certs/node.pem"), path("certs/node.key"), path("certs/ca.pem"));
    for (cert, key, ca, says) in [
        (&path("nowhere"), &key, &ca, "cannot read a certificate"),
        (&path("junk"), &key, &ca, "there is none in it"),
        (&cert, &path("open.key"), &ca, "chmod 600"),
        (&cert, &path("certs/client.key"), &ca, "cannot be used"),
        (&cert, &key, &path("junk"), "authority"),
        (&path("certs/client.pem"), &path("certs/client.key"), &ca, "not that of a node"),
    ] {
        let args = ["--memory", "--tls-cert", cert, "--tls-key", key, "--tls-ca", ca];
        let ran = Daemon::try_start(lab.path(), &args).err().expect("it does not start");
        assert!(ran.stderr.lines().last().expect("a line").contains(says), "{says}: {ran:?}");
    }
    let ran = Daemon::try_start(lab.path(), &["--memory", "--tls-cert", &cert]).err().expect("it does not start");
    assert!(ran.stderr.contains("--tls-key"), "{ran:?}");
    std::fs::remove_file(path("certs/ca.key")).expect("it was there");
    let line = lab.fails(&["certs", "--dir", "certs"]);
    assert!(line.contains("only one of"), "{line}");
    let line = lab.fails(&["boot", "--certs", "nowhere"]);
    assert!(line.contains("tasks certs"), "{line}");
}
