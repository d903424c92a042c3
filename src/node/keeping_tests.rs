//! The keeping thread over a store that waits to be told how each transaction ends.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use chordal_protocol::keeper::Settings;
use chordal_protocol::replica::{self, Area, Member};
use chordal_protocol::{Condition, Content, Id, Record, RequestId, Write, Written};

use super::line::{WAITING_BYTES, WAITING_JOBS};
use super::*;
use crate::store::MemoryStore;

/// A store whose transactions say that their work is done, and wait to be told how to end.
struct Gated {
    store: Mutex<Arc<MemoryStore>>,
    done: Sender<()>,
    verdicts: Mutex<Receiver<Verdict>>,
    /// No transaction can be begun.
    unopened: AtomicBool,
    /// Nobody can tell how many transactions there have been.
    silent: AtomicBool,
    /// What is looked at is not there, and the look fails.
    blind: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Commit,
    /// It fails, and has not happened.
    Fail,
    /// It fails, and has happened.
    FailLate,
    Panic,
}

fn full() -> StoreError {
    StoreError::Full("as the test wished".to_owned())
}

impl Gated {
    fn now(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store.lock().unwrap())
    }
}

impl Store for Gated {
    fn state(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.now().state(name)
    }

    fn transact(&self, work: &mut dyn FnMut(&mut dyn Transaction)) -> Result<bool, StoreError> {
        if self.unopened.load(Ordering::SeqCst) {
            return Err(full());
        }
        let after = self.now().fork();
        let changed = after.transact(work)?;
        let _ = self.done.send(());
        // Where nobody says how, all goes well.
        let verdict = self.verdicts.lock().unwrap().recv().unwrap_or(Verdict::Commit);
        if matches!(verdict, Verdict::Commit | Verdict::FailLate) {
            *self.store.lock().unwrap() = Arc::new(after);
        }
        match verdict {
            Verdict::Commit => Ok(changed),
            Verdict::Fail | Verdict::FailLate => Err(full()),
            Verdict::Panic => panic!("as the test wished"),
        }
    }

    fn look(&self, work: &mut dyn FnMut(&dyn replica::Snapshot)) -> Result<(), StoreError> {
        if self.blind.load(Ordering::SeqCst) {
            MemoryStore::default().look(work)?;
            return Err(full());
        }
        self.now().look(work)
    }

    fn transactions(&self) -> Result<u64, StoreError> {
        if self.silent.load(Ordering::SeqCst) { Err(full()) } else { self.now().transactions() }
    }

    fn get(&self, area: &Area, id: &Id) -> Result<Option<Record>, StoreError> {
        self.now().get(area, id)
    }

    fn page(&self, area: &Area, from: Bound<Id>, limit: usize, bytes: usize) -> Result<Vec<Record>, StoreError> {
        self.now().page(area, from, limit, bytes)
    }

    fn count(&self, area: &Area) -> Result<u64, StoreError> {
        self.now().count(area)
    }

    fn areas(&self) -> Result<Vec<Area>, StoreError> {
        self.now().areas()
    }

    fn put_aside(&self, area: &Area, name: &str) -> Result<Option<(PathBuf, u64)>, StoreError> {
        self.now().put_aside(area, name)
    }
}

struct Letters(Sender<(Contact, keeper::Request)>);

impl Outside for Letters {
    fn send(&self, to: Contact, request: keeper::Request) {
        let _ = self.0.send((to, request));
    }

    fn moved(&self, _: Moved) {}
}

struct Bench {
    // First, so that the gate is open when the thread is waited for.
    verdicts: Option<Sender<Verdict>>,
    keeping: Keeping,
    store: Arc<Gated>,
    done: Receiver<()>,
    letters: Receiver<(Contact, keeper::Request)>,
}

type Outcome<T> = oneshot::Receiver<Result<T, StoreError>>;

fn me() -> Contact {
    Contact::at("127.0.0.1:1", "me")
}

fn settings() -> Settings {
    Settings { replication_factor: 2, repair_delay: 0, freshness: 600_000, ..Settings::default() }
}

