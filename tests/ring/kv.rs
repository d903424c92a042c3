//! /kv on real processes: values in HTTP's own words, through any node.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Lab, Raw, escape, eventually, get_json, raw, send, sha256, signal};
use chordal::client::{Deleted, NodeClient, Outcome};
use chordal::node::mint;
use chordal_protocol::Condition;
use nix::sys::signal::Signal;
use rand::seq::IndexedRandom as _;
use serde_json::json;

/// How many clients count together, and how far each of them.
const CLIENTS: usize = 32;
const INCREMENTS: u64 = 4;

fn put(addr: &str, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Raw {
    raw("PUT", addr, &format!("/kv/{key}"), headers, body)
}

fn fetch(addr: &str, key: &str, headers: &[(&str, &str)]) -> Raw {
    raw("GET", addr, &format!("/kv/{key}"), headers, b"")
}

fn delete(addr: &str, key: &str, headers: &[(&str, &str)]) -> Raw {
    raw("DELETE", addr, &format!("/kv/{key}"), headers, b"")
}

#[test]
fn each_method_works_through_each_node() {
    let lab = Lab::with_nodes(4);
    let addrs = lab.addrs();
    let mut tags = BTreeSet::new();
    for (number, addr) in addrs.iter().enumerate() {
        let body = format!("written through {addr}");
        let stored = put(addr, "key", &[("content-type", "text/x-note")], body.as_bytes()).expect(204);
        assert!(tags.insert(stored.etag()), "each write has a tag of its own");
        for there in &addrs {
            let found = fetch(there, "key", &[]).expect(200);
            assert_eq!((found.etag(), &*found.body), (stored.etag(), body.as_bytes()), "through {there}");
            assert_eq!(found.header("content-type"), "text/x-note");
            let head = raw("HEAD", there, "/kv/key", &[], b"").expect(200);
            assert_eq!((head.etag(), head.body.len()), (stored.etag(), 0));
            assert_eq!(head.header("content-length"), body.len().to_string());
            assert_eq!(head.header("content-type"), "text/x-note");
        }
        let other = &addrs[(number + 1) % addrs.len()];
        delete(other, "key", &[]).expect(204);
        for there in &addrs {
            fetch(there, "key", &[]).problem(404, "no-such-value");
            assert_eq!(raw("HEAD", there, "/kv/key", &[], b"").status, 404);
        }
        delete(addr, "key", &[]).problem(404, "no-such-value");
    }
    for (method, path) in [("PATCH", "/kv/key"), ("GET", "/kv"), ("POST", "/kv/key")] {
        raw(method, &addrs[0], path, &[], b"").problem(405, "method");
    }
}

#[test]
fn a_key_is_any_text() {
    let lab = Lab::with_nodes(3);
    let addrs = lab.addrs();
    let long = "k".repeat(60_000);
    // As it stands in the path, and what that is.
    let keys = [
        ("a/b", "a/b"),
        ("two%20words", "two words"),
        ("a+b", "a+b"),
        ("/", "/"),
        ("//x/", "//x/"),
        ("..", ".."),
        ("../../etc/passwd", "../../etc/passwd"),
        ("%3F%23%25", "?#%"),
        ("%E6%BC%A2%F0%9F%A6%80", "漢🦀"),
        ("%00", "\0"),
        ("%22quoted%22", "\"quoted\""),
        (&long, &long),
    ];
    for (number, (path, key)) in keys.iter().enumerate() {
        let value = format!("value {number}");
        put(&addrs[number % 3], path, &[("content-type", "text/plain")], value.as_bytes()).expect(204);
        let there = &addrs[(number + 1) % 3];
        assert_eq!(fetch(there, path, &[]).expect(200).body, value.as_bytes(), "{path:.40}");
        let all_escaped: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
        if key.len() < 1000 {
            assert_eq!(fetch(there, &all_escaped, &[]).expect(200).body, value.as_bytes(), "{path}");
            let found = get_json(there, &format!("/dht/lookup?key={}", escape(key)));
            assert_eq!((&found["value"], &found["id"]), (&value.into(), &sha256(key).into()), "the labs see the same");
        }
    }
    assert_eq!(fetch(&addrs[0], "a%2Fb", &[]).body, fetch(&addrs[1], "a/b", &[]).body);
    // The last slash belongs to the key.
    fetch(&addrs[0], "a/b/", &[]).problem(404, "no-such-value");
    for path in ["", "%ff", "%C3", "%", "%zz", "a?b", "a?"] {
        let kind = if path.is_empty() { "invalid" } else { "malformed" };
        for method in ["GET", "PUT", "DELETE"] {
            raw(method, &addrs[0], &format!("/kv/{path}"), &[], b"").problem(400, kind);
        }
    }
    assert_eq!(fetch(&addrs[0], &"k".repeat(65_536), &[]).status, 414);
}

#[test]
fn the_longest_key_travels_in_the_bulk_form() {
    let lab = Lab::with_nodes(2);
    let addrs = lab.addrs();
    let (longest, longer) = ("k".repeat(64 << 10), "k".repeat((64 << 10) + 1));
    let records = json!([{"key": longest, "value": "v"}, {"key": longer, "value": "v"}]);
    let answers = send("POST", &addrs[0], "/kv", &records).expect(200);
    assert_eq!((&answers[0]["status"], &answers[1]["status"]), (&204.into(), &413.into()));
    let found = send("POST", &addrs[1], "/kv", &json!([{"op": "get", "key": longest}])).expect(200);
    assert_eq!((&found[0]["value"], &found[0]["key"]), (&"v".into(), &longest.as_str().into()));
    // The client chooses the form by itself.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = NodeClient::new();
        for key in [longest.as_bytes(), b"..", b".", b"\xff\0", b"a/b", "ü".as_bytes()] {
            let (here, there) = (client.kv(&addrs[0]), client.kv(&addrs[1]));
            let stored = here.put(key, b"\xff\xfe", Some("x/y"), Condition::Always, mint()).await.unwrap();
            let value = there.get(key).await.unwrap().unwrap();
            assert_eq!((&*value.bytes, &*value.content_type), (&b"\xff\xfe"[..], "x/y"));
            assert_eq!(stored, Outcome::Done(value.etag));
            let head = there.head(key).await.unwrap().unwrap();
            assert_eq!((head.length, &*head.content_type, head.etag), (2, "x/y", value.etag));
            let taken = here.put(key, b"new", None, Condition::Absent, mint()).await.unwrap();
            assert_eq!(taken, Outcome::Refused(Some(value.etag)));
            let set = there.compare_and_set(key, Some(value.etag), b"new", None, mint()).await.unwrap();
            let Outcome::Done(tag) = set else { panic!("{set:?}") };
            assert_eq!(here.delete(key, Some(value.etag), mint()).await.unwrap(), Deleted::Refused(Some(tag)));
            assert_eq!(here.delete(key, Some(tag), mint()).await.unwrap(), Deleted::Done);
            assert_eq!(there.delete(key, None, mint()).await.unwrap(), Deleted::Missing);
            assert_eq!((there.get(key).await.unwrap(), there.head(key).await.unwrap()), (None, None));
        }
    });
}

