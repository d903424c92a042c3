//! What clients send: each mistake gets its status and a detail that says what to do, and the node goes on.

use serde_json::json;

use crate::common::{Daemon, Lab, get_json};
use crate::support::{ask, dead_address, get, lone, named, post, put, raw, ring_of, still_works};

const JSON: &str = "application/json";
const MIB: usize = 1 << 20;

#[test]
fn every_bad_request_gets_a_problem_document() {
    let lab = Lab::with_nodes(2);
    let addr = &lab.addrs()[0];
    let id = "ab".repeat(32);
    let cases: Vec<(&str, String, &str, Vec<u8>, u16)> = vec![
        // Bodies that are not what the route takes.
        ("POST", "/dht/store".into(), JSON, b"".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{\"value\":".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"[]".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{}".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{\"value\":1}".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{\"value\":null}".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{\"value\":\"\"}".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{\"value\":\"v\",\"key\":\"\"}".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{\"value\":\"v\",\"ttl\":5}".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{\"value\":\"v\"} {}".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{\"value\":{\"base64\":\"?\"}}".into(), 400),
        ("POST", "/dht/store".into(), JSON, b"{\"value\":\"\xff\"}".into(), 400),
        ("POST", "/dht/store".into(), JSON, [b"[".repeat(100_000), b"]".repeat(100_000)].concat(), 400),
        ("POST", "/insert".into(), JSON, b"junk".into(), 400),
        ("POST", "/dht/join".into(), JSON, b"junk".into(), 400),
        ("POST", "/dht/join".into(), JSON, b"{\"host\":\"127.0.0.1\"}".into(), 400),
        ("POST", "/dht/join".into(), JSON, b"{\"host\":\"127.0.0.1\",\"port\":0}".into(), 400),
        ("POST", "/dht/join".into(), JSON, b"{\"host\":\"127.0.0.1\",\"port\":65536}".into(), 400),
        ("POST", "/dht/join".into(), JSON, b"{\"host\":\"a b\",\"port\":1}".into(), 400),
        ("POST", "/dht/join".into(), JSON, vec![b' '; 20_000], 413),
        ("POST", "/kv".into(), JSON, b"".into(), 400),
        ("POST", "/kv".into(), JSON, b"[]".into(), 400),
        ("POST", "/kv".into(), JSON, b"{\"key\":\"k\"} junk".into(), 400),
        ("POST", "/kv".into(), JSON, b"[{\"key\":\"\xff\"}]".into(), 400),
        ("POST", "/kv".into(), JSON, [b"[".repeat(100_000), b"]".repeat(100_000)].concat(), 400),
        ("POST", "/kv".into(), JSON, [b"[{}".as_slice(), &b",{}".repeat(2_000_000), b"]"].concat(), 413),
        ("POST", "/kv".into(), JSON, b"{}\n".repeat(2_000_000), 413),
        ("PUT", "/kv/".into(), "", b"v".into(), 400),
        ("PUT", "/kv/%ff".into(), "", b"v".into(), 400),
        ("PUT", "/kv/k?ttl=5".into(), "", b"v".into(), 400),
        ("PUT", "/kv/k".into(), "", vec![b'v'; MIB + 1], 413),
        // Content types that are not read here.
        ("POST", "/dht/store".into(), "text/plain", b"{\"value\":\"v\"}".into(), 415),
        ("POST", "/dht/store".into(), "application/x-www-form-urlencoded", b"value=v".into(), 415),
        ("POST", "/dht/store".into(), "multipart/form-data; boundary=b", b"--b--".into(), 415),
        ("POST", "/kv".into(), "text/plain", b"{}".into(), 415),
        ("POST", "/dht/join".into(), "application/xml", b"<node/>".into(), 415),
        // Routes and methods that there are none of.
        ("GET", "/".repeat(50), "", b"".into(), 404),
        ("GET", "/admin".into(), "", b"".into(), 404),
        ("GET", "/nodeinfo/".into(), "", b"".into(), 404),
        ("GET", "/kv".into(), "", b"".into(), 405),
        ("POST", "/kv/k".into(), "", b"v".into(), 405),
        ("GET", "/get".into(), "", b"".into(), 404),
        ("GET", "/../etc/passwd".into(), "", b"".into(), 404),
        ("GET", "/store/v".into(), "", b"".into(), 404),
        ("GET", "/lookup/v".into(), "", b"".into(), 404),
        ("GET", "/dht/leave".into(), "", b"".into(), 405),
        ("GET", "/dht/store".into(), "", b"".into(), 405),
        ("POST", "/nodeinfo".into(), "", b"".into(), 405),
        ("DELETE", "/".into(), "", b"".into(), 405),
        ("PATCH", "/succ".into(), "", b"".into(), 405),
        ("OPTIONS", "/dht/store".into(), "", b"".into(), 405),
        ("BREW", "/dht/store".into(), "", b"".into(), 405),
        // Ids that are none.
        ("GET", "/find/0".into(), "", b"".into(), 400),
        ("GET", format!("/find/{id}0"), "", b"".into(), 400),
        ("GET", format!("/find/{}g", &id[1..]), "", b"".into(), 400),
        ("GET", "/get/%00".into(), "", b"".into(), 400),
        ("GET", "/get/%zz".into(), "", b"".into(), 400),
        ("GET", "/get/%ff".into(), "", b"".into(), 400),
        ("DELETE", "/db/x".into(), "", b"".into(), 400),
        // Queries that make no sense.
        ("GET", "/find".into(), "", b"".into(), 400),
        ("GET", "/find?key=".into(), "", b"".into(), 400),
        ("GET", "/find?key=a&key=b".into(), "", b"".into(), 400),
        ("GET", "/find?key=a&mode=fast".into(), "", b"".into(), 400),
        ("GET", format!("/find/{id}?mode="), "", b"".into(), 400),
        ("GET", "/dht/lookup".into(), "", b"".into(), 400),
        ("GET", "/dht/lookup?key=%".into(), "", b"".into(), 400),
        ("GET", "/dht/lookup?key=%f".into(), "", b"".into(), 400),
        ("GET", "/dht/lookup?key=%zz".into(), "", b"".into(), 400),
        ("GET", "/dht/lookup?key=%ff".into(), "", b"".into(), 400),
        ("GET", "/dht/lookup?k=a".into(), "", b"".into(), 400),
        ("GET", "/dht/lookup?key=a&value=b".into(), "", b"".into(), 400),
        ("DELETE", "/dht/delete".into(), "", b"".into(), 400),
        ("GET", "/db?limit=0".into(), "", b"".into(), 400),
        ("GET", "/db?limit=-1".into(), "", b"".into(), 400),
        ("GET", "/db?limit=99999999999999999999".into(), "", b"".into(), 400),
        ("GET", "/db?after=x".into(), "", b"".into(), 400),
        // What is not there.
        ("GET", "/dht/lookup?key=absent".into(), "", b"".into(), 404),
        ("DELETE", "/dht/delete?key=absent".into(), "", b"".into(), 404),
        ("GET", "/kv/absent".into(), "", b"".into(), 404),
        ("DELETE", "/kv/absent".into(), "", b"".into(), 404),
        // Pointers to nowhere.
        ("PUT", "/succ".into(), "", b"".into(), 400),
        ("PUT", "/succ".into(), "", b"junk".into(), 400),
        ("PUT", "/succ".into(), "", b"127.0.0.1:0".into(), 400),
        ("PUT", "/pred".into(), "", b"127.0.0.1:99999".into(), 400),
        ("PUT", "/pred".into(), JSON, b"{\"host\":\"127.0.0.1\"}".into(), 400),
        ("PUT", "/pred".into(), "", b"\xff\xfe".into(), 400),
        ("PUT", "/pred".into(), "", vec![b'1'; 20_000], 413),
        // Messages that no node sends.
        ("POST", "/peer".into(), "", b"".into(), 400),
        ("POST", "/peer".into(), "", b"\0\x01".into(), 400),
        ("POST", "/peer".into(), "", [b"\0\x01".as_slice(), &[0xff; 5000]].concat(), 400),
        ("POST", "/peer".into(), JSON, b"{\"value\":\"v\"}".into(), 400),
    ];
    for (method, path, content_type, body, status) in &cases {
        let answer = ask(method, addr, path, content_type, body);
        assert_eq!(answer.status, *status, "{method} {path} {:?}: {answer:?}", String::from_utf8_lossy(body));
        answer.problem(*status);
    }
    still_works(addr);
    assert!(lab.json(&["list"])["nodes"].as_array().unwrap().iter().all(|node| node["status"] == "running"));
}

#[test]
fn what_is_not_even_http_gets_a_problem_document() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let store = "POST /dht/store HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let many_headers: String = (0..500).map(|i| format!("h{i}: x\r\n")).collect();
    let cases: Vec<(String, u16)> = vec![
        ("nonsense\r\n\r\n".into(), 400),
        ("\x16\x03\x01\x02\0\x01\0\r\n\r\n".into(), 400),
        ("GET / HTTP/9.9\r\nhost: x\r\n\r\n".into(), 400),
        ("GET /db?after=\x01 HTTP/1.1\r\nhost: x\r\n\r\n".into(), 400),
        (format!("{store}content-length: many\r\n\r\n{{}}"), 400),
        (format!("{store}content-length: 5\r\ncontent-length: 6\r\n\r\n{{}}"), 400),
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000)), 414),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many_headers}\r\n"), 431),
        // Bodies that are shorter than they say, or not in chunks as they say.
        (format!("{store}content-length: 100\r\n\r\n{{\"value\":\"x\"}}"), 400),
        (format!("{store}transfer-encoding: chunked\r\n\r\n20\r\n{{\"value\":\"x\"}}"), 400),
        (format!("{store}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}"), 400),
    ];
    for (request, status) in &cases {
        let shown: String = request.chars().take(120).collect();
        let answer = raw(&node.addr, request.as_bytes(), true);
        assert_eq!(answer.status, *status, "{shown:?}: {answer:?}");
        answer.problem(*status);
    }
    // Nothing of a body that broke off was stored.
    get(&node.addr, "/dht/lookup?value=x").problem(404);
    still_works(&node.addr);
}

#[test]
fn who_stops_sending_and_waits_is_answered_every_time() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    for _ in 0..20 {
        for path in ["/db", "/nodeinfo", "/find?key=a"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            assert_eq!(raw(&node.addr, request.as_bytes(), true).status, 200);
        }
    }
}

#[test]
fn the_sender_of_nine_megabytes_reads_the_refusal_every_time() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let body = json!({ "value": "x".repeat(9 << 20) }).to_string();
    for _ in 0..20 {
        ask("POST", &node.addr, "/dht/store", JSON, body.as_bytes()).problem(413);
    }
    still_works(&node.addr);
}

