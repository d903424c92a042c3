//! One suite for both stores, against an oracle that keeps records in a plain map and says everything the slow way.

mod faults;
mod files;
mod test_disk;
mod writing;

use std::collections::BTreeMap;

use chordal_protocol::{Condition, Content, Id, Interval, Record, RequestId, Version, Write, Written};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tempfile::TempDir;

use super::change::LONGEST_KEPT_KEY;
use super::{Change, Changed, DiskStore, MemoryStore, Store};

/// A store under test, which can be closed and opened again.
enum Subject {
    Memory(MemoryStore),
    Disk(Option<DiskStore>, TempDir),
}

impl Subject {
    fn both() -> [Subject; 2] {
        let directory = tempfile::tempdir().unwrap();
        let disk = DiskStore::open(directory.path()).unwrap();
        [Subject::Memory(MemoryStore::new()), Subject::Disk(Some(disk), directory)]
    }

    fn store(&self) -> &dyn Store {
        match self {
            Subject::Memory(store) => store,
            Subject::Disk(store, _) => store.as_ref().unwrap(),
        }
    }

    fn reopen(&mut self) {
        if let Subject::Disk(store, directory) = self {
            drop(store.take());
            *store = Some(DiskStore::open(directory.path()).unwrap());
        }
    }
}

/// Sixteen points of the circle, the first and the last among them.
fn point(x: u8) -> Id {
    if x % 16 == 15 { Id::MAX } else { Id::from_hex_prefix(&format!("{:x}", x % 16)).unwrap() }
}

fn version(epoch: u64, sequence: u64) -> Version {
    Version { epoch, sequence }
}

fn value(bytes: impl Into<Vec<u8>>) -> Content {
    Content::Value { bytes: bytes.into(), content_type: "text/plain".to_owned() }
}

/// An unconditional write of version `(1, n)` by request `n`.
fn put(id: Id, n: u64, bytes: impl Into<Vec<u8>>) -> Change {
    let write =
        Write { id, key: None, content: value(bytes), condition: Condition::Always, request: RequestId(n.into()) };
    Change::Write { write, version: version(1, n) }
}

fn done(n: u64) -> Changed {
    Changed::Write(Written::Done(version(1, n)))
}

#[derive(Debug, Default)]
struct Oracle {
    records: BTreeMap<Id, Record>,
    state: BTreeMap<&'static str, Vec<u8>>,
}

impl Oracle {
    fn commit(&mut self, changes: &[Change]) -> Vec<Changed> {
        changes.iter().map(|change| self.change(change)).collect()
    }

    fn change(&mut self, change: &Change) -> Changed {
        match change {
            Change::Write { write, version } => return Changed::Write(self.write(write, *version)),
            Change::Merge(records) => {
                for new in records {
                    let old = self.records.entry(new.id).or_insert_with(|| new.clone());
                    if new.version > old.version {
                        *old = new.clone();
                    }
                }
            }
            Change::Drop(range) => self.records.retain(|id, _| !range.contains(id)),
            Change::Put { name, bytes } => drop(self.state.insert(name, bytes.clone())),
        }
        Changed::Done
    }

    fn write(&mut self, write: &Write, version: Version) -> Written {
        let old = self.records.get(&write.id).cloned();
        let live = old.clone().filter(Record::is_live);
        if let Some(old) = &old
            && old.request == write.request
        {
            return Written::Done(old.version);
        }
        let allowed = match write.condition {
            Condition::Always => true,
            Condition::Exists => live.is_some(),
            Condition::Absent => live.is_none(),
            Condition::Is(version) => live.as_ref().map(|live| live.version) == Some(version),
        };
        if !allowed {
            return Written::Refused(live.map(|live| live.version));
        }
        let mut key = write.key.clone();
        if key.is_none() && write.content == Content::Tombstone {
            key = old.and_then(|old| match old.content {
                Content::Value { bytes, .. } if old.key.is_none() && bytes.len() <= LONGEST_KEPT_KEY => Some(bytes),
                _ => old.key,
            });
        }
        let (content, request) = (write.content.clone(), write.request);
        self.records.insert(write.id, Record { id: write.id, key, content, version, request });
        Written::Done(version)
    }

