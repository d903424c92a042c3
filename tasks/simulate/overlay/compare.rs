//! Both overlays on the same lookups.

use anyhow::Result;
use serde_json::json;

use super::files::{self, Csv};
use super::plot;
use super::run::{self, Done};
use crate::cli::{OverlayRun, Which};
use crate::output::Report;

/// `tasks simulate overlay compare`: the same nodes, keys and initiators in both, one after the other.
pub(super) fn compare(task: &OverlayRun) -> Result<Report> {
    files::check(&task.files)?;
    run::check(Which::Kademlia, &task.work)?;
    run::check(Which::Chord, &task.work)?;
    let kademlia = run::measure(Which::Kademlia, &task.work)?;
    let chord = run::measure(Which::Chord, &task.work)?;
    if let Some(path) = &task.files.csv {
        files::write(path, &csv(&[&kademlia, &chord]))?;
    }
    if let Some(path) = &task.files.plot {
        files::write(path, &plot::compare(&kademlia, &chord)?)?;
    }
    let text = run::table(&[&kademlia.figures, &chord.figures]);
    let json = json!({ "kademlia": kademlia.figures, "chord": chord.figures });
    Report::new(json, format!("{text}{}", files::told(&task.files)))
}

fn csv(both: &[&Done]) -> String {
    let mut csv = Csv::new("overlay,lookup,from,found,hops,contacted,failed,dead_met,recall,delay_ms");
    for done in both {
        for row in &done.report.rows {
            csv.row(&[
                &done.figures.overlay,
                &row.lookup,
                &row.from,
                &row.found,
                &row.hops,
                &row.contacted,
                &row.failed,
                &row.dead_met,
                &row.recall,
                &row.delay_ms,
            ]);
        }
    }
    csv.text().to_owned()
}
