//! The history of one key in the order of its versions.

use std::collections::BTreeMap;

use chordal_protocol::{RequestId, Version};

use super::{Digest, Kind, Operation, Outcome, Rule, Violation};

/// When something took place, and the operation that tells of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) invoked: u64,
    /// The last moment; `u64::MAX` if there is none.
    pub(super) ended: u64,
    pub(super) operation: usize,
}

/// A write that has happened or may have: all attempts of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub(super) span: Span,
    pub(super) kind: Kind,
    pub(super) version: Option<Version>,
}

/// A version, with the write that made it, if that is known, and with what has seen it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) version: Version,
    pub(super) write: Option<Write>,
    /// Of those who have seen it: who ended first, and who was invoked last.
    pub(super) seen: Option<(Span, Span)>,
}

impl Point {
    /// Of all that belongs to this version, what ended first.
    pub(super) fn first_end(&self) -> Option<Span> {
        let all = [self.write.map(|write| write.span), self.seen.map(|(first, _)| first)];
        all.into_iter().flatten().min_by_key(|span| span.ended)
    }

    /// Of all that belongs to this version, what was invoked last.
    pub(super) fn last_invoked(&self) -> Option<Span> {
        let all = [self.write.map(|write| write.span), self.seen.map(|(_, last)| last)];
        all.into_iter().flatten().max_by_key(|span| span.invoked)
    }

    /// Whether there is nothing after it.
    pub(super) fn is_delete(&self) -> bool {
        self.write.is_some_and(|write| write.kind == Kind::Delete)
    }
}

/// One key.
#[derive(Debug)]
pub(super) struct Register<'a> {
    history: &'a [Operation],
    /// The versions that somebody was told of, in order.
    pub(super) points: Vec<Point>,
    /// Writes that nobody was told of. They may have happened.
    pub(super) unseen: Vec<Write>,
    /// Where nothing was seen.
    pub(super) absent: Vec<Span>,
}

impl<'a> Register<'a> {
    /// Reads the operations of one key, which stand at `places` of the history.
    pub(super) fn of(history: &'a [Operation], places: &[usize]) -> Result<Register<'a>, Violation> {
        let mut reader = Reader {
            history,
            requests: BTreeMap::new(),
            values: BTreeMap::new(),
            writes: Vec::new(),
            seen: Vec::new(),
            absent: Vec::new(),
        };
        places.iter().try_for_each(|at| reader.read(*at))?;
        reader.give_versions()?;
        let points = reader.points()?;
        let unseen = reader.writes.into_iter().filter(|write| write.version.is_none()).collect();
        Ok(Register { history, points, unseen, absent: reader.absent })
    }

    pub(super) fn violation(&self, rule: Rule, operations: &[Option<Span>]) -> Violation {
        violation(self.history, rule, operations.iter().flatten().map(|span| span.operation))
    }
}

fn violation(history: &[Operation], rule: Rule, places: impl IntoIterator<Item = usize>) -> Violation {
    let mut places: Vec<usize> = places.into_iter().collect();
    places.sort_unstable();
    places.dedup();
    let mut operations: Vec<Operation> = places.into_iter().map(|at| history[at]).collect();
    operations.sort_by_key(|operation| (operation.invoked, operation.ended()));
    Violation { key: operations[0].key, rule, operations }
}

/// What is known of a request: its first operation, and its write, if one of its attempts may have happened.
#[derive(Debug, Clone, Copy)]
struct Wish {
    operation: usize,
    write: Option<usize>,
}

struct Reader<'a> {
    history: &'a [Operation],
    requests: BTreeMap<RequestId, Wish>,
    values: BTreeMap<Digest, RequestId>,
    writes: Vec<Write>,
    seen: Vec<(Version, Option<Digest>, Span)>,
    absent: Vec<Span>,
}

