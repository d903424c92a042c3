//! What clients asked and heard, on one clock.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chordal_protocol::{Id, RequestId};
use chordal_sim::history::{Kind, Operation, Outcome};

/// All operations of all clients. Each stands here before it is sent, so that a copy made at any time is a history.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    operations: Vec<Operation>,
    /// What each of them was in HTTP.
    forms: Vec<&'static str>,
    /// Answers that no node may give, whatever happens.
    wrong: Vec<String>,
}

/// An operation that is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked(usize);

/// How often something ended how.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) ok: u64,
    pub(crate) condition_failed: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

impl History {
    pub(crate) fn new() -> History {
        History { began: Instant::now(), written: Mutex::default() }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// To be called before anything is sent.
    pub(crate) fn ask(&self, form: &'static str, client: u64, key: Id, kind: Kind, request: RequestId) -> Asked {
        let invoked = self.now();
        let mut written = self.written();
        written.forms.push(form);
        let outcome = Outcome::Unknown;
        written.operations.push(Operation { client, key, kind, request, invoked, returned: None, outcome });
        Asked(written.operations.len() - 1)
    }

    /// What was heard, and when it was.
    pub(crate) fn end(&self, asked: Asked, returned: u64, outcome: Outcome) {
        let operation = &mut self.written().operations[asked.0];
        (operation.returned, operation.outcome) = (Some(returned), outcome);
    }

    /// An answer that no node may give.
    pub(crate) fn wrong(&self, what: String) {
        self.written().wrong.push(what);
    }

    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.written().wrong.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.written().operations.len()
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.written().operations.clone()
    }

    /// How operations ended, by what they were.
    pub(crate) fn ends(&self) -> BTreeMap<&'static str, Ends> {
        let written = self.written();
        let mut ends: BTreeMap<&'static str, Ends> = BTreeMap::new();
        for (form, operation) in written.forms.iter().zip(&written.operations) {
            let ends = ends.entry(form).or_default();
            let count = match operation.outcome {
                Outcome::Read(_) | Outcome::Done(_) => &mut ends.ok,
                Outcome::ConditionFailed(_) => &mut ends.condition_failed,
                Outcome::Refused => &mut ends.refused,
                Outcome::Unknown => &mut ends.unknown,
            };
            *count += 1;
        }
        ends
    }

    /// Writes it down, an operation a line.
    pub(crate) fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for operation in self.operations() {
            serde_json::to_writer(&mut file, &operation)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }
}

/// How many attempts were there to do what had been asked for before.
pub(crate) fn asked_again(history: &[Operation]) -> usize {
    let writes = || history.iter().filter(|operation| operation.kind != Kind::Get);
    writes().count() - writes().map(|write| write.request).collect::<BTreeSet<_>>().len()
}

/// The longest time in which no put was acknowledged: of any key, and of one key.
pub(crate) fn longest_without_a_put(history: &[Operation]) -> (Duration, Duration) {
    let ended = history.iter().filter_map(|it| it.returned).max().unwrap_or_default();
    let is_put = |it: &&Operation| it.kind.value().is_some() && matches!(it.outcome, Outcome::Done(_));
    let mut by_key: BTreeMap<Id, Vec<u64>> = BTreeMap::new();
    for put in history.iter().filter(is_put) {
        by_key.entry(put.key).or_default().extend(put.returned);
    }
    let longest = |mut times: Vec<u64>| {
        times.extend([0, ended]);
        times.sort_unstable();
        times.array_windows().map(|[one, next]| next - one).max().unwrap_or_default()
    };
    let of_any = longest(by_key.values().flatten().copied().collect());
    let of_one = by_key.into_values().map(longest).max().unwrap_or(ended);
    (Duration::from_nanos(of_any), Duration::from_nanos(of_one))
}