#[test]
fn values_are_taken_up_to_the_limit_and_no_byte_further() {
    let lab = Lab::with_nodes(2);
    for addr in lab.addrs() {
        for (bytes, status) in [(MIB, 200), (MIB + 1, 413)] {
            let key = format!("{bytes}-{addr}");
            let answer = post(&addr, "/dht/store", &json!({ "value": "x".repeat(bytes), "key": key }));
            assert_eq!(answer.status, status, "{bytes} bytes: {}", answer.body.len());
            let found = get(&addr, &format!("/dht/lookup?key={key}"));
            match status {
                200 => assert_eq!(found.json()["value"].as_str().map(str::len), Some(bytes)),
                _ => {
                    assert!(found.problem(404).contains("nothing is stored") && answer.problem(413).contains("1048577"))
                }
            }
        }
        // A value of bytes that JSON needs six characters for, and one that is its own key.
        let zeros = post(&addr, "/dht/store", &json!({ "value": "\0".repeat(MIB), "key": "zeros" }));
        assert_eq!(zeros.status, 200, "{zeros:?}");
        assert_eq!(post(&addr, "/dht/store", &json!({ "value": "y".repeat(MIB) })).status, 200);
        let long_key = json!({ "value": "v", "key": "k".repeat((64 << 10) + 1) });
        post(&addr, "/dht/store", &long_key).problem(413);
    }
}