    fn scan(&self, range: Interval, after: Option<Id>, limit: usize, bytes: usize) -> Vec<Record> {
        let mut found: Vec<&Record> = self.records.values().filter(|record| range.contains(&record.id)).collect();
        found.sort_by_key(|record| range.lo.distance(&record.id));
        if let Some(after) = after {
            found.retain(|record| range.contains(&after) && range.lo.distance(&record.id) > range.lo.distance(&after));
        }
        found.truncate(limit);
        let mut total = 0;
        let fitting = found.iter().take_while(|record| {
            total += record.key.as_ref().map_or(0, Vec::len);
            if let Content::Value { bytes, content_type } = &record.content {
                total += bytes.len() + content_type.len();
            }
            total <= bytes
        });
        let count = fitting.count().max(found.len().min(1));
        found.into_iter().take(count).cloned().collect()
    }

    fn count(&self, range: Interval) -> u64 {
        self.records.values().filter(|record| range.contains(&record.id) && record.is_live()).count() as u64
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Change>),
    Reopen,
    Scan(Interval, Option<Id>, usize, usize),
}

fn any_point() -> impl Strategy<Value = Id> {
    (0u8..16).prop_map(point)
}

fn any_range() -> impl Strategy<Value = Interval> {
    (any_point(), any_point()).prop_map(|(lo, hi)| Interval::half_open(lo, hi))
}

fn any_version() -> impl Strategy<Value = Version> {
    (0u64..3, 0u64..4).prop_map(|(epoch, sequence)| version(epoch, sequence))
}

fn any_content() -> impl Strategy<Value = Content> {
    let near_the_limit = LONGEST_KEPT_KEY - 1..LONGEST_KEPT_KEY + 2;
    prop_oneof![
        2 => Just(Content::Tombstone),
        3 => prop_oneof![0usize..4, near_the_limit].prop_map(|length| value(vec![b'v'; length])),
    ]
}

fn any_key() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![Just(None), Just(Some(b"key".to_vec()))]
}

