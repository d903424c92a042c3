//! Clocks that are wrong: requests that were minted long ago, or have yet to be.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::common::Lab;
use crate::support::{Answer, get, lone, raw, still_works};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// A request id that was minted so many seconds from now.
fn minted(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as i64;
    format!("{:016x}{:016x}", now + seconds * 1000, rand::random::<u64>())
}

fn put(addr: &str, key: &str, request: &str, value: &str) -> Answer {
    let length = value.len();
    let head = format!("PUT /kv/{key} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\nrequest-id: {request}\r\n");
    raw(addr, format!("{head}content-length: {length}\r\n\r\n{value}").as_bytes(), false)
}

#[test]
fn what_was_minted_too_long_ago_or_too_far_ahead_is_refused_and_changes_nothing() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    for (seconds, says) in [
        (-24 * HOUR - MINUTE, "more than a day ago"),
        (-1_000_000_000, "more than a day ago"),
        (HOUR + MINUTE, "more than an hour from now"),
        (1_000_000_000, "more than an hour from now"),
    ] {
        let detail = put(&node.addr, "k", &minted(seconds), "v").problem(400);
        assert!(detail.contains(says), "{seconds}: {detail}");
    }
    let last = u128::MAX;
    let detail = put(&node.addr, "k", &format!("{last:032x}"), "v").problem(400);
    assert!(detail.contains("more than an hour from now"), "{detail}");
    get(&node.addr, "/kv/k").problem(404);
    // In the bulk form only the record is refused that has such a name.
    let lines = [
        json!({ "key": "old", "value": "v", "request_id": minted(-25 * HOUR) }),
        json!({ "key": "new", "value": "v", "request_id": minted(0) }),
    ];
    let ends = crate::support::post(&node.addr, "/kv", &json!(lines)).json();
    let statuses: Vec<&Value> = ends.as_array().expect("a list").iter().map(|end| &end["status"]).collect();
    assert!(statuses[0] == 400 && statuses[1].as_u64().is_some_and(|status| status < 300), "{ends}");
    get(&node.addr, "/kv/old").problem(404);
    still_works(&node.addr);
}

#[test]
fn a_request_of_a_clock_that_jumps_is_done_once() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    for (key, seconds) in [("slow", -23 * HOUR), ("right", 0), ("fast", 59 * MINUTE)] {
        let request = minted(seconds);
        assert_eq!(put(&node.addr, key, &request, "first").status, 204, "{key}");
        // Somebody else writes, whose clock is elsewhere; then the first one is sent again, for its answer was lost.
        assert_eq!(put(&node.addr, key, &minted(-seconds / 24), "second").status, 204, "{key}");
        assert_eq!(put(&node.addr, key, &request, "first").status, 204, "{key}");
        assert_eq!(get(&node.addr, &format!("/kv/{key}")).body, "second", "{key}: it was not done again");
    }
}
