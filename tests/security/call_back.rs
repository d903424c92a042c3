//! What a node can be made to do by those who want to be called back.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Answer, Lab};
use crate::support::{CLIENT, NODE, Request, closed, stranger};

/// A challenge that nobody can answer.
const CHALLENGE: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

fn seen(addr: &str, body: &Value) -> Request {
    Request::new("POST", addr, "/seen").body("application/json", body.to_string())
}

fn call_back(addr: &str, port: u16) -> Answer {
    let body = json!({ "call_back": { "port": port, "challenge": CHALLENGE } });
    // Whoever asks too often asks again; nothing else is waited for.
    let began = Instant::now();
    loop {
        let answer = seen(addr, &body).signed(&NODE).send();
        if answer.status != 429 || began.elapsed() > Duration::from_secs(20) {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Answers one connection so, and returns what was asked.
fn answering(answer: impl FnOnce(&mut TcpStream, &str) + Send + 'static) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut asked = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&asked).contains(CHALLENGE) {
            let read = stream.read(&mut buffer).expect("a request");
            assert!(read > 0, "it ended early: {}", String::from_utf8_lossy(&asked));
            asked.extend_from_slice(&buffer[..read]);
        }
        let asked = String::from_utf8_lossy(&asked).into_owned();
        answer(&mut stream, &asked);
        asked
    });
    (port, thread)
}

fn reply(stream: &mut TcpStream, body: &str) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    // It may have had enough.
    let _ = stream.write_all((head + body).as_bytes());
}

#[test]
fn only_nodes_are_called_back_and_only_where_they_come_from() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    stranger(&seen(&node.addr, &json!({})).send(), "closed to strangers");
    seen(&node.addr, &json!({})).signed(&CLIENT).send().problem(403, "forbidden");
    let told = seen(&node.addr, &json!({})).signed(&NODE).send().expect(200);
    assert_eq!(told, json!({ "ip": "127.0.0.1" }));

    // Whatever else is named, nobody but the one that asks is called.
    let elsewhere = TcpListener::bind("127.0.0.2:0").expect("a port");
    let port = elsewhere.local_addr().expect("an address").port();
    let body = json!({ "call_back": { "port": port, "challenge": CHALLENGE, "ip": "127.0.0.2", "host": "127.0.0.2" } });
    let mut asked = seen(&node.addr, &body);
    asked.headers.push(("x-forwarded-for", "127.0.0.2".to_owned()));
    asked.headers.push(("forwarded", "for=127.0.0.2".to_owned()));
    let told = asked.signed(&NODE).send().expect(200);
    assert_eq!((&told["ip"], &told["called_back"]), (&json!("127.0.0.1"), &json!(false)), "{told}");
    elsewhere.set_nonblocking(true).expect("it can be looked at");
    assert!(elsewhere.accept().is_err(), "nobody came");

    // Nor is any other address called that the node would not call anyway.
    for (addr, reason) in
        [("10.255.0.1:4000", "listens on loopback only"), ("169.254.169.254:80", "not on this machine")]
    {
        let body = json!({ "call_back": { "addr": addr, "challenge": CHALLENGE } });
        let told = seen(&node.addr, &body).signed(&NODE).send().expect(200);
        assert!(
            told["called_back"] == false && told["reason"].as_str().is_some_and(|it| it.contains(reason)),
            "{told}"
        );
    }

    for wrong in [
        json!({ "addr": "http://127.0.0.1:1", "challenge": CHALLENGE }),
        json!({ "port": 0, "challenge": CHALLENGE }),
        json!({ "port": 1, "challenge": "ff" }),
        json!({ "port": 1, "challenge": "x".repeat(64) }),
    ] {
        seen(&node.addr, &json!({ "call_back": wrong })).signed(&NODE).send().problem(400, "invalid");
    }
    for wrong in [json!("x"), json!({ "call_back": { "port": 70000 } })] {
        seen(&node.addr, &wrong).signed(&NODE).send().problem(400, "malformed");
    }
    let large = json!({ "x": "x".repeat(2000) });
    seen(&node.addr, &large).signed(&NODE).send().problem(413, "too-large");
}

#[test]
fn what_is_called_hears_little_and_must_know_the_secret() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE], &[]);
    // One that says again what it was asked, as an echo does; without the key its answer counts for nothing at all.
    let (port, echo) = answering(|stream, asked| {
        let body = asked.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
        reply(stream, &body.replace("challenge", "response"));
    });
    let told = call_back(&node.addr, port).expect(200);
    assert_eq!(told["called_back"], false, "{told}");
    assert!(told["reason"].as_str().expect("a reason").contains("not signed"), "{told}");
    let asked = echo.join().expect("it was asked");
    assert!(asked.starts_with("POST /challenge HTTP/1.1\r\n") && asked.len() < 1024, "{asked}");
    assert!(asked.to_lowercase().contains("authorization: chordal-1 "), "signed like any other: {asked}");

    // One that never answers costs its time, and no more.
    let (port, silent) = answering(|_, _| std::thread::sleep(Duration::from_secs(4)));
    let began = Instant::now();
    let told = call_back(&node.addr, port).expect(200);
    assert_eq!(told["called_back"], false, "{told}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(silent);
    // One that babbles is not listened to.
    let (port, babbling) = answering(|stream, _| reply(stream, &"x".repeat(1 << 20)));
    let told = call_back(&node.addr, port).expect(200);
    assert!(told["reason"].as_str().expect("a reason").contains("longer than"), "{told}");
    babbling.join().expect("it was asked");
}

#[test]
fn on_an_open_ring_the_challenge_alone_tells_who_answers() {
    let lab = Lab::empty();
    let node = crate::common::Daemon::start(lab.path(), &["--memory", "--limit-loopback"]);
    let ask = |port: u16| {
        let body = json!({ "call_back": { "port": port, "challenge": CHALLENGE } });
        seen(&node.addr, &body).send().expect(200)
    };
    let (port, echo) = answering(|stream, _| reply(stream, &json!({ "response": CHALLENGE }).to_string()));
    let told = ask(port);
    assert!(told["reason"].as_str().expect("a reason").contains("another node answers"), "{told}");
    echo.join().expect("it was asked");
    // Too many at once: they are told to come again.
    let body = json!({ "call_back": { "port": 1, "challenge": CHALLENGE } });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..40).map(|_| scope.spawn(|| seen(&node.addr, &body).send().status)).collect();
        asking.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    assert!(statuses.contains(&429) && statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    // A page of another site cannot have it done.
    let mut from_elsewhere = seen(&node.addr, &body);
    from_elsewhere.headers.push(("origin", "http://elsewhere.example".to_owned()));
    from_elsewhere.send().problem(403, "cross-site");
}