#[test]
fn a_value_is_any_bytes_of_any_type() {
    let lab = Lab::with_nodes(2);
    let addrs = lab.addrs();
    let all: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..1 << 20).map(|byte: u32| byte.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for (content_type, value) in [
        ("image/png", &all[..]),
        ("Multipart/Mixed; boundary=\"a b\"", b"x"),
        ("text/plain", b""),
        ("application/octet-stream", &large),
    ] {
        put(&addrs[0], "value", &[("content-type", content_type)], value).expect(204);
        let found = fetch(&addrs[1], "value", &[]).expect(200);
        assert_eq!(found.header("content-type"), content_type);
        assert_eq!(found.header("content-length"), value.len().to_string());
        assert!(found.body == value, "{} bytes came back as {}", value.len(), found.body.len());
        assert_eq!((found.header("x-content-type-options"), found.header("cache-control")), ("nosniff", "no-cache"));
    }
    put(&addrs[0], "untyped", &[], b"v").expect(204);
    assert_eq!(fetch(&addrs[0], "untyped", &[]).header("content-type"), "application/octet-stream");
    // What the labs store is text here, and a value may be its own key.
    send("POST", &addrs[0], "/dht/store", &json!({"value": "own key"})).expect(200);
    let found = fetch(&addrs[1], "own%20key", &[]).expect(200);
    assert_eq!((&*found.body, found.header("content-type")), (&b"own key"[..], "text/plain; charset=utf-8"));
    put(&addrs[1], "same", &[], b"same").expect(204);
    assert_eq!(get_json(&addrs[0], "/dht/lookup?value=same")["value"], "same");
    // What would not come back as it is is refused.
    put(&addrs[0], "coded", &[("content-encoding", "gzip")], b"v").problem(415, "media-type");
    put(&addrs[0], "part", &[("content-range", "bytes 0-0/2")], b"v").problem(400, "invalid");
    put(&addrs[0], "typed", &[("content-type", &"x".repeat(300))], b"v").problem(400, "invalid");
    for key in ["coded", "part", "typed"] {
        fetch(&addrs[0], key, &[]).problem(404, "no-such-value");
    }
}

