//! Drives the protocol: makes durable what must be, sends its calls, hands the answers back, and answers others.
//!
//! The protocol's state stands behind one mutex that is held for a moment at a time and never across a wait. Whatever goes
//! to the disk is put in line under the same lock, so that the disk sees changes in the order in which they happened: a
//! range that is sealed has all its earlier writes in front of the seal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chordal_protocol::{
    Answer, Call, Chord, Contact, Content, Durable, Envelope, Interval, Outcome, Procedure, Record, Refusal, Reply,
    Request, Ring, Step, Time, Unreachable, Write, Written,
};
use tokio::sync::{mpsc, watch};

use super::Config;
use super::happenings::Happenings;
use super::recent::{Progress, Recent};
use super::transport::{NoAnswer, Peers, Transport};
use crate::http::KEY_LIMIT;
use crate::store::{Change, Changed, Pending, Store, StoreError, SubmitError, Writer};

/// The name under which the protocol's state is stored.
const STATE: &str = "chord";

/// How many procedures may wait in a lane. What does not fit comes again with the next interval.
const LANE: usize = 64;

/// How long an invited node may take to answer: well below what whoever asked for the invitation waits.
const INVITATION: Duration = Duration::from_millis(1_000);

/// The protocol's state, and how much of it has been sent to the disk.
pub(crate) struct Core {
    pub(crate) chord: Chord,
    recent: Recent,
    submitted: u64,
    pointers_submitted: u64,
    /// Of how many failures to write the state it is known that it must be sent again.
    failures: u64,
}

/// How far the protocol's state is on disk.
#[derive(Debug, Clone, Default)]
struct Durability {
    revision: u64,
    failures: u64,
    error: Option<StoreError>,
}

/// What must be on disk before something may leave the node.
struct Ticket {
    revision: u64,
    failures: u64,
    batch: Option<Pending>,
}

pub(crate) struct Driver {
    core: Mutex<Core>,
    pub(crate) store: Arc<dyn Store>,
    writer: Writer,
    transport: Arc<dyn Transport>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) happenings: Happenings,
    durability: watch::Sender<Durability>,
    /// Counts the changes of content, so that what was counted before can be told to be stale.
    pub(crate) content_changes: AtomicU64,
    ring_lane: mpsc::Sender<Procedure>,
    settle_lane: mpsc::Sender<Procedure>,
    fetch_lane: mpsc::Sender<Procedure>,
    started: Instant,
}

/// The procedures that wait, in the order of their lane.
pub(crate) struct Lanes {
    pub(crate) ring: mpsc::Receiver<Procedure>,
    pub(crate) settle: mpsc::Receiver<Procedure>,
    pub(crate) fetch: mpsc::Receiver<Procedure>,
}

impl Driver {
    pub(crate) fn new(
        chord: Chord,
        store: Arc<dyn Store>,
        writer: Writer,
        transport: Arc<dyn Transport>,
        peers: Arc<Peers>,
    ) -> (Arc<Driver>, Lanes) {
        let (ring_lane, ring) = mpsc::channel(LANE);
        let (settle_lane, settle) = mpsc::channel(LANE);
        let (fetch_lane, fetch) = mpsc::channel(LANE);
        let driver = Driver {
            core: Mutex::new(Core {
                chord,
                recent: Recent::default(),
                submitted: 0,
                pointers_submitted: 0,
                failures: 0,
            }),
            store,
            writer,
            transport,
            peers,
            happenings: Happenings::default(),
            durability: watch::Sender::new(Durability::default()),
            content_changes: AtomicU64::new(0),
            ring_lane,
            settle_lane,
            fetch_lane,
            started: Instant::now(),
        };
        (Arc::new(driver), Lanes { ring, settle, fetch })
    }

