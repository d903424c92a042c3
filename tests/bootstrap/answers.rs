//! What a service answers, to whatever it is asked.

use std::collections::BTreeSet;

use serde_json::json;

use crate::common::{Lab, exchange, fields, get};
use crate::support::{Service, pids};

#[test]
fn it_names_random_live_nodes_and_refuses_nonsense() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "4"]);
    service.fills(&lab, 4);
    let members: BTreeSet<String> = pids(&lab).into_keys().collect();
    let answer = get(&service.addr, "/return_dht_address");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(fields(&answer.expect(200)), ["initial_peers"]);
    assert_eq!(answer.json()["initial_peers"].as_array().map(Vec::len), Some(1));
    // One by one, each comes up; with all four chosen alike, the chance that one does not is below 1e-20.
    let one_by_one: BTreeSet<String> = (0..200).flat_map(|_| service.ask(1)).collect();
    assert_eq!(one_by_one, members);
    for count in [2, 4, 200] {
        let named = service.ask(count);
        assert_eq!(named.len(), count.min(4));
        assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len(), "each once: {named:?}");
    }
    for (query, kind) in [
        ("count=0", "invalid"),
        ("count=201", "invalid"),
        ("count=-1", "malformed"),
        ("count=many", "malformed"),
        ("count=", "malformed"),
        ("count=1&count=1", "malformed"),
        ("number=1", "malformed"),
        ("count=%", "malformed"),
    ] {
        get(&service.addr, &format!("/return_dht_address?{query}")).problem(400, kind);
    }
    for path in ["/nope", "/return_dht_address/", "/nodeinfo", "/%00", "/health/live", "//"] {
        let problem = get(&service.addr, path).problem(404, "no-such-route");
        assert!(problem["detail"].as_str().is_some_and(|it| it.contains("/return_dht_address")), "{problem}");
    }
    exchange("POST", &service.addr, "/nope", Some(("text/plain", &[b'x'; 100_000]))).problem(404, "no-such-route");
    exchange("POST", &service.addr, "/return_dht_address", None).problem(405, "method");
}

#[test]
fn it_tells_how_it_does() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "2"]);
    service.fills(&lab, 2);
    let health = get(&service.addr, "/health").expect(200);
    assert_eq!((&health["status"], &health["live"], &health["size"]), (&json!("ok"), &json!(2), &json!(2)));
    service.ask(2);
    get(&service.addr, "/nope").problem(404, "no-such-route");
    let text = get(&service.addr, "/metrics");
    assert!(text.header("content-type").contains("version=1.0.0; charset=utf-8"), "{text:?}");
    assert!(text.body.ends_with("# EOF\n"));
    for (name, value) in [
        ("chordal_bootstrap_pool_size", 2),
        ("chordal_bootstrap_members{status=\"live\"}", 2),
        ("chordal_bootstrap_members{status=\"suspect\"}", 0),
        ("chordal_bootstrap_addresses_total", 2),
        ("chordal_bootstrap_requests_total{route=\"/return_dht_address\",status=\"200\"}", 1),
        ("chordal_bootstrap_requests_total{route=\"other\",status=\"404\"}", 1),
    ] {
        assert!(text.body.contains(&format!("{name} {value}\n")), "{name} {value} in {}", text.body);
    }
    assert!(service.metric("chordal_bootstrap_checks_total{outcome=\"passed\"}") >= 2);
    let page = get(&service.addr, "/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(
        page.body.contains("2 of 2 nodes are live") && page.body.contains("http-equiv=\"refresh\""),
        "{}",
        page.body
    );
    for addr in pids(&lab).keys() {
        assert!(page.body.contains(addr), "{}", page.body);
    }
}