#[test]
fn what_is_too_large_is_read_away_and_refused() {
    let lab = Lab::with_nodes(2);
    let addr = &lab.addrs()[0];
    let limit = 1 << 20;
    put(addr, "large", &[], &vec![b'v'; limit]).expect(204);
    put(addr, "large", &[], &vec![b'w'; limit + 1]).problem(413, "too-large");
    put(addr, "large", &[], &vec![b'w'; 9 << 20]).problem(413, "too-large");
    assert_eq!(fetch(addr, "large", &[]).expect(200).body, vec![b'v'; limit]);
    let ndjson = [("content-type", "application/x-ndjson")];
    raw("POST", addr, "/kv", &ndjson, &vec![b' '; (8 << 20) + 1]).problem(413, "too-large");
    let record = b"{\"key\":\"k\",\"value\":\"v\"}\n";
    raw("POST", addr, "/kv", &ndjson, &record.repeat(1001)).problem(413, "too-large");
    fetch(addr, "k", &[]).problem(404, "no-such-value");
    raw("POST", addr, "/kv", &ndjson, &record.repeat(1000)).expect(200);
    fetch(addr, "k", &[]).expect(200);
}

#[test]
fn conditions_hold_or_nothing_happens() {
    let lab = Lab::with_nodes(3);
    let addrs = lab.addrs();
    let (a, b, c) = (&addrs[0], &addrs[1], &addrs[2]);
    // Nothing is there.
    for headers in [[("if-match", "*")], [("if-match", "\"1-1\"")], [("if-match", "\"x\"")]] {
        put(a, "k", &headers, b"no").problem(412, "precondition");
        delete(b, "k", &headers).problem(412, "precondition");
        fetch(c, "k", &headers).problem(412, "precondition");
    }
    fetch(a, "k", &[("if-none-match", "*")]).problem(404, "no-such-value");
    let first = put(b, "k", &[("if-none-match", "*")], b"one").expect(201).etag();
    // It is there.
    let refused = put(c, "k", &[("if-none-match", "*")], b"no").problem(412, "precondition");
    assert_eq!(refused.etag(), first, "a refusal tells the tag there is");
    let second = put(a, "k", &[("if-match", &first)], b"two").expect(204).etag();
    assert_eq!(put(b, "k", &[("if-match", &first)], b"no").problem(412, "precondition").etag(), second);
    put(c, "k", &[("if-match", &format!("W/{second}"))], b"no").problem(412, "precondition");
    delete(a, "k", &[("if-match", &first)]).problem(412, "precondition");
    // One of several, in one line or in two.
    let third = put(b, "k", &[("if-match", &format!("\"x\", {first}, {second}"))], b"three").expect(204).etag();
    let fourth = put(c, "k", &[("if-match", &second), ("if-match", &third)], b"four").expect(204).etag();
    put(a, "k", &[("if-match", &format!("{first},{second},{third}"))], b"no").problem(412, "precondition");
    let fifth = put(a, "k", &[("if-match", "*")], b"five").expect(204).etag();
    let tags = BTreeSet::from([&first, &second, &third, &fourth, &fifth]);
    assert_eq!(tags.len(), 5);
    // Reading.
    for (headers, status) in [
        ([("if-none-match", &*fifth)], 304),
        ([("if-none-match", &*format!("{first}, W/{fifth}"))], 304),
        ([("if-none-match", "*")], 304),
        ([("if-none-match", &*first)], 200),
        ([("if-match", &*fifth)], 200),
        ([("if-match", &*format!("W/{fifth}"))], 412),
        ([("if-match", &*first)], 412),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = raw(method, b, "/kv/k", &headers, b"");
            assert_eq!((answer.status, answer.etag()), (status, fifth.clone()), "{method} {headers:?}");
            assert_eq!(answer.body == b"five", method == "GET" && status == 200);
        }
    }
    // Nonsense.
    for (headers, kind) in [
        (&[("if-match", "1-1")][..], "malformed"),
        (&[("if-match", "\"1-1")], "malformed"),
        (&[("if-match", "")], "malformed"),
        (&[("if-match", "*, \"1-1\"")], "malformed"),
        (&[("if-match", "*"), ("if-none-match", "*")], "invalid"),
        (&[("if-none-match", "\"1-1\"")], "invalid"),
    ] {
        put(a, "k", headers, b"no").problem(400, kind);
    }
    delete(a, "k", &[("if-none-match", "*")]).problem(400, "invalid");
    assert_eq!(fetch(c, "k", &[]).expect(200).etag(), fifth, "none of all that was done");
    delete(c, "k", &[("if-match", &fifth)]).expect(204);
    let sixth = put(b, "k", &[("if-none-match", "*")], b"six").expect(201).etag();
    put(b, "k", &[("if-match", &fifth)], b"no").problem(412, "precondition");
    assert!(!tags.contains(&sixth), "a tag does not come back");
}

