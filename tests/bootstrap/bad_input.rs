//! Whoever starts a service wrongly is told in one line what is wrong and what to do, and the exit status says so too.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use crate::common::{Daemon, Lab};
use crate::support::Service;

/// Starts a service, which must end with a failure, one line, and these words in it.
#[track_caller]
fn fails(lab: &Lab, args: &[&str], words: &[&str]) {
    let ran = match Service::try_start(lab, args) {
        Err(ran) => ran,
        Ok(service) => panic!("{args:?} should have failed, and listens at {}", service.addr),
    };
    assert!(!ran.ok && ran.code.is_some_and(|code| code > 0), "{args:?}: {ran:?}");
    assert_eq!(ran.stderr.trim_end().lines().count(), 1, "one line, please: {ran:#?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} for {args:?} in {}", ran.stderr);
    }
}

#[test]
fn nonsense_is_refused_with_advice() {
    let lab = Lab::empty();
    for size in ["0", "-1", "201", "99999999999999999999", "many", "", "1.5"] {
        fails(&lab, &["--pool", size], &["--pool", "from 1 to 200"]);
    }
    for interval in ["0", "0s", "-1", "-2s", "soon", "1h", "", "2 s", "nan"] {
        fails(&lab, &["--check-interval", interval], &["duration"]);
    }
    fails(&lab, &["--check-interval", "1ms"], &["every 50ms", "not every 1ms"]);
    fails(&lab, &["--check-interval", "86401"], &["a day"]);
    for address in ["", "0.0.0.0", "h:5000", "http://h", "a b", "256.1.1.1"] {
        fails(&lab, &["--external-address", address], &["external address", "boot.example.org"]);
    }
    for port in ["65536", "-1", "http"] {
        fails(&lab, &["--host-port", port], &["--host-port"]);
    }
    fails(&lab, &["--host-address", "a:1"], &["without a port"]);
    fails(&lab, &["--host-address", "203.0.113.1"], &["cannot listen on 203.0.113.1", "--host-address"]);
    for source in ["here", "h:0", "https://h/", "http://"] {
        fails(&lab, &["--bootstrap", source], &["127.0.0.1:9000", "http://127.0.0.1:5000/return_dht_address"]);
    }
    let mine = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = mine.local_addr().expect("an address").port().to_string();
    fails(&lab, &["--host-port", &taken], &[&taken, "choose another one with --host-port"]);
    std::fs::write(lab.path().join("file"), "x").expect("a file");
    fails(&lab, &["--data-dir", "file/pool"], &["file/pool", "for a pool"]);
    let nothing_was_started = crate::common::processes_of(lab.path()).is_empty();
    assert!(nothing_was_started);
}

#[test]
fn an_unreachable_ring_is_an_error() {
    let lab = Lab::empty();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    fails(&lab, &["--bootstrap", &nobody], &["nobody of the ring to join answers", &nobody, "running there"]);
    let url = format!("http://{nobody}/return_dht_address");
    fails(&lab, &["--bootstrap", &url], &["nobody of the ring to join answers", &nobody]);
    // Nodes are told the same.
    let ran = Daemon::try_start(lab.path(), &["--memory", "--bootstrap", &url]).err().expect("there is nobody");
    let last = ran.stderr.lines().last().unwrap_or_default();
    assert!(!ran.ok && last.contains("8 attempts through") && last.contains(&nobody), "{ran:?}");
    let ran = Daemon::try_start(lab.path(), &["--memory", "--bootstrap", "http:/x"]).err().expect("that is no URL");
    assert!(!ran.ok && ran.stderr.contains("http://127.0.0.1:5000/return_dht_address"), "{ran:?}");
}

#[test]
fn a_pool_has_one_service_and_one_ring() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "2"]);
    service.fills(&lab, 2);
    let pid = service.child.id().to_string();
    fails(&lab, &["--pool", "2"], &["another bootstrap service", &pid, "--data-dir"]);
    assert_eq!(service.live(), 2, "the first one has not noticed");
    crate::support::fill(&service, 5);
    assert!(service.stop().ok);

    let elsewhere = Daemon::start(lab.path(), &["--memory"]);
    let refused = ["belongs to the ring", "directory of its own", elsewhere.addr.as_str()];
    fails(&lab, &["--pool", "2", "--bootstrap", &elsewhere.addr], &refused);
    // Also if no service has ever written down which ring it is.
    let state = lab.path().join("network_state.json");
    let mut json = lab.state();
    json.as_object_mut().expect("an object").remove("bootstrap");
    std::fs::write(&state, json.to_string()).expect("it can be written");
    fails(&lab, &["--pool", "2", "--bootstrap", &elsewhere.addr], &refused);
    std::fs::write(&state, "{").expect("it can be written");
    fails(&lab, &["--pool", "2"], &["network_state.json is damaged"]);
    std::fs::write(&state, json.to_string()).expect("it can be written");
}

/// Answers everything with this until the test ends.
fn stub(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // One read has the whole of so small a request.
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes()));
        }
    });
    format!("http://{addr}/return_dht_address")
}

#[test]
fn a_service_that_names_nobody_of_use_makes_no_ring() {
    let lab = Lab::empty();
    let mine = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port().to_string();
    let dead = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").to_string();
    let none = r#"{"initial_peers":[]}"#.to_owned();
    let nonsense = r#"{"initial_peers":["http://x", "", "h:0"]}"#.to_owned();
    let itself = format!(r#"{{"initial_peers":["127.0.0.1:{mine}"]}}"#);
    let gone = format!(r#"{{"initial_peers":["{dead}"]}}"#);
    let huge = format!(r#"{{"initial_peers":["{}"]}}"#, "x".repeat(100_000));
    let cases = [
        (none, "names nobody: its list is empty"),
        (nonsense, "nothing in its list is host:port"),
        (itself, "names nobody but this node"),
        (gone, dead.as_str()),
        (huge, "longer than 64 KiB"),
        ("hello".to_owned(), r#"expected was {"initial_peers": ["host:port"]}"#),
    ];
    std::thread::scope(|scope| {
        for (answer, words) in cases {
            let (lab, port) = (&lab, if answer.contains(&mine) { mine.as_str() } else { "0" });
            scope.spawn(move || {
                let url = stub(answer);
                let args = ["--memory", "--port", port, "--bootstrap", &url];
                let ran = Daemon::try_start(lab.path(), &args).err().unwrap_or_else(|| panic!("{words}: it runs"));
                let last = ran.stderr.lines().last().unwrap_or_default();
                assert!(!ran.ok && last.contains(words) && last.contains("8 attempts"), "{words}: {ran:?}");
            });
        }
    });
}
