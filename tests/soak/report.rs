//! What was done and what came of it, for people.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::history::{Ends, History, asked_again, longest_without_a_put};
use crate::judge::Verdict;

/// How often what was done to the ring.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) rounds: usize,
    pub(crate) kills: usize,
    pub(crate) restarts: usize,
    pub(crate) pauses: usize,
    pub(crate) partitions: usize,
    pub(crate) joins: usize,
    pub(crate) leaves: usize,
    pub(crate) disks: usize,
    /// The longest time from the moment in which everything ran and was reached until all was served.
    pub(crate) longest_healing: Duration,
}

/// All of it.
pub(crate) struct Report {
    took: Duration,
    faults: Faults,
    ends: BTreeMap<&'static str, Ends>,
    asked_again: usize,
    gaps: (Duration, Duration),
    verdict: Verdict,
}

impl Report {
    pub(crate) fn of(history: &History, faults: Faults, verdict: Verdict) -> Report {
        let operations = history.operations();
        let (gaps, asked_again) = (longest_without_a_put(&operations), asked_again(&operations));
        Report { took: Duration::from_nanos(history.now()), faults, ends: history.ends(), asked_again, gaps, verdict }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {:>9} {:>9} {:>9} {:>9}", "operations", "ok", "condition", "refused", "unknown")?;
        let mut all = Ends::default();
        for (form, ends) in &self.ends {
            line(f, form, ends)?;
            all.ok += ends.ok;
            all.condition_failed += ends.condition_failed;
            all.refused += ends.refused;
            all.unknown += ends.unknown;
        }
        line(f, "all", &all)?;
        writeln!(f, "{} of these were writes sent again with the request id of an earlier attempt", self.asked_again)?;
        let Faults { rounds, kills, restarts, pauses, partitions, joins, leaves, disks, longest_healing } =
            &self.faults;
        writeln!(
            f,
            "survived in {} s, {rounds} rounds: {kills} kills, {restarts} restarts, {pauses} pauses, {partitions} partitions, \
             {joins} joins, {leaves} leaves, {disks} lost disks",
            self.took.as_secs()
        )?;
        let (of_any, of_one) = (self.gaps.0.as_secs_f64(), self.gaps.1.as_secs_f64());
        writeln!(f, "longest time without a good put: {of_any:.1} s, and {of_one:.1} s of one key")?;
        writeln!(f, "longest healing: {:.1} s", longest_healing.as_secs_f64())?;
        let summary = &self.verdict.summary;
        write!(
            f,
            "{} keys checked, linearizable each; {} writes lost, {} stale reads; {} altered histories refused",
            summary.histories_checked, summary.writes_lost, summary.stale_reads, self.verdict.planted
        )
    }
}

fn line(f: &mut fmt::Formatter<'_>, form: &str, ends: &Ends) -> fmt::Result {
    let Ends { ok, condition_failed, refused, unknown } = ends;
    writeln!(f, "{form:<16} {ok:>9} {condition_failed:>9} {refused:>9} {unknown:>9}")
}
