//! A simulated disk does what one does that keeps whole copies: of everything, at each change.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use chordal_protocol::replica::{Area, Ballot, Durable, Label, Member, MemoryStore, Name, Parcel, Snapshot, Store};
use chordal_protocol::{Content, Id, Interval, Record, RequestId, Version};
use chordal_sim::disk::{Backup, Counts, Disk, Flaw, NotSynced, SyncId};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

const AREAS: u8 = 4;

fn area(n: u8) -> Area {
    let name = Name { range: Interval::whole(Id::ZERO), epoch: u64::from(n / 2) };
    let origin = Ballot { round: 1, proposer: Member { id: Id::ZERO, incarnation: 1 }, boot: 1 };
    if n.is_multiple_of(2) { Area::View(name) } else { Area::Staged(Label { name, origin, range: name.range }) }
}

fn record(id: u8, sequence: u8, request: u8, is_live: bool) -> Record {
    let value = Content::Value { bytes: vec![sequence], content_type: String::new() };
    Record {
        id: Id::of([id]),
        key: None,
        content: if is_live { value } else { Content::Tombstone },
        version: Version { epoch: 1, sequence: u64::from(sequence) },
        request: RequestId((u128::from(request) << 64) + u128::from(id)),
    }
}

fn durable(boot: u8) -> Durable {
    let (held, decided, over) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let (staged, boots) = (BTreeMap::new(), BTreeMap::new());
    let me = Member { id: Id::ZERO, incarnation: 1 };
    Durable { me, boot: boot.into(), held, decided, over, staged, boots }
}

#[derive(Debug, Clone)]
enum Act {
    Put(u8, Record),
    Purge(u8, u64),
    Collect(u8, u64),
    Extend(u8, Vec<Record>),
    Derive(u8, u8, Interval, u64),
    Discard(u8),
    EndStep(Option<u8>),
    BeginSync,
    EndSync,
    Crash(u64),
    Fill,
    Free,
    Gone,
    Backup,
    Restore,
}

fn any_record() -> impl Strategy<Value = Record> {
    (0..3u8, 1..9u8, 0..5u8, any::<bool>())
        .prop_map(|(id, sequence, request, live)| record(id, sequence, request, live))
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (0..AREAS, any_record()).prop_map(|(area, record)| Act::Put(area, record)),
        2 => (0..AREAS, 0..5u64).prop_map(|(area, mark)| Act::Purge(area, mark)),
        2 => (0..AREAS, 0..9u64).prop_map(|(area, up_to)| Act::Collect(area, up_to)),
        2 => (0..AREAS, prop::collection::vec(any_record(), 0..4)).prop_map(|(area, more)| Act::Extend(area, more)),
        3 => (0..AREAS, 0..AREAS, 0..4u8, 0..4u8, 0..9u64).prop_map(|(from, to, lo, hi, up_to)| {
            Act::Derive(from, to, Interval::half_open(Id::of([lo]), Id::of([hi])), up_to)
        }),
        2 => (0..AREAS).prop_map(Act::Discard),
        14 => prop::option::of(any::<u8>()).prop_map(Act::EndStep),
        6 => Just(Act::BeginSync),
        4 => Just(Act::EndSync),
        2 => any::<u64>().prop_map(Act::Crash),
        1 => Just(Act::Fill),
        3 => Just(Act::Free),
        1 => Just(Act::Gone),
        1 => Just(Act::Backup),
        1 => Just(Act::Restore),
    ]
}

type Copy = (MemoryStore, Option<Durable>);

/// All that a disk has been, since it was last durable.
#[derive(Default)]
struct Oracle {
    now: Copy,
    /// What was after each step, and after each change within it.
    steps: Vec<(Copy, Vec<MemoryStore>)>,
    open: Vec<MemoryStore>,
    on_disk: Copy,
    /// How many of the steps are carried, and whether in vain.
    under_way: Option<(usize, bool)>,
    is_full: bool,
}

impl Oracle {
    fn writes(&mut self, write: impl Fn(&mut MemoryStore)) {
        write(&mut self.now.0);
        self.open.push(self.now.0.clone());
    }

