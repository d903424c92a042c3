//! What a watch has seen: since when each invariant holds, how often it was broken, and what changes from look to look.
//! Pure: time is an input.

use std::collections::BTreeMap;
use std::time::Duration;

use chordal::api::{NodeInfo, NodeRef};
use chordal::words::counted;
use chordal_protocol::Id;
use chordal_protocol::invariant::Check;
use serde::Serialize;
use serde_json::{Value, json};

use super::Findings;
use super::watch::Look;
use crate::names::Names;
use crate::output;

/// The invariant that need not hold while the ring changes, only once it has come to rest.
const AT_REST: &str = "ideal_ring";

/// All that was seen, in short.
#[derive(Debug, Default)]
pub(super) struct History {
    /// How many looks there were.
    looks: u64,
    /// When the last one was, counted from the first.
    at: Duration,
    tracks: Vec<Track>,
    /// What the nodes were like at the last look.
    nodes: BTreeMap<Id, Seen>,
    last: Last,
}

/// What the last look brought.
#[derive(Debug, Default)]
enum Last {
    /// Verdicts.
    #[default]
    Seen,
    /// None, because of this.
    Blind(String),
    /// There is no ring any more, so nothing is wrong with it.
    NoRing,
}

/// An invariant through time.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) name: &'static str,
    /// What breaks it, if it is broken.
    pub(super) evidence: Option<String>,
    /// Since when it holds or is broken, as far as was seen.
    pub(super) since: Duration,
    /// How often it broke.
    pub(super) broken_times: u64,
    /// At how many looks it was found broken.
    pub(super) broken_looks: u64,
}

/// What is compared of a node from look to look.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    node: NodeRef,
    membership: String,
    pred: Option<NodeRef>,
    succ: Option<NodeRef>,
}

/// What is different from the look before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) node: String,
    /// `joined` (it answers and did not before), `gone` (it does not answer any more), `membership`, `predecessor`,
    /// `successor`.
    pub(super) what: &'static str,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

impl Change {
    /// For people.
    pub(super) fn told(&self) -> String {
        let or_nobody = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".to_owned());
        match self.what {
            "joined" => format!("{} is there", self.node),
            "gone" => format!("{} is gone", self.node),
            what => format!("{}: {what} {} → {}", self.node, or_nobody(&self.from), or_nobody(&self.to)),
        }
    }
}

impl History {
    /// Takes in a look, and says what has changed. One that brought no verdicts leaves the invariants as they were last seen.
    pub(super) fn note(&mut self, at: Duration, look: &Look) -> Vec<Change> {
        let mut names = Names::default();
        let nodes = match look {
            Look::Seen(findings) => {
                names = findings.crawl.names();
                self.note_seen(at, findings)
            }
            Look::Blind(reason) => {
                self.last = Last::Blind(reason.clone());
                BTreeMap::new()
            }
            Look::NoRing => {
                self.last = Last::NoRing;
                BTreeMap::new()
            }
        };
        let changes = if self.looks == 0 { Vec::new() } else { changes(&self.nodes, &nodes, &names) };
        self.looks += 1;
        self.at = at;
        self.nodes = nodes;
        changes
    }

    fn note_seen(&mut self, at: Duration, findings: &Findings) -> BTreeMap<Id, Seen> {
        self.last = Last::Seen;
        for check in &findings.checks {
            self.track(at, check);
        }
        findings.crawl.nodes.values().map(|info| (info.id, Seen::of(info))).collect()
    }

    fn track(&mut self, at: Duration, check: &Check) {
        let evidence = check.verdict.as_ref().err().map(|evidence| output::one_line(evidence));
        let broken = evidence.is_some();
        let Some(track) = self.tracks.iter_mut().find(|track| track.name == check.name) else {
            let once = u64::from(broken);
            self.tracks.push(Track { name: check.name, evidence, since: at, broken_times: once, broken_looks: once });
            return;
        };
        if track.evidence.is_some() != broken {
            track.since = at;
            track.broken_times += u64::from(broken);
        }
        track.broken_looks += u64::from(broken);
        track.evidence = evidence;
    }