fn bench(keeper: Keeper) -> Bench {
    let (done_sender, done) = mpsc::channel();
    let (verdicts, received) = mpsc::channel();
    let (letter_sender, letters) = mpsc::channel();
    let store = Arc::new(Gated {
        store: Mutex::default(),
        done: done_sender,
        verdicts: Mutex::new(received),
        unopened: AtomicBool::new(false),
        silent: AtomicBool::new(false),
        blind: AtomicBool::new(false),
    });
    let outside = Arc::new(Letters(letter_sender));
    // What waits together is done together, as the tests want it.
    let started = Instant::now();
    let keeping = Keeping::gathering(Duration::ZERO, keeper, store.clone(), outside, started).unwrap();
    Bench { verdicts: Some(verdicts), keeping, store, done, letters }
}

fn new_bench() -> Bench {
    bench(Keeper::new(me(), 1, settings()))
}

impl Bench {
    fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Outcome<T> {
        let (reply, outcome) = oneshot::channel();
        self.keeping.submit(job(reply)).unwrap();
        outcome
    }

    fn put_state(&self, name: &'static str) -> Outcome<()> {
        self.ask(|done| Job::State { name, bytes: b"state".to_vec(), done })
    }

    fn write(&self, n: u64) -> Outcome<Told> {
        self.write_bytes(n, 1)
    }

    fn write_bytes(&self, n: u64, count: usize) -> Outcome<Told> {
        let id = Id::of(n.to_string());
        let content = Content::Value { bytes: vec![b'v'; count], content_type: String::new() };
        let request = RequestId(u128::from(n + 1) << 64);
        let write = Write { id, key: None, content, condition: Condition::Always, request };
        self.ask(|answer| Job::Operate { operation: Operation::Write(write), answer })
    }

    fn read(&self, n: u64) -> Outcome<Told> {
        self.ask(|answer| Job::Operate { operation: Operation::Get(Id::of(n.to_string())), answer })
    }

    fn found(&self) -> Outcome<()> {
        self.ask(|done| Job::Found { range: Interval::whole(Id::ZERO), done })
    }

    fn say(&self, verdict: Verdict) {
        self.verdicts.as_ref().unwrap().send(verdict).unwrap();
    }

    /// Waits for the work of a transaction to be done; how it ends is still to be said.
    fn worked(&self) {
        self.done.recv_timeout(Duration::from_secs(60)).expect("a transaction");
    }

    /// A job whose transaction waits for its end when this returns: all that follows has to wait.
    fn hold_up(&self) -> Outcome<()> {
        let outcome = self.put_state("first");
        self.worked();
        outcome
    }

    /// Numbers of writes whose registers are served here.
    fn mine(&self) -> impl Iterator<Item = u64> {
        let seen = self.keeping.seen();
        (0..).filter(move |n| seen.serves_id(&Id::of(n.to_string())))
    }

    /// From here on all transactions go well.
    fn open(&mut self) {
        self.verdicts = None;
    }
}

fn is_open<T>(outcome: &mut Outcome<T>) -> bool {
    matches!(outcome.try_recv(), Err(oneshot::error::TryRecvError::Empty))
}

fn is_full<T>(outcome: Outcome<T>) -> bool {
    matches!(outcome.blocking_recv(), Ok(Err(StoreError::Full(_))))
}

fn is_written(outcome: Outcome<Told>) -> bool {
    matches!(outcome.blocking_recv(), Ok(Ok(Told::Answer(Answer::Written(Written::Done(_))))))
}

#[test]
fn what_waits_becomes_one_transaction_and_nobody_hears_of_it_before_it_is_durable() {
    let bench = new_bench();
    let mut first = bench.hold_up();
    let mut pending: Vec<_> = std::iter::once(bench.found()).chain((0..50).map(|_| bench.put_state("next"))).collect();
    let mut written = bench.write(1);
    assert!(is_open(&mut first), "its work is done, and it is not durable");
    bench.say(Verdict::Commit);
    assert_eq!(first.blocking_recv().unwrap().ok(), Some(()));
    bench.worked();
    assert!(pending.iter_mut().all(is_open) && is_open(&mut written));
    assert_eq!(bench.store.state("next").unwrap(), None);
    assert!(bench.keeping.seen().views.is_empty(), "what is not durable cannot be seen");
    bench.say(Verdict::Commit);
    assert!(pending.into_iter().all(|outcome| outcome.blocking_recv().unwrap().is_ok()) && is_written(written));
    assert!(bench.keeping.seen().serves_id(&Id::of("1")));
    assert_eq!(bench.store.transactions().unwrap(), 2);
}