    /// What the store remembers of an earlier run.
    pub(crate) fn remembered(store: &dyn Store) -> Result<Option<Durable>, StoreError> {
        let Some(bytes) = store.state(STATE)? else { return Ok(None) };
        let unusable = |error: postcard::Error| {
            StoreError::Unusable(format!(
                "what this node remembers of its ring cannot be read ({error}): it was written by another version of \
                 chordal, or is damaged. Start the node with the release that wrote it, or with a new data directory"
            ))
        };
        postcard::from_bytes(&bytes).map(Some).map_err(unusable)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed().as_millis() as u64)
    }

    /// Runs a procedure to its end.
    pub(crate) async fn run(self: &Arc<Self>, procedure: Procedure) {
        let (step, ticket) = {
            let mut core = self.lock();
            let step = core.chord.begin(self.now(), procedure);
            let ticket = self.submit(&mut core, &step.merge, &step.drop, Vec::new());
            (step, ticket)
        };
        let mut open: VecDeque<Call> = VecDeque::new();
        let mut next = Some((step, ticket));
        loop {
            if let Some((step, ticket)) = next.take() {
                let Step { next, events, .. } = step;
                if let Err(error) = self.durable(ticket).await {
                    tracing::warn!(%error, "a procedure stops here: its step could not be made durable");
                    return;
                }
                self.happened(events);
                open.extend(next);
            }
            let Some(call) = open.pop_front() else { return };
            if call.delay > 0 {
                tokio::time::sleep(Duration::from_millis(call.delay)).await;
            }
            let outcome = self.ask(&call.to, &call.request).await.map_err(|_| Unreachable);
            let mut core = self.lock();
            let step = core.chord.resume(self.now(), call, outcome);
            let ticket = self.submit(&mut core, &step.merge, &step.drop, Vec::new());
            next = Some((step, ticket));
        }
    }

    /// Asks a node, which may be this one.
    pub(crate) async fn ask(self: &Arc<Self>, to: &Contact, request: &Request) -> Result<Reply, NoAnswer> {
        let (envelope, me) = {
            let core = self.lock();
            let from = core.chord.me().clone();
            let ring = core.chord.ring().map(|ring| ring.id);
            (Envelope { ring, from: from.clone(), request: request.clone() }, from)
        };
        if *to == me {
            return Ok(Box::pin(self.answer(envelope)).await);
        }
        let answer = self.transport.call(&to.addr, &envelope).await;
        if let Err(reason) = &answer {
            tracing::debug!(node = %to, %reason, "no answer");
        }
        answer
    }

    /// Answers a node.
    pub(crate) async fn answer(self: &Arc<Self>, envelope: Envelope) -> Reply {
        self.peers.heard_of(&envelope.from.addr);
        let mut changes = None;
        if let Request::Invite(ring) = &envelope.request {
            changes = Some(self.content_changes.load(Ordering::Relaxed));
            if let Some(refusal) = self.own_content(ring).await {
                return Reply::Refused(refusal);
            }
        }
        if let Request::Write(write) = &envelope.request
            && let Some(refusal) = too_large(write)
        {
            return Reply::Refused(refusal);
        }
        let (outcome, events, ticket) = {
            let mut core = self.lock();
            if changes.is_some_and(|before| before != self.content_changes.load(Ordering::Relaxed)) {
                // Somebody has stored something here since it was counted.
                return Reply::Refused(Refusal::Busy);
            }
            if let Request::Write(write) = &envelope.request
                && let Some(progress) = core.recent.progress(write.request)
            {
                return match progress {
                    Progress::Ended(written) => Reply::Written(written),
                    Progress::UnderWay => Reply::Refused(Refusal::Changing),
                };
            }
            let Answer { drop, outcome, events } = core.chord.serve(self.now(), envelope);
            let write = match &outcome {
                Outcome::Write(write, version) => {
                    core.recent.began(write.request);
                    vec![Change::Write { write: write.clone(), version: *version }]
                }
                _ => Vec::new(),
            };
            let ticket = self.submit(&mut core, &[], &drop, write);
            (outcome, events, ticket)
        };
        let durable = self.durable(ticket).await;
        if let Outcome::Write(write, _) = &outcome {
            return match self.written(write, durable) {
                Ok(written) => Reply::Written(written),
                Err(error) => Reply::Refused(refusal(error)),
            };
        }
        if let Err(error) = durable {
            return Reply::Refused(refusal(error));
        }
        self.happened(events);
        match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Write(..) => Reply::Refused(Refusal::Changing),
            Outcome::Read(id) => self.read(id).await,
            Outcome::Scan(range, after) => self.scan(range, after).await,
            Outcome::Invite(joiner, ring) => self.invite(&joiner, ring).await,
        }
    }

    /// Passes on what the joiner replies. Whoever wants that joiner welcomed waits for this answer in turn, and shall not
    /// take this node for dead because the joiner is.
    async fn invite(self: &Arc<Self>, joiner: &Contact, ring: Ring) -> Reply {
        let silent = |reason: &str| Reply::Refused(Refusal::Settled(format!("it does not answer: {reason}")));
        match tokio::time::timeout(INVITATION, self.ask(joiner, &Request::Invite(ring))).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(NoAnswer(reason))) => silent(&reason),
            Err(_) => silent("no answer in time"),
        }
    }

    /// The outcome of a write, noted for the case that it comes again.
    fn written(&self, write: &Write, durable: Result<Vec<Changed>, StoreError>) -> Result<Written, StoreError> {
        let outcome = durable.and_then(|changed| match changed.first() {
            Some(Changed::Write(written)) => Ok(*written),
            _ => Err(StoreError::Failed("the write has no outcome".to_owned())),
        });
        self.lock().recent.ended(write.request, outcome.as_ref().ok().copied());
        outcome
    }

    /// Writes as the owner.
    pub(crate) async fn write_here(&self, write: Write) -> Result<Result<Written, Refusal>, StoreError> {
        let ticket = {
            let mut core = self.lock();
            let version = match core.chord.admit_write(&write.id) {
                Ok(version) => version,
                Err(refusal) => return Ok(Err(refusal)),
            };
            core.recent.began(write.request);
            self.submit(&mut core, &[], &[], vec![Change::Write { write: write.clone(), version }])
        };
        let durable = self.durable(ticket).await;
        self.written(&write, durable).map(Ok)
    }

    /// Reads as the owner. Tombstones are told.
    pub(crate) async fn read_here(
        &self,
        id: chordal_protocol::Id,
    ) -> Result<Result<Option<Record>, Refusal>, StoreError> {
        if let Err(refusal) = self.lock().chord.admit_read(&id) {
            return Ok(Err(refusal));
        }
        let record = self.ask_store(move |store| store.get(&id)).await?;
        // The range may have gone while the store was asked, and its content with it.
        Ok(self.lock().chord.admit_read(&id).map(|()| record))
    }

    async fn read(&self, id: chordal_protocol::Id) -> Reply {
        match self.read_here(id).await {
            Ok(Ok(record)) => Reply::Read(record),
            Ok(Err(refusal)) => Reply::Refused(refusal),
            Err(error) => Reply::Refused(refusal(error)),
        }
    }

    async fn scan(&self, range: Interval, after: Option<chordal_protocol::Id>) -> Reply {
        let (limit, bytes) = {
            let core = self.lock();
            (core.chord.settings().page_records, core.chord.settings().page_bytes)
        };
        let page = self.ask_store(move |store| {
            let records = store.scan(range, after, limit, bytes)?;
            let last = match records.last() {
                Some(record) => store.scan(range, Some(record.id), 1, 0)?.is_empty(),
                None => true,
            };
            Ok((records, last))
        });
        match page.await {
            Ok((records, last)) => Reply::Page { records, last },
            Err(error) => Reply::Refused(refusal(error)),
        }
    }

    /// Asks the store something that may block.
    pub(crate) async fn ask_store<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || question(&*store)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// A node that holds values of a ring of its own does not give that ring up.
    async fn own_content(&self, ring: &Ring) -> Option<Refusal> {
        let mine = self.lock().chord.ring();
        if mine.is_none_or(|mine| mine.id == ring.id) {
            return None;
        }
        // What waits for the disk counts too.
        if let Ok(waiting) = self.writer.submit(Vec::new())
            && let Err(error) = waiting.await
        {
            return Some(refusal(error));
        }
        match self.ask_store(|store| store.count(Interval::whole(chordal_protocol::Id::ZERO))).await {
            Ok(0) => None,
            Ok(count) => Some(Refusal::Settled(format!(
                "it holds {count} values; start it with --bootstrap and a new data directory instead"
            ))),
            Err(error) => Some(refusal(error)),
        }
    }

    fn happened(&self, events: Vec<chordal_protocol::Event>) {
        for event in events {
            if let chordal_protocol::Event::Begin(procedure) = event {
                self.begin_soon(procedure);
            } else {
                self.happenings.note(event);
            }
        }
    }

    /// Puts a procedure in its lane. One that does not fit comes again with the next interval.
    pub(crate) fn begin_soon(&self, procedure: Procedure) {
        let lane = match procedure {
            Procedure::Settle => &self.settle_lane,
            Procedure::Acquire { .. } => &self.fetch_lane,
            _ => &self.ring_lane,
        };
        if let Err(error) = lane.try_send(procedure) {
            tracing::debug!(%error, "a procedure was put off");
        }
    }

    // ---- what goes to the disk ----

    /// Puts in line what a step or an answer needs on disk. Called under the lock, so that the order is that of events.
    fn submit(&self, core: &mut Core, merge: &[Record], drop: &[Interval], mut changes: Vec<Change>) -> Ticket {
        if !merge.is_empty() {
            changes.push(Change::Merge(merge.to_vec()));
        }
        changes.extend(drop.iter().map(|range| Change::Drop(*range)));
        if !changes.is_empty() {
            self.content_changes.fetch_add(1, Ordering::Relaxed);
        }
        let revision = core.chord.revision();
        let failures = self.durability.borrow().failures;
        if revision > core.submitted || self.must_be_sent_again(core) {
            self.submit_state(core);
        }
        let batch = (!changes.is_empty()).then(|| self.writer.submit(changes));
        let batch = match batch {
            Some(Ok(pending)) => Some(pending),
            None => None,
            Some(Err(error)) => {
                return Ticket { revision: u64::MAX, failures: refused(&self.durability, error), batch: None };
            }
        };
        Ticket { revision, failures, batch }
    }

    /// Whether the state was sent and did not get there. Whoever waits for it would wait for ever if nothing else came.
    fn must_be_sent_again(&self, core: &mut Core) -> bool {
        let durability = self.durability.borrow();
        let failed = durability.failures > core.failures;
        core.failures = durability.failures;
        failed && durability.revision < core.chord.revision()
    }

    /// Sends the state to the disk, and sees to it that its arrival is noted whoever waits for it.
    fn submit_state(&self, core: &mut Core) {
        let (revision, pointers) = (core.chord.revision(), core.chord.pointer_revision());
        let bytes = match postcard::to_stdvec(&core.chord.durable()) {
            Ok(bytes) => bytes,
            Err(error) => return self.state_failed(StoreError::Failed(error.to_string())),
        };
        match self.writer.submit(vec![Change::Put { name: STATE, bytes }]) {
            Ok(pending) => {
                core.submitted = revision;
                core.pointers_submitted = pointers;
                let durability = self.durability.clone();
                tokio::spawn(async move {
                    let outcome = pending.await;
                    durability.send_modify(|it| match outcome {
                        Ok(_) => it.revision = it.revision.max(revision),
                        Err(error) => {
                            it.failures += 1;
                            it.error = Some(error);
                        }
                    });
                });
            }
            Err(error) => self.state_failed(store_error(error)),
        }
    }

    fn state_failed(&self, error: StoreError) {
        self.durability.send_modify(|it| {
            it.failures += 1;
            it.error = Some(error);
        });
    }

    /// Waits until what a ticket stands for is on disk.
    async fn durable(&self, ticket: Ticket) -> Result<Vec<Changed>, StoreError> {
        if ticket.revision == u64::MAX {
            return Err(self.durability.borrow().error.clone().unwrap_or(StoreError::Closed));
        }
        let changed = match ticket.batch {
            Some(pending) => pending.await?,
            None => Vec::new(),
        };
        if self.durability.borrow().revision >= ticket.revision {
            return Ok(changed);
        }
        let mut durability = self.durability.subscribe();
        let settled = durability.wait_for(|it| it.revision >= ticket.revision || it.failures > ticket.failures).await;
        let Ok(durability) = settled else { return Err(StoreError::Closed) };
        if durability.revision >= ticket.revision {
            return Ok(changed);
        }
        // What could not be written is sent again with whatever comes next, or with the next beat.
        Err(durability.error.clone().unwrap_or(StoreError::Closed))
    }

    /// Writes the pointers if they have changed. They are hints, so nobody waits for it.
    pub(crate) fn write_pointers(&self) {
        let mut core = self.lock();
        let again = self.must_be_sent_again(&mut core);
        if again || core.chord.pointer_revision() > core.pointers_submitted || core.chord.revision() > core.submitted {
            self.submit_state(&mut core);
        }
    }

    /// Writes all that waits, and ends the writer. Blocks.
    pub(crate) fn close(&self) {
        self.write_pointers();
        self.writer.close();
    }
}