    /// The invariants, as they stand.
    pub(super) fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// How many looks there were, and when the last was.
    pub(super) fn looks(&self) -> (u64, Duration) {
        (self.looks, self.at)
    }

    /// Why the watch has failed, if it has: something that must hold at all times did not at some look, or the ring was not
    /// at rest at the last, or could not be seen.
    pub(super) fn failure(&self) -> Option<String> {
        let looks = counted(self.looks, "look");
        let always = self.tracks.iter().filter(|track| track.name != AT_REST && track.broken_looks > 0);
        let mut reasons: Vec<String> =
            always.map(|track| format!("{} was violated at {} of {looks}", track.name, track.broken_looks)).collect();
        let at_rest = self.tracks.iter().find(|track| track.name == AT_REST);
        match (&self.last, at_rest.and_then(|track| track.evidence.as_ref())) {
            (Last::Blind(reason), _) => reasons.push(format!("at the last look {reason}")),
            (Last::Seen, Some(evidence)) => reasons.push(format!("{AT_REST} was violated at the end: {evidence}")),
            (Last::Seen | Last::NoRing, _) => {}
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// In one line.
    pub(super) fn summary(&self) -> String {
        let watched = format!("Watched for {:.1} s, {}", self.at.as_secs_f32(), counted(self.looks, "look"));
        let broken: Vec<String> = self
            .tracks
            .iter()
            .filter(|track| track.broken_looks > 0)
            .map(|track| {
                let now = if track.evidence.is_some() { "broken" } else { "holds" };
                format!("{} was broken {} (now: {now})", track.name, times(track.broken_times))
            })
            .collect();
        if broken.is_empty() {
            return format!("{watched}: every invariant held at each.");
        }
        format!("{watched}: {}.", broken.join(", "))
    }

    /// The same for programs.
    pub(super) fn summary_json(&self) -> Value {
        let tracks: Vec<Value> = self.tracks.iter().map(|track| track.json(self.at)).collect();
        json!({ "ended": true, "ok": self.failure().is_none(), "looks": self.looks, "at_s": self.at.as_secs_f64(), "checks": tracks })
    }
}

impl Track {
    /// For programs, at this time.
    pub(super) fn json(&self, at: Duration) -> Value {
        json!({
            "name": self.name,
            "ok": self.evidence.is_none(),
            "evidence": self.evidence,
            "for_s": at.saturating_sub(self.since).as_secs_f64(),
            "broken_times": self.broken_times,
            "broken_looks": self.broken_looks,
        })
    }
}

impl Seen {
    fn of(info: &NodeInfo) -> Seen {
        Seen {
            node: info.itself(),
            membership: info.membership.clone(),
            pred: info.pred.clone(),
            succ: info.succ.clone(),
        }
    }
}

/// How often, in words.
pub(super) fn times(count: u64) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        more => format!("{more} times"),
    }
}

fn changes(before: &BTreeMap<Id, Seen>, now: &BTreeMap<Id, Seen>, names: &Names) -> Vec<Change> {
    let whole = |seen: &Seen, what| Change { node: names.call(&seen.node), what, from: None, to: None };
    let gone = before.iter().filter(|(id, _)| !now.contains_key(id)).map(|(_, node)| whole(node, "gone"));
    let mut changes: Vec<Change> = gone.collect();
    for (id, node) in now {
        let Some(earlier) = before.get(id) else {
            changes.push(whole(node, "joined"));
            continue;
        };
        let some = |text: &String| Some(text.clone());
        let named = |node: &Option<NodeRef>| node.as_ref().map(|node| names.call(node));
        let compared = [
            ("membership", some(&earlier.membership), some(&node.membership)),
            ("predecessor", named(&earlier.pred), named(&node.pred)),
            ("successor", named(&earlier.succ), named(&node.succ)),
        ];
        let different = compared.into_iter().filter(|(_, from, to)| from != to);
        changes.extend(different.map(|(what, from, to)| Change { node: names.call(&node.node), what, from, to }));
    }
    changes
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
