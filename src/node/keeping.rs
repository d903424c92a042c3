//! The thread that keeps content: it alone runs the [`Keeper`] and changes the store.
//!
//! What others ask, what clients want and what the beat brings waits in one line. The thread takes all that waits, does it in
//! one transaction, and lets nothing of it leave before that is durable: replies, letters and answers alike (group commit).
//! A read waits no longer than the writes that it stands in line with. One thing goes ahead: the members of a view are sent a
//! write while this node's own disk is still at it ([`replica::Request::may_go_ahead`]).
//!
//! What only looks, a read and the answer that confirms it, needs no transaction, and where the thread is at rest it needs no
//! thread either: whoever brings it does it, with the state of the thread in his hands.
//!
//! If a transaction fails, the store tells whether it happened. If it did not, the keeper is put back to what it was: nobody has
//! heard of anything, and the node goes on, able to serve reads while its disk is full.

mod desk;
mod fenced;
mod forgets;
mod line;
mod look;
mod our_disk;
mod recovery;
mod seen;
mod standing;
#[cfg(test)]
#[path = "keeping_tests.rs"]
mod tests;
mod waiting;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::request::unix_millis;
use chordal_protocol::keeper::{self, Around, Keeper, Served};
use chordal_protocol::replica::{self, Answer, Area, Event, Letter, Name, Operation, Refusal, Token};
use chordal_protocol::{Contact, Interval, Time};
use tokio::sync::{oneshot, watch};

use crate::store::{Store, StoreError, Transaction};
use desk::Desk;
use forgets::Forgets;
use line::Line;
use our_disk::OurDisk;
pub(crate) use our_disk::RESTORED;
pub(crate) use recovery::{NotRecovered, Recovery};
pub(crate) use seen::{Moved, Seen, SeenView};
use standing::Standing;
use waiting::Waiting;

/// The name under which the keeper's state is stored.
const STATE: &str = "keeper";

/// How long to wait before asking a store that fails again.
const STORE_PAUSE: Duration = Duration::from_millis(100);

/// Writes wait for others for as long as the last transaction took, but no longer than this.
const LONGEST_GATHER: Duration = Duration::from_millis(5);

/// For how long a disk that was full is taken to be full.
const FULL_FOR: Duration = Duration::from_secs(10);

/// From how many bytes on something brings content that a full disk may not have room for.
const HEAVY: usize = 4096;

/// How often what the keeper remembers goes to the disk with writes. Stable marks are in it: those that a crash takes back make the
/// next view change carry so many more writes.
const MARKS_EVERY: Duration = Duration::from_millis(100);

/// What a client is told, or who may serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The answer of the primary.
    Answer(Answer),
    /// This node is not the primary; it may be this one.
    NotMine(Option<Contact>),
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something for the thread to do.
pub(crate) enum Job {
    /// Another keeper asks.
    Serve { from: Contact, request: keeper::Request, reply: Reply<keeper::Reply> },
    /// Another keeper has answered.
    Hear { from: Contact, reply: keeper::Reply },
    /// A client wants something.
    Operate { operation: Operation, answer: Reply<Told> },
    /// Time has passed.
    Tick(Around),
    /// This stretch is kept here from now on, and nobody has kept it before.
    Found { range: Interval, done: Reply<()> },
    /// Get out of all views, or stay.
    Leave(bool),
    /// The ring was given up: a new incarnation keeps nothing.
    Begin { incarnation: u64, done: Reply<()> },
    /// A person brings back a range that has lost its majority for good.
    Recover { recovery: Recovery, done: Reply<Result<(), NotRecovered>> },
    /// Write down a piece of state that is no keeper's.
    State { name: &'static str, bytes: Vec<u8>, done: Reply<()> },
}

/// Where letters and news go.
pub(crate) trait Outside: Send + Sync + 'static {
    /// Send this on its way. It may be dropped: what matters is asked again.
    fn send(&self, to: Contact, request: keeper::Request);
    /// Content has moved.
    fn moved(&self, moved: Moved);
}