/// How long the value is that a read was told.
fn length(outcome: Outcome<Told>) -> Option<usize> {
    match outcome.blocking_recv() {
        Ok(Ok(Told::Answer(Answer::Read(Some(Record { content, .. }))))) => Some(content.len()),
        _ => None,
    }
}

#[test]
fn a_read_needs_no_transaction_and_sees_what_is_durable_or_waits_for_it() {
    let bench = new_bench();
    bench.say(Verdict::Commit);
    assert!(bench.found().blocking_recv().unwrap().is_ok());
    bench.worked();
    let written = bench.write_bytes(1, 7);
    bench.worked();
    let mut read = bench.read(1);
    assert!(is_open(&mut read), "nobody may see what may yet fail");
    bench.say(Verdict::Commit);
    assert!(is_written(written));
    assert_eq!(length(read), Some(7));
    for _ in 0..3 {
        assert_eq!(length(bench.read(1)), Some(7));
    }
    assert!(bench.done.try_recv().is_err(), "none of them was a transaction");
}

#[test]
fn what_cannot_be_read_is_not_told_as_nothing() {
    let mut bench = new_bench();
    bench.open();
    assert!(bench.found().blocking_recv().unwrap().is_ok() && is_written(bench.write(1)));
    bench.store.blind.store(true, Ordering::SeqCst);
    assert!(is_full(bench.read(1)));
    bench.store.blind.store(false, Ordering::SeqCst);
    assert_eq!(length(bench.read(1)), Some(1));
}

#[test]
fn a_failed_transaction_fails_for_all_of_it_and_the_keeper_is_as_before() {
    let bench = new_bench();
    let first = bench.hold_up();
    let (founded, written) = (bench.found(), bench.write(1));
    bench.say(Verdict::Commit);
    bench.say(Verdict::Fail);
    assert!(first.blocking_recv().unwrap().is_ok());
    assert!(is_full(founded) && is_full(written));
    bench.worked();
    // There is room again: what it says now rests on what is durable.
    let (served, state) = (bench.write(1), bench.put_state("state"));
    bench.worked();
    bench.say(Verdict::Commit);
    assert_eq!(served.blocking_recv().unwrap().unwrap(), Told::NotMine(None), "the view was not founded");
    assert!(bench.keeping.seen().views.is_empty());
    bench.say(Verdict::Commit);
    bench.say(Verdict::Commit);
    assert!(state.blocking_recv().unwrap().is_ok());
    bench.say(Verdict::Commit);
    assert!(bench.found().blocking_recv().unwrap().is_ok());
    bench.say(Verdict::Commit);
    assert!(is_written(bench.write(1)));
}

#[test]
fn on_a_full_disk_what_brings_content_takes_nothing_else_with_it() {
    let bench = new_bench();
    let founded = bench.found();
    bench.say(Verdict::Commit);
    assert!(founded.blocking_recv().unwrap().is_ok());
    while bench.done.try_recv().is_ok() {}
    // Until it is known that the disk is full, all go together.
    for (outcome, verdicts) in [(false, vec![Verdict::Fail]), (true, vec![Verdict::Commit, Verdict::Fail])] {
        let first = bench.hold_up();
        let (heavy, state) = (bench.write_bytes(1, 2 * HEAVY), bench.put_state("state"));
        bench.say(Verdict::Commit);
        assert!(first.blocking_recv().unwrap().is_ok());
        verdicts.into_iter().for_each(|verdict| bench.say(verdict));
        assert!(is_full(heavy));
        assert_eq!(state.blocking_recv().unwrap().is_ok(), outcome);
        while bench.done.try_recv().is_ok() {}
    }
}

