//! Clients that are slow, and clients that are many.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Lab, eventually, get_json};
use crate::support::{connect, get, is_served, lone, post, resident_mib, still_works};

/// From the first byte of a request to the end of its headers; and some time for the test itself.
const HEADERS: Duration = Duration::from_secs(15);

#[test]
fn who_sends_headers_a_byte_at_a_time_is_cut_while_others_are_served() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut socket = connect(&node.addr);
                socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                let mut request = b"GET / HTTP/1.1\r\nhost: x\r\nx: ".iter().chain([b'y'; 2000].iter());
                loop {
                    let byte = request.next().expect("it was not cut");
                    // The pause between two bytes is the wait for an answer that does not come.
                    let sent = socket.write_all(&[*byte]);
                    match (sent, socket.read(&mut [0; 1])) {
                        (Err(_), _) | (_, Ok(0)) => return,
                        (_, Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        (_, Err(_)) => return,
                        (_, Ok(_)) => panic!("it was answered"),
                    }
                    assert!(began.elapsed() < HEADERS, "it was not cut");
                }
            });
        }
        while began.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            still_works(&node.addr);
            assert!(asked.elapsed() < Duration::from_secs(1));
        }
    });
    assert!(began.elapsed() > Duration::from_secs(8), "they had their time");
    still_works(&node.addr);
}

#[test]
fn a_body_that_stops_half_way_is_answered_and_stores_nothing() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let mut socket = connect(&node.addr);
    let head = "POST /dht/store HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    socket.write_all(format!("{head}{{\"value\": \"half\"").as_bytes()).unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 408");
    get(&node.addr, "/dht/lookup?value=half").problem(404);
    still_works(&node.addr);
}

#[test]
fn a_thousand_idle_connections_do_not_stop_the_node() {
    let lab = Lab::with_nodes(2);
    let addrs = lab.addrs();
    let pid = get_json(&addrs[0], "/nodeinfo")["pid"].as_u64().unwrap() as u32;
    let before = resident_mib(pid);
    let idle: Vec<TcpStream> = (0..1000).map(|_| connect(&addrs[0])).collect();
    for addr in &addrs {
        let asked = Instant::now();
        still_works(addr);
        assert!(asked.elapsed() < Duration::from_secs(2));
    }
    // More than there is room for: those that have been idle for a second make room, one for each that comes.
    let more: Vec<TcpStream> = (0..500).map(|_| connect(&addrs[0])).collect();
    eventually("it serves others again", Duration::from_secs(10), || is_served(&addrs[0]).then_some(()));
    lab.ok(&["doctor", "--wait", "20s"]);
    for addr in &addrs {
        eventually("there is room", Duration::from_secs(10), || is_served(addr).then_some(()));
        still_works(addr);
    }
    let (descriptors, memory) = (std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), resident_mib(pid));
    assert!(descriptors < 1200, "{descriptors} descriptors");
    assert!(memory < before + 40.0, "{before} MiB, then {memory} MiB");
    drop((idle, more));
    still_works(&addrs[0]);
}

#[test]
fn who_reads_slowly_holds_up_nobody_and_gets_all() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let value = "x".repeat(1 << 20);
    for i in 0..4 {
        assert_eq!(post(&node.addr, "/dht/store", &json!({ "key": format!("k{i}"), "value": value })).status, 200);
    }
    let before = resident_mib(node.child.id());
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut socket = connect(&node.addr);
                socket.write_all(b"GET /db HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
                let (began, mut all, mut some) = (Instant::now(), Vec::new(), vec![0; 64 << 10]);
                // Slow at first, to fill all buffers on the way.
                while began.elapsed() < Duration::from_secs(2) {
                    let mut byte = [0];
                    socket.read_exact(&mut byte).unwrap();
                    all.push(byte[0]);
                    still_works_now(&node.addr);
                }
                while let read @ 1.. = socket.read(&mut some).unwrap() {
                    all.extend_from_slice(&some[..read]);
                }
                let body = String::from_utf8(all).unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
                let page: serde_json::Value = serde_json::from_str(&body).expect("the whole page");
                assert!(page["items"].as_array().unwrap().len() >= 4);
            });
        }
    });
    let after = resident_mib(node.child.id());
    println!("20 slow readers of 4 MiB: {before:.1} MiB before, {after:.1} MiB after");
    assert!(after < before + 250.0, "{before} MiB, then {after} MiB");
    still_works(&node.addr);
}

fn still_works_now(addr: &str) {
    // Within the client's own deadline: how quickly is the business of benchmarks.
    assert_eq!(get(addr, "/health/live").status, 200);
}

#[test]
fn who_goes_away_before_the_answer_harms_nobody() {
    let lab = Lab::with_nodes(2);
    let addr = &lab.addrs()[0];
    for i in 0..200 {
        let mut socket = connect(addr);
        let request = match i % 3 {
            0 => "GET /find?key=a HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
            1 => "GET /nodeinfo HTTP/1.1\r\nhost: x\r\n".to_owned(),
            _ => {
                let body = json!({ "key": format!("gone {i}"), "value": "v" }).to_string();
                let length = body.len();
                format!(
                    "POST /dht/store HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                )
            }
        };
        socket.write_all(request.as_bytes()).unwrap();
    }
    still_works(addr);
    lab.ok(&["doctor"]);
}

#[test]
fn more_stores_at_once_than_the_disk_takes_are_told_to_wait_and_none_is_lost() {
    let lab = Lab::empty();
    let node = crate::common::Daemon::start(lab.path(), &["--data-dir", "d"]);
    let value = "x".repeat(1 << 20);
    let outcomes: Vec<(String, u16)> = std::thread::scope(|scope| {
        let stores: Vec<_> = (0..120)
            .map(|i| {
                let (node, value) = (&node, &value);
                scope.spawn(move || {
                    let key = format!("k{i}");
                    let answer = post(&node.addr, "/dht/store", &json!({ "key": key, "value": value }));
                    // A disk that takes longer than the deadline for what it has taken leaves the outcome open.
                    if answer.status != 200 && answer.status != 504 {
                        answer.problem(429);
                    }
                    (key, answer.status)
                })
            })
            .collect();
        stores.into_iter().map(|store| store.join().unwrap()).collect()
    });
    let stored = outcomes.iter().filter(|(_, status)| *status == 200);
    println!("{} of {} were stored", stored.clone().count(), outcomes.len());
    for (key, _) in stored {
        assert_eq!(get(&node.addr, &format!("/dht/lookup?key={key}")).status, 200, "{key} was acknowledged");
    }
    still_works(&node.addr);
}
