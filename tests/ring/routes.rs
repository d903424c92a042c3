//! Every route of the labs, with its exact fields, on real nodes.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use crate::common::{Daemon, Lab, Place, addr_of, exchange, fields, get, get_json, send, sha256, version};
use serde_json::{Value, json};

const NODE: [&str; 4] = ["host", "id", "name", "port"];

/// A node object of the node at this address.
#[track_caller]
fn is_node(node: &Value, addr: &str) {
    assert_eq!(fields(node), NODE);
    assert_eq!(addr_of(node), addr);
    assert_eq!(node["id"], sha256(addr));
    assert!(node["port"].is_u64() && !node["name"].as_str().expect("a name").is_empty(), "{node}");
}

fn port_of(addr: &str) -> u16 {
    addr.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn a_node_tells_what_it_knows() {
    let lab = Lab::with_nodes(3);
    lab.fill(30);
    let model = lab.model();
    for addr in lab.addrs() {
        let info = get_json(&addr, "/nodeinfo");
        assert_eq!(
            fields(&info),
            [
                "fingers",
                "handovers",
                "host",
                "id",
                "keys",
                "lab",
                "membership",
                "name",
                "pid",
                "port",
                "pred",
                "range",
                "ready",
                "replication_factor",
                "ring",
                "routing",
                "succ",
                "successors",
                "uptime_s",
                "version",
                "views",
                "wire"
            ]
        );
        let itself = json!({"name": info["name"], "id": info["id"], "host": info["host"], "port": info["port"]});
        is_node(&itself, &addr);
        is_node(&info["pred"], model.before(&addr));
        is_node(&info["succ"], model.after(&addr, 1));
        for successor in info["successors"].as_array().unwrap() {
            is_node(successor, &addr_of(successor));
        }
        for finger in info["fingers"].as_array().unwrap() {
            assert_eq!(fields(finger), ["first", "last", "node"]);
            is_node(&finger["node"], &addr_of(&finger["node"]));
        }
        assert_eq!(fields(&info["range"]), ["hi", "lo", "share"]);
        let views = info["views"].as_array().unwrap();
        assert!(!views.is_empty());
        for view in views {
            let told =
                ["epoch", "forced", "keys", "lag", "members", "primary", "primary_node", "range", "sealed_s", "status"];
            assert_eq!(fields(view), told);
            assert_eq!(view["status"], if view["primary"] == true { "serving" } else { "keeping" });
            let members = view["members"].as_array().unwrap();
            assert!(members.iter().any(|member| addr_of(member) == addr), "it is one of those who keep it");
            for member in members {
                is_node(member, &addr_of(member));
            }
        }
        for handover in info["handovers"].as_array().unwrap() {
            assert_eq!(fields(handover), ["ago_s", "kind", "peer", "range", "records"]);
        }
        assert_eq!((&info["lab"], &info["ready"]), (&false.into(), &true.into()));
        assert_eq!((&info["routing"], &info["membership"]), (&"cached".into(), &"joined".into()));
        assert_eq!(info["ring"].as_str().unwrap().len(), 32);
        assert!(info["uptime_s"].as_f64().unwrap() > 0.0 && info["keys"].is_u64());
        is_node(&get_json(&addr, "/pred"), model.before(&addr));
        is_node(&get_json(&addr, "/succ"), model.after(&addr, 1));
        assert_eq!(get_json(&addr, "/health/live"), json!({"status": "live"}));
        assert_eq!(get_json(&addr, "/health/ready"), json!({"status": "ready"}));
        let map = get_json(&addr, "/");
        is_node(&map["node"], &addr);
        assert!(map["routes"].as_array().unwrap().iter().any(|route| route["path"] == "/nodeinfo"), "{map}");
    }
}

#[test]
fn a_node_alone_has_no_neighbours_and_owns_everything() {
    let _place = Place::take();
    let dir = tempfile::tempdir().unwrap();
    let node = Daemon::start(dir.path(), &["--memory", "--name", "lonely"]);
    for route in ["/pred", "/succ"] {
        get(&node.addr, route).problem(404, "no-neighbour");
    }
    let info = get_json(&node.addr, "/nodeinfo");
    assert_eq!((&info["pred"], &info["succ"], &info["name"]), (&Value::Null, &Value::Null, &"lonely".into()));
    assert_eq!((&info["range"]["share"], &info["successors"]), (&1.0.into(), &json!([])));
    let found = get_json(&node.addr, "/find?key=anything");
    assert_eq!((&found["hops"], &found["trace"]), (&0.into(), &json!([])));
    is_node(&found["owner"], &node.addr);
    send("POST", &node.addr, "/dht/store", &json!({"value": "v"})).expect(200);
    assert_eq!(get_json(&node.addr, "/dht/lookup?value=v")["hops"], 0);
    assert_eq!(get_json(&node.addr, "/health/ready")["status"], "ready");
}

#[test]
fn store_lookup_and_delete_say_what_they_did() {
    let lab = Lab::with_nodes(3);
    let (addrs, model) = (lab.addrs(), lab.model());
    for number in 0..12 {
        let (key, through) = (format!("key {number}"), &addrs[number % 3]);
        let owner = model.owner(&sha256(&key));
        let path = |route: &str| format!("{route}?key={}", crate::common::escape(&key));
        let stored = send("POST", through, "/dht/store", &json!({"value": "v", "key": key})).expect(200);
        assert_eq!(fields(&stored), ["hops", "id", "owner", "version"]);
        assert_eq!(stored["id"], sha256(&key));
        is_node(&stored["owner"], owner);
        assert_eq!(stored["hops"] == 0, through == owner, "{stored}");
        let found = get_json(through, &path("/dht/lookup"));
        assert_eq!(fields(&found), ["hops", "id", "key", "owner", "value", "version"]);
        assert_eq!((&found["key"], &found["value"]), (&key.as_str().into(), &"v".into()));
        assert_eq!((&found["id"], &found["version"]), (&stored["id"], &stored["version"]));
        is_node(&found["owner"], owner);
        let deleted = exchange("DELETE", through, &path("/dht/delete"), None).expect(200);
        assert_eq!(fields(&deleted), ["hops", "id", "owner", "version"]);
        assert!(version(&deleted) > version(&stored));
        exchange("DELETE", through, &path("/dht/delete"), None).problem(404, "no-such-value");
        get(through, &path("/dht/lookup")).problem(404, "no-such-value");
    }
}

#[test]
fn the_auxiliary_routes_act_as_the_owner_or_say_who_is() {
    let lab = Lab::with_nodes(4);
    let (addrs, model) = (lab.addrs(), lab.model());
    for number in 0..8 {
        let key = format!("key {number}");
        let id = sha256(&key);
        let owner = model.owner(&id);
        let body = json!({"value": "v", "key": key});
        let refused = |refusal: &Value| is_node(&refusal["hint"], owner);
        for other in addrs.iter().filter(|addr| *addr != owner) {
            refused(&send("POST", other, "/insert", &body).problem(421, "not-mine"));
            refused(&get(other, &format!("/get/{id}")).problem(421, "not-mine"));
            refused(&exchange("DELETE", other, &format!("/db/{id}"), None).problem(421, "not-mine"));
        }
        get(owner, &format!("/get/{id}")).problem(404, "no-such-value");
        let inserted = send("POST", owner, "/insert", &body).expect(200);
        assert_eq!(fields(&inserted), ["hops", "id", "owner", "version"]);
        assert_eq!((&inserted["id"], &inserted["hops"]), (&id.as_str().into(), &0.into()));
        is_node(&inserted["owner"], owner);
        let got = get_json(owner, &format!("/get/{id}"));
        assert_eq!(fields(&got), ["hops", "id", "key", "owner", "value", "version"]);
        assert_eq!((&got["key"], &got["value"]), (&key.as_str().into(), &"v".into()));
        for other in &addrs {
            assert_eq!(get_json(other, &format!("/dht/lookup?key={}", crate::common::escape(&key)))["value"], "v");
        }
        let deleted = exchange("DELETE", owner, &format!("/db/{id}"), None).expect(200);
        assert!(version(&deleted) > version(&inserted));
        exchange("DELETE", owner, &format!("/db/{id}"), None).problem(404, "no-such-value");
    }
    // An id may come in capitals; it comes back in small letters.
    let id = sha256("capitals").to_uppercase();
    assert_eq!(get_json(&addrs[0], &format!("/find/{id}"))["id"], id.to_lowercase());
}

#[test]
fn pointers_are_put_in_every_form_of_the_labs() {
    let lab = Lab::with_nodes(3);
    let (addr, model) = (lab.addrs()[0].clone(), lab.model());
    for (route, to) in [("/pred", model.before(&addr)), ("/succ", model.after(&addr, 1))] {
        let port = port_of(to);
        let forms = [
            ("", to.to_owned()),
            ("", format!("{to}:some-name")),
            ("text/plain", format!("{to}\n")),
            ("application/x-www-form-urlencoded", to.to_owned()),
            ("application/json", json!({"host": "127.0.0.1", "port": port}).to_string()),
            ("", json!({"host": "127.0.0.1", "port": port, "name": "some-name"}).to_string()),
            ("application/json", get_json(to, "/nodeinfo").to_string()),
            ("application/json", json!(to).to_string()),
        ];
        for (content_type, body) in forms {
            let put = exchange("PUT", &addr, route, Some((content_type, body.as_bytes()))).expect(200);
            is_node(&put, to);
            assert_ne!(put["name"], "some-name", "the node there says itself who it is");
            is_node(&get_json(&addr, route), to);
        }
        for junk in ["", "junk", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "{}", "[]", "\u{0}", "http://x:1/"] {
            exchange("PUT", &addr, route, Some(("", junk.as_bytes()))).problem(400, "malformed");
        }
        let dead = exchange("PUT", &addr, route, Some(("", b"127.0.0.1:1"))).problem(502, "unreachable");
        assert!(dead["detail"].as_str().unwrap().contains("127.0.0.1:1"), "{dead}");
        is_node(&get_json(&addr, route), to);
    }
    lab.heals();
}

#[test]
fn a_node_of_another_ring_is_no_neighbour() {
    let lab = Lab::with_nodes(2);
    let dir = tempfile::tempdir().unwrap();
    let stranger = Daemon::start(dir.path(), &["--memory"]);
    for route in ["/pred", "/succ"] {
        for addr in lab.addrs() {
            exchange("PUT", &addr, route, Some(("", stranger.addr.as_bytes()))).problem(409, "conflict");
        }
    }
    lab.ok(&["doctor"]);
}

#[test]
fn gets_that_change_something_are_for_lessons() {
    let lab = Lab::with_nodes(2);
    let addr = &lab.addrs()[0];
    get(addr, "/store/value").problem(404, "no-such-route");
    get(addr, "/lookup/value").problem(404, "no-such-route");
    let refusal = get(addr, "/dht/leave");
    refusal.problem(405, "method");
    assert_eq!(refusal.header("allow"), "POST");
    assert_eq!(lab.ok(&["doctor", "--json"]).matches("\"nodes\":2").count(), 1, "nobody has left");
    get(addr, "/dht/lookup?value=value").problem(404, "no-such-value");

    let dir = tempfile::tempdir().unwrap();
    let mut node = Daemon::start(dir.path(), &["--memory", "--lab"]);
    assert_eq!(get_json(&node.addr, "/nodeinfo")["lab"], true);
    for text in ["plain", "a/b/c", "a+b", "Grüße & 100%"] {
        let escaped = text.split('/').map(crate::common::escape).collect::<Vec<_>>().join("/");
        let stored = get_json(&node.addr, &format!("/store/{escaped}"));
        assert_eq!(fields(&stored), ["hops", "id", "owner", "version"]);
        assert_eq!(stored["id"], sha256(text));
        assert_eq!(get_json(&node.addr, &format!("/lookup/{escaped}"))["value"], text);
    }
    get(&node.addr, "/lookup/nothing").problem(404, "no-such-value");
    for path in ["/store/by-head", "/dht/leave"] {
        assert_eq!(exchange("HEAD", &node.addr, path, None).status, 405, "a HEAD changes nothing: {path}");
    }
    get(&node.addr, "/lookup/by-head").problem(404, "no-such-value");
    assert!(node.child.try_wait().unwrap().is_none());
    get(&node.addr, "/dht/leave").problem(409, "conflict");
    for item in crate::common::whole_db(&node.addr, 10) {
        exchange("DELETE", &node.addr, &format!("/db/{}", item["id"].as_str().unwrap()), None).expect(200);
    }
    let left = get_json(&node.addr, "/dht/leave");
    is_node(&left["left"], &node.addr);
    let ended = crate::common::eventually("the node has ended", std::time::Duration::from_secs(10), || {
        node.child.try_wait().unwrap()
    });
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_head_is_a_get_without_its_body() {
    let lab = Lab::with_nodes(2);
    let addr = &lab.addrs()[0];
    let id = sha256("nothing");
    let paths = ["/", "/pred", "/succ", "/db", "/health/live", "/health/ready", "/find?key=k", "/dht/lookup?key=k"];
    let get_id = format!("/get/{id}");
    for path in paths.iter().copied().chain([get_id.as_str(), "/nothing/there", "/find"]) {
        let (with, without) = (get(addr, path), exchange("HEAD", addr, path, None));
        assert_eq!(with.status, without.status, "{path}");
        assert_eq!(with.header("content-type"), without.header("content-type"), "{path}");
        assert_eq!(without.body, "", "{path}");
    }
}

#[test]
fn what_is_not_served_is_refused_in_json() {
    let lab = Lab::with_nodes(2);
    let addr = &lab.addrs()[0];
    for path in ["/nothing", "/nodeinfo/", "/get/", "/db/x/y", "/dht", "/DHT/store", "//", "/find/a/b"] {
        let refusal = get(addr, path).problem(404, "no-such-route");
        assert!(refusal["detail"].as_str().unwrap().contains("/nodeinfo"), "it names the routes: {refusal}");
    }
    let wrong = [
        ("POST", "/nodeinfo", "GET"),
        ("DELETE", "/succ", "PUT"),
        ("GET", "/dht/store", "POST"),
        ("GET", "/insert", "POST"),
        ("GET", "/dht/join", "POST"),
        ("POST", "/dht/lookup", "GET"),
        ("GET", "/dht/delete", "DELETE"),
        ("PATCH", "/db", "GET"),
    ];
    for (method, path, right) in wrong {
        let refusal = exchange(method, addr, path, None);
        refusal.problem(405, "method");
        assert!(refusal.header("allow").contains(right), "{method} {path}: {refusal:?}");
    }
    for path in ["/dht/store", "/insert", "/dht/join"] {
        exchange("POST", addr, path, Some(("text/plain", b"{}"))).problem(415, "media-type");
        for body in ["", "{", "[]", "null", "{\"value\": 1}", "{\"valu\": \"v\"}", "\"text\""] {
            exchange("POST", addr, path, Some(("application/json", body.as_bytes()))).problem(400, "malformed");
        }
    }
    // A field that is not known is told, not overlooked.
    let misspelt = send("POST", addr, "/dht/store", &json!({"value": "v", "kee": "k"})).problem(400, "malformed");
    assert!(misspelt["detail"].as_str().unwrap().contains("kee"), "{misspelt}");
}
