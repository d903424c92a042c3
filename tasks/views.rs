//! Who keeps which part of the circle, as told by those who answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use chordal::api::{NodeInfo, NodeRef, RangeInfo, ViewInfo};
use chordal::client::NodeClient;
use chordal_protocol::{Id, Interval};
use comfy_table::{Cell, Color};
use serde::Serialize;

use crate::context::Context;
use crate::crawl::{Crawl, crawl};
use crate::names::Names;
use crate::network_state::NodeEntry;
use crate::output;

/// For how long a ring is looked at again before a range is said to have no majority: views change all the time, and nodes are
/// asked one after the other.
const SETTLING: Duration = Duration::from_secs(4);

/// How long to wait before the next look.
const POLL: Duration = Duration::from_millis(300);

/// The views that nothing has followed yet, as far as those who answer tell.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Views {
    /// In the order of their ranges.
    pub(crate) views: Vec<Kept>,
    /// Parts of the circle of which nobody who answers keeps anything.
    pub(crate) gaps: Vec<RangeInfo>,
    /// Views that members still hold although later ones have taken their place: nobody has told them yet, and a majority of them may
    /// serve what is void.
    pub(crate) stale: Vec<Kept>,
}

/// A view.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Kept {
    pub(crate) range: RangeInfo,
    pub(crate) epoch: u64,
    pub(crate) members: Vec<NodeRef>,
    pub(crate) primary: NodeRef,
    /// The members that answer and have its content.
    pub(crate) present: BTreeSet<Id>,
    /// What the primary says of it; `silent` if it says nothing.
    pub(crate) status: String,
    /// How many writes are not at all members yet, if the primary tells.
    pub(crate) lag: Option<u64>,
    /// For how long it has been sealed, in seconds.
    pub(crate) sealed_s: Option<f64>,
    /// Whether a person made it by force.
    pub(crate) forced: bool,
}

impl Views {
    /// What these nodes tell.
    pub(crate) fn of<'a>(nodes: impl IntoIterator<Item = &'a NodeInfo>) -> Views {
        let mut all: BTreeMap<(Id, Id, u64), Kept> = BTreeMap::new();
        for node in nodes {
            for view in &node.views {
                let key = (view.range.lo, view.range.hi, view.epoch);
                all.entry(key).or_insert_with(|| Kept::of(view)).told_by(node.id, view);
            }
        }
        let all: Vec<Kept> = all.into_values().collect();
        let (stale, views): (Vec<Kept>, Vec<Kept>) = all.iter().cloned().partition(|view| view.is_over(&all));
        let stale = stale.into_iter().filter(|view| !view.present.is_empty()).collect();
        let mut gaps = vec![Interval::whole(Id::ZERO)];
        for view in &views {
            gaps = gaps.iter().flat_map(|gap| gap.minus(&view.interval())).collect();
        }
        Views { views, gaps: joined(gaps), stale }
    }

    /// The views that have lost their majority.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &Kept> {
        self.views.iter().filter(|view| !view.has_majority())
    }

    /// Whether every part of the circle has a majority that keeps it.
    pub(crate) fn are_whole(&self) -> bool {
        self.gaps.is_empty() && self.lost().next().is_none()
    }

    /// For people: a line for each view.
    pub(crate) fn table(&self, names: &Names) -> String {
        let mut table = output::table(&["RANGE", "SHARE", "EPOCH", "PRIMARY", "MEMBERS", "STATUS", "LAG"]);
        for view in &self.views {
            let (word, colour) = match view.status.as_str() {
                _ if !view.has_majority() => ("no majority", Color::Red),
                "serving" => ("serving", Color::Green),
                other => (other, Color::Yellow),
            };
            let forced = if view.forced { " (forced)" } else { "" };
            table.add_row(vec![
                Cell::new(shown(&view.range)),
                Cell::new(format!("{:.1}%", view.range.share * 100.0)),
                Cell::new(view.epoch),
                Cell::new(names.call(&view.primary)),
                Cell::new(view.told_members(names)),
                Cell::new(format!("{word}{forced}")).fg(colour),
                Cell::new(view.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string())),
            ]);
        }
        for gap in &self.gaps {
            let share = Cell::new(format!("{:.1}%", gap.share * 100.0));
            let nobody = Cell::new("kept by nobody who answers").fg(Color::Red);
            let dash = || Cell::new("-");
            table.add_row(vec![Cell::new(shown(gap)), share, dash(), dash(), dash(), nobody, dash()]);
        }
        output::lines(&table)
    }
}

