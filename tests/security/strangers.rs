//! Who has no key, or another one, or has seen what somebody else has sent: refused at once, and nothing has changed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::{Lab, exchange, get, sha256};
use crate::support::{CLIENT, Key, NODE, READER, Request, closed, hmac, now, stranger};

/// All routes, from the README.
fn routes() -> Vec<(String, String)> {
    let readme = include_str!("../../README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `/"));
    let routes: Vec<_> = rows
        .map(|(method, rest)| {
            let path = rest.split('`').next().expect("a path").replace(['{', '}', '…'], "");
            (method.to_owned(), format!("/{}", path.split('?').next().expect("a path")))
        })
        .collect();
    assert!(routes.len() > 20, "{routes:?}");
    routes
}

#[test]
fn every_route_is_closed_and_answers_at_once() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    for (method, path) in routes().into_iter().chain([("POST".to_owned(), "/peer".to_owned())]) {
        for body in ["", "{", "\u{0}", "{\"value\": 1}"] {
            let began = Instant::now();
            let answer = exchange(&method, &node.addr, &path, Some(("application/json", body.as_bytes())));
            assert!(began.elapsed() < Duration::from_secs(5), "{method} {path}");
            if path.starts_with("/health/") {
                assert_eq!(answer.status, 200, "{method} {path}");
            } else if method == "HEAD" {
                assert_eq!(answer.status, 401, "{method} {path}");
            } else {
                stranger(&answer, "--secret-file");
            }
        }
    }
    for (verb, path) in [("BREW", "/kv/a"), ("OPTIONS", "/kv/a"), ("TRACE", "/"), ("PATCH", "/nowhere"), ("GET", "/no")]
    {
        stranger(&exchange(verb, &node.addr, path, None), "closed to strangers");
    }
    // The rest of what a stranger may send is cut off as everywhere.
    let mut socket = TcpStream::connect(&node.addr).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    socket.write_all(b"\x16\x03\x01 what is that?\r\n\r\n").expect("it is sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers and closes");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(
        Request::new("GET", &node.addr, "/nodeinfo").signed(&NODE).send().json()["keys"],
        0,
        "nothing was stored"
    );
}

#[test]
fn a_signed_request_is_taken_and_its_answer_is_signed() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    let put = Request::new("PUT", &node.addr, "/kv/a%20b").body("text/plain", "hello").signed(&CLIENT);
    let answer = put.send();
    assert_eq!(answer.status, 204, "{answer:?}");
    let get = Request::new("GET", &node.addr, "/kv/a%20b").signed(&CLIENT);
    let answer = get.send();
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    let authorization = &get.headers[0].1;
    let nonce = authorization.split("nonce=").nth(1).and_then(|rest| rest.split(',').next()).expect("a nonce");
    let (digest, etag) = (sha256("hello"), answer.header("etag"));
    let signed = format!("chordal-1 reply\n{nonce}\n200\n{digest}\ncontent-type:text/plain\netag:{etag}\n");
    assert_eq!(answer.header("chordal-reply"), hex::encode(hmac(&CLIENT.secret, &signed)));
    let missing = Request::new("GET", &node.addr, "/kv/c?x=1").signed(&CLIENT).send();
    assert!(missing.status == 404 || missing.status == 400, "{missing:?}");
    assert_ne!(missing.header("chordal-reply"), "", "refusals are signed too");
    let head = Request::new("HEAD", &node.addr, "/kv/a%20b").signed(&CLIENT).send();
    assert_eq!((head.status, head.header("etag")), (200, etag));
}

#[test]
fn another_secret_and_another_key_are_refused() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    let store = || Request::new("PUT", &node.addr, "/kv/a").body("text/plain", "x");
    stranger(&store().signed(&Key { secret: [9; 32], ..CLIENT }).send(), "the secret is another one");
    stranger(&store().signed(&Key { id: "zz", ..CLIENT }).send(), "no key with the id zz");
    stranger(&store().signed(&READER).send(), "no key with the id r");
    for junk in ["", "Basic YTpi", "Chordal-1", "Chordal-1 key=c", "Chordal-9 key=c, time=1, nonce=, digest=, mac="] {
        let mut request = store();
        request.headers.push(("authorization", junk.to_owned()));
        stranger(&request.send(), "Authorization header");
    }
    assert_eq!(Request::new("GET", &node.addr, "/kv/a").signed(&CLIENT).send().status, 404);
}