impl Reader<'_> {
    fn violation<const N: usize>(&self, rule: Rule, places: [usize; N]) -> Violation {
        violation(self.history, rule, places)
    }

    fn read(&mut self, at: usize) -> Result<(), Violation> {
        let operation = &self.history[at];
        let span = Span { invoked: operation.invoked, ended: operation.ended(), operation: at };
        let has_answer = operation.outcome != Outcome::Unknown;
        if operation.returned.map_or(has_answer, |returned| returned < operation.invoked) {
            return Err(self.violation(Rule::WellFormed, [at]));
        }
        if operation.kind != Kind::Get {
            self.know(at)?;
        }
        match (operation.kind, operation.outcome) {
            (_, Outcome::Refused) | (Kind::Get, Outcome::Unknown) => {}
            (Kind::Get, Outcome::Read(None)) | (Kind::Delete, Outcome::ConditionFailed(None)) => self.absent.push(span),
            (Kind::Get, Outcome::Read(Some((version, value)))) => self.seen.push((version, Some(value), span)),
            (Kind::Cas { expected, .. }, Outcome::ConditionFailed(found)) => match found {
                found if found == expected => return Err(self.violation(Rule::ConditionDidNotHold, [at])),
                None => self.absent.push(span),
                Some(version) => self.seen.push((version, None, span)),
            },
            (Kind::Put(_) | Kind::Delete | Kind::Cas { .. }, Outcome::Done(version)) => {
                self.attempt(span, operation, Some(version))?;
            }
            (Kind::Put(_) | Kind::Delete | Kind::Cas { .. }, Outcome::Unknown) => {
                self.attempt(span, operation, None)?
            }
            _ => return Err(self.violation(Rule::WellFormed, [at])),
        }
        Ok(())
    }

    /// Requests have one wish each, and values one request each.
    fn know(&mut self, at: usize) -> Result<(), Violation> {
        let operation = &self.history[at];
        let first = *self.requests.entry(operation.request).or_insert(Wish { operation: at, write: None });
        if self.history[first.operation].kind != operation.kind {
            return Err(self.violation(Rule::WellFormed, [first.operation, at]));
        }
        if let Some(value) = operation.kind.value() {
            let owner = *self.values.entry(value).or_insert(operation.request);
            if owner != operation.request {
                return Err(self.violation(Rule::WellFormed, [self.requests[&owner].operation, at]));
            }
        }
        Ok(())
    }

    /// An attempt that has happened, or may have: the write is not before the first of them, and, if one was acknowledged,
    /// not after the first of those.
    fn attempt(&mut self, span: Span, operation: &Operation, version: Option<Version>) -> Result<(), Violation> {
        let Some(wish) = self.requests.get_mut(&operation.request) else { return Ok(()) };
        let Some(known) = wish.write else {
            wish.write = Some(self.writes.len());
            self.writes.push(Write { span, kind: operation.kind, version });
            return Ok(());
        };
        let write = &mut self.writes[known];
        let earlier = write.span.operation;
        if version.is_some() && write.version.is_some() && write.version != version {
            return Err(self.violation(Rule::OneVersionOfAWrite, [earlier, span.operation]));
        }
        write.version = write.version.or(version);
        write.span.invoked = write.span.invoked.min(span.invoked);
        if span.ended < write.span.ended {
            write.span.ended = span.ended;
            write.span.operation = span.operation;
        }
        Ok(())
    }

    /// A write of unknown outcome whose value was read has happened, and the read tells its version.
    fn give_versions(&mut self) -> Result<(), Violation> {
        for (version, value, span) in &self.seen {
            let Some(value) = value else { continue };
            let Some(wish) = self.values.get(value).map(|request| self.requests[request]) else {
                return Err(self.violation(Rule::ReadWhatWasWritten, [span.operation]));
            };
            let Some(write) = wish.write else {
                return Err(self.violation(Rule::RefusedHasNoEffect, [wish.operation, span.operation]));
            };
            let write = &mut self.writes[write];
            let known = *write.version.get_or_insert(*version);
            if known != *version {
                let first = write.span.operation;
                let other = self.seen.iter().find(|(version, seen, _)| *version == known && *seen == Some(*value));
                let other = other.map_or(first, |(.., span)| span.operation);
                return Err(self.violation(Rule::OneVersionOfAWrite, [first, other, span.operation]));
            }
        }
        Ok(())
    }

    fn points(&mut self) -> Result<Vec<Point>, Violation> {
        let mut points: Vec<Point> = Vec::new();
        let written = self.writes.iter().filter_map(|write| Some((write.version?, write)));
        points.extend(written.map(|(version, write)| Point { version, write: Some(*write), seen: None }));
        points.sort_by_key(|point| point.version);
        if let Some([one, other]) = points.array_windows().find(|[one, other]| one.version == other.version) {
            let places = [one, other].map(|point| point.write.map(|write| write.span.operation));
            return Err(violation(self.history, Rule::OneWriteOfAVersion, places.into_iter().flatten()));
        }
        // Versions that are known from conditions only.
        let expected = points.iter().filter_map(|point| match point.write?.kind {
            Kind::Cas { expected, .. } => expected,
            _ => None,
        });
        let told = expected.chain(self.seen.iter().map(|(version, ..)| *version));
        let is_new = |version: &Version| points.binary_search_by_key(version, |point| point.version).is_err();
        let mut nameless: Vec<Version> = told.filter(is_new).collect();
        nameless.sort_unstable();
        nameless.dedup();
        points.extend(nameless.into_iter().map(|version| Point { version, write: None, seen: None }));
        points.sort_by_key(|point| point.version);
        for (version, _, span) in &self.seen {
            let Ok(at) = points.binary_search_by_key(version, |point| point.version) else { continue };
            let point = &mut points[at];
            if let Some(write) = point.write.filter(|write| write.kind == Kind::Delete) {
                return Err(self.violation(Rule::ReadWhatWasWritten, [write.span.operation, span.operation]));
            }
            let (first, last) = point.seen.get_or_insert((*span, *span));
            if span.ended < first.ended {
                *first = *span;
            }
            if span.invoked > last.invoked {
                *last = *span;
            }
        }
        Ok(points)
    }
}
