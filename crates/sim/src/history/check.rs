//! The checker for long histories.

use super::register::Register;
use super::{Operation, Outcome, Violation, absence, order};

/// What was looked at and found in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// How many operations there were.
    pub operations: u64,
    /// How many of them had an unknown outcome.
    pub unknown: u64,
    /// How many keys: each has a history of its own.
    pub keys: u64,
    /// How many of these were accepted without all that a search would have asked (see the module).
    pub lenient: u64,
}

/// Whether each key's history is linearizable in the order of its versions, in `O(n log n)`; the module says what exactly is
/// decided. The operations may stand in any order. The violation of the least key is told.
pub fn check(history: &[Operation]) -> Result<Checked, Violation> {
    let unknown = history.iter().filter(|operation| operation.outcome == Outcome::Unknown).count() as u64;
    let mut checked = Checked { operations: history.len() as u64, unknown, ..Checked::default() };
    for places in by_key(history).chunk_by(|one, other| history[*one].key == history[*other].key) {
        checked.keys += 1;
        checked.lenient += u64::from(check_key(history, places)?);
    }
    Ok(checked)
}

/// The places of the operations, those of each key together.
pub(super) fn by_key(history: &[Operation]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..history.len()).collect();
    places.sort_by_key(|at| history[*at].key);
    places
}

fn check_key(history: &[Operation], places: &[usize]) -> Result<bool, Violation> {
    let register = Register::of(history, places)?;
    let gaps = order::Gaps::of(&register);
    order::real_time(&register, &gaps)?;
    order::conditions(&register)?;
    let is_lenient = absence::nameless(&register, &gaps)?;
    Ok(absence::place(&register, &gaps)? || is_lenient)
}