#[test]
fn what_was_sent_before_is_taken_once() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    let other = lab.beside();
    let other = closed(other.path(), &[NODE, CLIENT], &[]);
    let put = Request::new("PUT", &node.addr, "/kv/a").body("text/plain", "1").signed(&CLIENT);
    assert_eq!(put.send().status, 204);
    stranger(&put.send(), "taken once");
    let elsewhere = Request { addr: other.addr.clone(), ..put.clone() };
    let mut named = elsewhere.clone();
    named.headers.push(("host", node.addr.clone()));
    stranger(&named.send(), "was signed for");
    stranger(&elsewhere.send(), "changed on its way");
    assert_eq!(Request::new("GET", &other.addr, "/kv/a").signed(&CLIENT).send().status, 404);
    // One that failed has been seen as well.
    let missing = Request::new("GET", &node.addr, "/kv/none").signed(&CLIENT);
    assert_eq!(missing.send().status, 404);
    stranger(&missing.send(), "taken once");
}

#[test]
fn old_requests_and_wrong_clocks_are_refused() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    let at = |time: i64| Request::new("GET", &node.addr, "/nodeinfo").signed_at(&CLIENT, time).send();
    let old = at(now() - 100_000);
    stranger(&old, "s ago by the clock of this node");
    stranger(&old, "set the clocks");
    stranger(&at(now() + 100_000), "s in the future");
    stranger(&at(0), "s ago");
    stranger(&at(i64::MAX), "s in the future");
    stranger(&at(-1), "Authorization header");
    stranger(&at(now() - 50_000), "before this node started");
    assert_eq!(at(now() + 50_000).status, 200);
}

#[test]
fn what_was_changed_on_its_way_is_refused() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    let put = || Request::new("PUT", &node.addr, "/kv/a").body("text/plain", "hello").signed(&CLIENT);
    let changed = |change: &dyn Fn(&mut Request)| {
        let mut request = put();
        change(&mut request);
        request.send()
    };
    stranger(&changed(&|it| it.body = b"hullo".to_vec()), "the body is not the one that was signed");
    stranger(&changed(&|it| it.body = b"hello, you".to_vec()), "the body is not the one that was signed");
    stranger(&changed(&|it| it.body.clear()), "the body is not the one that was signed");
    stranger(&changed(&|it| it.path = "/kv/b".to_owned()), "changed on its way");
    stranger(&changed(&|it| it.path = "/kv/a?x".to_owned()), "changed on its way");
    stranger(&changed(&|it| it.method = "DELETE"), "changed on its way");
    stranger(&changed(&|it| it.headers[0].1 = "text/html".to_owned()), "changed on its way");
    stranger(&changed(&|it| it.headers.push(("if-match", "*".to_owned()))), "changed on its way");
    assert_eq!(Request::new("GET", &node.addr, "/kv/a").signed(&CLIENT).send().status, 404, "nothing was stored");
}

#[test]
fn a_strangers_large_body_is_not_kept() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE], &[]);
    let answer = exchange("POST", &node.addr, "/peer", Some(("", &vec![0; 16 << 20])));
    stranger(&answer, "closed to strangers");
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.child.id())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak").trim();
    let kib: u64 = peak.trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 48 << 10, "16 MiB of a stranger were kept: {peak}");
}

#[test]
fn reading_may_be_opened() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &["--open-read"]);
    assert_eq!(get(&node.addr, "/nodeinfo").status, 200);
    assert_eq!(get(&node.addr, "/kv/a").status, 404);
    stranger(&exchange("PUT", &node.addr, "/kv/a", Some(("text/plain", b"x"))), "closed to strangers");
    stranger(&get(&node.addr, "/store/a"), "closed to strangers");
    stranger(&get(&node.addr, "/dht/leave"), "closed to strangers");
    stranger(&exchange("POST", &node.addr, "/dht/leave", None), "closed to strangers");
}
