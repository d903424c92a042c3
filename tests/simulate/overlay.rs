//! `tasks simulate overlay` as people meet it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::time::Duration;

use crate::common::{Lab, eventually, signal};
use nix::sys::signal::Signal;
use serde_json::Value;

fn simulate<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["simulate", "overlay"], args].concat()
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number {path} in {value}"))
}

/// Without what differs from run to run: how long it took, on what.
fn repeatable(mut figures: Value) -> Value {
    for changing in ["init_s", "lookups_per_s", "peak_rss_bytes", "threads"] {
        assert!(figures.as_object_mut().unwrap().remove(changing).is_some(), "{changing} is told");
    }
    figures
}

#[test]
fn both_overlays_tell_their_figures() {
    let lab = Lab::empty();
    for (overlay, k) in [("kademlia", 20), ("chord", 1)] {
        let figures = lab.json(&simulate(&[overlay, "--nodes", "1000", "--lookups", "500", "--delay", "10..20"]));
        assert_eq!(figures["overlay"], overlay);
        assert_eq!((&figures["nodes"], &figures["k"], &figures["seed"]), (&1000.into(), &k.into(), &1.into()));
        assert_eq!((&figures["lookups"], &figures["failures"]), (&500.into(), &0.into()));
        assert!(number(&figures, "/recall") > 0.999);
        for path in ["/hops/mean", "/hops/p50", "/hops/p99", "/hops/max", "/contacted/mean", "/contacted/p99"] {
            assert!(number(&figures, path) >= 1.0, "{path}");
        }
        let (mean, p50, p99) =
            ["/delay_ms/mean", "/delay_ms/p50", "/delay_ms/p99"].map(|it| number(&figures, it)).into();
        assert!(mean > 20.0 && p50 <= p99 && mean < p99, "{mean} {p50} {p99}");
        for path in ["/init_s", "/lookups_per_s", "/peak_rss_bytes"] {
            assert!(number(&figures, path) > 0.0, "{path}");
        }
    }
    assert_eq!(fs::read_dir(lab.path()).unwrap().count(), 0, "nothing is written that wasn't asked for");
}

#[test]
fn a_seed_decides_everything_on_any_number_of_threads() {
    let lab = Lab::empty();
    let lines: [&[&str]; 3] = [
        &["kademlia", "--nodes", "800", "--lookups", "400", "--alpha", "3", "--delay", "5..50", "--slow-error", "20"],
        &["chord", "--nodes", "800", "--lookups", "400", "--mode", "cached", "--initiators", "5", "--dead", "10"],
        &["kademlia", "--nodes", "300", "--lookups", "200", "--churn", "exponential:60s", "--duration", "120s"],
    ];
    for line in lines {
        let with = |more: &[&str]| repeatable(lab.json(&simulate(&[line, more].concat())));
        let one = with(&["--threads", "1", "--seed", "5"]);
        assert_eq!(one, with(&["--threads", "3", "--seed", "5"]), "{line:?}");
        assert_ne!(one, with(&["--seed", "6"]), "{line:?}");
    }
}

#[test]
fn tables_and_pictures_are_written_whole() {
    let lab = Lab::empty();
    let tables = [
        ("lookup,begun_s,from,found,hops", 201, vec!["chord", "--nodes", "200", "--lookups", "200"]),
        ("overlay,lookup,from,found,hops", 401, vec!["compare", "--nodes", "200", "--lookups", "200"]),
        ("nodes,init_s,", 3, vec!["sweep", "kademlia", "--over", "nodes", "--at", "100,200", "--lookups", "50"]),
        (
            "round,start_time,finish_time,task_prep_time,duration_s,failed",
            17,
            vec!["bench", "--sizes", "50,100", "--rounds", "2"],
        ),
        (
            "satisfied,sampled_ms",
            6,
            vec![
                "availability",
                "kademlia",
                "--nodes",
                "200",
                "--rows",
                "4",
                "--columns",
                "4",
                "--samplers",
                "5",
                "--samples",
                "3",
            ],
        ),
    ];
    for (head, lines, line) in tables {
        let told = lab.ok(&simulate(&[&line[..], &["--csv", "a.csv", "--plot", "a.svg"]].concat()));
        assert!(told.ends_with("Written: a.csv, a.svg.\n"), "{told}");
        let csv = fs::read_to_string(lab.path().join("a.csv")).unwrap();
        assert!(csv.starts_with(head), "{csv}");
        assert_eq!(csv.lines().count(), lines, "{csv}");
        let columns = csv.lines().next().unwrap().split(',').count();
        assert!(csv.lines().all(|row| row.split(',').count() == columns), "{csv}");
        let svg = fs::read_to_string(lab.path().join("a.svg")).unwrap();
        assert!(
            svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>") && svg.contains("<polyline"),
            "{line:?}"
        );
        assert_eq!(fs::read_dir(lab.path()).unwrap().count(), 2, "no temporary file stays behind");
    }
}

