//! put, get, cas, export and import on real processes.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::common::{Lab, Ran, eventually, fields, raw, send, sha256, signal};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `tasks` with this standard input, and returns its standard output byte for byte.
fn piped(lab: &Lab, args: &[&str], input: &[u8]) -> (bool, Vec<u8>) {
    let mut command = lab.command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join();
    (output.status.success(), output.stdout)
}

/// Starts `tasks` and lets it run.
fn started(lab: &Lab, args: &[&str]) -> Child {
    lab.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Lines that store so many records.
fn records(count: usize) -> String {
    (0..count)
        .map(|number| format!("{}\n", json!({"key": format!("key {number}"), "value": format!("v{number}")})))
        .collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The lines of an export by their keys; each key once, in the order of ids.
fn by_key(export: &str) -> BTreeMap<String, Value> {
    let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let key = |line: &Value| match (line.get("key"), line.get("value")) {
        (Some(Value::String(key)), _) => key.clone(),
        (Some(bytes), _) => bytes.to_string(),
        (None, value) => value.unwrap().as_str().unwrap().to_owned(),
    };
    let ids: Vec<String> = lines.iter().map(key).filter(|key| !key.starts_with('{')).map(sha256).collect();
    assert!(ids.is_sorted(), "in the order of ids");
    let count = lines.len();
    let map: BTreeMap<String, Value> = lines.into_iter().map(|line| (key(&line), line)).collect();
    assert_eq!(map.len(), count, "each once");
    map
}

#[test]
fn values_go_and_come_byte_for_byte() {
    let lab = Lab::with_nodes(3);
    let all: Vec<u8> = (0..=255).collect();
    assert!(piped(&lab, &["put", "bytes", "-", "--content-type", "image/png"], &all).0);
    assert_eq!(piped(&lab, &["get", "bytes"], b""), (true, all.clone()));
    let shown = lab.json(&["get", "bytes"]);
    assert_eq!(fields(&shown), ["base64", "bytes", "content_type", "etag", "id", "key", "via"]);
    assert_eq!((&shown["content_type"], &shown["bytes"]), (&"image/png".into(), &256.into()));
    assert_eq!(raw("GET", &lab.addrs()[0], "/kv/bytes", &[], b"").body, all);
    std::fs::write(lab.path().join("value.txt"), "from a file\n").unwrap();
    for (args, value) in [
        (&["put", "k", "a value"][..], "a value"),
        (&["put", "k", ""], ""),
        (&["put", "k", "--", "--file"], "--file"),
        (&["put", "k", "--file", "value.txt"], "from a file\n"),
    ] {
        let stored = lab.json(args);
        assert_eq!(fields(&stored), ["bytes", "content_type", "etag", "id", "key", "via"]);
        assert_eq!((&stored["id"], &stored["bytes"]), (&sha256("k").into(), &value.len().into()));
        assert_eq!(lab.ok(&["get", "k"]), value, "nothing is added");
        let shown = lab.json(&["get", "k"]);
        assert_eq!((&shown["value"], &shown["etag"]), (&value.into(), &stored["etag"]));
        assert_eq!(shown["content_type"], "text/plain; charset=utf-8");
    }
    assert!(piped(&lab, &["put", "k", "--file", "-"], b"piped").0);
    assert_eq!(lab.ok(&["get", "k", "--via", "node-1"]), "piped");
    assert!(lab.fails(&["put", "k", "v", "--if-absent"]).contains("already"));
    lab.ok(&["put", "new/ü", "v", "--if-absent"]);
    assert_eq!(lab.ok(&["lookup", "--key", "new/ü"]).lines().next(), Some("v"));
    assert!(lab.fails(&["get", "nothing"]).contains("nothing is stored"));
    assert!(lab.fails(&["put", "k", "--file", "missing"]).contains("missing"));
    assert!(lab.fails(&["put", "", "v"]).contains("key"));
    assert!(!piped(&lab, &["put", "large", "-"], &vec![0; (1 << 20) + 1]).0);
    assert!(!piped(&lab, &["put", "large", "-"], &vec![0; 5 << 20]).0);
    lab.ok(&["delete", "--key", "k"]);
    assert!(lab.fails(&["get", "k"]).contains("nothing is stored"));
}

#[test]
fn cas_changes_what_it_expects_and_nothing_else() {
    let lab = Lab::with_nodes(3);
    assert!(lab.fails(&["cas", "k", "a", "b"]).contains("nothing is stored"));
    let stored = lab.json(&["put", "k", "a", "--content-type", "text/x-note"]);
    let set = lab.json(&["cas", "k", "a", "b"]);
    assert_eq!(fields(&set), ["etag", "key", "via", "was"]);
    assert_eq!(set["was"], stored["etag"]);
    let refusal = lab.fails(&["cas", "k", "a", "c"]);
    assert!(refusal.contains("\"b\"") && refusal.contains("nothing has changed"), "{refusal}");
    assert!(lab.tasks(&["--json", "cas", "k", "a", "c"]).stdout.is_empty());
    let shown = lab.json(&["get", "k"]);
    assert_eq!((&shown["value"], &shown["etag"]), (&"b".into(), &set["etag"]));
    assert_eq!(shown["content_type"], "text/x-note", "the type stays");
    // Of several at once one comes first.
    let racing: Vec<Child> = (0..6)
        .map(|number| {
            let mut command = lab.command(&["cas", "k", "b", &format!("winner {number}")]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let won = racing.into_iter().map(|mut child| child.wait().unwrap().success()).filter(|won| *won).count();
    assert_eq!(won, 1);
    assert!(lab.ok(&["get", "k"]).starts_with("winner"));
}

#[test]
fn a_ring_is_carried_over_to_another() {
    let lab = Lab::with_nodes(4);
    let values = lab.fill(700);
    let addr = &lab.addrs()[0];
    raw("PUT", addr, "/kv/typed", &[("content-type", "image/png")], b"\0\xff").expect(204);
    raw("PUT", addr, "/kv/empty", &[("content-type", "a/b")], b"").expect(204);
    raw("PUT", addr, "/kv/large", &[], &vec![b'\n'; 1 << 20]).expect(204);
    send("POST", addr, "/kv", &json!([{"key": {"base64": "/w=="}, "value": "key of bytes"}])).expect(200);
    let own = "long own key ".repeat(10_000);
    send("POST", addr, "/dht/store", &json!({"value": own})).expect(200);
    lab.ok(&["store", "gone"]);
    lab.ok(&["delete", "gone"]);
    let report = lab.json(&["export", "all.ndjson"]);
    assert_eq!((&report["exported"], &report["before"]), (&705.into(), &0.into()));
    let export = read(&lab.path().join("all.ndjson"));
    let lines = by_key(&export);
    assert!(values.iter().all(|value| lines[value]["value"] == *value && lines[value].get("key").is_none()));
    assert_eq!(lines["typed"], json!({"key": "typed", "base64": "AP8=", "content_type": "image/png"}));
    assert_eq!(lines["empty"], json!({"key": "empty", "value": "", "content_type": "a/b"}));
    assert!(lines.contains_key(&own) && !lines.contains_key("gone"));
    assert!(!lab.path().join("all.ndjson.part").exists());
    // Onto a ring of another size, by a pipe; what it then exports is the same, line by line.
    let other = lab.beside();
    other.ok(&["boot"]);
    let (ok, told) = piped(&other, &["--json", "import", "-"], export.as_bytes());
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert!(ok && told["imported"] == 705 && told["refused"] == 0, "{told}");
    let (ok, back) = piped(&other, &["export", "-"], b"");
    assert!(ok && back == export.as_bytes(), "{} bytes, {} before", back.len(), export.len());
    assert!(other.fails(&["--json", "export", "-"]).contains("--json"));
    assert!(other.fails(&["export", "-", "--resume"]).contains("standard output"));
    assert!(other.fails(&["import", "-", "--resume"]).contains("standard input"));
}

#[test]
fn an_interrupted_import_goes_on_where_it_was() {
    let lab = Lab::with_nodes(2);
    let (file, side) = (lab.path().join("in.ndjson"), lab.path().join("in.ndjson.import"));
    std::fs::write(&file, records(12_000)).unwrap();
    assert!(lab.fails(&["import", "in.ndjson", "--resume"]).contains("leave out --resume"));
    for interruption in [Signal::SIGKILL, Signal::SIGINT] {
        let resume: &[&str] =
            if side.exists() { &["import", "in.ndjson", "--resume"] } else { &["import", "in.ndjson"] };
        let before = std::fs::read(&side).ok();
        let mut import = started(&lab, resume);
        eventually("some of it is noted", PATIENCE, || (std::fs::read(&side).ok() != before).then_some(()));
        signal(import.id().into(), interruption);
        assert!(!import.wait().unwrap().success(), "it ended before it could be interrupted");
    }
    let done: Value = serde_json::from_str(&read(&side)).unwrap();
    let done = done["lines"].as_u64().unwrap();
    assert!(done > 0 && done < 12_000);
    let refusal = {
        std::fs::write(lab.path().join("other.ndjson"), records(12_000).replace("v1", "w1")).unwrap();
        std::fs::copy(&side, lab.path().join("other.ndjson.import")).unwrap();
        lab.fails(&["import", "other.ndjson", "--resume"])
    };
    assert!(refusal.contains("not the file"), "{refusal}");
    let told = lab.json(&["import", "in.ndjson", "--resume"]);
    assert_eq!((&told["skipped"], &told["imported"]), (&done.into(), &(12_000 - done).into()));
    assert!(!side.exists());
    lab.ok(&["export", "out.ndjson"]);
    let all = by_key(&read(&lab.path().join("out.ndjson")));
    assert_eq!(all.len(), 12_000);
    assert!((0..12_000).all(|number| all[&format!("key {number}")]["value"] == format!("v{number}")));
}

#[test]
fn an_interrupted_export_goes_on_where_it_was() {
    let lab = Lab::with_nodes(2);
    std::fs::write(lab.path().join("in.ndjson"), records(8_000)).unwrap();
    lab.ok(&["import", "in.ndjson"]);
    let part = lab.path().join("out.ndjson.part");
    assert!(lab.fails(&["export", "out.ndjson", "--resume"]).contains("leave out --resume"));
    let mut export = started(&lab, &["export", "out.ndjson"]);
    let length = || std::fs::metadata(&part).map_or(0, |file| file.len());
    eventually("some of it is written", PATIENCE, || (length() > 0).then_some(()));
    signal(export.id().into(), Signal::SIGKILL);
    assert!(!export.wait().unwrap().success(), "it ended before it could be interrupted");
    // A line that was cut off is not kept.
    let whole = read(&part).lines().count() as u64 - u64::from(!read(&part).ends_with('\n'));
    std::fs::OpenOptions::new().append(true).open(&part).unwrap().write_all(b"{\"key\":\"to").unwrap();
    let told = lab.json(&["export", "out.ndjson", "--resume"]);
    assert_eq!((&told["before"], &told["exported"]), (&whole.into(), &(8_000 - whole).into()));
    assert!(whole > 0 && !part.exists());
    assert_eq!(by_key(&read(&lab.path().join("out.ndjson"))).len(), 8_000);
}

#[test]
fn an_export_misses_nothing_while_nodes_come_and_go() {
    let lab = Lab::with_nodes(3);
    std::fs::write(lab.path().join("in.ndjson"), records(6_000)).unwrap();
    lab.ok(&["import", "in.ndjson"]);
    for (file, change) in [("joined", &["addmany", "2"][..]), ("left", &["leave", "node-3"])] {
        let part = lab.path().join(format!("{file}.part"));
        let mut export = started(&lab, &["export", file]);
        let has_begun = || std::fs::metadata(&part).is_ok_and(|file| file.len() > 0);
        eventually("some of it is written", PATIENCE, || has_begun().then_some(()));
        assert!(export.try_wait().unwrap().is_none(), "it ended before the ring could change");
        lab.ok(change);
        assert!(export.wait().unwrap().success(), "{file}");
        assert_eq!(by_key(&read(&lab.path().join(file))).len(), 6_000, "{file}");
    }
}

#[test]
fn an_import_says_which_lines_it_does_not_take() {
    let lab = Lab::with_nodes(2);
    let large = json!({"key": "large", "value": "v".repeat((1 << 20) + 1)});
    let good = records(3);
    std::fs::write(lab.path().join("in.ndjson"), format!("{good}\n{large}\n{{\"key\":\"last\",\"value\":\"v\"}}"))
        .unwrap();
    let ran = lab.tasks(&["--json", "import", "in.ndjson"]);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(!ran.ok && ran.stderr.contains("line 5"), "{ran:?}");
    assert_eq!((&told["imported"], &told["refused"]), (&4.into(), &1.into()));
    assert_eq!(lab.ok(&["get", "last"]), "v", "the others are stored");
    // Of two lines with one key the later wins, however far apart they stand.
    let twice = format!("{}{}{}", records(300), json!({"key": "key 7", "value": "later"}), "\n");
    assert!(piped(&lab, &["import", "-"], twice.as_bytes()).0);
    assert_eq!(lab.ok(&["get", "key 7"]), "later");
    for (line, words) in [("{", "line 2"), ("{\"op\":\"delete\",\"key\":\"key 1\"}", "only records"), ("[]", "line 2")]
    {
        std::fs::write(lab.path().join("bad.ndjson"), format!("\n{line}\n")).unwrap();
        let refusal = lab.fails(&["import", "bad.ndjson"]);
        assert!(refusal.contains(words), "{refusal}");
    }
    assert!(lab.fails(&["import", "missing.ndjson"]).contains("missing.ndjson"));
    assert_eq!(lab.ok(&["get", "key 1"]), "v1");
}

#[test]
fn who_waits_for_input_can_be_interrupted() {
    let lab = Lab::with_nodes(2);
    for args in [&["import", "-"][..], &["put", "k", "-"]] {
        let mut command = lab.command(args);
        let mut waiting = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = u64::from(waiting.id());
        // It reads on a thread of its own.
        let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        eventually("it waits", PATIENCE, || (threads() > 1).then_some(()));
        signal(pid, Signal::SIGINT);
        let ended = eventually("it ends", PATIENCE, || waiting.try_wait().unwrap());
        assert!(!ended.success());
        drop(waiting.stdin.take());
        assert!(Ran::of(waiting.wait_with_output().unwrap()).stderr.contains("interrupted"));
    }
}
