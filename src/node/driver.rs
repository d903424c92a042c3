//! Drives the ring's protocol: makes durable what must be, sends its calls, hands the answers back, and answers others.
//!
//! The protocol's state stands behind one mutex that is held for a moment at a time and never across a wait. What must be on
//! disk is put in line under the same lock, so that the disk sees changes in the order in which they happened. Content is the
//! business of a thread of its own (`keeping`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chordal_protocol::keeper::{self, Keeper};
use chordal_protocol::replica::{Answer as Told, Operation, Refusal as NotNow};
use chordal_protocol::{
    Answer, Call, Chord, Contact, Durable, Envelope, Event, Id, Outcome, Procedure, Refusal, Reply, Request, Ring,
    RingId, Step, Time, Unreachable, Write,
};
use rand::RngExt;
use tokio::sync::{mpsc, oneshot, watch};

use super::Config;
use super::happenings::Happenings;
use super::keeping::{self, Job, Keeping};
use super::outbox::Outbox;
use super::transport::{NoAnswer, Peers, Transport};
use crate::store::{Store, StoreError};
use crate::words::counted;

/// The name under which the protocol's state is stored.
const STATE: &str = "chord";

/// How many procedures may wait in a lane. What does not fit comes again with the next interval.
const LANE: usize = 64;

/// How long an invited node may take to answer: well below what whoever asked for the invitation waits.
const INVITATION: Duration = Duration::from_millis(1_000);

/// How long a primary may take to answer a node that asks it for a client. After that the outcome is unknown to that one, who
/// asks again.
const OPERATION: Duration = Duration::from_millis(800);

/// The protocol's state, and how much of it has been sent to the disk.
pub(crate) struct Core {
    pub(crate) chord: Chord,
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
}

pub(crate) struct Driver {
    core: Mutex<Core>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keeping: Keeping,
    transport: Arc<dyn Transport>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) happenings: Happenings,
    durability: watch::Sender<Durability>,
    /// The procedures that wait.
    lane: mpsc::Sender<Procedure>,
    started: Instant,
}

