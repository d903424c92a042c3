//! The one thread through which every change goes.
//!
//! Making something durable costs about the same for one change as for many. So whatever waits when the thread is free
//! becomes one transaction, and all of it is acknowledged together: the more there is to do, the less each costs.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::codec::{content_size, size};
use super::{Change, Changed, Store, StoreError};

/// How many batches may wait.
pub const WAITING_BATCHES: usize = 4096;
/// How many bytes may wait. A batch that is larger by itself is taken when nothing else waits.
pub const WAITING_BYTES: usize = 64 << 20;
/// How many batches become one transaction, at most.
const GROUP_BATCHES: usize = 1024;
/// How many bytes become one transaction, at most, unless one batch alone has more.
const GROUP_BYTES: usize = 4 << 20;
/// What a change weighs in the queue beside its content.
const CHANGE_BYTES: usize = 128;

/// The way to a store for changes: batches are committed in the order in which they were submitted, each in one
/// transaction, which it may share with its neighbours.
///
/// Dropping it closes it, and like [`Writer::close`] that waits for the disk.
pub struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A batch was not taken: it will not be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too much waits already.
    #[error("too many changes are waiting for the disk of this node; try again shortly")]
    Overloaded,
    /// The writer has been closed.
    #[error("this node is stopping")]
    Closed,
}

/// The outcome of a batch, once it is durable: one entry for each of its changes.
///
/// An error means that the batch was not acknowledged, and may or may not be on disk. Dropping this takes nothing back.
#[derive(Debug)]
#[must_use = "nothing is durable before this resolves"]
pub struct Pending(oneshot::Receiver<Outcome>);

type Outcome = Result<Vec<Changed>, StoreError>;

impl Writer {
    /// Starts the thread, which ends with [`Writer::close`].
    pub fn start(store: Arc<dyn Store>) -> Result<Writer, StoreError> {
        let queue = Arc::new(Queue::default());
        let consumer = Consumer(Arc::clone(&queue));
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || consumer.run(&*store))
            .map_err(|error| StoreError::Failed(format!("there is no thread for its writer: {error}")))?;
        Ok(Writer { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Puts a batch in line, without waiting. An empty one resolves when all before it have been dealt with.
    pub fn submit(&self, changes: Vec<Change>) -> Result<Pending, SubmitError> {
        let (acknowledge, pending) = oneshot::channel();
        let bytes = changes.iter().map(weight).sum();
        self.queue.push(Batch { changes, bytes, acknowledge })?;
        Ok(Pending(pending))
    }

    /// Takes no more batches, commits those that wait, acknowledges them, and returns when that is done and the thread
    /// has ended. It may block for as long as the disk takes, so an async worker must not call it.
    pub fn close(&self) {
        self.queue.close();
        // Locked until the thread has ended, so that whoever else closes it returns no sooner.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // If it panicked, everyone who waited has been told already.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("waiting", &self.queue.lock().batches.len()).finish_non_exhaustive()
    }
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.0).poll(context).map(|outcome| outcome.unwrap_or(Err(StoreError::Closed)))
    }
}

struct Batch {
    changes: Vec<Change>,
    bytes: usize,
    acknowledge: oneshot::Sender<Outcome>,
}

/// The batches that wait. A queue of our own, because channels count messages, and what has to be bounded here is
/// memory.
#[derive(Default)]
struct Queue {
    line: Mutex<Line>,
    arrived: Condvar,
}

#[derive(Default)]
struct Line {
    batches: VecDeque<Batch>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    fn push(&self, batch: Batch) -> Result<(), SubmitError> {
        let mut line = self.lock();
        if line.closed {
            return Err(SubmitError::Closed);
        }
        let too_heavy = line.bytes + batch.bytes > WAITING_BYTES && !line.batches.is_empty();
        if too_heavy || line.batches.len() >= WAITING_BATCHES {
            return Err(SubmitError::Overloaded);
        }
        line.bytes += batch.bytes;
        line.batches.push_back(batch);
        drop(line);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for batches, and takes those that become the next transaction. `None` once it is closed and empty.
    fn next_group(&self) -> Option<Vec<Batch>> {
        let mut line = self.lock();
        while line.batches.is_empty() {
            if line.closed {
                return None;
            }
            line = self.arrived.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
        let mut group: Vec<Batch> = Vec::new();
        let mut room = GROUP_BYTES;
        while let Some(batch) = line.batches.front() {
            let fits = batch.bytes <= room && group.len() < GROUP_BATCHES;
            if !fits && !group.is_empty() {
                break;
            }
            room = room.saturating_sub(batch.bytes);
            line.bytes -= batch.bytes;
            group.extend(line.batches.pop_front());
        }
        Some(group)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's end of the queue. When it goes, in whatever way, nobody is left waiting.
struct Consumer(Arc<Queue>);

impl Consumer {
    fn run(self, store: &dyn Store) {
        while let Some(group) = self.0.next_group() {
            commit_group(store, group);
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().batches.clear();
    }
}

/// One transaction for all, and to each its part of the outcome. If it fails, it fails for all.
fn commit_group(store: &dyn Store, group: Vec<Batch>) {
    let mut changes = Vec::new();
    let mut waiting = Vec::with_capacity(group.len());
    for batch in group {
        waiting.push((batch.changes.len(), batch.acknowledge));
        changes.extend(batch.changes);
    }
    let mut outcome = store.commit(&changes).map(Vec::into_iter);
    for (count, acknowledge) in waiting {
        let part = match &mut outcome {
            Ok(changed) => Ok(changed.take(count).collect()),
            Err(error) => Err(error.clone()),
        };
        // Who has stopped waiting need not be told.
        let _ = acknowledge.send(part);
    }
}

fn weight(change: &Change) -> usize {
    CHANGE_BYTES
        + match change {
            Change::Write { write, .. } => write.key.as_ref().map_or(0, Vec::len) + content_size(&write.content),
            Change::Merge(records) => records.iter().map(|record| CHANGE_BYTES + size(record)).sum(),
            Change::Drop(_) => 0,
            Change::Put { bytes, .. } => bytes.len(),
        }
}