    fn settle(&mut self, count: usize) {
        if let Some((last, _)) = self.steps.drain(..count).next_back() {
            self.on_disk = last;
        }
    }

    fn starts_from(&mut self, copy: Copy) {
        *self = Oracle { now: copy.clone(), on_disk: copy, is_full: self.is_full, ..Oracle::default() };
    }
}

struct Both {
    disk: Disk,
    oracle: Oracle,
    sync: Option<SyncId>,
    backup: Option<(Backup, Copy, u64)>,
    flaw: bool,
    /// The number of the last step that is durable.
    durable: u64,
    /// How often a part of a step was in sight, and it was neither all nor nothing.
    parts: u64,
}

impl Both {
    fn new(flaw: bool) -> Both {
        let disk = if flaw { Disk::new(1).planted(Flaw::ShowsTorn) } else { Disk::new(1) };
        Both { disk, oracle: Oracle::default(), sync: None, backup: None, flaw, durable: 0, parts: 0 }
    }

    fn writes(&mut self, write: impl Fn(&mut dyn Writes)) {
        write(&mut self.disk);
        self.oracle.writes(|store| write(store));
    }

    fn act(&mut self, act: &Act) -> Result<(), TestCaseError> {
        match act {
            Act::Put(at, record) => self.writes(|store| store.puts(&area(*at), record)),
            Act::Purge(at, mark) => self.writes(|store| store.purges(&area(*at), *mark)),
            Act::Collect(at, up_to) => {
                self.writes(|store| store.collects(&area(*at), Version { epoch: 1, sequence: *up_to }));
            }
            Act::Extend(at, records) => {
                let mut parcel = Parcel::default();
                records.iter().for_each(|record| parcel.put(record));
                self.writes(|store| store.extends(&area(*at), parcel.clone()));
            }
            Act::Derive(from, to, range, up_to) => {
                let up_to = Version { epoch: 1, sequence: *up_to };
                self.writes(|store| store.derives(&area(*from), &area(*to), range, up_to));
            }
            Act::Discard(at) => self.writes(|store| store.discards(&area(*at))),
            Act::EndStep(state) => self.end_step(*state)?,
            Act::BeginSync => self.begin_sync()?,
            Act::EndSync => self.end_sync()?,
            Act::Crash(seed) => return self.crash(*seed),
            Act::Fill => {
                self.disk.fill();
                self.oracle.is_full = true;
                self.oracle.under_way = self.oracle.under_way.map(|(count, _)| (count, true));
            }
            Act::Free => {
                self.disk.free();
                self.oracle.is_full = false;
            }
            Act::Gone => {
                let before = self.disk.incarnation();
                self.disk.gone();
                prop_assert!(self.disk.incarnation() > before || self.disk.counts().restored > 0);
                self.oracle.is_full = false;
                self.oracle.starts_from(Copy::default());
            }
            Act::Backup => {
                let copy = (self.disk.backup(), self.oracle.on_disk.clone(), self.disk.incarnation());
                self.backup = Some(copy);
            }
            Act::Restore => {
                if let Some((backup, copy, incarnation)) = self.backup.clone() {
                    prop_assert_eq!(backup.durable(), copy.1.as_ref());
                    self.disk.restore(&backup);
                    prop_assert_eq!(self.disk.incarnation(), incarnation);
                    self.oracle.starts_from(copy);
                }
            }
        }
        if self.oracle.steps.is_empty() && self.oracle.open.is_empty() {
            self.durable = self.disk.end_step(None);
        }
        self.is_same(&self.oracle.now)
    }

    fn end_step(&mut self, state: Option<u8>) -> Result<(), TestCaseError> {
        let pending = self.disk.pending();
        let number = self.disk.end_step(state.map(durable));
        self.oracle.now.1 = state.map(durable).or(self.oracle.now.1.take());
        let changes = std::mem::take(&mut self.oracle.open);
        if self.disk.pending() > pending {
            self.oracle.steps.push((self.oracle.now.clone(), changes));
        } else {
            // It has changed nothing, and so waits for what is there.
            let before = self.oracle.steps.last().map_or(&self.oracle.on_disk, |(last, _)| last);
            prop_assert!(is_alike(&before.0, &self.oracle.now.0) && before.1 == self.oracle.now.1);
        }
        prop_assert_eq!(self.disk.is_durable(number), self.oracle.steps.is_empty());
        Ok(())
    }