impl Driver {
    pub(crate) fn new(
        chord: Chord,
        keeper: Keeper,
        store: Arc<dyn Store>,
        transport: Arc<dyn Transport>,
        peers: Arc<Peers>,
    ) -> Result<(Arc<Driver>, mpsc::Receiver<Procedure>), StoreError> {
        let (lane, procedures) = mpsc::channel(LANE);
        let started = Instant::now();
        let outbox = Outbox::new();
        let keeping = Keeping::start(keeper, Arc::clone(&store), Arc::new(Arc::clone(&outbox)), started)?;
        let driver = Arc::new(Driver {
            core: Mutex::new(Core { chord, submitted: 0, pointers_submitted: 0, failures: 0 }),
            store,
            keeping,
            transport,
            peers,
            happenings: Happenings::default(),
            durability: watch::Sender::new(Durability::default()),
            lane,
            started,
        });
        outbox.connect(&driver);
        Ok((driver, procedures))
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
            let ticket = self.submit(&mut core);
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
                self.happened(events).await;
                open.extend(next);
            }
            let Some(call) = open.pop_front() else { return };
            let outcome = self.ask(&call.to, call.request.clone()).await.map_err(|_| Unreachable);
            let mut core = self.lock();
            let step = core.chord.resume(self.now(), call, outcome);
            let ticket = self.submit(&mut core);
            next = Some((step, ticket));
        }
    }

    /// Asks a node, which may be this one.
    pub(crate) async fn ask(self: &Arc<Self>, to: &Contact, request: Request) -> Result<Reply, NoAnswer> {
        let envelope = {
            let core = self.lock();
            let from = core.chord.me().clone();
            let ring = core.chord.ring().map(|ring| ring.id);
            Envelope { ring, from, request }
        };
        if *to == envelope.from {
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
        if let Request::Invite(ring) = &envelope.request
            && let Some(refusal) = self.own_content(ring)
        {
            return Reply::Refused(refusal);
        }
        if let Request::Operate(Operation::Write(write)) = &envelope.request
            && let Some(refusal) = too_large(write)
        {
            return Reply::Refused(refusal);
        }
        let from = envelope.from.clone();
        let (outcome, events, ticket) = {
            let mut core = self.lock();
            let Answer { outcome, events } = core.chord.serve(self.now(), envelope);
            let ticket = self.submit(&mut core);
            (outcome, events, ticket)
        };
        // What is asked of the keeper rests on nothing that the ring has written down.
        if let Outcome::Keep(request) = outcome {
            let served = match self.keeping.confirm(&request) {
                Some(reply) => Ok(reply),
                None => self.keeping.ask(|reply| Job::Serve { from, request, reply }).await,
            };
            let kept = |mut reply: keeper::Reply| {
                reply.leave_at(self.keeping.age());
                Reply::Kept(reply)
            };
            return served.map_or_else(|error| Reply::Refused(refusal(error)), kept);
        }
        if let Outcome::Operate(operation) = outcome {
            return self.operate(operation).await;
        }
        if let Err(error) = self.durable(ticket).await {
            return Reply::Refused(refusal(error));
        }
        self.happened(events).await;
        match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Invite(joiner, ring) => self.invite(&joiner, ring).await,
            Outcome::Keep(_) | Outcome::Operate(_) => Reply::Refused(Refusal::Busy),
        }
    }

    /// Does what a client of another node wants, as the primary.
    async fn operate(&self, operation: Operation) -> Reply {
        let id = *operation.id();
        let reply = match tokio::time::timeout(OPERATION, self.operate_here(operation)).await {
            Ok(Ok(keeping::Told::Answer(answer))) => Reply::Answered(answer),
            Ok(Ok(keeping::Told::NotMine(hint))) => Reply::Refused(Refusal::NotMine(self.hint(&id, hint))),
            Ok(Err(error)) => Reply::Refused(refusal(error)),
            Err(_) => Reply::Answered(Told::Unknown),
        };
        self.with_missing(&id, reply)
    }

    /// The same reply, or, where it is one because too few of those who keep the id answer, who does not.
    pub(crate) fn with_missing(&self, id: &Id, reply: Reply) -> Reply {
        let (in_doubt, other) = match &reply {
            Reply::Answered(Told::Unknown) => (true, None),
            Reply::Answered(Told::Refused(NotNow::Changing | NotNow::Pending | NotNow::NotServed)) => (false, None),
            Reply::Refused(Refusal::NotMine(hint)) => (false, hint.clone()),
            _ => return reply,
        };
        match self.missing(id) {
            // Somebody else may know better.
            Some(missing) if other.is_none_or(|other| missing.contains(&other)) => {
                Reply::Refused(Refusal::NoMajority { missing, in_doubt })
            }
            _ => reply,
        }
    }

    /// Who of those who keep an id with this node does not answer, if they are so many that nothing can be decided.
    fn missing(&self, id: &Id) -> Option<Vec<Contact>> {
        let seen = self.keeping.seen();
        let views = seen.views.iter().map(|seen| &seen.view).filter(|view| view.range.contains(id));
        let view = views.max_by_key(|view| view.epoch)?;
        let others = view.members.iter().filter(|member| Some(**member) != seen.me);
        let silent: Vec<Option<&Contact>> = others
            .map(|member| seen.contacts.get(&member.id))
            .filter(|contact| contact.is_none_or(|contact| self.peers.is_silent(&contact.addr)))
            .collect();
        let is_lost = view.members.len() - silent.len() < view.majority();
        is_lost.then(|| silent.into_iter().flatten().cloned().collect())
    }

    /// Does what a client wants, as the primary.
    pub(crate) async fn operate_here(&self, operation: Operation) -> Result<keeping::Told, StoreError> {
        self.keeping.ask(|answer| Job::Operate { operation, answer }).await
    }

    /// Whom to ask for an id that is not served here: the primary of the latest view that is known, or who may own it.
    pub(crate) fn hint(&self, id: &Id, primary: Option<Contact>) -> Option<Contact> {
        primary.or_else(|| self.lock().chord.hint(id))
    }

    /// Passes on what the joiner replies. Whoever wants that joiner welcomed waits for this answer in turn, and shall not
    /// take this node for dead because the joiner is.
    async fn invite(self: &Arc<Self>, joiner: &Contact, ring: Ring) -> Reply {
        let silent = |reason: &str| Reply::Refused(Refusal::Settled(format!("it does not answer: {reason}")));
        match tokio::time::timeout(INVITATION, self.ask(joiner, Request::Invite(ring))).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(NoAnswer { reason, .. })) => silent(&reason),
            Err(_) => silent("no answer in time"),
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
    fn own_content(&self, ring: &Ring) -> Option<Refusal> {
        let mine = self.lock().chord.ring();
        if mine.is_none_or(|mine| mine.id == ring.id) {
            return None;
        }
        match self.values() {
            Ok(0) => None,
            Ok(count) => Some(Refusal::Settled(format!(
                "it holds {}; start it with --bootstrap and a new data directory instead",
                counted(count, "value")
            ))),
            Err(error) => Some(refusal(error)),
        }
    }

    /// How many values it is the primary of.
    pub(crate) fn values(&self) -> Result<u64, StoreError> {
        let seen = self.keeping.seen();
        let mine = seen.views.iter().filter(|it| it.installed && Some(it.view.primary) == seen.me);
        mine.map(|it| self.store.count(&it.view.name().area())).sum()
    }

    async fn happened(&self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Begin(procedure) => self.begin_soon(procedure),
                Event::GaveUpRing => {
                    let incarnation = rand::rng().random();
                    if let Err(error) = self.keeping.ask(|done| Job::Begin { incarnation, done }).await {
                        tracing::error!(%error, "what was kept for the ring that was given up is still there");
                    }
                }
                event => self.happenings.note(event),
            }
        }
    }

    /// Puts a procedure in its lane. One that does not fit comes again with the next interval.
    pub(crate) fn begin_soon(&self, procedure: Procedure) {
        if let Err(error) = self.lane.try_send(procedure) {
            tracing::debug!(%error, "a procedure was put off");
        }
    }

    /// On a ring that was wired by hand nobody was first: each node founds what it owns, once it has a neighbour.
    pub(crate) fn found_by_hand(&self) {
        let range = {
            let core = self.lock();
            let is_wired = core.chord.ring().is_some_and(|ring| ring.id == RingId::WIRED_BY_HAND);
            if !is_wired || core.chord.not_ready().is_some() || core.chord.is_alone() {
                return;
            }
            core.chord.due()
        };
        if self.keeping.seen().is_new {
            let (done, _) = oneshot::channel();
            // Where too much waits it comes again with the next beat.
            let _ = self.keeping.submit(Job::Found { range, done });
        }
    }

    /// The keeper's beat.
    pub(crate) fn beat(&self) {
        let around = self.lock().chord.around();
        if let Err(error) = self.keeping.submit(Job::Tick(around)) {
            tracing::debug!(%error, "a beat was left out");
        }
    }

    // ---- what goes to the disk ----

    /// Puts in line what must be on disk. Called under the lock, so that the order is that of events.
    fn submit(&self, core: &mut Core) -> Ticket {
        let revision = core.chord.revision();
        let failures = self.durability.borrow().failures;
        if revision > core.submitted || self.must_be_sent_again(core) {
            self.submit_state(core);
        }
        Ticket { revision, failures }
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
        let (done, pending) = oneshot::channel();
        match self.keeping.submit(Job::State { name: STATE, bytes, done }) {
            Ok(()) => {
                core.submitted = revision;
                core.pointers_submitted = pointers;
                let durability = self.durability.clone();
                tokio::spawn(async move {
                    let outcome = pending.await.unwrap_or(Err(StoreError::Closed));
                    durability.send_modify(|it| match outcome {
                        Ok(_) => it.revision = it.revision.max(revision),
                        Err(error) => {
                            it.failures += 1;
                            it.error = Some(error);
                        }
                    });
                });
            }
            Err(error) => self.state_failed(error),
        }
    }

    fn state_failed(&self, error: StoreError) {
        self.durability.send_modify(|it| {
            it.failures += 1;
            it.error = Some(error);
        });
    }

    /// Waits until what a ticket stands for is on disk.
    async fn durable(&self, ticket: Ticket) -> Result<(), StoreError> {
        if self.durability.borrow().revision >= ticket.revision {
            return Ok(());
        }
        let mut durability = self.durability.subscribe();
        let settled = durability.wait_for(|it| it.revision >= ticket.revision || it.failures > ticket.failures).await;
        let Ok(durability) = settled else { return Err(StoreError::Closed) };
        if durability.revision >= ticket.revision {
            return Ok(());
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
        self.keeping.close();
    }
}

/// What no node of ours sends: it would have to travel in one message again when the members of its range change.
fn too_large(write: &Write) -> Option<Refusal> {
    let bytes = write.content.len() + write.key.as_ref().map_or(0, Vec::len);
    let most = Config::LARGEST_VALUE_LIMIT + 2 * super::KEY_LIMIT;
    (bytes > most).then(|| Refusal::Malformed(format!("a record of {bytes} bytes is more than the {most} that travel")))
}

/// How another node is told that the store failed.
pub(super) fn refusal(error: StoreError) -> Refusal {
    match error {
        StoreError::Full(reason) => Refusal::Full(reason),
        StoreError::Overloaded => Refusal::Overloaded,
        error => Refusal::Store(error.to_string()),
    }
}