/// The way to the thread.
pub(crate) struct Keeping {
    line: Arc<Line>,
    desk: Arc<Desk>,
    standing: Arc<Standing>,
    disk: Arc<OurDisk>,
    seen: watch::Receiver<Arc<Seen>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeping {
    /// What the store remembers of an earlier run.
    pub(crate) fn remembered(store: &dyn Store) -> Result<Option<keeper::Durable>, StoreError> {
        let Some(bytes) = store.state(STATE)? else { return Ok(None) };
        postcard::from_bytes(&bytes).map(Some).map_err(|error| {
            StoreError::Unusable(format!(
                "what this node remembers of its views cannot be read ({error}): it was written by another version of \
                 chordal, or is damaged. Start the node with the release that wrote it, or with a new data directory"
            ))
        })
    }

    /// Starts the thread.
    pub(crate) fn start(
        keeper: Keeper,
        store: Arc<dyn Store>,
        outside: Arc<dyn Outside>,
        started: Instant,
    ) -> Result<Keeping, StoreError> {
        Keeping::gathering(LONGEST_GATHER, keeper, store, outside, started)
    }

    /// The same, with writes waiting for others no longer than this.
    fn gathering(
        longest_gather: Duration,
        keeper: Keeper,
        store: Arc<dyn Store>,
        outside: Arc<dyn Outside>,
        started: Instant,
    ) -> Result<Keeping, StoreError> {
        let line = Arc::new(Line::default());
        let standing = Arc::new(Standing::default());
        let (tell, seen) = watch::channel(Arc::new(Seen::default()));
        let transactions = store.transactions()?;
        let disk = Arc::new(OurDisk::new(transactions));
        let work = Work {
            line: Arc::clone(&line),
            standing: Arc::clone(&standing),
            disk: Arc::clone(&disk),
            keeper,
            store,
            outside,
            tell,
            started,
            transactions,
            must_persist: true,
            waiting: Waiting::default(),
            reads: Vec::new(),
            forgets: Forgets::default(),
            remembered: None,
            gather_until: started,
            longest_gather,
            doubt: None,
            full_since: None,
            put_aside: Vec::new(),
            steps_down: BTreeSet::new(),
            asks_the_thread_until: None,
        };
        let desk = Arc::new(Desk(Mutex::new(Some(work))));
        let (desk_of_thread, line_of_thread) = (Arc::clone(&desk), Arc::clone(&line));
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || desk_of_thread.run(&line_of_thread))
            .map_err(|error| StoreError::Failed(format!("there is no thread for its keeper: {error}")))?;
        Ok(Keeping { line, desk, standing, disk, seen, thread: Mutex::new(Some(thread)) })
    }

    /// Puts a job in line, without waiting, or does it at once. One that is not taken will not be done.
    pub(crate) fn submit(&self, job: Job) -> Result<(), StoreError> {
        match self.desk.look(job) {
            None => Ok(()),
            Some(job) => self.line.push(job),
        }
    }

    /// Answers another keeper at once, if it asks nothing but whether views stand, and that is known.
    pub(crate) fn confirm(&self, request: &keeper::Request) -> Option<keeper::Reply> {
        self.standing.confirm(request, Instant::now())
    }

    /// How far the disk has come: what letters say that leave now.
    pub(crate) fn age(&self) -> keeper::Age {
        self.disk.age()
    }

