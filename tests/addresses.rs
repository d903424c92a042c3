//! Addresses of all kinds, on real processes: found by others, names, and IPv6 wherever an address can stand.

mod common;

use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{Daemon, Lab, Ran, addr_of, eventually, exchange, get, get_json, rewire, sha256};
use serde_json::json;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

fn port(addr: &str) -> &str {
    addr.rsplit_once(':').expect("host:port").1
}

#[track_caller]
fn log_says(node: &Daemon, text: &str) {
    let log = || std::fs::read_to_string(&node.log).unwrap_or_default();
    eventually(&format!("the log of {} says `{text}`", node.addr), PATIENCE, || log().contains(text).then_some(()));
}

/// `chordal start` with these arguments, which must end with status 1, and what it says last.
#[track_caller]
fn refused(dir: &Path, args: &[&str]) -> String {
    let ran = Daemon::try_start(dir, args).err().unwrap_or_else(|| panic!("{args:?} should be refused"));
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    ran.stderr.lines().last().unwrap_or_default().to_owned()
}

/// `chordal` at this node.
#[track_caller]
fn chordal(dir: &Path, node: (&str, &str), args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
    command.arg(args[0]).args(["--host", node.0, "--port", node.1]).args(&args[1..]);
    let ran = Ran::of(command.current_dir(dir).stdin(Stdio::null()).output().expect("chordal can be run"));
    assert!(ran.ok, "{args:?} at {node:?}: {ran:#?}");
    ran.stdout
}

/// A value goes in at one and comes out at the other.
#[track_caller]
fn share(one: &str, other: &str) {
    let key = format!("from {one} to {other}");
    let path = format!("/kv/{}", common::escape(&key));
    assert_eq!(exchange("PUT", one, &path, Some(("text/plain", key.as_bytes()))).status, 204, "through {one}");
    assert_eq!(get(other, &path).body, key, "through {other}");
}

fn is_ready(addr: &str) {
    eventually(&format!("{addr} is ready"), PATIENCE, || (get(addr, "/health/ready").status == 200).then_some(()));
}

#[test]
fn on_loopback_a_node_finds_its_address_and_keeps_it() {
    let lab = Lab::empty();
    let dir = lab.path();
    let first = Daemon::start(dir, &["--memory", "--advertise", "auto"]);
    log_says(&first, "this machine's own interface");
    let begun = first.addr.clone();
    let join = ["--data-dir", "d", "--advertise", "auto", "--bootstrap", &begun];
    let second = Daemon::start(dir, &join);
    assert_eq!(second.addr.split_once(':').expect("host:port").0, "127.0.0.1");
    log_says(&second, "was called back");
    share(&first.addr, &second.addr);

    let addr = second.addr.clone();
    drop(second);
    let second = Daemon::start(dir, &join);
    assert_eq!(second.addr, addr, "it is where it was");
    log_says(&second, "was called back");
    drop(second);
    let line = refused(dir, &[&join[..], &["--port", "1"]].concat());
    // Root may listen there; then it is somebody else.
    assert!(line.contains("Ports below 1024") || line.contains("belongs to") && line.contains(&addr), "{line}");
    // When a whole ring starts again there is nobody yet who could be asked. (It waits for the others, which is another matter.)
    drop(first);
    let log = dir.join("alone.log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
    command.arg("start").args(join).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(&log).expect("a log can be made"));
    let child = command.spawn().expect("chordal can be run");
    let alone = Daemon { child, addr: addr.clone(), log };
    log_says(&alone, "which keeps its address");
    eventually("it answers there", PATIENCE, || common::try_exchange("GET", &addr, "/health/live", None).ok());
    assert_eq!(addr_of(&get_json(&addr, "/nodeinfo")), addr);
}

#[test]
fn without_anybody_to_ask_it_says_so() {
    let lab = Lab::empty();
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let line =
        refused(lab.path(), &["--memory", "--advertise", "auto", "--bootstrap", &closed, "--join-attempts", "2"]);
    assert!(
        line.contains("2 attempts to ask") && line.contains(&closed) && line.contains("--advertise HOST:PORT"),
        "{line}"
    );
    // Who answers and is no node does not say where it is seen.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = other.local_addr().expect("an address").to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().expect("a connection");
        let read = std::io::Read::read(&mut stream, &mut [0; 4096]).expect("a request");
        assert!(read > 0);
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
    });
    let line = refused(lab.path(), &["--memory", "--advertise", "auto", "--bootstrap", &addr, "--join-attempts", "1"]);
    assert!(line.contains("does not say: missing field"), "{line}");
    answering.join().expect("it has answered").expect("all of it");
}