/// What no node of ours sends: it would have to travel in one message again when its range is handed over.
fn too_large(write: &Write) -> Option<Refusal> {
    let value = match &write.content {
        Content::Value { bytes, content_type } => bytes.len() + content_type.len(),
        Content::Tombstone => 0,
    };
    let bytes = value + write.key.as_ref().map_or(0, Vec::len);
    let most = Config::LARGEST_VALUE_LIMIT + 2 * KEY_LIMIT;
    (bytes > most).then(|| Refusal::Malformed(format!("a record of {bytes} bytes is more than the {most} that travel")))
}

/// How another node is told that the store failed.
fn refusal(error: StoreError) -> Refusal {
    match error {
        StoreError::Full(reason) => Refusal::Full(reason),
        StoreError::Overloaded => Refusal::Overloaded,
        error => Refusal::Store(error.to_string()),
    }
}

fn store_error(error: SubmitError) -> StoreError {
    match error {
        SubmitError::Overloaded => StoreError::Overloaded,
        SubmitError::Closed => StoreError::Closed,
    }
}

/// Notes that a batch was not taken, and returns how many failures there have been.
fn refused(durability: &watch::Sender<Durability>, error: SubmitError) -> u64 {
    durability.send_modify(|it| it.error = Some(store_error(error)));
    durability.borrow().failures
}
