//! What one client may ask, and whom a node calls because somebody named an address.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::common::{Daemon, Described, Lab, eventually, exchange, get, raw, send};
use crate::support::{CLIENT, NODE, Request, closed};

/// What comes of doing something so many times at once.
fn at_once<T: Send>(times: usize, what: impl Fn() -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let under_way: Vec<_> = (0..times).map(|_| scope.spawn(&what)).collect();
        under_way.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    })
}

#[test]
fn a_client_that_asks_too_often_is_told_so() {
    let lab = Lab::empty();
    let limited = closed(lab.path(), &[NODE, CLIENT], &["--limit-loopback", "--client-requests", "2"]);
    let ask = |key| Request::new("GET", &limited.addr, "/nodeinfo").signed(key).send();
    // At once: one after the other, a slow machine would not be too fast.
    let refused = eventually("it is too often", Duration::from_secs(20), || {
        at_once(8, || ask(&CLIENT)).into_iter().find(|answer| answer.status != 200)
    });
    let problem = refused.problem(429, "too-many");
    assert!(problem["detail"].as_str().unwrap().contains("2 requests a second"), "{problem}");
    assert_eq!(refused.header("retry-after"), "1");
    // Guessing is counted as well, and nodes may ask more.
    eventually("strangers are held up", Duration::from_secs(20), || {
        at_once(8, || get(&limited.addr, "/nodeinfo").status).contains(&429).then_some(())
    });
    for _ in 0..10 {
        assert_eq!(ask(&NODE).status, 200);
    }
    eventually("it may ask again", Duration::from_secs(20), || (ask(&CLIENT).status == 200).then_some(()));
}

#[test]
fn who_asks_too_much_is_refused_as_the_document_says() {
    let lab = Lab::empty();
    let open = Daemon::start(lab.path(), &["--memory"]);
    let node = closed(lab.path(), &[NODE], &["--limit-loopback", "--client-requests", "1"]);
    let described = Described::by(&open.addr);
    let refused =
        (0..100).map(|_| raw("GET", &node.addr, "/health/live", &[], b"")).find(|answer| answer.status == 429);
    described.check("GET", "health/live", &refused.expect("one request a second is soon too many"));
}

#[test]
fn loopback_is_not_counted_unless_that_is_asked_for() {
    let lab = Lab::empty();
    let free = closed(lab.path(), &[NODE, CLIENT], &["--client-requests", "1", "--client-connections", "1"]);
    let held: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(&free.addr).expect("it is taken")).collect();
    for _ in 0..20 {
        assert_eq!(Request::new("GET", &free.addr, "/nodeinfo").signed(&CLIENT).send().status, 200);
    }
    drop(held);
}

#[test]
fn a_client_has_so_many_connections_and_no_more() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--memory", "--limit-loopback", "--client-connections", "4"]);
    let mut held: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut socket = TcpStream::connect(&node.addr).expect("it is taken");
            socket.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").expect("it is sent");
            assert!(socket.read(&mut [0; 4096]).expect("it answers") > 0);
            socket
        })
        .collect();
    let answer = eventually("one too many", Duration::from_secs(10), || {
        let mut socket = TcpStream::connect(&node.addr).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let mut answer = String::new();
        // It may be refused before it has asked.
        let _ = socket.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.read_to_string(&mut answer).ok()?;
        Some(answer)
    });
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("as many connections"), "{answer}");
    held.pop();
    eventually("there is room again", Duration::from_secs(10), || {
        let mut socket = TcpStream::connect(&node.addr).ok()?;
        socket.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200 ").then_some(())
    });
}

/// Somebody who would notice being called.
fn ear() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("an address").port().to_string();
    (listener, port)
}

#[test]
fn addresses_that_a_join_names_must_be_among_those_that_may_be_called() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--memory"]);
    for host in [
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "203.0.113.7",
        "0.0.0.0",
        "224.0.0.1",
        "::ffff:10.0.0.1",
        "fd00::1",
    ] {
        for (method, path) in [("POST", "/dht/join"), ("PUT", "/pred"), ("PUT", "/succ")] {
            let body = serde_json::json!({ "host": host, "port": 80 });
            let problem = send(method, &node.addr, path, &body).problem(400, "invalid");
            let detail = problem["detail"].as_str().expect("a text");
            assert!(detail.contains("loopback only") && detail.contains("--host"), "{method} {path} {host}: {detail}");
        }
    }
    // With other nets than its own the node calls nobody here, by whatever name.
    let (listener, port) = ear();
    let elsewhere = Daemon::start(lab.path(), &["--memory", "--allow-net", "10.0.0.0/8,fd00::/8"]);
    for host in ["127.0.0.1", "localhost"] {
        let join = format!("{{\"host\": \"{host}\", \"port\": {port}}}");
        let answer = exchange("POST", &elsewhere.addr, "/dht/join", Some(("application/json", join.as_bytes())));
        let problem = answer.problem(400, "invalid");
        assert!(problem["detail"].as_str().expect("a text").contains("10.0.0.0/8"), "{problem}");
    }
    let nobody = listener.accept().expect_err("nobody calls");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    let ran = Daemon::try_start(lab.path(), &["--memory", "--allow-net", "10.0.0.0/33"]).err().expect("that is no net");
    assert!(ran.stderr.contains("10.0.0.0/33"), "{ran:?}");
}
