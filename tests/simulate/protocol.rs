//! `tasks simulate protocol` as people meet it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;

use crate::common::Lab;
use serde_json::Value;

fn simulate<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["simulate", "protocol"], args].concat()
}

/// A scenario that ships.
fn shipped(name: &str) -> String {
    format!("{}/docs/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

fn without_time(mut figures: Value) -> Value {
    for changing in ["elapsed_s", "simulated_s_per_s"] {
        assert!(figures.as_object_mut().unwrap().remove(changing).is_some(), "{changing} is told");
    }
    figures
}

#[test]
fn seeds_tell_their_figures_and_repeat() {
    let lab = Lab::empty();
    let faults = "loss=0.05,duplicate=0.05,delay=1..50ms,crash=0.02,restart=0.3,pause=0.02,partition=0.05,drift=0.1";
    let line = ["--nodes", "12", "--seeds", "0..24", "--duration", "20", "--faults", faults];
    let figures = lab.json(&simulate(&line));
    assert_eq!((&figures["nodes"], &figures["seeds"]), (&12.into(), &24.into()));
    assert_eq!((&figures["violations"], &figures["seeds_failed"]), (&0.into(), &serde_json::json!([])));
    assert_eq!(figures["passed"].as_u64().unwrap() + figures["assumption_broken"].as_u64().unwrap(), 24);
    for kind in ["loss", "duplicate", "delay", "crash", "restart", "pause", "partition", "drift"] {
        assert!(figures["faults"][kind].as_u64().unwrap() > 0, "{kind} has happened");
    }
    for path in ["/steps", "/rounds_to_ideal/mean", "/rounds_to_ideal/p99", "/rounds_to_ideal/max", "/hops/mean"] {
        assert!(figures.pointer(path).and_then(Value::as_f64).unwrap() > 0.0, "{path} in {figures}");
    }
    assert!(figures["hops"]["p99"].as_f64().unwrap() >= figures["hops"]["mean"].as_f64().unwrap());
    assert_eq!(without_time(figures), without_time(lab.json(&simulate(&line))));
    let range = lab.json(&simulate(&["--nodes", "2..5", "--seeds", "3", "--faults", "none"]));
    assert_eq!((&range["nodes"], &range["seeds"]), (&serde_json::json!([2, 5]), &1.into()));
}

#[test]
fn the_protocol_of_2001_fails_and_a_replay_shows_it() {
    let lab = Lab::empty();
    let line = ["--nodes", "12", "--variant", "2001", "--successors", "3"];
    let failed = lab.tasks(&simulate(&[&line[..], &["--seeds", "0..60", "--json"]].concat()));
    assert_eq!(failed.code, Some(1));
    let figures: Value = serde_json::from_str(&failed.stdout).unwrap();
    let seed = figures["seeds_failed"][0].as_u64().expect("a seed fails").to_string();
    assert!(failed.stderr.contains("runs violated an invariant"), "{}", failed.stderr);

    let replay = lab.tasks(&simulate(&[&line[..], &["--replay", &seed]].concat()));
    assert_eq!(replay.code, Some(1));
    let name = figures["failures"][0]["invariant"].as_str().unwrap();
    assert!(replay.stdout.contains(&format!("VIOLATION of {name}")), "{}", replay.stdout);
    for word in ["->", "<-", "successors", "is joined"] {
        assert!(replay.stdout.contains(word), "a replay tells of `{word}`");
    }
    let faults = ["crashes", "stands still", "cut off", "is asked to leave"];
    assert!(faults.iter().any(|word| replay.stdout.contains(word)), "a replay tells what was done to the ring");
    let all = lab.tasks(&simulate(&[&line[..], &["--replay", &seed, "--all"]].concat()));
    assert!(all.stdout.lines().count() > 2 * replay.stdout.lines().count());
}

#[test]
fn the_scenarios_that_ship_show_what_they_say() {
    let lab = Lab::empty();
    let breaks = lab.tasks(&simulate(&["--scenario", &shipped("2001-breaks")]));
    assert_eq!(breaks.code, Some(1));
    assert!(breaks.stdout.contains("VIOLATION of live_successor: new"), "{}", breaks.stdout);

    let other = lab.tasks(&simulate(&["--scenario", &shipped("2001-breaks"), "--variant", "zave"]));
    assert_eq!(other.code, Some(0), "{}", other.stdout);
    for name in ["2001-mended", "partition-heals", "primary-dies"] {
        let figures = lab.json(&simulate(&["--scenario", &shipped(name)]));
        assert_eq!((&figures["violations"], &figures["passed"]), (&0.into(), &1.into()), "{name}: {figures}");
    }
    let heals = lab.tasks(&simulate(&["--scenario", &shipped("partition-heals")]));
    for word in ["cut off from the rest", "the network is whole again", "has installed"] {
        assert!(heals.stdout.contains(word), "`{word}` in {}", heals.stdout);
    }
    let dies = lab.tasks(&simulate(&["--scenario", &shipped("primary-dies")]));
    let mut rest = dies.stdout.split_once("put moon").unwrap().1;
    for word in [
        "keeps version 4.1",
        "c crashes",
        "does not hear the primary",
        "prepare",
        "promises",
        "has staged",
        "votes for",
        "has installed",
        "the client is told: done, version 4.1",
        "the client is told: full, version 4.1",
    ] {
        rest = rest.split_once(word).unwrap_or_else(|| panic!("`{word}` at its place in {}", dies.stdout)).1;
    }
    let shipped = fs::read_dir(format!("{}/docs/scenarios", env!("CARGO_MANIFEST_DIR"))).unwrap().count();
    assert_eq!(shipped, 4, "each that ships is shown here");
}

#[test]
fn content_is_kept_and_its_figures_are_told() {
    let lab = Lab::empty();
    let figures = lab.json(&simulate(&["--content", "--nodes", "1..9", "--seeds", "0..12", "--keys", "6"]));
    assert_eq!(
        (&figures["violations"], &figures["writes_lost"], &figures["stale_reads"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert_eq!(figures["histories_checked"], 72);
    for field in ["operations", "unknown", "view_changes", "seconds_without_service"] {
        assert!(figures[field].as_f64().unwrap() > 0.0, "{field} in {figures}");
    }
    assert!(figures["faults"]["full"].as_u64().unwrap() > 0, "disks were full");
    let told = lab.tasks(&simulate(&[
        "--content",
        "--nodes",
        "3",
        "--seeds",
        "3",
        "--replication-factor",
        "2",
        "--faults",
        "none",
    ]));
    assert!(told.stdout.contains("0 acknowledged writes lost, 0 stale reads"), "{}", told.stdout);
}

#[test]
fn a_fault_that_never_happens_fails_the_run() {
    let lab = Lab::empty();
    let line = simulate(&["--nodes", "1", "--seeds", "0..3", "--faults", "loss=0.5"]);
    let failed = lab.tasks(&line);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("loss was asked for and never happened"), "{}", failed.stderr);
}

#[test]
fn nonsense_is_refused_with_what_would_make_sense() {
    let lab = Lab::empty();
    let usage = [
        (&["--faults", "fire=1"][..], "the kinds are loss"),
        (&["--faults", "loss=2"], "a probability from 0 to 1"),
        (&["--faults", "restart=0.1"], "restart needs crash"),
        (&["--nodes", "0"], "from 1 to 1024 nodes"),
        (&["--nodes", "9..3"], "from 1 to 1024 nodes"),
        (&["--seeds", "5..5"], "seeds are a range"),
        (&["--duration", "-1"], "--duration"),
        (&["--variant", "2002"], "zave, 2001"),
        (&["--seeds", "0..9", "--replay", "3"], "cannot be used with"),
        (&["--scenario", "x", "--nodes", "3"], "cannot be used with"),
        (&["--scenario", "x", "--content"], "cannot be used with"),
        (&["--replication-factor", "2"], "--content"),
    ];
    for (args, says) in usage {
        let refused = lab.tasks(&simulate(args));
        assert_eq!(refused.code, Some(2), "{args:?}");
        assert!(refused.stderr.contains(says), "{args:?}: {}", refused.stderr);
    }
    let head = "title = \"t\"\ntext = \"t\"\nsuccessors = 2\ndelay = 1\nseconds = 5.0\n";
    let files = [
        ("", "missing field"),
        ("title = 3", "is no scenario; docs/scenarios has some"),
        (&format!("{head}[nodes]\na = \"zz\"\n[[event]]\nat = 0.0\ncreate = \"a\"\n"), "no id for the node a"),
        (&format!("{head}[nodes]\na = \"10\"\n[[event]]\nat = 0.0\ncreate = \"b\"\n"), "no node called `b`"),
        (&format!("{head}[nodes]\na = \"10\"\n[[event]]\nat = 9.0\ncreate = \"a\"\n"), "from 0 to the scenario's"),
        (&format!("{head}[nodes]\na = \"10\"\nb = \"10\"\n[[event]]\nat = 0.0\ncreate = \"a\"\n"), "have the same id"),
        (&format!("{head}[nodes]\na = \"10\"\n[[event]]\nat = 1.0\ncrash = \"a\"\n"), "a does not run then"),
        (
            &format!("{head}[nodes]\na = \"10\"\n[[event]]\nat = 1.0\nexplode = \"a\"\n"),
            "unknown field `explode`, expected one of",
        ),
        (&format!("{head}[nodes]\na = \"10\"\n[[event]]\nat = 1.0\n"), "exactly one of create"),
    ];
    for (text, says) in files {
        let path = lab.path().join("scenario.toml");
        fs::write(&path, text).unwrap();
        let refused = lab.tasks(&simulate(&["--scenario", path.to_str().unwrap()]));
        assert_eq!(refused.code, Some(1), "{text}");
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    let refused = lab.tasks(&simulate(&["--scenario", "nowhere.toml"]));
    assert!(refused.stderr.contains("cannot read nowhere.toml"), "{}", refused.stderr);
}