/// What says that it sees others at this address, and answers this to those who want to be called back there.
fn says(sees: &str, called_back: (&'static str, &'static str)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let seen = format!("{{\"ip\":\"{sees}\"}}");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut some = [0; 4096];
            while !request.ends_with(b"}") {
                match std::io::Read::read(&mut stream, &mut some) {
                    Ok(read) if read > 0 => request.extend(&some[..read]),
                    _ => break,
                }
            }
            let wants_a_call = String::from_utf8_lossy(&request).contains("challenge");
            let (status, body) = if wants_a_call { called_back } else { ("200 OK", seen.as_str()) };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            // Who asks may have gone meanwhile.
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
        }
    });
    addr
}

/// Most see it at one address, and one at another, where it would be called back.
#[test]
fn an_address_that_nobody_has_tried_to_call_is_not_given_up_for_another() {
    let lab = Lab::empty();
    let busy = ("503 Service Unavailable", "{\"title\":\"busy\"}");
    let failed = ("200 OK", "{\"ip\":\"127.0.0.2\",\"called_back\":false,\"reason\":\"nobody is there\"}");
    let other = says("127.0.0.1", ("200 OK", "{\"ip\":\"127.0.0.1\",\"called_back\":true}"));
    let join = |most: [String; 2]| {
        let contacts = [&most[..], std::slice::from_ref(&other)].concat().join(",");
        let args = ["--memory", "--advertise", "auto", "--join-attempts", "1", "--bootstrap", &contacts];
        refused(lab.path(), &args)
    };
    let line = join([says("127.0.0.2", busy), says("127.0.0.2", busy)]);
    assert!(line.contains("nobody says whether this node can be called at 127.0.0.2:"), "{line}");
    // Where it has been tried in vain the other one is taken: it fails later, at the join, for none of these is a node.
    let line = join([says("127.0.0.2", failed), says("127.0.0.2", failed)]);
    assert!(!line.contains("127.0.0.2:") && line.contains("could not join"), "{line}");
}

#[test]
fn it_is_found_on_closed_rings_as_well() {
    let lab = Lab::empty();
    let dir = lab.path();
    lab.ok(&["secret", "new", "ring.secret", "--client", "client.secret"]);
    lab.ok(&["certs", "--dir", "certs"]);
    let tls = ["--tls-cert", "certs/node.pem", "--tls-key", "certs/node.key", "--tls-ca", "certs/ca.pem"];
    for keys in [&["--secret-file", "ring.secret"][..], &tls] {
        let first = Daemon::start(dir, &[&["--memory"], keys].concat());
        let everywhere = ["--memory", "--host", "0.0.0.0", "--advertise", "auto", "--bootstrap", &first.addr];
        let second = Daemon::start(dir, &[&everywhere[..], keys].concat());
        assert_eq!(second.addr.split_once(':').expect("host:port").0, "127.0.0.1", "{keys:?}");
        log_says(&second, "was called back");
    }
    // One that listens for IPv4 and IPv6 alike is called by either.
    let secret = ["--secret-file", "ring.secret"];
    let first = Daemon::start(dir, &[&["--memory", "--host", "::", "--advertise", "localhost"], &secret[..]].concat());
    let ipv4 = format!("127.0.0.1:{}", port(&first.addr));
    let join = ["--memory", "--host", "::", "--advertise", "auto", "--bootstrap", &ipv4];
    let second = Daemon::start(dir, &[&join[..], &secret].concat());
    assert_eq!(second.addr, format!("127.0.0.1:{}", port(&second.addr)));
    chordal(dir, ("::1", port(&first.addr)), &[&["put", "a", "b"], &secret[..]].concat());
    for host in ["127.0.0.1", "::1", "localhost"] {
        assert_eq!(chordal(dir, (host, port(&second.addr)), &[&["get", "a"], &secret[..]].concat()), "b", "{host}");
    }

    // The certificate is not for this address: nobody can be sure that it is this node.
    let first = Daemon::start(dir, &[&["--memory"], &tls[..]].concat());
    let line = refused(
        dir,
        &[&["--memory", "--host", "127.0.0.2", "--advertise", "auto", "--bootstrap", &first.addr], &tls[..]].concat(),
    );
    assert!(line.contains("nobody could call it back") && line.contains("tasks certs --host"), "{line}");
}

/// A port of loopback where nobody listens.
fn closed() -> String {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string()
}

/// How many lines of its log have all of these.
fn lines_with(node: &Daemon, texts: &[&str]) -> usize {
    let log = std::fs::read_to_string(&node.log).unwrap_or_default();
    log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count()
}

