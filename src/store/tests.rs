//! One suite for both stores, against the protocol's own store in memory as the oracle.

mod faults;
mod files;
mod test_disk;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use chordal_protocol::replica::{self, Area, Ballot, Cursor, Label, Member, Name, Outcome, Parcel, Snapshot};
use chordal_protocol::{Content, Id, Interval, Record, RequestId, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{DiskStore, MemoryStore, Store, StoreError, Transaction};
use test_disk::TestDisk;

/// A store under test, which can be closed and opened again.
enum Subject {
    Memory(MemoryStore),
    Disk(Option<Box<DiskStore>>, TempDir),
    /// With a log that is full after a few changes, so that some rows are in the database and some are not.
    ShortLog(Option<Box<DiskStore>>, TestDisk),
}

impl Subject {
    fn both() -> [Subject; 2] {
        let directory = tempfile::tempdir().unwrap();
        let disk = DiskStore::open(directory.path()).unwrap();
        [Subject::Memory(MemoryStore::new()), Subject::Disk(Some(Box::new(disk)), directory)]
    }

    fn all() -> impl Iterator<Item = Subject> {
        let disk = TestDisk::with_log(1 << 10);
        Subject::both().into_iter().chain([Subject::ShortLog(Some(Box::new(disk.open())), disk)])
    }

    /// How many rows there are on its disk.
    fn rows(&self) -> Option<u64> {
        match self {
            Subject::Memory(_) => None,
            Subject::Disk(store, _) | Subject::ShortLog(store, _) => store.as_ref()?.rows().ok(),
        }
    }

    fn store(&self) -> &dyn Store {
        match self {
            Subject::Memory(store) => store,
            Subject::Disk(store, _) | Subject::ShortLog(store, _) => store.as_deref().unwrap(),
        }
    }

    fn reopen(&mut self) {
        match self {
            Subject::Memory(_) => {}
            Subject::Disk(store, directory) => {
                drop(store.take());
                *store = Some(Box::new(DiskStore::open(directory.path()).unwrap()));
            }
            Subject::ShortLog(store, disk) => {
                drop(store.take());
                *store = Some(Box::new(disk.open()));
            }
        }
    }
}

/// Four areas: three views and one that is staged.
fn area(number: u64) -> Area {
    let name = Name { range: Interval::whole(Id::ZERO), epoch: number };
    if number % 4 == 3 {
        let proposer = Member { id: Id::ZERO, incarnation: 1 };
        let origin = Ballot { round: 1, proposer, boot: 1 };
        return Area::Staged(Label { name, origin, range: name.range });
    }
    Area::View(name)
}

fn areas() -> impl Iterator<Item = Area> {
    (0..4).map(area)
}

/// Eight points of the circle, the first and the last among them.
fn point(x: u8) -> Id {
    if x % 8 == 7 { Id::MAX } else { Id::from_hex_prefix(&format!("{:x}", 2 * (x % 8))).unwrap() }
}

fn version(epoch: u64, sequence: u64) -> Version {
    Version { epoch, sequence }
}

fn value(bytes: impl Into<Vec<u8>>) -> Content {
    Content::Value { bytes: bytes.into(), content_type: "text/plain".to_owned() }
}

/// A value of version `(1, n)` by a request that was minted at `n + 1`.
fn record(id: Id, n: u64, bytes: impl Into<Vec<u8>>) -> Record {
    let request = RequestId(u128::from(n + 1) << 64);
    Record { id, key: None, content: value(bytes), version: version(1, n), request }
}

/// Puts these in one transaction.
fn write(store: &dyn Store, area: &Area, records: &[Record]) -> Result<bool, StoreError> {
    store.transact(&mut |transaction| records.iter().for_each(|record| transaction.put(area, record)))
}

/// What a transaction sees.
fn look<T>(store: &dyn Store, look: impl Fn(&dyn Snapshot) -> T) -> T {
    let mut seen = None;
    store.look(&mut |content| seen = Some(look(content))).unwrap();
    seen.unwrap()
}

/// All that an area holds.
fn all(store: &(impl Snapshot + ?Sized), area: &Area) -> Parcel {
    store.page(area, &Interval::whole(Id::ZERO), None, usize::MAX).0
}

/// What it holds of a range, in pages of about this size, and how many those are.
fn walk(store: &(impl Snapshot + ?Sized), area: &Area, range: &Interval, room: usize) -> (Parcel, usize) {
    let (mut walked, mut pages, mut after) = (Parcel::default(), 0, None::<Cursor>);
    loop {
        let (page, next) = store.page(area, range, after, room);
        pages += 1;
        walked.merge(page);
        if next.is_none() {
            return (walked, pages);
        }
        assert!(next > after, "every page goes on");
        after = next;
    }
}

#[derive(Debug, Clone)]
enum Change {
    Put(Area, Record),
    Extend(Area, Parcel),
    Derive(Area, Area, Interval, Version),
    Discard(Area),
    Purge(Area, u64),
    Collect(Area, Version),
    State(&'static str, Vec<u8>),
}

impl Change {
    fn make(&self, mut store: &mut dyn Transaction) {
        if let Change::State(name, bytes) = self {
            store.put_state(name, bytes);
        }
        self.make_content(&mut store);
    }

    fn make_content(&self, store: &mut impl replica::Store) {
        match self {
            Change::Put(area, record) => store.put(area, record),
            Change::Extend(area, parcel) => store.extend(area, parcel.clone()),
            Change::Derive(from, to, range, up_to) => store.derive(from, to, range, *up_to),
            Change::Discard(area) => store.discard(area),
            Change::Purge(area, mark) => store.purge(area, *mark),
            Change::Collect(area, up_to) => drop(store.collect(area, *up_to)),
            Change::State(..) => {}
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Oracle {
    content: replica::MemoryStore,
    state: BTreeMap<&'static str, Vec<u8>>,
}

impl Oracle {
    fn make(&mut self, change: &Change) {
        if let Change::State(name, bytes) = change {
            self.state.insert(name, bytes.clone());
        }
        change.make_content(&mut self.content);
    }

    /// Without the areas that hold nothing, which nobody can tell from areas that do not exist.
    fn looks_like(&self, other: &Oracle) -> bool {
        self.state == other.state && areas().all(|area| all(&self.content, &area) == all(&other.content, &area))
    }

    fn page(&self, area: &Area, from: Bound<Id>, limit: usize, bytes: usize) -> Vec<Record> {
        let all = all(&self.content, area).records.into_values();
        let mut page: Vec<Record> = all
            .filter(|record| match from {
                Bound::Unbounded => true,
                Bound::Included(id) => record.id >= id,
                Bound::Excluded(id) => record.id > id,
            })
            .collect();
        page.truncate(limit);
        let weight = |record: &Record| {
            let media_type = match &record.content {
                Content::Value { content_type, .. } => content_type.len(),
                Content::Tombstone => 0,
            };
            record.weight() + media_type
        };
        while page.len() > 1 && page.iter().map(weight).sum::<usize>() > bytes {
            page.pop();
        }
        page
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Changes, and after each a look at what was written after this version.
    Transact(Vec<(Change, Version)>),
    Reopen,
    Page(Box<Area>, Bound<Id>, usize, usize),
    /// Through a range of an area, in pages of about this size.
    Walk(Box<Area>, Interval, usize),
}

fn any_area() -> impl Strategy<Value = Area> {
    (0u64..4).prop_map(area)
}

fn any_point() -> impl Strategy<Value = Id> {
    (0u8..8).prop_map(point)
}

fn any_range() -> impl Strategy<Value = Interval> {
    (any_point(), any_point()).prop_map(|(lo, hi)| Interval::half_open(lo, hi))
}

/// The highest sequence number is among them, for what counts on from it.
fn any_version() -> impl Strategy<Value = Version> {
    (0u64..3, prop_oneof![6 => 0u64..4, 1 => Just(u64::MAX)]).prop_map(|(epoch, sequence)| version(epoch, sequence))
}

/// A register, and a request for it: no request is for two of them.
fn any_request() -> impl Strategy<Value = (Id, RequestId)> {
    (0u8..8, 0u64..4).prop_map(|(x, minted)| (point(x), request(x, minted)))
}

fn request(x: u8, minted: u64) -> RequestId {
    RequestId(u128::from(minted) << 64 | u128::from(x))
}

fn any_record() -> impl Strategy<Value = Record> {
    let content = prop_oneof![Just(Content::Tombstone), (0usize..4).prop_map(|length| value(vec![b'v'; length]))];
    let key = prop_oneof![Just(None), Just(Some(b"key".to_vec()))];
    (key, content, any_version(), any_request()).prop_map(|(key, content, version, (id, request))| Record {
        id,
        key,
        content,
        version,
        request,
    })
}

/// As it comes from others: outcomes need not belong to its records.
fn any_parcel() -> impl Strategy<Value = Parcel> {
    let outcome = (any_request(), any_version());
    (vec(any_record(), 0..5), vec(outcome, 0..5), 0u64..3).prop_map(|(records, outcomes, purged)| Parcel {
        records: records.into_iter().map(|record| (record.id, record)).collect(),
        outcomes: outcomes.into_iter().map(|((id, request), version)| (request, Outcome { id, version })).collect(),
        purged,
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        12 => (any_area(), any_record()).prop_map(|(area, record)| Change::Put(area, record)),
        3 => (any_area(), any_parcel()).prop_map(|(area, parcel)| Change::Extend(area, parcel)),
        4 => (any_area(), any_area(), any_range(), prop_oneof![any_version(), Just(version(u64::MAX, u64::MAX))])
            .prop_map(|(from, to, range, up_to)| Change::Derive(from, to, range, up_to)),
        1 => any_area().prop_map(Change::Discard),
        2 => (any_area(), 0u64..4).prop_map(|(area, mark)| Change::Purge(area, mark)),
        4 => (any_area(), any_version()).prop_map(|(area, up_to)| Change::Collect(area, up_to)),
        1 => (prop_oneof![Just("keeper"), Just("ring")], vec(any::<u8>(), 0..4))
            .prop_map(|(name, bytes)| Change::State(name, bytes)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let bound = prop_oneof![
        Just(Bound::Unbounded),
        any_point().prop_map(Bound::Included),
        any_point().prop_map(Bound::Excluded)
    ];
    let bytes = prop_oneof![Just(0usize), 0usize..80, Just(usize::MAX)];
    prop_oneof![
        6 => vec((any_change(), any_version()), 0..8).prop_map(Step::Transact),
        2 => Just(Step::Reopen),
        3 => (any_area(), any_range(), prop_oneof![0usize..500, Just(usize::MAX)])
            .prop_map(|(area, range, room)| Step::Walk(Box::new(area), range, room)),
        3 => (any_area(), bound, 0usize..10, bytes)
            .prop_map(|(area, bound, limit, bytes)| Step::Page(Box::new(area), bound, limit, bytes)),
    ]
}

/// Whether there is to be seen what the oracle sees.
fn compare(store: &(impl Snapshot + ?Sized), oracle: &Oracle, version: Version) -> Result<(), TestCaseError> {
    for area in areas() {
        prop_assert_eq!(store.purged(&area), oracle.content.purged(&area));
        prop_assert_eq!(all(store, &area), all(&oracle.content, &area));
        prop_assert_eq!(store.since(&area, version), oracle.content.since(&area, version), "since {}", version);
        for id in (0..8).map(point) {
            prop_assert_eq!(store.record(&area, &id), oracle.content.record(&area, &id));
        }
        for request in (0..4).flat_map(|minted| (0..8).map(move |x| request(x, minted))) {
            prop_assert_eq!(store.outcome(&area, request), oracle.content.outcome(&area, request));
        }
    }
    Ok(())
}

fn transact(store: &dyn Store, oracle: &mut Oracle, changes: &[(Change, Version)]) -> Result<bool, TestCaseError> {
    let (before, mut same) = (oracle.clone(), Ok(()));
    let changed = store.transact(&mut |transaction| {
        for (change, version) in changes {
            change.make(transaction);
            oracle.make(change);
            if same.is_ok() {
                same = compare(transaction, oracle, *version);
            }
        }
    });
    same?;
    let changed = changed.unwrap();
    look(store, |content| {
        compare(content, oracle, changes.last().map_or(Version::default(), |(_, version)| *version))
    })?;
    prop_assert!(changed || before.looks_like(oracle), "a change was not told");
    prop_assert!(!changed || !changes.is_empty(), "nothing was told as a change");
    Ok(changed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_stores_do_what_the_oracle_does(steps in vec(any_step(), 1..20)) {
        for mut subject in Subject::all() {
            let (mut oracle, mut transactions) = (Oracle::default(), 0);
            for step in &steps {
                match step {
                    Step::Transact(changes) => {
                        transactions += u64::from(transact(subject.store(), &mut oracle, changes)?);
                    }
                    Step::Reopen => subject.reopen(),
                    Step::Page(area, from, limit, bytes) => {
                        let page = subject.store().page(area, *from, *limit, *bytes).unwrap();
                        prop_assert_eq!(page, oracle.page(area, *from, *limit, *bytes));
                    }
                    Step::Walk(area, range, room) => {
                        let (walked, pages) = look(subject.store(), |store| walk(store, area, range, *room));
                        prop_assert_eq!(&walked, &all(&oracle.content, area).within(range));
                        let rows = walked.records.len() + walked.outcomes.len();
                        prop_assert!(*room < usize::MAX || pages == 1, "{} pages of {} rows", pages, rows);
                    }
                }
                let store = subject.store();
                prop_assert_eq!(store.transactions().unwrap(), transactions);
                for area in areas() {
                    let all = all(&oracle.content, &area);
                    let live = all.records.values().filter(|record| record.is_live()).count() as u64;
                    prop_assert_eq!(store.count(&area).unwrap(), live);
                    for id in (0..8).map(point) {
                        prop_assert_eq!(store.get(&area, &id).unwrap(), all.records.get(&id).cloned());
                    }
                }
                for name in ["keeper", "ring"] {
                    prop_assert_eq!(store.state(name).unwrap(), oracle.state.get(name).cloned());
                }
            }
        }
    }
}

#[test]
fn registers_of_merged_views_may_have_the_same_version() {
    for mut subject in Subject::both() {
        let dead = |x| Record { content: Content::Tombstone, ..record(point(x), 1, "") };
        write(subject.store(), &area(1), &[dead(1), dead(2)]).unwrap();
        let tail = look(subject.store(), |store| store.since(&area(1), version(1, 0)));
        assert_eq!(tail.records.len(), 2);
        subject.reopen();
        subject
            .store()
            .transact(&mut |store| {
                store.collect(&area(1), version(1, 1));
            })
            .unwrap();
        assert_eq!(look(subject.store(), |store| all(store, &area(1))).records.len(), 0, "both tombstones are gone");
    }
}

#[test]
fn a_write_that_is_sent_again_costs_no_transaction() {
    for subject in Subject::both() {
        let Subject::Disk(..) = subject else { continue };
        assert!(write(subject.store(), &area(1), &[record(point(1), 1, "one")]).unwrap());
        assert!(!write(subject.store(), &area(1), &[record(point(1), 1, "one")]).unwrap());
        assert_eq!(subject.store().transactions().unwrap(), 1);
    }
}

#[test]
fn an_area_can_be_walked_page_by_page() {
    for subject in Subject::both() {
        let records: Vec<Record> = (0..8).map(|x| record(point(x), u64::from(x), [x])).collect();
        write(subject.store(), &area(1), &records).unwrap();
        write(subject.store(), &area(2), &records).unwrap();
        let (mut walked, mut from) = (Vec::new(), Bound::Unbounded);
        loop {
            let page = subject.store().page(&area(1), from, 3, usize::MAX).unwrap();
            let Some(last) = page.last() else { break };
            from = Bound::Excluded(last.id);
            walked.extend(page);
        }
        assert_eq!(walked, records);
    }
}

/// A reader sees an area whole, whatever the writer does to it: replaced, made of another one, written over.
#[test]
fn readers_and_the_writer_do_not_disturb_each_other() {
    for subject in Subject::both() {
        let store = subject.store();
        let records: Vec<Record> = (0..8).map(|x| record(point(x), 0, [x])).collect();
        write(store, &area(1), &records).unwrap();
        let parcel = look(store, |store| all(store, &area(1)));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert!(store.get(&area(1), &point(3)).expect("a read beside the writer").is_some());
                        assert_eq!(store.count(&area(1)).expect("a count beside the writer"), 8);
                        let page = store.page(&area(1), Bound::Unbounded, 99, usize::MAX);
                        assert_eq!(page.expect("a page beside the writer").len(), 8);
                    }
                });
            }
            for n in 1..100 {
                let changed = store.transact(&mut |transaction| match n % 3 {
                    0 => transaction.put(&area(1), &record(point(n as u8), n, n.to_string())),
                    1 => {
                        transaction.discard(&area(1));
                        transaction.extend(&area(1), parcel.clone());
                    }
                    _ => {
                        let whole = Interval::whole(point(3));
                        transaction.extend(&area(3), parcel.clone());
                        transaction.derive(&area(3), &area(1), &whole, version(u64::MAX, 0));
                    }
                });
                if changed.is_err() || n == 99 {
                    done.store(true, Ordering::Relaxed);
                }
                assert!(changed.expect("a transaction beside readers"));
            }
        });
    }
}

/// What is given away is removed by and by, and what has been split, given away and joined again is whole.
#[test]
fn parts_that_go_to_and_fro_are_whole_and_leave_nothing_behind() {
    for mut subject in Subject::all() {
        let records: Vec<Record> = (0..2_000u64).map(|n| record(Id::of(n.to_string()), n, n.to_string())).collect();
        write(subject.store(), &area(1), &records).unwrap();
        let (half, whole) = (Interval::half_open(point(2), point(6)), Interval::whole(Id::ZERO));
        let everything = look(subject.store(), |store| all(store, &area(1)));
        let up_to = version(u64::MAX, 0);
        for _ in 0..3 {
            subject.store().transact(&mut |store| store.derive(&area(1), &area(2), &half, up_to)).unwrap();
            let parts = look(subject.store(), |store| (all(store, &area(1)), all(store, &area(2))));
            assert_eq!(parts.1, everything.within(&half));
            assert_eq!(parts.0.records.len() + parts.1.records.len(), 2_000);
            let live = [area(1), area(2)].map(|area| subject.store().count(&area).unwrap() as usize);
            assert_eq!(live, [parts.0.records.len(), parts.1.records.len()]);
            subject.reopen();
            subject.store().transact(&mut |store| store.derive(&area(2), &area(1), &half, up_to)).unwrap();
            assert_eq!(look(subject.store(), |store| all(store, &area(1))), everything);
        }
        subject.store().transact(&mut |store| store.derive(&area(1), &area(2), &whole, up_to)).unwrap();
        subject.store().transact(&mut |store| store.discard(&area(2))).unwrap();
        let Some(left) = subject.rows() else { continue };
        assert!(left > 1_000, "they are not removed all at once");
        for n in 0..40 {
            if n == 10 {
                subject.reopen();
            }
            write(subject.store(), &area(1), &[record(point(1), n, "later")]).unwrap();
        }
        assert_eq!(subject.rows(), Some(2 + 39), "one record, and what became of each request");
    }
}

/// After a restart all that came before it is forgotten at once: more than is named one by one.
#[test]
fn a_great_many_outcomes_are_forgotten_and_no_others() {
    for mut subject in Subject::all() {
        let (half, whole) = (Interval::half_open(point(2), point(6)), Interval::whole(Id::ZERO));
        let mut oracle = Oracle::default();
        let later = Change::Put(area(1), record(point(3), 5_000, "later"));
        let put = |n: u64| Change::Put(area(1), record(Id::of(n.to_string()), n, ""));
        let mut changes: Vec<Change> = (0..4_000).map(put).collect();
        changes.push(Change::Derive(area(1), area(2), half, version(u64::MAX, 0)));
        let purge = [Change::Purge(area(1), 3_900), later, Change::Purge(area(1), 3_950)];
        for changes in [&changes[..], &purge] {
            let mut within = None;
            let work = &mut |store: &mut dyn Transaction| {
                changes.iter().for_each(|change| change.make(store));
                within = Some([area(1), area(2)].map(|area| all(store, &area)));
            };
            subject.store().transact(work).unwrap();
            changes.iter().for_each(|change| oracle.make(change));
            let right = Some([area(1), area(2)].map(|area| all(&oracle.content, &area)));
            assert_eq!(within, right, "in the transaction");
            for _ in 0..2 {
                let seen = look(subject.store(), |store| [area(1), area(2)].map(|area| all(store, &area)));
                assert_eq!(Some(seen), right);
                subject.reopen();
            }
        }
        let outcomes = [area(1), area(2)].map(|area| all(&oracle.content, &area).outcomes.len());
        assert!(outcomes[0] < 100 && outcomes[1] > 1_000, "{outcomes:?}");
        assert_eq!(
            look(subject.store(), |store| store.page(&area(2), &whole, None, usize::MAX).0).outcomes.len(),
            outcomes[1]
        );
    }
}