#[test]
fn the_limit_of_values_can_be_set() {
    let lab = Lab::empty();
    let small = Daemon::start(lab.path(), &["--memory", "--value-limit", "10"]);
    assert_eq!(post(&small.addr, "/dht/store", &json!({ "value": "1234567890" })).status, 200);
    assert!(
        post(&small.addr, "/dht/store", &json!({ "value": "12345678901" })).problem(413).contains("10 are the most")
    );
    let large = Daemon::start(lab.path(), &["--memory", "--value-limit", "4194304"]);
    let other = Daemon::start(lab.path(), &["--memory", "--value-limit", "4194304", "--bootstrap", &large.addr]);
    for addr in [&large.addr, &other.addr] {
        let value = "x".repeat(4 << 20);
        assert_eq!(post(addr, "/dht/store", &json!({ "value": value, "key": addr })).status, 200);
    }
    // What is that large is handed over as well.
    assert_eq!(ask("POST", &other.addr, "/dht/leave", "", b"").status, 200);
    for key in [&large.addr, &other.addr] {
        let found = get(&large.addr, &format!("/dht/lookup?key={key}"));
        assert_eq!(found.status, 200);
        assert_eq!(found.json()["value"].as_str().map(str::len), Some(4 << 20));
    }
}

#[test]
fn joins_that_make_no_sense_are_refused() {
    let lab = Lab::with_nodes(2);
    let elsewhere = lone(lab.path());
    let its_neighbour = Daemon::start(lab.path(), &["--memory", "--bootstrap", &elsewhere.addr]);
    let (here, there) = (lab.addrs(), [elsewhere.addr.clone(), its_neighbour.addr.clone()]);
    let (mine, theirs) = (ring_of(&here[0]), ring_of(&there[0]));
    let port = here[0].rsplit_once(':').unwrap().1;
    for itself in [here[0].clone(), format!("localhost:{port}")] {
        assert!(post(&here[0], "/dht/join", &named(&itself)).problem(409).contains("itself"));
    }
    assert!(post(&here[0], "/dht/join", &named(&dead_address())).problem(502).contains("does not answer"));
    post(&here[0], "/dht/join", &json!({ "host": "nowhere.invalid", "port": 4000 })).problem(502);
    // Who is in a ring with others stays there.
    for (through, joiner) in [(&here[0], &there[0]), (&there[1], &here[1])] {
        assert!(post(through, "/dht/join", &named(joiner)).problem(409).contains("ring with others"));
    }
    // One that is here already is here: the answer may say so again.
    assert_eq!(post(&here[0], "/dht/join", &named(&here[1])).status, 200);
    for addr in &here {
        assert_eq!(ring_of(addr), mine);
    }
    for addr in &there {
        assert_eq!(ring_of(addr), theirs);
    }
    still_works(&here[0]);
    still_works(&there[0]);
}

#[test]
fn a_lone_node_with_values_of_its_own_is_not_taken_over() {
    let lab = Lab::with_nodes(2);
    let settled = lone(lab.path());
    still_works(&settled.addr);
    let detail = post(&lab.addrs()[0], "/dht/join", &named(&settled.addr)).problem(409);
    assert!(detail.contains("holds 1 value"), "{detail}");
    still_works(&settled.addr);
}

#[test]
fn pointers_cannot_be_wired_to_nobody_or_to_another_ring() {
    let lab = Lab::with_nodes(2);
    let elsewhere = lone(lab.path());
    let addr = &lab.addrs()[0];
    for route in ["/succ", "/pred"] {
        let before = get_json(addr, route);
        assert!(put(addr, route, &dead_address()).problem(502).contains("does not answer"));
        put(addr, route, "nowhere.invalid:1").problem(502);
        assert!(put(addr, route, &elsewhere.addr).problem(409).contains("another ring"));
        assert_eq!(get_json(addr, route), before);
    }
    still_works(addr);
}
