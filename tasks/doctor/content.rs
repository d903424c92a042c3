//! What must hold of the views that keep content, once a ring has come to rest.

use chordal::api::NodeInfo;
use chordal_protocol::invariant::Check;

use crate::views::{Kept, Views, named, shown};

/// For how many seconds a view may be sealed: its members are deciding what follows it.
const SEALED: f64 = 5.0;

/// How much evidence is told.
const TOLD: usize = 8;

/// Checks the views that these nodes tell of.
pub(super) fn check_content<'a>(views: &Views, nodes: impl Iterator<Item = &'a NodeInfo>) -> Vec<Check> {
    let (mut joined, mut factor) = (0, None);
    for node in nodes {
        joined += usize::from(node.membership == "joined");
        factor = factor.max(node.replication_factor);
    }
    let copies = usize::from(factor.unwrap_or(1)).min(joined);
    let all = &views.views;
    vec![
        check(
            "covered",
            "docs/protocol.md, Content views",
            views.gaps.iter().map(|gap| format!("nobody who answers keeps {}", shown(gap))),
        ),
        check(
            "one_view_each",
            "docs/protocol.md, rule 1",
            all.iter()
                .enumerate()
                .flat_map(|(i, view)| overlaps(view, &all[i + 1..]))
                .chain(views.stale.iter().map(stale)),
        ),
        check(
            "majority_alive",
            "docs/protocol.md, rule 6",
            views
                .lost()
                .map(|view| format!("{} (epoch {}) misses {}", shown(&view.range), view.epoch, named(view.missing()))),
        ),
        check(
            "replicated",
            "docs/protocol.md, Content views",
            all.iter().filter(|view| view.present.len() < copies).map(|view| {
                format!("{} is kept by {}, and not by {copies} nodes", shown(&view.range), named(view.survivors()))
            }),
        ),
        check(
            "served",
            "docs/protocol.md, rule 8",
            all.iter().filter_map(|view| {
                unserved(view).map(|why| format!("{} (primary {}): {why}", shown(&view.range), named([&view.primary])))
            }),
        ),
    ]
}

fn check(name: &'static str, source: &'static str, broken: impl Iterator<Item = String>) -> Check {
    let evidence: Vec<String> = broken.collect();
    let told = evidence.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    let more = evidence.len().saturating_sub(TOLD);
    let verdict = match (evidence.is_empty(), more) {
        (true, _) => Ok(()),
        (false, 0) => Err(told),
        (false, more) => Err(format!("{told}; and {more} more")),
    };
    Check { name, source, verdict }
}

fn overlaps<'a>(view: &'a Kept, others: &'a [Kept]) -> impl Iterator<Item = String> + 'a {
    others.iter().filter(|other| other.interval().overlaps(&view.interval())).map(|other| {
        let told = |view: &Kept| format!("{} (epoch {})", shown(&view.range), view.epoch);
        format!("{} and {} share ids", told(view), told(other))
    })
}

fn stale(view: &Kept) -> String {
    let (range, epoch) = (shown(&view.range), view.epoch);
    format!("{} still hold {range} (epoch {epoch}), which a later view has followed", named(view.survivors()))
}

/// Why a view is not served, if it is not.
fn unserved(view: &Kept) -> Option<String> {
    match (view.status.as_str(), view.sealed_s) {
        ("serving", _) => None,
        ("sealed", Some(sealed)) if sealed < SEALED => None,
        ("sealed", Some(sealed)) => Some(format!("sealed for {sealed:.0} s without a decision")),
        (status, _) => Some(status.to_owned()),
    }
}
