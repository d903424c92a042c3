//! The order of the versions against that of the clock, and what conditions saw.

use chordal_protocol::Version;

use super::register::{Register, Span};
use super::{Kind, Rule, Violation};

/// The gaps between the versions of a key, and what is around them. Gap `k` is before point `k`, and the last one is after
/// all of them.
#[derive(Debug)]
pub(super) struct Gaps {
    /// Of all points before a gap, what was invoked last.
    before: Vec<Option<Span>>,
    /// Of all points after a gap, what ended first.
    after: Vec<Option<Span>>,
}

impl Gaps {
    pub(super) fn of(register: &Register) -> Gaps {
        let points = &register.points;
        let mut before = vec![None; points.len() + 1];
        let mut after = vec![None; points.len() + 1];
        for (k, point) in points.iter().enumerate() {
            let both = [before[k], point.last_invoked()];
            before[k + 1] = both.into_iter().flatten().max_by_key(|span: &Span| span.invoked);
        }
        for (k, point) in points.iter().enumerate().rev() {
            let both = [after[k + 1], point.first_end()];
            after[k] = both.into_iter().flatten().min_by_key(|span: &Span| span.ended);
        }
        Gaps { before, after }
    }

    /// What was invoked last before this gap.
    pub(super) fn before(&self, gap: usize) -> Option<Span> {
        self.before[gap]
    }

    /// What ended first after this gap.
    pub(super) fn after(&self, gap: usize) -> Option<Span> {
        self.after[gap]
    }

    /// By when a thing in this gap must have happened, for the sake of what comes later.
    pub(super) fn deadline(&self, gap: usize) -> u64 {
        self.after[gap].map_or(u64::MAX, |span| span.ended)
    }

    /// The gaps in which something can have taken place: the first one before which everything is that had ended when it was
    /// invoked, and the last one before which nothing is that was invoked when it had ended. None if the first is greater.
    pub(super) fn window(&self, span: &Span) -> (usize, usize) {
        let first = self.after.partition_point(|after| after.is_some_and(|after| after.ended < span.invoked));
        let beyond = self.before.partition_point(|before| before.is_none_or(|before| before.invoked <= span.ended));
        (first, beyond - 1)
    }
}

/// Points in time can be chosen in this order if and only if nothing ended before something ahead of it in the order was
/// invoked.
pub(super) fn real_time(register: &Register, gaps: &Gaps) -> Result<(), Violation> {
    for (k, point) in register.points.iter().enumerate() {
        if let (Some(write), Some((first, _))) = (point.write, point.seen)
            && first.ended < write.span.invoked
        {
            return Err(register.violation(Rule::NotBeforeItsWrite, &[Some(write.span), Some(first)]));
        }
        let (Some(ahead), Some(here)) = (gaps.before(k), point.first_end()) else { continue };
        if here.ended < ahead.invoked {
            let is_write = |point: &super::register::Point| {
                point.write.is_some_and(|write| write.span.operation == ahead.operation)
            };
            let rule = if register.points[..k].iter().any(is_write) { Rule::WritesInOrder } else { Rule::NoStaleRead };
            return Err(register.violation(rule, &[Some(ahead), Some(here)]));
        }
    }
    Ok(())
}

/// Each conditional write directly follows what it expected: nothing that is known to have happened is between.
pub(super) fn conditions(register: &Register) -> Result<(), Violation> {
    for (k, point) in register.points.iter().enumerate() {
        let Some(write) = point.write else { continue };
        let previous = k.checked_sub(1).map(|k| register.points[k]);
        let there = previous.filter(|previous| !previous.is_delete());
        let holds = match write.kind {
            Kind::Cas { expected: Some(expected), .. } => there.is_some_and(|there| there.version == expected),
            Kind::Cas { expected: None, .. } => there.is_none() || is_room(register, k),
            _ => true,
        };
        if !holds {
            let previous =
                previous.and_then(|previous| previous.write.map(|write| write.span).or(previous.first_end()));
            return Err(register.violation(Rule::ConditionHeld, &[previous, Some(write.span)]));
        }
    }
    Ok(())
}

/// Whether a version is free in this gap, for a write that nobody was told of.
pub(super) fn is_room(register: &Register, gap: usize) -> bool {
    let Some(next) = register.points.get(gap) else { return true };
    let least = match gap.checked_sub(1) {
        Some(previous) => register.points[previous].version.following(),
        None => Version::default(),
    };
    least < next.version
}

/// The versions are in order, and each but the greatest has one that follows it.
pub(super) trait Following {
    /// The least version that is greater than this one.
    fn following(&self) -> Version;
}

impl Following for Version {
    fn following(&self) -> Version {
        match self.sequence.checked_add(1) {
            Some(sequence) => Version { sequence, ..*self },
            None => Version { epoch: self.epoch.saturating_add(1), sequence: 0 },
        }
    }
}