#[test]
fn a_commit_that_failed_and_happened_is_told_as_done_once_somebody_can_say_so() {
    let mut bench = new_bench();
    let mut founded = bench.found();
    bench.worked();
    bench.store.silent.store(true, Ordering::SeqCst);
    bench.say(Verdict::FailLate);
    let mut written = bench.write(1);
    assert!(is_open(&mut founded) && is_open(&mut written), "nobody knows whether it is served here");
    bench.open();
    bench.store.silent.store(false, Ordering::SeqCst);
    assert!(founded.blocking_recv().unwrap().is_ok() && is_written(written));
}

#[test]
fn where_no_transaction_can_be_begun_all_are_told_why_and_a_wish_to_leave_is_kept() {
    for unopened in [true, false] {
        let mut bench = new_bench();
        let first = bench.hold_up();
        bench.keeping.submit(Job::Leave(true)).unwrap();
        let pending = [bench.put_state("state"), bench.found()];
        let written = bench.write(1);
        bench.store.unopened.store(unopened, Ordering::SeqCst);
        bench.say(Verdict::Commit);
        if !unopened {
            bench.say(Verdict::Fail);
        }
        assert!(first.blocking_recv().unwrap().is_ok());
        assert!(pending.into_iter().all(is_full) && is_full(written));
        bench.store.unopened.store(false, Ordering::SeqCst);
        bench.open();
        let other = Contact::at("127.0.0.1:2", "other");
        let around = Around {
            is_member: true,
            replication_factor: 3,
            predecessors: vec![other.clone()],
            successors: vec![other],
        };
        bench.keeping.submit(Job::Tick(around)).unwrap();
        let asked = |(_, request)| matches!(request, keeper::Request::Release(_));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !asked(bench.letters.recv_timeout(Duration::from_secs(60)).expect("it asks for its release")) {
            assert!(Instant::now() < deadline);
        }
    }
}

#[test]
fn the_boot_is_counted_before_anything_leaves_whatever_fails_before() {
    let old = Keeper::new(me(), 1, settings()).durable();
    let mut bench = bench(Keeper::restored(me(), old, settings()));
    let introduce = || {
        let request = keeper::Request::Introduce(Member { id: Id::of("other"), incarnation: 1 });
        bench.ask(|reply| Job::Serve { from: Contact::at("127.0.0.1:2", "other"), request, reply })
    };
    let boot = || Keeping::remembered(&*bench.store).unwrap().map(|durable| durable.replica.boot);
    let failed = introduce();
    bench.say(Verdict::Fail);
    assert!(is_full(failed));
    bench.store.unopened.store(true, Ordering::SeqCst);
    assert!(is_full(introduce()));
    bench.store.unopened.store(false, Ordering::SeqCst);
    assert_eq!(boot(), None);
    bench.say(Verdict::Commit);
    assert!(introduce().blocking_recv().unwrap().is_ok());
    assert_eq!(boot(), Some(2));
    bench.open();
}

#[test]
fn too_many_jobs_are_turned_away_and_a_beat_that_was_comes_again() {
    let mut bench = new_bench();
    let first = bench.hold_up();
    let pending: Vec<_> = (0..WAITING_JOBS).map(|_| bench.put_state("state")).collect();
    let tick = || bench.keeping.submit(Job::Tick(Around::default()));
    assert!(matches!(tick(), Err(StoreError::Overloaded)));
    assert!(matches!(bench.keeping.submit(Job::Leave(false)), Err(StoreError::Overloaded)));
    bench.open();
    assert!(first.blocking_recv().unwrap().is_ok());
    assert!(pending.into_iter().all(|outcome| outcome.blocking_recv().unwrap().is_ok()));
    while bench.done.try_recv().is_ok() {}
    bench.keeping.submit(Job::Tick(Around::default())).unwrap();
    bench.worked();
}

