//! What each key may do.

use crate::common::{Daemon, Described, Lab, get_json, raw};
use crate::support::{CLIENT, Key, NODE, READER, Request, closed};

#[test]
fn clients_do_not_run_the_ring_and_readers_do_not_write() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT, READER], &[]);
    let send = |method, path: &str, key: &Key| Request::new(method, &node.addr, path).signed(key).send();
    let of_nodes = [
        ("POST", "/peer"),
        ("POST", "/dht/join"),
        ("POST", "/dht/leave"),
        ("GET", "/dht/leave"),
        ("PUT", "/pred"),
        ("PUT", "/succ"),
    ];
    for (method, path) in of_nodes {
        for key in [CLIENT, READER] {
            let problem = send(method, path, &key).problem(403, "forbidden");
            assert!(problem["detail"].as_str().unwrap().contains("takes that of a node"), "{problem}");
        }
    }
    let writes = [("PUT", "/kv/a"), ("DELETE", "/kv/a"), ("POST", "/kv"), ("POST", "/dht/store"), ("GET", "/store/a")];
    for (method, path) in writes {
        let problem = send(method, path, &READER).problem(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains("takes that of a client"), "{problem}");
    }
    let put = |key: &Key| Request::new("PUT", &node.addr, "/kv/a").body("text/plain", "x").signed(key).send();
    assert_eq!(put(&CLIENT).status, 204);
    assert_eq!(put(&NODE).status, 204, "a node may what a client may");
    for key in [NODE, CLIENT, READER] {
        assert_eq!(send("GET", "/kv/a", &key).body, "x");
        assert_eq!(send("GET", "/nodeinfo", &key).status, 200);
    }
    send("PUT", "/pred", &NODE).problem(400, "malformed");
    send("POST", "/peer", &NODE).problem(400, "invalid");
}

#[test]
fn every_route_refuses_strangers_as_the_document_says() {
    let lab = Lab::empty();
    let open = Daemon::start(lab.path(), &["--memory"]);
    let closed = closed(lab.path(), &[NODE, CLIENT, READER], &[]);
    let (document, described) = (get_json(&open.addr, "/openapi.json"), Described::by(&open.addr));
    let mut refused = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        // Any name will do: it is refused before it is looked at.
        let called: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "a" } else { part }).collect();
        let called = called.join("/");
        for method in methods.as_object().expect("methods").keys().map(|method| method.to_uppercase()) {
            let answer = raw(&method, &closed.addr, &called, &[], b"");
            if path.starts_with("/health/") {
                assert_eq!(answer.status, 200, "{answer:?}");
            } else {
                assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
                refused += 1;
            }
            if method != "HEAD" {
                described.check(&method, called.trim_start_matches('/'), &answer);
            }
        }
    }
    assert!(refused > 25, "{refused} routes");
    let forbidden = Request::new("POST", &closed.addr, "/peer").signed(&CLIENT).send();
    forbidden.problem(403, "forbidden");
}