#[test]
fn compare_gives_both_the_same_lookups_and_sweep_varies_what_it_is_told() {
    let lab = Lab::empty();
    let both = lab.json(&simulate(&["compare", "--nodes", "500", "--lookups", "300", "--values", "--dead", "20"]));
    assert_eq!(both["kademlia"]["living"], 400);
    assert_eq!(both["chord"]["living"], 400);
    let (kademlia, chord) = (number(&both, "/kademlia/failures"), number(&both, "/chord/failures"));
    assert!(kademlia <= 2.0 && (30.0..95.0).contains(&chord), "twenty copies and one: {kademlia} {chord}");

    let line = ["sweep", "chord", "--over", "dead", "--at", "0,30", "--nodes", "500", "--lookups", "300"];
    let sweep = lab.json(&simulate(&line));
    assert_eq!(sweep["over"], "dead");
    assert_eq!(number(&sweep, "/points/0/figures/failures"), 0.0);
    assert!((60.0..120.0).contains(&number(&sweep, "/points/1/figures/failures")), "{sweep}");
}

#[test]
fn a_trace_of_sessions_is_followed() {
    let lab = Lab::empty();
    let rows: String = (0..40).map(|i| format!("0,{}\n", if i < 10 { 50 } else { 500 })).collect();
    fs::write(lab.path().join("trace.csv"), format!("start_s,end_s\n{rows}60,70\n")).unwrap();
    let line = ["chord", "--churn", "trace:trace.csv", "--duration", "100s", "--lookups", "100", "--stabilize", "1s"];
    let figures = lab.json(&simulate(&line));
    assert_eq!(figures["nodes"], 40);
    let churn = &figures["churn"];
    assert_eq!((&churn["joined"], &churn["gone"], &churn["living"]), (&1.into(), &11.into(), &30.into()));

    let weeks =
        ["kademlia", "--nodes", "50", "--lookups", "50", "--churn", "exponential:604800s", "--duration", "1209600s"];
    let figures = lab.json(&simulate(&[&weeks[..], &["--refresh", "86400s"]].concat()));
    assert!((50.0..150.0).contains(&number(&figures, "/churn/gone")), "two weeks of sessions of a week: {figures}");

    fs::write(lab.path().join("bad.csv"), "session_s\n5\nsoon\n").unwrap();
    assert!(lab.fails(&simulate(&["chord", "--churn", "trace:bad.csv"])).contains("line 3"));
    assert!(lab.fails(&simulate(&["chord", "--churn", "trace:none.csv"])).contains("none.csv"));
}

#[test]
fn nonsense_is_refused_before_the_work_and_leaves_nothing() {
    let lab = Lab::empty();
    let cases: [(&[&str], i32, &str); 18] = [
        (&["kademlia", "--k", "0"], 2, "at least 1"),
        (&["kademlia", "--alpha", "21"], 1, "alpha (21) must not exceed k (20)"),
        (&["kademlia", "--fast-error", "101"], 2, "0 to 100"),
        (&["chord", "--slow-error", "-1"], 2, "0 to 100"),
        (&["kademlia", "--nodes", "1000000000"], 1, "GiB"),
        (&["chord", "--nodes", "2000000000"], 1, "GiB"),
        (&["chord", "--nodes", "1000000", "--virtual", "1000000"], 1, "at most"),
        (&["kademlia", "--delay", "50..10"], 2, "50..10"),
        (&["kademlia", "--plot", "a.png"], 1, ".svg"),
        (&["kademlia", "--csv", "no/such/directory.csv"], 1, "no/such"),
        (&["sweep", "kademlia", "--over", "alpha", "--at", "1,30"], 1, "alpha (30)"),
        (&["availability", "chord", "--rows", "2", "--columns", "2"], 1, "samples"),
        (&["availability", "kademlia", "--samplers", "900000000", "--samples", "4000"], 1, "GiB"),
        (&["bench", "--rounds", "99999999999999"], 1, "--rounds"),
        (&["chord", "--churn", "exponential:1ms"], 1, "nodes that join"),
        (&["chord", "--churn", "exponential:60s", "--join-rate", "1e300"], 1, "nodes that join"),
        (&["kademlia", "--churn", "exponential:86400s", "--join-rate", "500000"], 1, "GiB"),
        (&["compare", "--virtual", "2", "--churn", "exponential:60s"], 1, "leave out --virtual"),
    ];
    for (line, code, says) in cases {
        let ran = lab.tasks(&simulate(&[line, &["--csv", "a.csv"][..]].concat()[..]));
        let ran = if line.contains(&"--csv") { lab.tasks(&simulate(line)) } else { ran };
        assert_eq!(ran.code, Some(code), "{line:?}: {ran:?}");
        assert!(ran.stderr.contains(says) && ran.stderr.trim_end().lines().count() == 1, "{line:?}: {ran:?}");
        assert!(ran.stdout.is_empty(), "{line:?}");
    }
    assert_eq!(fs::read_dir(lab.path()).unwrap().count(), 0);
}

#[test]
fn a_long_simulation_ends_when_it_is_interrupted() {
    let lab = Lab::empty();
    // So many lookups that it would go on for hours.
    let line = simulate(&["chord", "--nodes", "2000", "--mode", "linear", "--lookups", "1000000", "--csv", "a.csv"]);
    let mut child = lab.command(&line).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let pid = u64::from(child.id());
    // It computes as soon as it has more threads than the one that waits for signals.
    eventually("it computes", Duration::from_secs(20), || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.count();
        (threads >= 3).then_some(())
    });
    signal(pid, Signal::SIGINT);
    let status = eventually("it ends", Duration::from_secs(20), || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert_eq!(fs::read_dir(lab.path()).unwrap().count(), 0, "and leaves nothing");
}
