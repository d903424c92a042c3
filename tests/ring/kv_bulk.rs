//! `POST /kv` on real processes: many records in one request.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use crate::common::{Daemon, Lab, Raw, get_json, raw, send, sha256};
use chordal::node::mint;
use serde_json::{Value, json};

fn lines(addr: &str, records: &[Value]) -> Vec<Value> {
    let body: String = records.iter().map(|record| format!("{record}\n")).collect();
    let answer = post(addr, "application/x-ndjson", &body).expect(200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    answer.lines()
}

fn post(addr: &str, content_type: &str, body: &str) -> Raw {
    raw("POST", addr, "/kv", &[("content-type", content_type)], body.as_bytes())
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|answer| answer["status"].as_u64().unwrap()).collect()
}

#[test]
fn each_record_ends_by_itself() {
    let lab = Lab::with_nodes(4);
    let addrs = lab.addrs();
    let before = lines(&addrs[0], &[json!({"key": "there", "value": "v"}), json!({"key": "gone", "value": "v"})]);
    let tag = before[0]["etag"].as_str().unwrap();
    let records = [
        json!({"key": "new", "value": "text", "content_type": "text/x-note"}),
        json!({"key": "bytes", "base64": "AP8="}),
        json!({"value": "its own key"}),
        json!({"key": "fresh", "value": "v", "if_none_match": "*"}),
        json!({"key": "there", "value": "no", "if_none_match": "*"}),
        json!({"key": "nothing", "value": "no", "if_match": "*"}),
        json!({"op": "delete", "key": "gone"}),
        json!({"op": "delete", "key": "never there"}),
        json!({"key": "large", "value": "v".repeat((1 << 20) + 1)}),
        json!({"key": "", "value": "v"}),
        json!({"key": "both", "value": "v", "base64": "AA=="}),
        json!({"key": "bad tag", "value": "v", "if_match": "1-1"}),
        json!({"op": "put", "key": {"base64": "/w=="}, "value": "key of bytes"}),
        json!({"key": "there", "value": "changed", "if_match": tag}),
    ];
    let answers = lines(&addrs[1], &records);
    assert_eq!(statuses(&answers), [204, 204, 204, 201, 412, 412, 204, 404, 413, 400, 400, 400, 204, 204]);
    for (record, answer) in records.iter().zip(&answers) {
        assert_eq!(answer.get("key"), record.get("key"), "{answer}");
        let status = answer["status"].as_u64().unwrap();
        assert_eq!(
            answer.get("problem").map(|problem| problem["status"].as_u64()),
            (status >= 400).then_some(Some(status))
        );
        assert_eq!(answer.get("etag").is_some(), status < 300 && record["op"] != "delete" || record["key"] == "there");
    }
    assert_eq!(answers[4]["etag"], tag, "a refusal tells the tag there is");
    // What is there now, through another node, in the other form.
    let wanted = ["new", "bytes", "its own key", "fresh", "gone", "nothing", "there"];
    let wanted: Vec<Value> = wanted.iter().map(|key| json!({"op": "get", "key": key})).collect();
    let found = send("POST", &addrs[2], "/kv", &json!(wanted)).expect(200);
    let found = found.as_array().unwrap();
    assert_eq!(statuses(found), [200, 200, 200, 200, 404, 404, 200]);
    assert_eq!((&found[0]["value"], &found[0]["content_type"]), (&"text".into(), &"text/x-note".into()));
    assert_eq!((&found[1]["base64"], &found[1]["content_type"]), (&"AP8=".into(), &"application/octet-stream".into()));
    assert_eq!((&found[2]["value"], &found[2]["key"]), (&"its own key".into(), &"its own key".into()));
    assert_eq!((&found[6]["value"], &found[6]["etag"]), (&"changed".into(), &answers[13]["etag"]));
    // By its id, where the key is not known or can be written nowhere else.
    let by_id = lines(&addrs[3], &[json!({"op": "get", "id": sha256([255])})]);
    assert_eq!((&by_id[0]["key"], &by_id[0]["value"]), (&json!({"base64": "/w=="}), &"key of bytes".into()));
}

/// What is not at all members is remembered, and bounded. A member that is gone for good, with nobody to take its place, must
/// not end the writing.
#[test]
fn a_ring_of_three_with_a_dead_node_goes_on_taking_writes() {
    const REMEMBERED: usize = 8_192;
    let lab = Lab::empty();
    // One of them serves almost all of the circle, so that what it cannot give to the dead one soon is too much.
    let first = Daemon::start(lab.path(), &["--memory", "--lab", "--id", "02"]);
    let others = ["00", "01"]
        .map(|id| Daemon::start(lab.path(), &["--memory", "--lab", "--id", id, "--bootstrap", &first.addr]));
    let addr = first.addr.clone();
    crate::common::eventually("each value is on three", std::time::Duration::from_secs(60), || {
        let views = get_json(&addr, "/nodeinfo")["views"].as_array()?.clone();
        views.iter().all(|view| view["members"].as_array().is_some_and(|members| members.len() == 3)).then_some(())
    });
    let [_lives, dies] = others;
    drop(dies);
    let keys: Vec<String> = (0..REMEMBERED + 1_000).map(|i| format!("key {i}")).collect();
    for keys in keys.chunks(1_000) {
        let mut open: Vec<&String> = keys.iter().collect();
        // Where a view changes its records are to be sent again.
        crate::common::eventually("all are stored", std::time::Duration::from_secs(60), || {
            let records: Vec<Value> = open.iter().map(|key| json!({"key": key, "value": "v"})).collect();
            let answers = lines(&addr, &records);
            let mut done = answers.iter().map(|answer| answer["status"] == 204);
            open.retain(|_| !done.next().unwrap());
            open.is_empty().then_some(())
        });
    }
    let last = lines(&addr, &[json!({"op": "get", "key": keys.last().unwrap()})]);
    assert_eq!(statuses(&last), [200]);
}