    fn begin_sync(&mut self) -> Result<(), TestCaseError> {
        let count = self.oracle.steps.len();
        let begun = self.disk.begin_sync();
        match begun {
            Err(NotSynced::UnderWay) => prop_assert!(self.oracle.under_way.is_some()),
            Err(NotSynced::Nothing) => prop_assert_eq!(count, 0),
            Err(NotSynced::Full) => prop_assert!(self.oracle.is_full),
            Err(NotSynced::Over) => prop_assert!(false, "it has not begun"),
            Ok(sync) => {
                prop_assert!(self.oracle.under_way.is_none() && count > 0 && !self.oracle.is_full);
                prop_assert_ne!(Some(sync), self.sync);
                self.sync = Some(sync);
                self.oracle.under_way = Some((count, false));
            }
        }
        Ok(())
    }

    fn end_sync(&mut self) -> Result<(), TestCaseError> {
        let Some(sync) = self.sync else { return Ok(()) };
        match (self.disk.end_sync(sync), self.oracle.under_way.take()) {
            (Ok(up_to), Some((count, false))) => {
                self.oracle.settle(count);
                self.durable = up_to;
                prop_assert!(self.disk.is_durable(up_to) && !self.disk.is_durable(up_to + 1));
            }
            (Err(NotSynced::Full), Some((_, true))) | (Err(NotSynced::Over), None) => {}
            (ended, expected) => prop_assert!(false, "{ended:?} but {expected:?}"),
        }
        prop_assert_eq!(self.disk.pending(), self.oracle.steps.len());
        Ok(())
    }

    fn crash(&mut self, seed: u64) -> Result<(), TestCaseError> {
        let most = self.oracle.steps.len() + usize::from(!self.oracle.open.is_empty());
        let crash = self.disk.crash(&mut Pcg64Mcg::seed_from_u64(seed));
        let carried = self.oracle.under_way.take().filter(|(_, in_vain)| !in_vain).map_or(0, |(count, _)| count);
        prop_assert!(!crash.landed || carried > 0);
        prop_assert!(crash.lost as usize <= most && self.disk.pending() == 0);
        if crash.landed {
            self.oracle.settle(carried);
        } else if self.flaw && carried > 0 {
            // Some whole steps, then a part of one.
            let kept = (crash.kept - self.durable) as usize;
            prop_assert!(kept < carried);
            self.oracle.settle(kept);
            let (after, changes) = &self.oracle.steps[0];
            let stores = changes.iter().chain([&self.oracle.on_disk.0]);
            let now = Newest::of(&self.disk);
            let is_part = stores.into_iter().any(|store| now.is_like(store));
            let is_state = [&after.1, &self.oracle.on_disk.1].contains(&&self.disk.durable().cloned());
            prop_assert!(is_part && is_state);
            let is_whole = now.is_like(&after.0) && after.1.as_ref() == self.disk.durable();
            let is_gone = now.is_like(&self.oracle.on_disk.0) && self.oracle.on_disk.1.as_ref() == self.disk.durable();
            prop_assert!(crash.torn || is_gone);
            self.parts += u64::from(!is_whole && !is_gone);
            if crash.torn {
                self.oracle.on_disk = (now.0, self.disk.durable().cloned());
            }
        }
        prop_assert!(self.flaw || !crash.torn);
        self.durable = crash.kept;
        let left = self.oracle.on_disk.clone();
        self.oracle.starts_from(left);
        self.is_same(&self.oracle.now)
    }

