//! Whether a register could have had the history, and whether everything acknowledged is there in the end.

use std::collections::BTreeMap;

use chordal_protocol::Id;
use chordal_sim::history::{Kind, Operation, Outcome, Summary, check, summarize};

use crate::clients::{KEYS, key};

/// What was found.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) summary: Summary,
    /// How many altered histories were refused.
    pub(crate) planted: usize,
}

/// Judges a history whose last operations, from `finals` on, are reads made when all was over. They must have brought an answer
/// for each key. Then alters it, and expects to be told.
pub(crate) fn judge(history: &[Operation], finals: usize) -> Result<Verdict, String> {
    let (before, after) = history.split_at(finals);
    let unread = (0..KEYS).find(|at| !after.iter().any(|read| read.key == Id::of(key(*at)) && tells(read)));
    if let Some(unread) = unread {
        return Err(format!("nobody has read {:?} in the end", key(unread)));
    }
    let summary = summarize(before, after);
    if let Some(violation) = &summary.violation {
        return Err(format!("not linearizable: {violation}"));
    }
    if !summary.is_clean() {
        return Err(format!("{} writes lost, {} stale reads", summary.writes_lost, summary.stale_reads));
    }
    let planted = planted(before, after);
    if planted.is_empty() {
        return Err("nothing has happened that could have gone wrong".to_owned());
    }
    for (what, altered) in &planted {
        if check(altered).is_ok() {
            return Err(format!("the checker does not see that {what}"));
        }
    }
    Ok(Verdict { summary, planted: planted.len() })
}

fn tells(read: &Operation) -> bool {
    matches!(read.outcome, Outcome::Read(_))
}

/// The same history with one answer altered, in each way that could go wrong, for each key.
fn planted(before: &[Operation], after: &[Operation]) -> Vec<(String, Vec<Operation>)> {
    let mut by_key: BTreeMap<Id, Vec<Operation>> = BTreeMap::new();
    for operation in before.iter().chain(after) {
        by_key.entry(operation.key).or_default().push(*operation);
    }
    let mut planted = Vec::new();
    for (key, history) in by_key {
        let Some(last) = history.iter().rposition(tells) else { continue };
        let mut alter = |what: &str, outcome: Outcome| {
            let mut altered = history.clone();
            altered[last].outcome = outcome;
            planted.push((format!("{what} of the key {}", key.short()), altered));
        };
        if let Some(old) = replaced_value(&history, history[last].invoked) {
            alter("the last read brings an old value", old);
        }
        let has_deletes = history.iter().any(|operation| operation.kind == Kind::Delete);
        if !has_deletes && matches!(history[last].outcome, Outcome::Read(Some(_))) {
            alter("the last read brings nothing, and nobody has deleted anything", Outcome::Read(None));
        }
    }
    planted
}

/// What a read would bring that sees a value which was acknowledged, and replaced by a later one before the read began.
fn replaced_value(history: &[Operation], invoked: u64) -> Option<Outcome> {
    let puts = history.iter().filter_map(|operation| match (operation.outcome, operation.returned) {
        (Outcome::Done(version), Some(returned)) if returned < invoked => Some((version, operation.kind.value()?)),
        _ => None,
    });
    let mut puts: Vec<_> = puts.collect();
    puts.sort_unstable();
    let at = puts.len().checked_sub(2)?;
    Some(Outcome::Read(Some(puts[at])))
}
