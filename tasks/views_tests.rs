use serde_json::json;

use super::*;

fn point(prefix: &str) -> Id {
    Id::from_hex_prefix(prefix).unwrap()
}

fn node(prefix: &str) -> NodeRef {
    NodeRef { name: prefix.to_owned(), id: point(prefix), host: "127.0.0.1".to_owned(), port: 4000 }
}

/// A view as one of its members tells of it; the first member is its primary.
fn view(lo: &str, hi: &str, epoch: u64, members: &[&str], told_by: &str, status: &str) -> ViewInfo {
    let members: Vec<NodeRef> = members.iter().map(|member| node(member)).collect();
    ViewInfo {
        range: RangeInfo { lo: point(lo), hi: point(hi), share: 0.5 },
        epoch,
        primary: members[0].id == point(told_by),
        primary_node: members[0].clone(),
        members,
        status: status.to_owned(),
        lag: 3,
        sealed_s: (status == "sealed").then_some(9.0),
        forced: false,
        keys: 0,
    }
}

fn info(name: &str, views: Vec<ViewInfo>) -> NodeInfo {
    let json = json!({
        "name": name, "id": point(name), "host": "127.0.0.1", "port": 4000, "pred": null, "succ": null,
        "successors": [], "fingers": [], "range": RangeInfo { lo: Id::ZERO, hi: Id::MAX, share: 0.25 }, "views": views,
        "keys": 0, "routing": "cached", "membership": "joined", "ready": true, "ring": null, "lab": false,
        "replication_factor": 3, "uptime_s": 1.0, "version": "0", "wire": 1, "pid": 1, "handovers": [],
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_view_with_two_of_three_has_a_majority_and_one_with_one_names_who_is_missing() {
    let (open, lost) = (&["2", "4", "6"], &["8", "a", "4"]);
    let nodes = [
        info("2", vec![view("2", "8", 5, open, "2", "serving")]),
        info("4", vec![view("2", "8", 5, open, "4", "keeping"), view("8", "2", 7, lost, "4", "sealed")]),
        // It has come back with another disk, or has not fetched anything yet.
        info("a", vec![view("8", "2", 7, lost, "a", "fetching")]),
    ];
    let views = Views::of(&nodes);
    assert!(views.gaps.is_empty() && !views.are_whole());
    let lost: Vec<&Kept> = views.lost().collect();
    assert_eq!((lost.len(), lost[0].epoch, lost[0].status.as_str(), lost[0].sealed_s), (1, 7, "silent", Some(9.0)));
    assert_eq!(lost[0].missing().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["8", "a"]);
    assert_eq!(lost[0].survivors().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["4"]);
    let open = views.views.iter().find(|view| view.has_majority()).unwrap();
    assert_eq!((open.status.as_str(), open.lag), ("serving", Some(3)));
    let table = views.table(&Names::default());
    assert!(table.contains("no majority") && table.contains("8 (missing), a (missing), 4"), "{table}");
}

#[test]
fn a_view_that_others_have_followed_counts_no_more() {
    let nodes = [
        info("2", vec![view("2", "4", 6, &["2"], "2", "serving"), view("4", "2", 6, &["2"], "2", "serving")]),
        info("4", vec![view("2", "2", 5, &["4", "6", "8"], "4", "serving")]),
    ];
    let views = Views::of(&nodes);
    assert!(views.are_whole(), "{views:?}");
    assert_eq!(views.views.iter().map(|view| view.epoch).collect::<Vec<_>>(), [6, 6]);
    assert_eq!(views.stale.iter().map(|view| view.epoch).collect::<Vec<_>>(), [5], "one has not been told");
}

#[test]
fn what_nobody_keeps_is_one_gap_also_across_zero() {
    let views = Views::of(&[info("2", vec![view("2", "c", 1, &["2"], "2", "serving")])]);
    let [gap] = views.gaps[..] else { panic!("{:?}", views.gaps) };
    assert_eq!((gap.lo, gap.hi), (point("c"), point("2")));
    assert_eq!(shown(&gap), "c0000000..20000000");
    assert!((gap.share - 0.375).abs() < 1e-9, "{gap:?}");
    let none = Views::of(&[]);
    assert_eq!((none.gaps.len(), none.gaps[0].share), (1, 1.0));
}