#[test]
fn a_node_that_nobody_can_call_is_refused_at_the_join() {
    let lab = Lab::empty();
    let dir = lab.path();
    let first = Daemon::start(dir, &["--memory"]);
    let second = Daemon::start(dir, &["--memory", "--bootstrap", &first.addr]);
    is_ready(&second.addr);
    let page = TcpListener::bind("127.0.0.1:0").expect("a port");
    let of_page = page.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in page.incoming().flatten() {
            let mut stream = stream;
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let page = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = std::io::Write::write_all(&mut stream, page);
        }
    });
    let closed = closed();
    for (told, reason) in [
        (&closed, "Connection refused"),
        (&second.addr, "another node answers at"),
        (&of_page, "404 Not Found and no problem document"),
    ] {
        // Whatever the number of attempts, it makes no sense to go on.
        for attempts in ["1", "forever"] {
            let join = ["--memory", "--advertise", told, "--bootstrap", &first.addr, "--join-attempts", attempts];
            let line = refused(dir, &join);
            assert!(line.contains(reason) && line.contains(&first.addr), "{line}");
            let says = ["nobody can call this node at", told.as_str(), "--advertise", "firewall"];
            assert!(says.iter().all(|text| line.contains(text)), "{line}");
        }
        assert_eq!(lines_with(&first, &["WARN", "cannot be called at", told, reason]), 1, "once is enough");
    }
    assert_eq!(lines_with(&first, &["new predecessor", &closed]), 0, "it was never taken for a neighbour");
    assert_eq!(lines_with(&second, &["new predecessor", &closed]), 0, "it was never taken for a neighbour");

    lab.ok(&["certs", "--dir", "certs"]);
    let tls = ["--memory", "--tls-cert", "certs/node.pem", "--tls-key", "certs/node.key", "--tls-ca", "certs/ca.pem"];
    let first = Daemon::start(dir, &tls);
    let line = refused(dir, &[&tls[..], &["--host", "127.0.0.2", "--bootstrap", &first.addr]].concat());
    assert!(line.contains("nobody can call this node at 127.0.0.2:"), "{line}");
    assert!(line.contains("its certificate is for other addresses than this one"), "{line}");
    let other = ["--advertise", "localhost", "--bootstrap", &first.addr];
    Daemon::start(dir, &[&tls[..], &other].concat());
}