impl Kept {
    fn of(view: &ViewInfo) -> Kept {
        Kept {
            range: view.range,
            epoch: view.epoch,
            members: view.members.clone(),
            primary: view.primary_node.clone(),
            present: BTreeSet::new(),
            status: "silent".to_owned(),
            lag: None,
            sealed_s: None,
            forced: view.forced,
        }
    }

    fn told_by(&mut self, node: Id, view: &ViewInfo) {
        if view.status != "fetching" {
            self.present.insert(node);
        }
        if view.primary {
            self.status = view.status.clone();
            self.lag = Some(view.lag);
        }
        let sealed = self.sealed_s.iter().chain(&view.sealed_s).copied().reduce(f64::max);
        self.sealed_s = sealed;
    }

    /// The ids that it covers.
    pub(crate) fn interval(&self) -> Interval {
        interval(&self.range)
    }

    /// Whether later views cover all of it.
    fn is_over(&self, all: &[Kept]) -> bool {
        let mut rest = vec![self.interval()];
        for later in all.iter().filter(|other| other.epoch > self.epoch) {
            rest = rest.iter().flat_map(|part| part.minus(&later.interval())).collect();
        }
        rest.is_empty()
    }

    /// Whether enough members answer to decide anything.
    pub(crate) fn has_majority(&self) -> bool {
        self.survivors().count() > self.members.len() / 2
    }

    /// The members that answer and have its content.
    pub(crate) fn survivors(&self) -> impl Iterator<Item = &NodeRef> {
        self.members.iter().filter(|member| self.present.contains(&member.id))
    }

    /// The members that do not, or have lost it.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &NodeRef> {
        self.members.iter().filter(|member| !self.present.contains(&member.id))
    }

    fn told_members(&self, names: &Names) -> String {
        let told = |member: &NodeRef| {
            let mark = if self.present.contains(&member.id) { "" } else { " (missing)" };
            format!("{}{mark}", names.call(member))
        };
        self.members.iter().map(told).collect::<Vec<_>>().join(", ")
    }
}

/// A range as people see and write it.
pub(crate) fn shown(range: &RangeInfo) -> String {
    format!("{}..{}", range.lo.short(), range.hi.short())
}

pub(crate) fn interval(range: &RangeInfo) -> Interval {
    Interval::half_open(range.lo, range.hi)
}

/// Nodes in a sentence: name and address.
pub(crate) fn named<'a>(nodes: impl IntoIterator<Item = &'a NodeRef>) -> String {
    let told = |node: &NodeRef| match node.port {
        0 => format!("a node with the id {}", node.id.short()),
        _ => format!("{} ({})", node.name, node.addr()),
    };
    let told: Vec<String> = nodes.into_iter().map(told).collect();
    if told.is_empty() { "nobody".to_owned() } else { told.join(", ") }
}

/// Parts of the circle, with those that only zero divides put together.
fn joined(mut parts: Vec<Interval>) -> Vec<RangeInfo> {
    parts.sort();
    let ends = |part: &&Interval| part.hi == Id::ZERO && part.lo != Id::ZERO;
    if let Some(last) = parts.iter().find(ends).copied()
        && let Some(first) = parts.iter().position(|part| part.lo == Id::ZERO && part.hi != Id::ZERO)
    {
        let hi = parts[first].hi;
        parts.retain(|part| part.lo != Id::ZERO && *part != last);
        parts.push(Interval::half_open(last.lo, hi));
    }
    parts.iter().map(|part| RangeInfo { lo: part.lo, hi: part.hi, share: part.share() }).collect()
}

/// Looks at a ring, that of the state file or that of `node`, until every range has a majority, or for a while, and returns what was
/// seen last.
pub(crate) async fn settled(context: &Context, client: &NodeClient, node: Option<&str>) -> Result<(Views, Crawl)> {
    let began = Instant::now();
    loop {
        let running: Vec<String> = match node {
            Some(node) => vec![node.to_owned()],
            None => context.state.awake()?.iter().map(NodeEntry::addr).collect(),
        };
        let mut seen = crawl(client, running.clone(), &BTreeSet::new()).await;
        let views = Views::of(seen.nodes.values());
        // Members that nobody points to any more may live all the same.
        let silent = |addr: &String| seen.silent.iter().any(|silent| silent.addr == *addr);
        let missing = views.views.iter().flat_map(Kept::missing).filter(|member| member.port != 0);
        let more: BTreeSet<String> = missing
            .filter(|member| !seen.nodes.contains_key(&member.id))
            .map(NodeRef::addr)
            .filter(|addr| !silent(addr))
            .collect();
        if !more.is_empty() {
            seen = crawl(client, running.into_iter().chain(more), &BTreeSet::new()).await;
        }
        let views = Views::of(seen.nodes.values());
        if views.are_whole() || began.elapsed() >= SETTLING {
            return Ok((views, seen));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
