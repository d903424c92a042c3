//! Where nothing was seen, and what must be supposed for it.
//!
//! What saw nothing has no version. It belongs in one of the gaps between versions: before the first write or after a delete,
//! where nothing is (an *empty* gap), or after a value, if a delete of unknown outcome is supposed there. Its times leave it a
//! window of gaps ([`Gaps::window`]).
//!
//! The fewest deletes, each as late as possible: take what saw nothing by the end of its window; if no empty gap and no
//! supposed delete is in the window, suppose one in the last gap that admits it (the greedy stabbing of intervals). Then let
//! each take the earliest place that it can, for whatever is ahead of it must be invoked before it has ended. So it binds the
//! delete of its own gap, and no other: if it could not go to an earlier one, that is because something between had ended
//! before it was invoked, which binds that one more. Deadlines grow with the gaps, so the deletes, in order of their
//! invocation, are given out in order of the gaps. No other choice does better: against any other one the i-th supposed
//! delete is no earlier, and whatever binds it would have bound the i-th there.
//!
//! Likewise a delete that was done where nothing was is explained by a put of unknown outcome before it.

use super::order::{Gaps, is_room};
use super::register::{Register, Span, Write};
use super::{Kind, Rule, Violation};

/// A write of unknown outcome that must have happened.
#[derive(Debug)]
struct Supposed {
    /// By when it must have been invoked.
    deadline: u64,
    gap: usize,
    /// What asks for it.
    because: Option<Span>,
}

/// Finds a place for everything that saw nothing. Tells whether less was asked than could have been.
pub(super) fn place(register: &Register, gaps: &Gaps) -> Result<bool, Violation> {
    let count = register.points.len() + 1;
    let kinds: Vec<Gap> = (0..count).map(|gap| Gap::of(register, gap)).collect();
    let (holes, is_lenient) = stab(register, gaps, &kinds)?;
    // Of what takes its place in a gap, what ended first.
    let mut first_end: Vec<Option<Span>> = vec![None; count];
    let mut next_hole = vec![usize::MAX; count + 1];
    for gap in (0..count).rev() {
        next_hole[gap] = if kinds[gap].is_empty || holes[gap] { gap } else { next_hole[gap + 1] };
    }
    for span in &register.absent {
        let here = &mut first_end[next_hole[gaps.window(span).0]];
        if here.is_none_or(|first| span.ended < first.ended) {
            *here = Some(*span);
        }
    }
    let next_write = |gap: usize| register.points.get(gap).and_then(|point| point.write).map(|write| write.span);
    let deletes = (0..count).filter(|gap| holes[*gap]).map(|gap| {
        let first = first_end[gap];
        let deadline = gaps.deadline(gap).min(first.map_or(u64::MAX, |span| span.ended));
        Supposed { deadline, gap, because: first.or(next_write(gap)) }
    });
    suppose(register, deletes, |write| write.kind == Kind::Delete, Rule::AbsentOnlyWhereAbsent)?;
    let puts = (0..count).filter(|gap| kinds[*gap].wants_put);
    let puts = puts.map(|gap| Supposed { deadline: gaps.deadline(gap), gap, because: next_write(gap) });
    let puts_anything = |write: &Write| matches!(write.kind, Kind::Put(_) | Kind::Cas { expected: None, .. });
    suppose(register, puts, puts_anything, Rule::DeletesSomething)?;
    Ok(is_lenient)
}

/// What a gap is like.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// Nothing is there.
    is_empty: bool,
    /// A value is there, and a delete can be supposed.
    admits_delete: bool,
    /// A value is there, and what follows says that it was deleted.
    wants_delete: bool,
    /// Nothing is there, and what follows says that something was.
    wants_put: bool,
    /// A value is there, and what follows is a delete that found one.
    is_deleted_next: bool,
}

impl Gap {
    fn of(register: &Register, gap: usize) -> Gap {
        let is_empty = gap == 0 || register.points[gap - 1].is_delete();
        let next = register.points.get(gap).and_then(|point| point.write).map(|write| write.kind);
        let follows_directly = matches!(next, Some(Kind::Cas { expected: Some(_), .. }));
        Gap {
            is_empty,
            admits_delete: !is_empty && !follows_directly && is_room(register, gap),
            wants_delete: !is_empty && matches!(next, Some(Kind::Cas { expected: None, .. })),
            wants_put: is_empty && next == Some(Kind::Delete),
            is_deleted_next: !is_empty && next == Some(Kind::Delete),
        }
    }
}