#[test]
fn too_many_bytes_are_turned_away_but_one_large_job_is_taken() {
    let mut bench = new_bench();
    let _first = bench.hold_up();
    let (done, large) = oneshot::channel();
    bench.keeping.submit(Job::State { name: "large", bytes: vec![0; WAITING_BYTES + 1], done }).unwrap();
    assert!(matches!(bench.keeping.submit(Job::Leave(false)), Err(StoreError::Overloaded)));
    bench.open();
    assert!(large.blocking_recv().unwrap().is_ok());
    assert!(bench.put_state("small").blocking_recv().unwrap().is_ok());
}

#[test]
fn closing_does_what_waits_and_takes_no_more() {
    let mut bench = new_bench();
    let pending = [bench.hold_up(), bench.put_state("second"), bench.found()];
    bench.open();
    bench.keeping.close();
    assert!(pending.into_iter().all(|outcome| outcome.blocking_recv().unwrap().is_ok()));
    assert!(matches!(bench.keeping.submit(Job::Leave(true)), Err(StoreError::Closed)));
    bench.keeping.close();
}

#[test]
fn nobody_waits_for_a_thread_that_died() {
    let bench = new_bench();
    let pending = [bench.hold_up(), bench.put_state("second")];
    bench.say(Verdict::Panic);
    assert!(pending.into_iter().all(|outcome| outcome.blocking_recv().is_err()));
    assert!(matches!(bench.keeping.submit(Job::Leave(true)), Err(StoreError::Closed)));
}

/// Another keeper, and the way to it.
struct Other {
    keeper: Keeper,
    content: replica::MemoryStore,
    me: Contact,
    now: u64,
}

impl Other {
    fn new() -> Other {
        let contact = Contact::at("127.0.0.1:2", "other");
        let keeper = Keeper::new(contact.clone(), 1, settings());
        Other { keeper, content: replica::MemoryStore::default(), me: contact, now: 0 }
    }

    /// Answers all letters of the bench that are on their way.
    fn answer(&mut self, bench: &Bench) {
        while let Ok((_, request)) = bench.letters.try_recv() {
            self.now += 1;
            let reply = self.keeper.serve(&mut self.content, Time(self.now), &me(), request).reply;
            bench.keeping.submit(Job::Hear { from: self.me.clone(), reply }).unwrap();
        }
    }

    /// Lets beats pass until this is so.
    fn until(&mut self, bench: &Bench, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "it does not come to that: {:?}", bench.keeping.seen());
            let around = Around {
                is_member: true,
                replication_factor: 3,
                predecessors: vec![self.me.clone()],
                successors: vec![self.me.clone()],
            };
            bench.keeping.submit(Job::Tick(around)).unwrap();
            assert!(bench.put_state("beat").blocking_recv().unwrap().is_ok());
            self.answer(bench);
        }
    }
}

/// A bench whose keeper serves a view with another member, which has to answer before a write is done; its gate is open.
fn pair() -> (Bench, Other) {
    let (mut bench, mut other) = (new_bench(), Other::new());
    let (again, received) = mpsc::channel();
    drop(bench.verdicts.replace(again));
    assert!(bench.found().blocking_recv().unwrap().is_ok());
    let seen = bench.keeping.watch();
    let serves_with = || seen.borrow().views.iter().any(|seen| seen.leads && seen.view.members.len() == 2);
    other.until(&bench, serves_with);
    // What it has answered last has been heard.
    assert!(bench.put_state("settled").blocking_recv().unwrap().is_ok());
    *bench.store.verdicts.lock().unwrap() = received;
    while bench.done.try_recv().is_ok() {}
    (bench, other)
}

