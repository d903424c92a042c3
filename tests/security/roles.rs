//! What each key may do.

use crate::common::Lab;
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