fn any_record() -> impl Strategy<Value = Record> {
    (any_point(), any_key(), any_content(), any_version(), 0u128..8).prop_map(|(id, key, content, version, request)| {
        Record { id, key, content, version, request: RequestId(request) }
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    let condition = prop_oneof![
        3 => Just(Condition::Always),
        1 => Just(Condition::Exists),
        1 => Just(Condition::Absent),
        1 => any_version().prop_map(Condition::Is),
    ];
    prop_oneof![
        8 => (any_record(), condition).prop_map(|(record, condition)| {
            let Record { id, key, content, version, request } = record;
            Change::Write { write: Write { id, key, content, condition, request }, version }
        }),
        4 => vec(any_record(), 0..6).prop_map(Change::Merge),
        1 => any_range().prop_map(Change::Drop),
        1 => (prop_oneof![Just("view"), Just("ring")], vec(any::<u8>(), 0..4))
            .prop_map(|(name, bytes)| Change::Put { name, bytes }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![Just(0usize), 0usize..5_000, Just(usize::MAX)];
    prop_oneof![
        6 => vec(any_change(), 0..8).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
        6 => (any_range(), option::of(any_point()), 0usize..20, bytes)
            .prop_map(|(range, after, limit, bytes)| Step::Scan(range, after, limit, bytes)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_stores_do_what_the_oracle_does(steps in vec(any_step(), 1..24)) {
        for mut subject in Subject::both() {
            let mut oracle = Oracle::default();
            for step in &steps {
                match step {
                    Step::Commit(changes) => {
                        prop_assert_eq!(subject.store().commit(changes).unwrap(), oracle.commit(changes));
                    }
                    Step::Reopen => subject.reopen(),
                    Step::Scan(range, after, limit, bytes) => {
                        let found = subject.store().scan(*range, *after, *limit, *bytes).unwrap();
                        prop_assert_eq!(found, oracle.scan(*range, *after, *limit, *bytes));
                        prop_assert_eq!(subject.store().count(*range).unwrap(), oracle.count(*range));
                    }
                }
                for id in (0..16).map(point) {
                    prop_assert_eq!(subject.store().get(&id).unwrap(), oracle.records.get(&id).cloned());
                }
                for name in ["view", "ring"] {
                    prop_assert_eq!(subject.store().state(name).unwrap(), oracle.state.get(name).cloned());
                }
            }
        }
    }
}

#[test]
fn a_scan_can_be_walked_page_by_page_round_the_circle() {
    for subject in Subject::both() {
        let changes: Vec<Change> = (0..16).map(|x| put(point(x), u64::from(x), [x])).collect();
        subject.store().commit(&changes).unwrap();
        let (mut walked, mut after) = (Vec::new(), None);
        while let Some(last) = {
            let page = subject.store().scan(Interval::whole(point(11)), after, 3, usize::MAX).unwrap();
            walked.extend(page.iter().map(|record| record.id));
            page.last().map(|record| record.id)
        } {
            after = Some(last);
        }
        let clockwise: Vec<Id> = (11..27).map(point).collect();
        assert_eq!(walked, clockwise);
    }
}

#[test]
fn a_request_that_is_asked_again_is_not_done_again() {
    for subject in Subject::both() {
        let id = point(1);
        let first = put(id, 1, "one");
        assert_eq!(subject.store().commit(&[first.clone(), first.clone()]).unwrap(), [done(1), done(1)]);
        let Change::Write { write, .. } = first else { unreachable!() };
        // Its condition would fail by now, and its new version is not used.
        let again = Change::Write { write: Write { condition: Condition::Absent, ..write }, version: version(9, 9) };
        assert_eq!(subject.store().commit(&[again]).unwrap(), [done(1)]);
        assert_eq!(subject.store().get(&id).unwrap().unwrap().version, version(1, 1));
    }
}

#[test]
fn a_tombstone_keeps_the_key_of_what_it_buries_unless_that_is_long() {
    let delete = |id, n: u64| {
        let (content, request) = (Content::Tombstone, RequestId(n.into()));
        let write = Write { id, key: None, content, condition: Condition::Exists, request };
        Change::Write { write, version: version(1, n) }
    };
    for subject in Subject::both() {
        for (length, kept) in [(LONGEST_KEPT_KEY, true), (LONGEST_KEPT_KEY + 1, false)] {
            let (id, key) = (point(length as u8), vec![b'k'; length]);
            let outcome = subject.store().commit(&[put(id, 1, key.clone()), delete(id, 2), delete(id, 3)]).unwrap();
            assert_eq!(outcome, [done(1), done(2), Changed::Write(Written::Refused(None))]);
            assert_eq!(subject.store().get(&id).unwrap().unwrap().key, kept.then_some(key));
        }
        assert_eq!(subject.store().count(Interval::whole(Id::ZERO)).unwrap(), 0);
    }
}

#[test]
fn readers_and_the_writer_do_not_disturb_each_other() {
    for subject in Subject::both() {
        let store = subject.store();
        let all: Vec<Change> = (0..16).map(|x| put(point(x), 0, [x])).collect();
        store.commit(&all).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let is_done = || done.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|scope| {
            for reader in 0..4 {
                scope.spawn(move || {
                    while !is_done() {
                        for x in 0..16 {
                            assert!(store.get(&point(x)).expect("a read beside the writer").is_some(), "{reader}");
                        }
                        store.state("view").expect("a read beside the writer");
                        assert_eq!(store.count(Interval::whole(Id::ZERO)).expect("a count beside the writer"), 16);
                        let scan = store.scan(Interval::whole(Id::ZERO), None, 99, usize::MAX);
                        assert_eq!(scan.expect("a scan beside the writer").len(), 16);
                    }
                });
            }
            for n in 1..300 {
                let bytes = n.to_string().into_bytes();
                let changes = [put(point(n as u8), n, bytes.clone()), Change::Put { name: "view", bytes }];
                let committed = store.commit(&changes);
                if committed.is_err() || n == 299 {
                    done.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                committed.expect("a commit beside readers");
            }
        });
    }
}
