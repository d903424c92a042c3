use chordal::api::{NodeRef, RangeInfo};

use super::*;

fn reference(name: &str) -> NodeRef {
    NodeRef { name: name.to_owned(), id: Id::of(name), host: "127.0.0.1".to_owned(), port: 4000 }
}

fn handover(kind: &str, records: u64, ago_s: f64) -> HandoverInfo {
    let range = RangeInfo { lo: Id::ZERO, hi: Id::MAX, share: 1.0 };
    HandoverInfo { kind: kind.to_owned(), range, peer: reference("peer"), records, ago_s }
}

fn info(name: &str, keys: u64, handovers: Vec<HandoverInfo>) -> NodeInfo {
    let json = json!({
        "name": name, "id": Id::of(name), "host": "127.0.0.1", "port": 4000, "pred": null, "succ": reference("b"),
        "successors": [], "fingers": [], "range": RangeInfo { lo: Id::ZERO, hi: Id::MAX, share: 0.25 }, "views": [],
        "keys": keys, "routing": "cached", "membership": "joined", "ready": true, "ring": null, "lab": false,
        "uptime_s": 1.0, "version": "0", "wire": 1, "pid": 1, "handovers": handovers,
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn only_recent_movements_are_told() {
    let node = info("a", 7, vec![handover("given", 5, 60.0), handover("received", 3, 1.0)]);
    assert_eq!(moved(&node, &Earlier::default(), &Names::default()), ["3 from peer"]);
    let seen = |keys| Earlier { keys: [(node.id, keys)].into(), at: Some(Instant::now()), ..Earlier::default() };
    assert_eq!(moved(&node, &seen(4), &Names::default()), ["+3 keys"]);
    assert_eq!(moved(&node, &seen(9), &Names::default()), ["-2 keys"]);
    assert!(moved(&node, &seen(7), &Names::default()).is_empty());
    assert_eq!(moved(&node, &Earlier { at: Some(Instant::now()), ..Earlier::default() }, &Names::default()), ["new"]);
}

#[test]
fn rows_stand_in_ring_order_whether_they_answer_or_not() {
    let mut state = NetworkState::default();
    for name in ["a", "b", "unborn"] {
        let mut entry = NodeEntry::starting(name.to_owned(), "127.0.0.1".to_owned(), 4000, "l".into(), None);
        entry.id = (name != "unborn").then(|| Id::of(name));
        entry.status = if name == "b" { Status::Stopped } else { Status::Running };
        state.nodes.push(entry);
    }
    let nodes = [info("a", 1, vec![]), info("c", 2, vec![])].into_iter().map(|info| (info.id, info)).collect();
    let rows = rows(&state, &Crawl { nodes, silent: Vec::new() }, &Earlier::default());
    let mut expected = vec![("a", "running"), ("b", "stopped"), ("c", "elsewhere")];
    expected.sort_by_key(|(name, _)| Id::of(name));
    expected.push(("unborn", "silent"));
    let seen: Vec<(&str, &str)> = rows.iter().map(|row| (row.name.as_str(), row.status.as_str())).collect();
    assert_eq!(seen, expected);
    let picture = draw(&Look { rows, ..Look::default() });
    assert!(picture.contains("2 of 4 nodes answer and hold 3 keys.") && picture.contains("██▌"), "{picture}");
}