/// In which gaps deletes must be supposed, and whether one of them would need a put, too.
fn stab(register: &Register, gaps: &Gaps, kinds: &[Gap]) -> Result<(Vec<bool>, bool), Violation> {
    let mut holes: Vec<bool> = kinds.iter().map(|kind| kind.wants_delete).collect();
    // The last gap up to each that is good for it.
    let last = |is_good: &dyn Fn(&Gap) -> bool| {
        let mut found = None;
        let mut last = Vec::with_capacity(kinds.len());
        for (gap, kind) in kinds.iter().enumerate() {
            found = if is_good(kind) { Some(gap) } else { found };
            last.push(found);
        }
        last
    };
    let last_hole = last(&|kind| kind.is_empty || kind.wants_delete);
    let last_chance = last(&|kind| kind.admits_delete);
    let mut windows: Vec<(usize, usize, Span)> = Vec::with_capacity(register.absent.len());
    for span in &register.absent {
        let (first, end) = gaps.window(span);
        windows.push((end, first, *span));
    }
    windows.sort_by_key(|(end, ..)| *end);
    let mut supposed: Option<usize> = None;
    let mut is_lenient = false;
    for (end, first, span) in windows {
        if last_hole[end].max(supposed).is_some_and(|hole| hole >= first) {
            continue;
        }
        let Some(gap) = last_chance[end].filter(|gap| *gap >= first) else {
            let earlier = first.checked_sub(1).and_then(|gap| gaps.after(gap));
            return Err(register.violation(Rule::AbsentOnlyWhereAbsent, &[earlier, Some(span)]));
        };
        holes[gap] = true;
        supposed = Some(gap);
        is_lenient |= kinds[gap].is_deleted_next;
    }
    Ok((holes, is_lenient))
}

/// Gives to each what is supposed a write that was invoked early enough, the earliest to the earliest.
fn suppose(
    register: &Register,
    supposed: impl Iterator<Item = Supposed>,
    is_of_use: impl Fn(&Write) -> bool,
    rule: Rule,
) -> Result<(), Violation> {
    let mut writes: Vec<&Write> = register.unseen.iter().filter(|write| is_of_use(write)).collect();
    writes.sort_by_key(|write| write.span.invoked);
    let mut writes = writes.into_iter();
    for Supposed { deadline, gap, because } in supposed {
        let has_room = is_room(register, gap);
        if !has_room || writes.next().is_none_or(|write| write.span.invoked > deadline) {
            let before = gap.checked_sub(1).map(|gap| register.points[gap]);
            let before = before.and_then(|point| point.write.map(|write| write.span).or(point.first_end()));
            return Err(register.violation(rule, &[before, because]));
        }
    }
    Ok(())
}

/// A version whose value nobody has read was written by somebody who was told nothing. Whether those are needed elsewhere,
/// too, is not asked.
pub(super) fn nameless(register: &Register, gaps: &Gaps) -> Result<bool, Violation> {
    let slots: Vec<usize> = (0..register.points.len()).filter(|k| register.points[*k].write.is_none()).collect();
    let mut unseen: Vec<&Write> = register.unseen.iter().collect();
    unseen.sort_by_key(|write| write.span.invoked);
    let (mut invoked, mut puts, mut if_absent) = (unseen.into_iter().peekable(), 0u64, 0u64);
    let mut swaps: std::collections::BTreeSet<_> = std::collections::BTreeSet::new();
    for slot in &slots {
        while let Some(write) = invoked.next_if(|write| write.span.invoked <= gaps.deadline(*slot)) {
            match write.kind {
                Kind::Put(_) => puts += 1,
                Kind::Cas { expected: None, .. } => if_absent += 1,
                Kind::Cas { expected: Some(version), .. } => {
                    swaps.insert(version);
                }
                Kind::Delete | Kind::Get => {}
            }
        }
        let kind = Gap::of(register, *slot);
        let previous = slot.checked_sub(1).map(|k| register.points[k]);
        // What serves in the fewest places goes first.
        if !kind.is_empty && previous.is_some_and(|previous| swaps.contains(&previous.version)) {
            continue;
        }
        let from =
            if if_absent > 0 && (kind.is_empty || is_room(register, *slot)) { &mut if_absent } else { &mut puts };
        if *from == 0 {
            let point = register.points[*slot];
            let next = register.points.get(slot + 1).and_then(|point| point.write).map(|write| write.span);
            return Err(register.violation(Rule::SeenVersionWasWritten, &[point.first_end().or(next)]));
        }
        *from -= 1;
    }
    Ok(!slots.is_empty())
}