#[test]
fn clients_that_compare_and_set_lose_no_increment() {
    let lab = Lab::with_nodes(4);
    let addrs = Arc::new(lab.addrs());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let counted: Vec<u64> = runtime.block_on(async {
        let client = NodeClient::new();
        client.kv(&addrs[0]).put(b"counter", b"0", None, Condition::Absent, mint()).await.unwrap();
        let counting: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(count(client.clone(), Arc::clone(&addrs)))).collect();
        let mut counted = Vec::new();
        for client in counting {
            counted.extend(client.await.unwrap());
        }
        counted
    });
    let total = CLIENTS as u64 * INCREMENTS;
    let different: BTreeSet<u64> = counted.iter().copied().collect();
    assert_eq!(different, (1..=total).collect(), "each number was written by one client");
    assert_eq!(fetch(&addrs[0], "counter", &[]).body, total.to_string().as_bytes());
}

/// Counts up, each time through a random node, and returns the numbers that it has written.
async fn count(client: NodeClient, addrs: Arc<Vec<String>>) -> Vec<u64> {
    let mut written = Vec::new();
    let mut tries = 0;
    while written.len() < INCREMENTS as usize {
        tries += 1;
        assert!(tries < 10_000, "others cannot always come first");
        let (here, there) = (addrs.choose(&mut rand::rng()).unwrap(), addrs.choose(&mut rand::rng()).unwrap());
        let value = client.kv(here).get(b"counter").await.unwrap().expect("it is there");
        let next = std::str::from_utf8(&value.bytes).unwrap().parse::<u64>().unwrap() + 1;
        let text = next.to_string();
        let outcome =
            client.kv(there).compare_and_set(b"counter", Some(value.etag), text.as_bytes(), None, mint()).await;
        if let Outcome::Done(_) = outcome.unwrap() {
            written.push(next);
        }
    }
    written
}

