//! What clients asked and heard, and whether a register could have behaved so.

use chordal_protocol::{Id, Version};

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Want {
    Put,
    /// A put if there is no value.
    PutIfAbsent,
    /// A put if the value is still the one that this operation wrote.
    Swap(usize),
    Delete,
    Get,
}

/// How it ended, in terms of operations: a register holds what one of them wrote, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ended {
    Read(Option<usize>),
    Done(Version),
    /// Its condition did not hold.
    Refused,
}

/// A client's operation in a scenario, with what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Op {
    pub(crate) want: Want,
    pub(crate) id: Id,
    /// How often it may be sent; a client that sends again uses the same request id.
    pub(crate) attempts: u8,
    /// It begins only when that one has ended.
    pub(crate) after: Option<usize>,
    /// When it was sent first and when it ended, in the count of such events.
    pub(crate) begun: Option<u32>,
    pub(crate) ended: Option<(u32, Ended)>,
    /// Which node it was sent to last, and with which life of that node; none when that one has answered.
    pub(crate) at: Option<(usize, u64)>,
}

/// Whether what was heard of one register is what a register could have said, one operation after the other, each between
/// when it began and when it ended. An operation of unknown outcome may have happened at any time since, or never.
pub(crate) fn is_linearizable(ops: &[Op], id: &Id) -> bool {
    let mine: Vec<usize> = (0..ops.len()).filter(|i| ops[*i].id == *id && ops[*i].begun.is_some()).collect();
    search(ops, &mine, 0, None)
}

fn search(ops: &[Op], mine: &[usize], done: u32, holds: Option<usize>) -> bool {
    let open = |i: &&usize| done & (1 << **i) == 0;
    let must = |i: &usize| ops[*i].ended.is_some();
    if !mine.iter().filter(open).any(must) {
        return true;
    }
    // Nobody can come after an operation that had ended before it began.
    let first_end = mine.iter().filter(open).filter_map(|i| ops[*i].ended.map(|(at, _)| at)).min();
    mine.iter().filter(open).any(|i| {
        let op = &ops[*i];
        if op.begun > first_end {
            return false;
        }
        let holds_then = match (op.want, op.ended.map(|(_, ended)| ended)) {
            (Want::Get, Some(Ended::Read(seen))) => (seen == holds).then_some(holds),
            (Want::Get, _) => None,
            (want, ended) => {
                let applies = match want {
                    Want::Put | Want::Get => true,
                    Want::PutIfAbsent => holds.is_none(),
                    Want::Swap(of) => holds == Some(of),
                    Want::Delete => holds.is_some(),
                };
                let after = if want == Want::Delete { None } else { Some(*i) };
                match ended {
                    Some(Ended::Refused) => (!applies).then_some(holds),
                    // One that has not been heard of and does not apply has no effect; it need not be put in the order.
                    _ => applies.then_some(after),
                }
            }
        };
        holds_then.is_some_and(|holds| search(ops, mine, done | (1 << *i), holds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(want: Want, begun: u32, ended: Option<(u32, Ended)>) -> Op {
        let id = Id::ZERO;
        Op { want, id, attempts: 0, after: None, begun: Some(begun), ended, at: None }
    }

    fn done(at: u32) -> Option<(u32, Ended)> {
        Some((at, Ended::Done(Version::default())))
    }

    fn read(at: u32, seen: Option<usize>) -> Option<(u32, Ended)> {
        Some((at, Ended::Read(seen)))
    }

    #[test]
    fn a_read_sees_the_last_write_that_ended_before_it() {
        let ok = [op(Want::Put, 0, done(1)), op(Want::Put, 2, done(3)), op(Want::Get, 4, read(5, Some(1)))];
        assert!(is_linearizable(&ok, &Id::ZERO));
        let stale = [op(Want::Put, 0, done(1)), op(Want::Put, 2, done(3)), op(Want::Get, 4, read(5, Some(0)))];
        assert!(!is_linearizable(&stale, &Id::ZERO));
        let lost = [op(Want::Put, 0, done(1)), op(Want::Get, 2, read(3, None))];
        assert!(!is_linearizable(&lost, &Id::ZERO));
    }

    #[test]
    fn an_unknown_write_may_be_seen_or_not_but_is_not_taken_back() {
        for seen in [None, Some(0)] {
            assert!(is_linearizable(&[op(Want::Put, 0, None), op(Want::Get, 1, read(2, seen))], &Id::ZERO));
        }
        let back = [op(Want::Put, 0, None), op(Want::Get, 1, read(2, Some(0))), op(Want::Get, 3, read(4, None))];
        assert!(!is_linearizable(&back, &Id::ZERO));
    }

    #[test]
    fn of_two_swaps_of_one_value_one_is_refused() {
        let swaps = |second| [op(Want::Put, 0, done(1)), op(Want::Swap(0), 2, done(4)), op(Want::Swap(0), 3, second)];
        assert!(is_linearizable(&swaps(Some((5, Ended::Refused))), &Id::ZERO));
        assert!(!is_linearizable(&swaps(done(5)), &Id::ZERO));
        assert!(is_linearizable(&swaps(None), &Id::ZERO));
    }

    #[test]
    fn deletes_find_a_value_or_are_refused() {
        let history = |ended| [op(Want::Put, 0, done(1)), op(Want::Delete, 2, done(3)), op(Want::Delete, 4, ended)];
        assert!(is_linearizable(&history(Some((5, Ended::Refused))), &Id::ZERO));
        assert!(!is_linearizable(&history(done(5)), &Id::ZERO));
    }
}