#[test]
fn a_failed_transaction_leaves_operations_open_that_were_begun_before_it() {
    let (mut bench, mut other) = pair();
    let numbers: Vec<u64> = bench.mine().take(2).collect();
    let mut earlier = bench.write(numbers[0]);
    bench.worked();
    bench.say(Verdict::Commit);
    let failed = {
        let first = bench.hold_up();
        // One that is too large to go ahead.
        let failed = bench.write_bytes(numbers[1], HEAVY);
        other.answer(&bench);
        bench.say(Verdict::Commit);
        assert!(first.blocking_recv().unwrap().is_ok());
        bench.worked();
        bench.say(Verdict::Fail);
        failed
    };
    assert!(is_full(failed));
    assert!(is_open(&mut earlier), "its answer was in the transaction that failed");
    bench.open();
    let mut told = None;
    other.until(&bench, || {
        told = told.take().or_else(|| earlier.try_recv().ok());
        told.is_some()
    });
    assert!(matches!(told, Some(Ok(Told::Answer(Answer::Written(Written::Done(_)))))), "{told:?}");
    let seen = bench.keeping.seen();
    let is_stored = |n: u64| {
        let id = Id::of(n.to_string());
        seen.views.iter().any(|seen| bench.store.get(&seen.view.name().area(), &id).unwrap().is_some())
    };
    assert!(is_stored(numbers[0]) && !is_stored(numbers[1]));
}

#[test]
fn members_are_sent_a_write_before_it_is_durable_and_a_primary_that_loses_it_goes_on_in_another_epoch() {
    let (mut bench, mut other) = pair();
    let numbers: Vec<u64> = bench.mine().take(2).collect();
    let view = |seen: &Seen, n: u64| {
        let mut views = seen.views.iter().filter(|seen| seen.view.range.contains(&Id::of(n.to_string())));
        views.next().map(|seen| (seen.view.epoch, seen.leads)).unwrap()
    };
    let (epoch, leads) = view(&bench.keeping.seen(), numbers[0]);
    assert!(leads);
    while bench.letters.try_recv().is_ok() {}
    let lost = bench.write(numbers[0]);
    bench.worked();
    let (_, request) = bench.letters.recv_timeout(Duration::from_secs(60)).expect("a letter, before it is durable");
    assert!(request.may_go_ahead() && request.writes_in().count() == 1);
    let kept = other.keeper.serve(&mut other.content, Time(other.now), &me(), request).reply;
    bench.say(Verdict::Fail);
    assert_eq!(lost.blocking_recv().unwrap().unwrap(), Told::Answer(Answer::Unknown), "another one has it");
    // It would be counted for a write of the same number.
    bench.keeping.submit(Job::Hear { from: other.me.clone(), reply: kept }).unwrap();
    let refused = bench.write(numbers[1]);
    bench.open();
    let told = refused.blocking_recv().unwrap().unwrap();
    assert_eq!(told, Told::Answer(Answer::Refused(Refusal::Changing)), "it numbers nothing more in this epoch");
    let seen = bench.keeping.watch();
    other.until(&bench, || view(&seen.borrow(), numbers[1]).1);
    assert!(view(&bench.keeping.seen(), numbers[1]).0 > epoch);
    let mut again = bench.write(numbers[1]);
    other.until(&bench, || !is_open(&mut again));
}

#[test]
fn whoever_waits_when_the_ring_is_given_up_is_told_that_nobody_knows() {
    let (mut bench, _other) = pair();
    bench.open();
    let earlier = bench.write(bench.mine().next().unwrap());
    bench.ask(|done| Job::Begin { incarnation: 2, done }).blocking_recv().unwrap().unwrap();
    assert_eq!(earlier.blocking_recv().unwrap().unwrap(), Told::Answer(Answer::Unknown));
    assert!(bench.keeping.seen().is_new);
}

#[test]
fn outcomes_are_forgotten_by_a_clock_that_may_jump() {
    let (mut forgets, begun) = (Forgets::default(), Instant::now());
    let minute = |n: u64| begun + Duration::from_secs(60 * n);
    let right = |n: u64| 1_000_000_000 + 60_000 * n;
    for n in 0..15 {
        assert_eq!(forgets.mark(minute(n), right(n)), None, "nothing is forgotten so soon");
    }
    assert_eq!(forgets.mark(minute(15), right(15)), Some(right(0)));
    assert_eq!(forgets.mark(minute(15), right(15)), None, "once a minute is enough");
    // A clock that jumps ahead forgets nothing more than before; one that jumps back, less.
    assert_eq!(forgets.mark(minute(16), right(16) + 86_400_000), Some(right(1)));
    assert_eq!(forgets.mark(minute(17), 900_000), Some(0));
}
