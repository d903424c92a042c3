//! The writer: order, groups, bounds, and its end.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use chordal_protocol::{Id, Interval, Record};

use super::{Subject, done, put};
use crate::store::{
    Change, Changed, MemoryStore, Pending, Store, StoreError, SubmitError, WAITING_BATCHES, WAITING_BYTES, Writer,
};

/// Waits for a batch, outside of any runtime.
pub(super) fn outcome(pending: Pending) -> Result<Vec<Changed>, StoreError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(pending)
}

/// A store in memory whose commits say that they have begun, with how many changes, and wait to be told how to end.
struct Gated {
    store: MemoryStore,
    begun: Sender<usize>,
    verdicts: Mutex<Receiver<Verdict>>,
}

enum Verdict {
    Commit,
    Fail,
    Panic,
}

impl Store for Gated {
    fn get(&self, id: &Id) -> Result<Option<Record>, StoreError> {
        self.store.get(id)
    }

    fn scan(&self, range: Interval, after: Option<Id>, limit: usize, bytes: usize) -> Result<Vec<Record>, StoreError> {
        self.store.scan(range, after, limit, bytes)
    }

    fn count(&self, range: Interval) -> Result<u64, StoreError> {
        self.store.count(range)
    }

    fn state(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.state(name)
    }

    fn commit(&self, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        self.begun.send(changes.len()).unwrap();
        match self.verdicts.lock().unwrap().recv().unwrap() {
            Verdict::Commit => self.store.commit(changes),
            Verdict::Fail => Err(StoreError::Failed("as the test wished".to_owned())),
            Verdict::Panic => panic!("as the test wished"),
        }
    }
}

struct Bench {
    writer: Writer,
    store: Arc<Gated>,
    begun: Receiver<usize>,
    verdicts: Sender<Verdict>,
}

/// A writer over a gated store.
fn bench() -> Bench {
    let (begin, begun) = mpsc::channel();
    let (verdicts, received) = mpsc::channel();
    let store = Arc::new(Gated { store: MemoryStore::new(), begun: begin, verdicts: Mutex::new(received) });
    Bench { writer: Writer::start(store.clone()).unwrap(), store, begun, verdicts }
}

impl Bench {
    /// A batch of one, whose transaction has begun when this returns: all that follows has to wait.
    fn hold_up(&self) -> Pending {
        let pending = self.writer.submit(vec![put(Id::of("first"), 1, "first")]).unwrap();
        assert_eq!(self.begun.recv(), Ok(1));
        pending
    }
}

#[test]
fn what_waits_becomes_one_transaction_and_each_batch_gets_its_own_part() {
    let bench = bench();
    let first = bench.hold_up();
    let id = Id::of("contended");
    // Batch n has n writes of the same register, so that both order and parts show.
    let batch = |n: u64| (0..n).map(|i| put(id, n * 100 + i, "v")).collect::<Vec<_>>();
    let pending: Vec<_> = (0..10).map(|n| bench.writer.submit(batch(n)).unwrap()).collect();
    bench.verdicts.send(Verdict::Commit).unwrap();
    assert_eq!(outcome(first).unwrap(), [done(1)]);
    assert_eq!(bench.begun.recv(), Ok(45));
    bench.verdicts.send(Verdict::Commit).unwrap();
    for (n, pending) in (0..10).zip(pending) {
        let expected: Vec<_> = (0..n).map(|i| done(n * 100 + i)).collect();
        assert_eq!(outcome(pending).unwrap(), expected);
    }
    assert_eq!(bench.store.get(&id).unwrap().unwrap().version.sequence, 908);
}

#[test]
fn a_group_that_fails_fails_for_all_of_it_and_the_next_goes_on() {
    let bench = bench();
    let first = bench.hold_up();
    let pending: Vec<_> = (0..5).map(|n| bench.writer.submit(vec![put(Id::of("v"), n, "v")]).unwrap()).collect();
    bench.verdicts.send(Verdict::Fail).unwrap();
    bench.verdicts.send(Verdict::Fail).unwrap();
    for pending in std::iter::once(first).chain(pending) {
        assert!(matches!(outcome(pending), Err(StoreError::Failed(_))));
    }
    bench.verdicts.send(Verdict::Commit).unwrap();
    assert_eq!(outcome(bench.writer.submit(vec![put(Id::of("v"), 7, "v")]).unwrap()).unwrap(), [done(7)]);
}

