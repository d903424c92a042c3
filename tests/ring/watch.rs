//! `tasks doctor --watch` on real rings: a line for each look, what changed between them, and how it ends.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::common::{Daemon, Lab, signal};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Within this a look must show what it is waited for.
const DEADLINE: Duration = Duration::from_secs(30);

/// `tasks --json doctor --watch`, its lines being read.
struct Watch {
    child: Child,
    lines: Receiver<Value>,
}

impl Watch {
    fn start(lab: &Lab) -> Watch {
        let mut command = lab.command(&["--json", "doctor", "--only", "ring", "--watch", "--interval", "100ms"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout: ChildStdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.unwrap();
                let value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: no JSON: {line}"));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Watch { child, lines }
    }

    /// The next look of which this is true.
    #[track_caller]
    fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        let mut last = Value::Null;
        loop {
            let left = DEADLINE.saturating_sub(began.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(look) if is(&look) => return look,
                Ok(look) => last = look,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no look with {what}; the last: {last}");
                }
            }
        }
    }

    /// Ctrl-C. Returns its exit code, the summary and what it said on standard error.
    fn end(mut self) -> (Option<i32>, Value, String) {
        signal(self.child.id().into(), Signal::SIGINT);
        let summary = self.until("the summary", |line| line["ended"] == true);
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut stderr).unwrap();
        (self.child.wait().unwrap().code(), summary, stderr)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check<'a>(look: &'a Value, name: &str) -> &'a Value {
    let checks = look["checks"].as_array().unwrap_or_else(|| panic!("no checks in {look}"));
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {look}"))
}

fn has_change(look: &Value, node: &str, what: &str) -> bool {
    look["changes"].as_array().unwrap().iter().any(|change| change["node"] == node && change["what"] == what)
}

#[test]
fn a_watch_sees_a_crash_and_a_return_and_calls_neither_an_error() {
    let lab = Lab::with_nodes(4);
    let watch = Watch::start(&lab);
    let first = watch.until("four members", |look| look["members"] == 4);
    assert_eq!((&first["look"], &first["isolated"], &first["ok"]), (&1.into(), &0.into(), &true.into()));
    lab.ok(&["kill", "node-3"]);
    let gone = watch.until("node-3 gone", |look| has_change(look, "node-3", "gone"));
    assert_eq!(gone["members"], 3);
    let broken = watch.until("an ideal ring that is broken", |look| check(look, "ideal_ring")["ok"] == false);
    assert!(check(&broken, "ideal_ring")["evidence"].is_string());
    lab.ok(&["start", "node-3"]);
    watch.until("node-3 there", |look| has_change(look, "node-3", "joined"));
    let healed = watch.until("an ideal ring of four", |look| look["ok"] == true && look["members"] == 4);
    assert!(check(&healed, "ideal_ring")["broken_looks"].as_u64() >= Some(1));
    assert_eq!(check(&healed, "at_most_one_ring")["broken_times"], 0);
    let (code, summary, stderr) = watch.end();
    assert_eq!((code, stderr.as_str(), &summary["ok"]), (Some(0), "", &true.into()), "{summary}");
}

#[test]
fn a_watch_that_saw_what_must_never_be_fails_even_when_all_is_well_again() {
    let lab = Lab::with_nodes(3);
    let watch = Watch::start(&lab);
    watch.until("three members", |look| look["members"] == 3);
    // A node of another ring among ours: two rings, until it has left.
    let stranger = Daemon::start(lab.path(), &["--memory"]);
    lab.ok(&["join", &stranger.addr, "--name", "astray"]);
    let broken = watch.until("two rings", |look| check(look, "at_most_one_ring")["ok"] == false);
    assert_eq!(broken["ok"], false);
    lab.ok(&["leave", "astray"]);
    let healed = watch.until("one ring again", |look| look["ok"] == true && look["members"] == 3);
    assert_eq!(check(&healed, "at_most_one_ring")["broken_times"], 1);
    let (code, summary, stderr) = watch.end();
    assert_eq!((code, &summary["ok"]), (Some(1), &false.into()), "{summary}");
    assert!(stderr.contains("at_most_one_ring was violated at"), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
}