    /// Has something done, and waits for the outcome.
    pub(crate) async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let (reply, outcome) = oneshot::channel();
        self.submit(job(reply))?;
        outcome.await.unwrap_or(Err(StoreError::Closed))
    }

    /// What can be seen now.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen.borrow())
    }

    /// Waits for what can be seen to change.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Seen>> {
        self.seen.clone()
    }

    /// Takes no more jobs, does those that wait, and returns when the thread has ended. It may block for as long as the disk
    /// takes, so an async worker must not call it.
    pub(crate) fn close(&self) {
        self.line.close();
        // Locked until the thread has ended, so that whoever else closes it returns no sooner.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // If it panicked, everyone who waited has been told already.
            let _ = thread.join();
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread's own.
struct Work {
    line: Arc<Line>,
    standing: Arc<Standing>,
    disk: Arc<OurDisk>,
    keeper: Keeper,
    store: Arc<dyn Store>,
    outside: Arc<dyn Outside>,
    tell: watch::Sender<Arc<Seen>>,
    started: Instant,
    /// How many transactions are durable.
    transactions: u64,
    must_persist: bool,
    waiting: Waiting,
    /// Reads of a transaction that failed, to be done again by themselves.
    reads: Vec<Job>,
    forgets: Forgets,
    /// When what the keeper remembers was last written.
    remembered: Option<Instant>,
    /// Until when writes wait for others to join them.
    gather_until: Instant,
    longest_gather: Duration,
    /// A transaction that failed, and nobody could say yet whether it happened.
    doubt: Option<Doubt>,
    /// When the disk was last found to be full.
    full_since: Option<Instant>,
    /// Content that is in a file now, and to be discarded with the next transaction.
    put_aside: Vec<Area>,
    /// The views that this node has sent writes for which it has then taken back.
    steps_down: BTreeSet<Name>,
    /// Until when reads are left to the thread, for the disk has let somebody wait who is in a hurry.
    asks_the_thread_until: Option<Instant>,
}

/// What is to be said and done if the transaction happened, and to what the keeper goes back if it did not.
struct Doubt {
    before: Keeper,
    out: Out,
    error: StoreError,
}

/// A reply that waits for the disk: it is told what went wrong, if anything has.
type Late = Box<dyn FnOnce(Option<&StoreError>) + Send>;

/// What may leave the node once the transaction is durable.
#[derive(Default)]
struct Out {
    persist: bool,
    /// Whether time has passed.
    beat: bool,
    /// Whether the state had to be written in any case.
    owed: bool,
    replies: Vec<Late>,
    /// Which views were said to stand, to whom.
    confirmed: Vec<Letter<replica::Reply>>,
    /// Operations that were begun in this transaction.
    begun: Vec<(Token, bool)>,
    /// Whether these are reads that are done a second time.
    again: bool,
    /// Whether the node is to leave or to stay. Nobody says so again, so it holds whatever becomes of the transaction.
    leaving: Option<bool>,
    /// Whether writes may go ahead of this transaction: all that they rest on is durable.
    is_settled: bool,
    /// Those that do, and in which views.
    ahead: Vec<(Contact, keeper::Request)>,
    went_ahead: BTreeSet<Name>,
    step: keeper::Step,
}

impl Out {
    fn take(&mut self, step: keeper::Step) {
        self.persist |= step.persist;
        self.is_settled &= !step.persist;
        let goes_ahead = |request: &keeper::Request| request.may_go_ahead() && request.weight() < HEAVY;
        for (to, request) in step.calls {
            let line = if self.is_settled && goes_ahead(&request) { &mut self.ahead } else { &mut self.step.calls };
            line.push((to, request));
        }
        self.step.answers.extend(step.answers);
        self.step.events.extend(step.events);
    }
}

impl Drop for Work {
    /// Whoever comes now is told that it is over, and so are those who wait: the thread has been closed, or has panicked.
    fn drop(&mut self) {
        self.line.close();
        while self.line.take(Instant::now()).is_some() {}
    }
}

impl Work {
    /// Does all of these; false if it was closed before it could.
    fn all(&mut self, jobs: Vec<Job>) -> bool {
        for jobs in self.apart(jobs) {
            if !self.is_settled() {
                return false;
            }
            let jobs = self.look(jobs);
            if !jobs.is_empty() {
                self.group(jobs, false);
            }
            if !self.reads.is_empty() && self.doubt.is_none() {
                let reads = std::mem::take(&mut self.reads);
                self.group(reads, true);
            }
        }
        true
    }

    /// Waits until it is known whether the last transaction has happened; false if this is closed before.
    fn is_settled(&mut self) -> bool {
        while self.doubt.is_some() && !self.settle() {
            thread::sleep(STORE_PAUSE);
            if self.line.is_closed() {
                break;
            }
        }
        self.doubt.is_none()
    }

    /// What is to be done in one transaction each. As long as the disk is full, what brings content would take all with it that it
    /// stands in line with, the beat and what others say: it comes last, and by itself.
    fn apart(&mut self, jobs: Vec<Job>) -> Vec<Vec<Job>> {
        if !self.was_full() {
            return vec![jobs];
        }
        let is_heavy = |job: &Job| !matches!(job, Job::State { .. }) && line::weight(job) >= HEAVY;
        let (heavy, light): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_heavy);
        [light, heavy].into_iter().filter(|jobs| !jobs.is_empty()).collect()
    }

    /// Whether the disk was full a moment ago.
    fn was_full(&self) -> bool {
        self.full_since.is_some_and(|since| since.elapsed() < FULL_FOR)
    }

    /// Does all of these in one transaction.
    fn group(&mut self, jobs: Vec<Job>, again: bool) {
        let before = self.keeper.clone();
        let owed = std::mem::take(&mut self.must_persist);
        let is_settled = !owed && !self.was_full();
        let mut out = Out { persist: owed, owed, again, is_settled, ..Out::default() };
        let is_due = self.remembered.is_none_or(|at| at.elapsed() >= MARKS_EVERY);
        out.persist |= is_due && jobs.iter().any(line::is_write);
        let mut jobs = Some(jobs);
        let now = self.time();
        let Work { keeper, waiting, store, outside, put_aside, steps_down, .. } = self;
        let mark = self.forgets.mark(Instant::now(), unix_millis());
        let begun = Instant::now();
        let outcome = store.transact(&mut |mut transaction| {
            for area in put_aside.iter() {
                replica::Store::discard(&mut transaction, area);
            }
            if !steps_down.is_empty() {
                let step = keeper.step_down(&mut transaction, now, steps_down);
                out.take(step);
            }
            for job in jobs.take().into_iter().flatten() {
                do_job(keeper, waiting, transaction, now, job, &mut out);
            }
            if let Some(mark) = mark {
                keeper.purge(&mut transaction, mark);
            }
            if out.persist
                && let Ok(bytes) = postcard::to_stdvec(&keeper.durable())
            {
                transaction.put_state(STATE, &bytes);
            }
            for (to, request) in out.ahead.drain(..) {
                out.went_ahead.extend(request.writes_in());
                outside.send(to, request);
            }
        });
        match outcome {
            Ok(changed) => {
                if out.persist {
                    self.remembered = Some(begun);
                }
                if changed {
                    // Where the disk is slow, or busy, more writes share a way to it.
                    let took = begun.elapsed();
                    self.gather_until = begun + took + took.min(self.longest_gather);
                }
                self.transactions += u64::from(changed);
                self.release(out);
            }
            Err(error) => match jobs {
                Some(jobs) => self.refuse(jobs, owed, &error),
                None => {
                    self.doubt = Some(Doubt { before, out, error });
                    self.settle();
                }
            },
        }
    }

    /// The transaction was not even begun.
    fn refuse(&mut self, jobs: Vec<Job>, owed: bool, error: &StoreError) {
        tracing::warn!(%error, "no transaction could be begun");
        self.must_persist |= owed;
        for job in jobs {
            // Who has stopped waiting need not be told.
            match job {
                Job::Serve { reply, .. } => drop(reply.send(Err(error.clone()))),
                Job::Operate { answer, .. } => drop(answer.send(Err(error.clone()))),
                Job::Found { done, .. } | Job::Begin { done, .. } | Job::State { done, .. } => {
                    drop(done.send(Err(error.clone())));
                }
                Job::Recover { done, .. } => drop(done.send(Err(error.clone()))),
                Job::Leave(leaves) => leave(&mut self.keeper, leaves),
                // They come again.
                Job::Hear { .. } | Job::Tick(_) => {}
            }
        }
    }

    /// Finds out whether the transaction that failed has happened; false if the store cannot say.
    fn settle(&mut self) -> bool {
        let Ok(durable) = self.store.transactions() else { return false };
        let Some(Doubt { before, out, error }) = self.doubt.take() else { return true };
        if durable > self.transactions {
            self.transactions = durable;
            self.release(out);
            return true;
        }
        tracing::warn!(%error, "a transaction failed, and nothing of it has happened");
        if matches!(error, StoreError::Full(_)) {
            self.full_since = Some(Instant::now());
        }
        self.must_persist |= out.owed;
        self.keeper = before;
        if let Some(leaves) = out.leaving {
            leave(&mut self.keeper, leaves);
        }
        for reply in out.replies {
            reply(Some(&error));
        }
        // Others may have what this node has not, and it cannot number other writes like those.
        let may_have_happened = !out.went_ahead.is_empty();
        self.steps_down.extend(out.went_ahead);
        for (token, is_read) in out.begun {
            match self.waiting.end(token) {
                // A read needs no room: it only stood in line with what does.
                Some((id, answer)) if is_read && !out.again => {
                    self.reads.push(Job::Operate { operation: Operation::Get(id), answer });
                }
                Some((_, reply)) if may_have_happened => {
                    let _ = reply.send(Ok(Told::Answer(Answer::Unknown)));
                }
                Some((_, reply)) => {
                    let _ = reply.send(Err(error.clone()));
                }
                None => {}
            }
        }
        true
    }

    /// It is durable: now others may hear of it.
    fn release(&mut self, out: Out) {
        let keeper::Step { calls, answers, events, .. } = out.step;
        self.disk.has(self.transactions);
        self.standing.note(out.confirmed, Instant::now());
        self.put_aside.clear();
        let has_stepped_down = !std::mem::take(&mut self.steps_down).is_empty();
        if events.iter().any(|event| matches!(event, Event::Fenced(_))) {
            self.put_fenced_aside();
        }
        // First what can be seen, so that whoever is answered sees it.
        let is_changed = out.persist || has_stepped_down || !events.is_empty() || self.keeper.is_leaving();
        if is_changed {
            self.standing.follow(self.keeper.replica().durable());
        }
        if is_changed || out.beat {
            self.show(&events, out.beat);
        }
        for reply in out.replies {
            reply(None);
        }
        self.deliver(calls, answers);
    }

    /// Lets go what others and clients are told.
    fn deliver(&mut self, calls: Vec<(Contact, keeper::Request)>, answers: Vec<(Token, Answer)>) {
        for (to, request) in calls {
            self.outside.send(to, request);
        }
        for (token, answer) in answers {
            let Some((id, reply)) = self.waiting.end(token) else { continue };
            let told = match answer {
                Answer::Refused(Refusal::NotServed) => Told::NotMine(self.keeper.hint(&id).cloned()),
                answer => Told::Answer(answer),
            };
            // Who has stopped waiting need not be told.
            let _ = reply.send(Ok(told));
        }
    }
}

