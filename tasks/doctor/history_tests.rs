use chordal::api::RangeInfo;

use super::*;
use crate::crawl::Crawl;
use crate::views::Views;

fn reference(name: &str) -> NodeRef {
    NodeRef { name: name.to_owned(), id: Id::of(name), host: "127.0.0.1".to_owned(), port: 4000 }
}

fn info(name: &str, membership: &str, pred: &str, succ: &str) -> NodeInfo {
    let json = json!({
        "name": name, "id": Id::of(name), "host": "127.0.0.1", "port": 4000, "pred": reference(pred),
        "succ": reference(succ), "successors": [], "fingers": [], "views": [], "keys": 0, "routing": "cached",
        "range": RangeInfo { lo: Id::ZERO, hi: Id::MAX, share: 0.25 }, "membership": membership, "ready": true,
        "ring": null, "lab": false, "uptime_s": 1.0, "version": "0", "wire": 1, "pid": 1, "handovers": [],
    });
    serde_json::from_value(json).unwrap()
}

/// A look at these nodes, with what is broken of these two invariants.
fn look(nodes: Vec<NodeInfo>, one_ring: Result<(), &str>, ideal: Result<(), &str>) -> Look {
    let nodes = nodes.into_iter().map(|info| (info.id, info)).collect();
    let check = |name, verdict: Result<(), &str>| Check { name, source: "", verdict: verdict.map_err(str::to_owned) };
    let checks = vec![check("at_most_one_ring", one_ring), check("ideal_ring", ideal)];
    Look::Seen(Findings {
        crawl: Crawl { nodes, silent: Vec::new() },
        checks,
        views: Views::default(),
        absent: Vec::new(),
    })
}

fn pair() -> Vec<NodeInfo> {
    vec![info("a", "joined", "b", "b"), info("b", "joined", "a", "a")]
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn told(changes: &[Change]) -> Vec<String> {
    let mut told: Vec<String> = changes.iter().map(Change::told).collect();
    told.sort();
    told
}

#[test]
fn a_ring_that_was_well_at_every_look_succeeds() {
    let mut history = History::default();
    for at in 0..3 {
        assert!(history.note(seconds(at), &look(pair(), Ok(()), Ok(()))).is_empty());
    }
    assert_eq!(history.failure(), None);
    assert_eq!(history.summary(), "Watched for 2.0 s, 3 looks: every invariant held at each.");
    let track = &history.tracks()[0];
    assert_eq!((track.since, track.broken_times, track.broken_looks), (seconds(0), 0, 0));
}

#[test]
fn an_ideal_ring_may_be_broken_for_a_while_but_not_at_the_end() {
    let mut history = History::default();
    history.note(seconds(0), &look(pair(), Ok(()), Ok(())));
    history.note(seconds(1), &look(pair(), Ok(()), Err("a is\nnot there")));
    assert_eq!(history.failure().unwrap(), "ideal_ring was violated at the end: a is not there");
    history.note(seconds(2), &look(pair(), Ok(()), Err("still")));
    history.note(seconds(3), &look(pair(), Ok(()), Ok(())));
    assert_eq!(history.failure(), None);
    let track = &history.tracks()[1];
    assert_eq!((track.since, track.broken_times, track.broken_looks), (seconds(3), 1, 2));
    assert_eq!(history.summary(), "Watched for 3.0 s, 4 looks: ideal_ring was broken once (now: holds).");
    history.note(seconds(4), &look(pair(), Ok(()), Err("again")));
    assert_eq!(history.tracks()[1].broken_times, 2);
}

#[test]
fn what_must_always_hold_fails_the_watch_even_if_it_holds_again() {
    let mut history = History::default();
    history.note(seconds(0), &look(pair(), Err("2 rings"), Ok(())));
    history.note(seconds(1), &look(pair(), Ok(()), Ok(())));
    assert_eq!(history.failure().unwrap(), "at_most_one_ring was violated at 1 of 2 looks");
    assert_eq!(history.summary_json()["ok"], false);
    assert_eq!(history.summary_json()["checks"][0]["broken_looks"], 1);
}

#[test]
fn looks_that_bring_nothing_leave_the_verdicts_alone() {
    let mut history = History::default();
    history.note(seconds(0), &look(pair(), Ok(()), Err("it changes")));
    let changes = history.note(seconds(1), &Look::Blind("nobody answers".to_owned()));
    assert_eq!(told(&changes), ["a is gone", "b is gone"]);
    assert_eq!(history.failure().unwrap(), "at the last look nobody answers");
    history.note(seconds(2), &Look::NoRing);
    assert_eq!(history.failure(), None, "a ring that was ended has nothing wrong with it");
    history.note(seconds(3), &look(pair(), Ok(()), Ok(())));
    assert_eq!(history.tracks()[1].broken_looks, 1);
}

#[test]
fn changes_are_told_from_look_to_look() {
    let mut history = History::default();
    assert!(history.note(seconds(0), &look(pair(), Ok(()), Ok(()))).is_empty(), "at first nothing has changed");
    let three = vec![info("a", "joined", "b", "c"), info("b", "isolated", "a", "a"), info("c", "joined", "a", "b")];
    let changes = history.note(seconds(1), &look(three, Ok(()), Ok(())));
    assert_eq!(told(&changes), ["a: successor b → c", "b: membership joined → isolated", "c is there"]);
    let changes = history.note(seconds(2), &look(pair(), Ok(()), Ok(())));
    assert_eq!(told(&changes), ["a: successor c → b", "b: membership isolated → joined", "c is gone"]);
}