#[test]
fn records_of_one_key_are_done_in_order() {
    let lab = Lab::with_nodes(3);
    let addrs = lab.addrs();
    let mut records = Vec::new();
    for number in 0..20 {
        for key in ["a", "b", "c"] {
            records.push(json!({"key": key, "value": number.to_string()}));
        }
    }
    records.push(json!({"op": "delete", "key": "c"}));
    let answers = lines(&addrs[0], &records);
    assert!(answers.iter().all(|answer| answer["status"] == 204));
    let gets = ["a", "b", "c"].map(|key| json!({"op": "get", "key": key}));
    let found = lines(&addrs[1], &gets);
    assert_eq!(
        (&found[0]["value"], &found[1]["value"], &found[2]["status"]),
        (&"19".into(), &"19".into(), &404.into())
    );
    // A tag of a record before cannot be known, but that it was there can.
    let chain = [
        json!({"key": "d", "value": "1", "if_none_match": "*"}),
        json!({"key": "d", "value": "2", "if_match": "*"}),
        json!({"key": "d", "value": "3", "if_none_match": "*"}),
    ];
    assert_eq!(statuses(&lines(&addrs[2], &chain)), [201, 204, 412]);
}

#[test]
fn what_cannot_be_read_is_refused_as_a_whole() {
    let lab = Lab::with_nodes(2);
    let addr = &lab.addrs()[0];
    let good = r#"{"key":"k","value":"v"}"#;
    for body in [
        "",
        "[]",
        "{",
        "[{]",
        "null",
        "{\"valeu\":\"v\",\"key\":\"k\"}",
        "{\"key\":\"k\",\"value\":1}",
        "{\"op\":\"fly\"}",
    ] {
        let both = format!("{good}\n{body}");
        let bodies = if body.is_empty() || body.starts_with('[') { vec![body] } else { vec![body, &both] };
        for body in bodies {
            post(addr, "application/x-ndjson", body).problem(400, "malformed");
            post(addr, "application/json", body).problem(400, "malformed");
        }
    }
    let mixed = format!("{good}\n{{\"op\":\"get\",\"key\":\"k\"}}");
    post(addr, "application/x-ndjson", &mixed).problem(400, "invalid");
    post(addr, "text/plain", good).problem(415, "media-type");
    for header in ["if-match", "if-none-match", "request-id"] {
        let headers = [("content-type", "application/x-ndjson"), (header, "*")];
        raw("POST", addr, "/kv", &headers, good.as_bytes()).problem(400, "invalid");
    }
    assert_eq!(lines(addr, &[json!({"op": "get", "key": "k"})])[0]["status"], 404, "nothing of all that was done");
}

#[test]
fn records_with_names_are_done_once() {
    let lab = Lab::with_nodes(3);
    let addrs = lab.addrs();
    let records: Vec<Value> = (0..20)
        .map(|number| json!({"key": format!("k{number}"), "value": "mine", "request_id": mint().to_string()}))
        .collect();
    let first = lines(&addrs[0], &records);
    let theirs: Vec<Value> = (0..20).map(|number| json!({"key": format!("k{number}"), "value": "theirs"})).collect();
    lines(&addrs[1], &theirs);
    let again = lines(&addrs[2], &records);
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((&first["etag"], &first["status"]), (&again["etag"], &again["status"]));
    }
    let gets: Vec<Value> = (0..20).map(|number| json!({"op": "get", "key": format!("k{number}")})).collect();
    assert!(lines(&addrs[0], &gets).iter().all(|found| found["value"] == "theirs"));
}

#[test]
fn an_answer_has_bounds_and_says_what_to_ask_for_again() {
    let lab = Lab::with_nodes(2);
    let addrs = lab.addrs();
    let value = "v".repeat(1 << 20);
    for number in 0..12 {
        raw("PUT", &addrs[0], &format!("/kv/{number}"), &[], value.as_bytes()).expect(204);
    }
    let gets: Vec<Value> = (0..12).map(|number| json!({"op": "get", "key": number.to_string()})).collect();
    // Where that takes long, some are not begun; but each answer has something, and the next request finds the rest.
    let mut open = gets.clone();
    let mut rounds = 0;
    while !open.is_empty() {
        rounds += 1;
        let answers = lines(&addrs[1], &open);
        let found: Vec<&Value> = answers.iter().filter(|answer| answer["status"] == 200).collect();
        assert!((1..=11).contains(&found.len()), "{} values of 1 MiB in an answer of 8", found.len());
        assert!(found.iter().all(|answer| answer["value"] == *value));
        let other = answers.iter().find(|answer| ![200, 429, 503].map(Value::from).contains(&answer["status"]));
        assert_eq!(other, None);
        open =
            open.into_iter().zip(&answers).filter(|(_, answer)| answer["status"] != 200).map(|(get, _)| get).collect();
    }
    assert!(rounds > 1);
    // `tasks` does the same by itself.
    lab.ok(&["export", "all.ndjson"]);
    assert_eq!(std::fs::read_to_string(lab.path().join("all.ndjson")).unwrap().lines().count(), 12);
    assert_eq!(get_json(&addrs[0], "/health/live")["status"], "live");
}