fn do_job(
    keeper: &mut Keeper,
    waiting: &mut Waiting,
    mut store: &mut dyn Transaction,
    now: Time,
    job: Job,
    out: &mut Out,
) {
    let store = &mut store;
    let step = match job {
        Job::Serve { from, request, reply } => {
            let Served { reply: said, step } = keeper.serve(store, now, &from, request);
            out.confirmed.extend(standing::confirmations(&said));
            out.replies.push(answering(reply, said));
            step
        }
        Job::Hear { from, reply } => keeper.hear(store, now, &from, reply),
        Job::Operate { operation, answer } => {
            let token = waiting.begin(*operation.id(), answer);
            out.begun.push((token, matches!(operation, Operation::Get(_))));
            keeper.operate(store, now, token, operation)
        }
        Job::Tick(around) => {
            out.beat = true;
            keeper.tick(store, now, &around)
        }
        Job::Found { range, done } => {
            out.replies.push(answering(done, ()));
            let durable = keeper.replica().durable();
            let has_kept = !durable.held.is_empty() || !durable.over.is_empty();
            if has_kept { keeper::Step::default() } else { keeper.found(range) }
        }
        Job::Leave(leaves) => {
            leave(keeper, leaves);
            out.leaving = Some(leaves);
            keeper::Step::default()
        }
        Job::Begin { incarnation, done } => {
            keeper.begin_anew(store, incarnation);
            out.persist = true;
            out.replies.push(answering(done, ()));
            // The new keeper knows nothing of what the old one was asked, and would never answer it.
            let forgotten = waiting.tokens().map(|token| (token, Answer::Unknown)).collect();
            keeper::Step { answers: forgotten, ..keeper::Step::default() }
        }
        Job::Recover { recovery, done } => {
            let (outcome, step) = recovery::carry_out(keeper, store, now, recovery);
            out.replies.push(answering(done, outcome));
            step
        }
        Job::State { name, bytes, done } => {
            store.put_state(name, &bytes);
            out.replies.push(answering(done, ()));
            keeper::Step::default()
        }
    };
    out.take(step);
}

fn leave(keeper: &mut Keeper, leaves: bool) {
    if leaves {
        keeper.leave();
    } else {
        keeper.stay();
    }
}

/// Says this when it is durable, or why it is not.
fn answering<T: Send + 'static>(reply: Reply<T>, said: T) -> Late {
    Box::new(move |error| {
        // Who has stopped waiting need not be told.
        let _ = reply.send(error.map_or(Ok(said), |error| Err(error.clone())));
    })
}