#[test]
fn too_many_batches_are_turned_away_and_those_taken_are_committed() {
    let bench = bench();
    let first = bench.hold_up();
    let submit = |n: usize| bench.writer.submit(vec![put(Id::of(n.to_string()), n as u64, "v")]);
    let pending: Vec<_> = (0..WAITING_BATCHES).map(|n| submit(n).unwrap()).collect();
    assert_eq!(submit(0).err(), Some(SubmitError::Overloaded));
    // A transaction takes 1024 of them.
    for _ in 0..5 {
        bench.verdicts.send(Verdict::Commit).unwrap();
    }
    assert!(outcome(first).is_ok());
    for (n, pending) in pending.into_iter().enumerate() {
        assert_eq!(outcome(pending).unwrap(), [done(n as u64)]);
    }
}

#[test]
fn too_many_bytes_are_turned_away_but_one_large_batch_is_taken() {
    let bench = bench();
    let _first = bench.hold_up();
    let submit = |bytes: usize| bench.writer.submit(vec![Change::Put { name: "large", bytes: vec![0; bytes] }]);
    let large = submit(WAITING_BYTES + 1).unwrap();
    assert_eq!(submit(0).err(), Some(SubmitError::Overloaded));
    bench.verdicts.send(Verdict::Commit).unwrap();
    bench.verdicts.send(Verdict::Fail).unwrap();
    assert!(outcome(large).is_err());
    // A large one and a small one are two transactions.
    let small = submit(WAITING_BYTES / 2).and_then(|_| submit(1)).unwrap();
    assert_eq!((bench.begun.recv(), bench.begun.recv()), (Ok(1), Ok(1)));
    bench.verdicts.send(Verdict::Fail).unwrap();
    bench.verdicts.send(Verdict::Commit).unwrap();
    assert_eq!(outcome(small).unwrap(), [Changed::Done]);
}

#[test]
fn closing_commits_what_waits_and_takes_no_more() {
    let bench = bench();
    let pending = [bench.hold_up(), bench.writer.submit(vec![put(Id::of("v"), 2, "v")]).unwrap()];
    bench.verdicts.send(Verdict::Commit).unwrap();
    bench.verdicts.send(Verdict::Commit).unwrap();
    bench.writer.close();
    assert_eq!(pending.map(|pending| outcome(pending).unwrap()), [[done(1)], [done(2)]]);
    assert_eq!(bench.writer.submit(Vec::new()).err(), Some(SubmitError::Closed));
    bench.writer.close();
}

#[test]
fn nobody_waits_for_a_writer_that_died() {
    let bench = bench();
    let pending = [bench.hold_up(), bench.writer.submit(vec![put(Id::of("v"), 2, "v")]).unwrap()];
    bench.verdicts.send(Verdict::Panic).unwrap();
    for pending in pending {
        assert!(matches!(outcome(pending), Err(StoreError::Closed)));
    }
    assert_eq!(bench.writer.submit(Vec::new()).err(), Some(SubmitError::Closed));
}

#[test]
fn what_many_threads_were_told_is_what_is_stored() {
    for subject in Subject::both() {
        let (store, _directory): (Arc<dyn Store>, _) = match subject {
            Subject::Memory(store) => (Arc::new(store), None),
            Subject::Disk(store, directory) => (Arc::new(store.unwrap()), Some(directory)),
        };
        let writer = Writer::start(Arc::clone(&store)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let writer = &writer;
                scope.spawn(move || {
                    for n in 0..25 {
                        let change = put(Id::of(format!("{thread}/{n}")), n, "v");
                        assert_eq!(outcome(writer.submit(vec![change]).unwrap()).unwrap(), [done(n)]);
                    }
                });
            }
        });
        drop(writer);
        assert_eq!(store.count(Interval::whole(Id::ZERO)).unwrap(), 100);
    }
}