/// A port of loopback that leads to another, until it is told to lead nowhere.
struct Forward {
    stop: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Forward {
    fn start(from: &str, to: &str) -> Forward {
        let listener = TcpListener::bind(from).expect("the port");
        let (stop, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, kept, to) = (Arc::clone(&stop), Arc::clone(&streams), to.to_owned());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(there) = TcpStream::connect(&to) else { continue };
                for (from, into) in [(&stream, &there), (&there, &stream)] {
                    let (mut from, mut into) =
                        (from.try_clone().expect("a socket"), into.try_clone().expect("a socket"));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut into);
                        let _ = into.shutdown(Shutdown::Both);
                    });
                }
                kept.lock().expect("no thread has failed").extend([stream, there]);
            }
        });
        Forward { stop, streams, thread: Some(thread) }
    }

    fn cut(mut self, from: &str) {
        self.stop.store(true, Ordering::Relaxed);
        TcpStream::connect(from).expect("it wakes up");
        self.thread.take().expect("it runs").join().expect("it has ended");
        for stream in self.streams.lock().expect("no thread has failed").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_member_that_nobody_can_call_any_more_says_so_and_does_not_come_back() {
    let lab = Lab::empty();
    let dir = lab.path();
    let first = Daemon::start(dir, &["--memory"]);
    let second = Daemon::start(dir, &["--memory", "--bootstrap", &first.addr]);
    let (outside, inside) = (closed(), closed());
    let forward = Forward::start(&outside, &inside);
    let join =
        [["--data-dir", "d", "--port", port(&inside)], ["--advertise", &outside, "--bootstrap", &first.addr]].concat();
    let third = Daemon::start(dir, &join);
    assert_eq!(third.addr, outside);
    forward.cut(&outside);
    log_says(&third, &format!("nobody can call this node at {outside}"));
    drop(third);
    let line = refused(dir, &join);
    assert!(line.contains(&format!("nobody can call this node at {outside}")), "{line}");
    // With the way open again it goes on.
    let _forward = Forward::start(&outside, &inside);
    let third = Daemon::start(dir, &join);
    is_ready(&second.addr);
    share(&second.addr, &third.addr);
}

#[test]
fn a_host_alone_goes_with_the_port_that_is_listened_on() {
    let lab = Lab::empty();
    let first = Daemon::start(lab.path(), &["--data-dir", "d", "--advertise", "localhost:0"]);
    let info = get_json(&first.addr, "/nodeinfo");
    assert_eq!((&info["host"], &info["id"]), (&json!("localhost"), &json!(sha256(&first.addr))));
    assert!(first.addr.starts_with("localhost:") && info["port"] != 0);
    let second = Daemon::start(lab.path(), &["--memory", "--advertise", "localhost", "--bootstrap", &first.addr]);
    assert!(second.addr.starts_with("localhost:"), "{}", second.addr);
    share(&first.addr, &second.addr);
    assert_eq!(addr_of(&get_json(&first.addr, "/succ")), second.addr);
    let addr = first.addr.clone();
    drop(first);
    let first = Daemon::start(lab.path(), &["--data-dir", "d", "--advertise", "localhost"]);
    assert_eq!(first.addr, addr);
    // The same by its number: what is remembered is the name.
    chordal(lab.path(), ("127.0.0.1", port(&addr)), &["put", "a", "b"]);
    assert_eq!(chordal(lab.path(), ("localhost", port(&addr)), &["get", "a"]), "b");
}

#[test]
fn a_ring_of_ipv6_is_one_like_any_other() {
    let lab = Lab::empty();
    let dir = lab.path();
    let first = Daemon::start(dir, &["--memory", "--host", "::1", "--lab"]);
    let second = Daemon::start(dir, &["--data-dir", "d", "--host", "[::1]", "--bootstrap", &first.addr]);
    let third = Daemon::start(dir, &["--memory", "--host", "::1", "--advertise", "auto", "--bootstrap", &second.addr]);
    let named = Daemon::start(dir, &["--memory", "--host", "::1", "--advertise", "[::1]:0", "--join", &first.addr]);
    let all = [&first.addr, &second.addr, &third.addr, &named.addr];
    for addr in all {
        assert!(addr.starts_with("[::1]:"), "{addr}");
        is_ready(addr);
        let info = get_json(addr, "/nodeinfo");
        assert_eq!((&info["host"], &info["id"]), (&json!("::1"), &json!(sha256(addr))));
    }
    all.iter().for_each(|addr| share(&first.addr, addr));

    // The labs' pointers: raw, with a name, and in JSON.
    for body in [
        third.addr.clone(),
        format!("{}:node-3", third.addr),
        format!("{{\"host\": \"::1\", \"port\": {}}}", port(&third.addr)),
    ] {
        let set = exchange("PUT", &first.addr, "/pred", Some(("", body.as_bytes()))).expect(200);
        assert_eq!(
            (&set["host"], &set["port"]),
            (&json!("::1"), &json!(port(&third.addr).parse::<u16>().expect("a port")))
        );
    }
    rewire(&first.addr, "/succ", &third.addr);

    // From the shell and from a program.
    chordal(dir, ("::1", port(&second.addr)), &["put", "six", "teen"]);
    assert_eq!(chordal(dir, ("[::1]", port(&third.addr)), &["get", "six"]), "teen");
    let info: serde_json::Value =
        serde_json::from_str(&chordal(dir, ("::1", port(&first.addr)), &["info", "--json"])).expect("JSON");
    assert_eq!(info["host"], "::1");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = chordal::Client::new([first.addr.clone(), second.addr.clone()]).expect("two addresses");
        client.put("from a program", "over IPv6").await.expect("it is put");
        let got = client.get("from a program").await.expect("it is asked").expect("it is there");
        assert_eq!(got.bytes, b"over IPv6"[..]);
    });

    // Killed, it goes on where it was.
    let addr = second.addr.clone();
    drop(second);
    let second = Daemon::start(dir, &["--data-dir", "d", "--host", "::1"]);
    assert_eq!(second.addr, addr);
    is_ready(&addr);
    share(&addr, &named.addr);
}

#[test]
fn the_tasks_know_ipv6() {
    let lab = Lab::empty();
    lab.ok(&["boot", "--host", "::1"]);
    lab.ok(&["addmany", "2", "--host", "::1"]);
    lab.ok(&["doctor", "--wait", "30s"]);
    let nodes = lab.nodes();
    assert!(nodes.len() == 4 && nodes.iter().all(|node| node["host"] == "::1"), "{nodes:?}");
    lab.ok(&["store", "a value"]);
    assert!(lab.ok(&["lookup", "a value", "--trace"]).contains("a value"));
    lab.ok(&["kill", "node-3"]);
    lab.ok(&["start", "node-3"]);
    lab.ok(&["leave", "node-4"]);
    assert!(lab.ok(&["monitor", "--once"]).contains("[::1]:"));
    let at = format!("[::1]:{}", nodes[0]["port"]);
    let beside = lab.beside();
    beside.ok(&["join", &at, "--host", "::1"]);
    assert_eq!(beside.nodes()[0]["host"], "::1");
}