#[test]
fn a_request_that_is_sent_again_is_done_once() {
    let lab = Lab::with_nodes(3);
    let addrs = lab.addrs();
    let (a, b, c) = (&addrs[0], &addrs[1], &addrs[2]);
    let name = mint().to_string();
    let named = [("request-id", &*name)];
    let first = put(a, "k", &named, b"mine").expect(204);
    assert_eq!(first.header("request-id"), name);
    let theirs = put(b, "k", &[], b"theirs").expect(204);
    assert_eq!(theirs.header("request-id").len(), 32, "whoever names nothing is told a name");
    // Through another node, with somebody else's write between.
    assert_eq!(put(c, "k", &named, b"mine").expect(204).etag(), first.etag());
    assert_eq!(fetch(a, "k", &[]).expect(200).body, b"theirs");
    // A condition that held the first time holds for the same request again.
    let name = mint().to_string();
    let tag = theirs.etag();
    let conditional = [("request-id", &*name), ("if-match", &tag)];
    let set = put(b, "k", &conditional, b"set").expect(204);
    put(a, "k", &[], b"later").expect(204);
    assert_eq!(put(c, "k", &conditional, b"set").expect(204).etag(), set.etag());
    put(c, "k", &[("if-match", &tag)], b"set").problem(412, "precondition");
    // The same for one of several tags.
    let (name, now) = (mint().to_string(), fetch(a, "k", &[]).etag());
    let list = format!("{tag}, {now}");
    let conditional = [("request-id", &*name), ("if-match", &list)];
    let set = put(b, "k", &conditional, b"set").expect(204);
    put(a, "k", &[], b"last").expect(204);
    assert_eq!(put(c, "k", &conditional, b"set").expect(204).etag(), set.etag());
    assert_eq!(fetch(b, "k", &[]).body, b"last");
    // A deletion, also by the labs' route.
    for path in ["/kv/k", "/dht/delete?key=k"] {
        put(a, "k", &[], b"again").expect(204);
        let name = mint().to_string();
        let named = [("request-id", &*name)];
        let is_done = |answer: Raw| assert!(matches!(answer.status, 200 | 204), "{answer:?}");
        is_done(raw("DELETE", a, path, &named, b""));
        put(b, "k", &[], b"new").expect(204);
        is_done(raw("DELETE", c, path, &named, b""));
        assert_eq!(fetch(a, "k", &[]).expect(200).body, b"new", "{path}");
    }
    let json = [("content-type", "application/json"), ("request-id", &*name)];
    let store = |addr: &str| raw("POST", addr, "/dht/store", &json, br#"{"key":"s","value":"v"}"#).expect(200).json();
    assert_eq!(store(a)["version"], store(b)["version"]);
    for (name, kind) in [
        ("12", "malformed"),
        ("", "malformed"),
        (&"z".repeat(32), "malformed"),
        (&"0".repeat(32), "invalid"),
        (&"f".repeat(32), "invalid"),
    ] {
        put(a, "k", &[("request-id", name)], b"no").problem(400, kind);
    }
    put(a, "k", &[named[0], named[0]], b"no").problem(400, "malformed");
    assert_eq!(fetch(a, "k", &[]).expect(200).body, b"new");
}

#[test]
fn without_an_owner_the_answer_is_to_try_again() {
    let lab = Lab::with_nodes(2);
    let (one, two) = (lab.addr("node-1"), lab.addr("node-2"));
    let model = lab.model();
    let keys = (0..).map(|number| format!("key-{number}"));
    let key = keys.clone().find(|key| model.owner(&sha256(key)) == two).unwrap();
    put(&one, &key, &[], b"v").expect(204);
    signal(lab.node("node-2")["pid"].as_u64().unwrap(), Signal::SIGKILL);
    for method in ["GET", "PUT", "DELETE"] {
        // At first it may not be known whether a write has happened.
        let refused = eventually("it is told that there is no owner", Duration::from_secs(60), || {
            let answer = raw(method, &one, &format!("/kv/{key}"), &[], b"");
            assert!(matches!(answer.status, 503 | 504), "{answer:?}");
            (answer.status == 503).then_some(answer)
        });
        assert_eq!(refused.header("retry-after"), "1");
        refused.problem(503, "unavailable");
    }
}

#[test]
fn the_interface_is_described() {
    let lab = Lab::with_nodes(2);
    let document = get_json(&lab.addrs()[0], "/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    let methods = document["paths"]["/kv/{key}"].as_object().unwrap();
    assert_eq!(methods.keys().collect::<Vec<_>>(), ["delete", "get", "head", "put"]);
}