    fn is_same(&self, copy: &Copy) -> Result<(), TestCaseError> {
        let (store, state) = copy;
        prop_assert_eq!(self.disk.durable(), state.as_ref());
        for at in (0..AREAS).map(area) {
            prop_assert_eq!(all(&self.disk, &at), all(store, &at));
            prop_assert_eq!(self.disk.purged(&at), store.purged(&at));
            let version = Version { epoch: 1, sequence: 4 };
            prop_assert_eq!(self.disk.since(&at, version), store.since(&at, version));
            for id in (0..3).map(|id| Id::of([id])) {
                prop_assert_eq!(self.disk.record(&at, &id), store.record(&at, &id));
            }
            for request in (0..5).map(|request| record(1, 1, request, true).request) {
                prop_assert_eq!(self.disk.outcome(&at, request), store.outcome(&at, request));
            }
        }
        let holding = store.areas().iter().filter(|(_, parcel)| **parcel != Parcel::default()).map(|(area, _)| area);
        prop_assert!(self.disk.areas().eq(holding));
        Ok(())
    }
}

fn is_alike(one: &MemoryStore, other: &MemoryStore) -> bool {
    (0..AREAS).map(area).all(|at| all(one, &at) == all(other, &at))
}

/// All that an area holds.
fn all(store: &impl Store, area: &Area) -> Parcel {
    store.page(area, &Interval::whole(Id::ZERO), None, usize::MAX).0
}

/// What is to be seen of a disk.
struct Newest(MemoryStore);

impl Newest {
    fn of(disk: &Disk) -> Newest {
        let mut store = MemoryStore::default();
        (0..AREAS).map(area).for_each(|at| store.extend(&at, all(disk, &at)));
        Newest(store)
    }

    fn is_like(&self, store: &MemoryStore) -> bool {
        is_alike(&self.0, store)
    }
}

/// The writing half of [`Store`], for both at once.
trait Writes {
    fn puts(&mut self, area: &Area, record: &Record);
    fn purges(&mut self, area: &Area, mark: u64);
    fn collects(&mut self, area: &Area, up_to: Version);
    fn extends(&mut self, area: &Area, parcel: Parcel);
    fn derives(&mut self, from: &Area, to: &Area, range: &Interval, up_to: Version);
    fn discards(&mut self, area: &Area);
}

impl<S: Store> Writes for S {
    fn puts(&mut self, area: &Area, record: &Record) {
        self.put(area, record);
    }

    fn purges(&mut self, area: &Area, mark: u64) {
        self.purge(area, mark);
    }

    fn collects(&mut self, area: &Area, up_to: Version) {
        self.collect(area, up_to);
    }

    fn extends(&mut self, area: &Area, parcel: Parcel) {
        self.extend(area, parcel);
    }

    fn derives(&mut self, from: &Area, to: &Area, range: &Interval, up_to: Version) {
        self.derive(from, to, range, up_to);
    }

    fn discards(&mut self, area: &Area) {
        self.discard(area);
    }
}

/// Plays many random lives, and counts what has happened in them.
fn play(flaw: bool) -> (Counts, u64) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let sum = std::cell::RefCell::new((Counts::default(), 0));
    let lives = prop::collection::vec(any_act(), 1..120);
    let played = runner.run(&lives, |acts| {
        let mut both = Both::new(flaw);
        acts.iter().try_for_each(|act| both.act(act))?;
        sum.borrow_mut().0 += both.disk.counts();
        sum.borrow_mut().1 += both.parts;
        Ok(())
    });
    played.unwrap_or_else(|failure| panic!("{failure}"));
    sum.into_inner()
}

#[test]
fn a_disk_is_what_its_whole_copies_say() {
    let (counts, _) = play(false);
    assert!(counts.crashes > 500 && counts.landed > 100 && counts.lost_steps > 500, "{counts:?}");
    assert!(
        counts.syncs > 500 && counts.synced_steps > counts.syncs && counts.full > 100 && counts.refused > 100,
        "{counts:?}"
    );
    assert!(counts.gone > 100 && counts.restored > 100 && counts.torn == 0, "{counts:?}");
}

#[test]
fn a_disk_that_lies_shows_parts_of_steps() {
    let (counts, parts) = play(true);
    assert!(counts.torn > 50 && counts.landed > 50 && parts > 30, "{counts:?}, {parts} parts");
}
