//! Many writes or reads in one request: each at its owner, several at a time.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chordal_protocol::{Id, Record, Write, Written};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Node, NodeError, Served};

/// How many owners' answers one request waits for at the same time, if its values are small.
const AT_ONCE: usize = 32;

/// How many all requests together wait for.
const AT_ONCE_IN_ALL: usize = 256;

/// A value counts once more for each of these bytes that it has, as far as one request may wait at all. Large values keep
/// nodes busy, and one that is too busy to stabilize is taken for dead.
const COUNTS_ONCE: usize = 32 << 10;

/// How large values are taken to be before the first has come.
const GUESS: usize = 256 << 10;

/// What a node may have under way for requests of this kind.
pub(super) struct Lanes(Semaphore);

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes(Semaphore::new(AT_ONCE_IN_ALL))
    }
}

/// What has been fetched for one request.
#[derive(Debug)]
struct Fetched {
    /// Bytes in all.
    bytes: AtomicUsize,
    /// How large the next value is taken to be: as those before it, the last ones most.
    guess: AtomicUsize,
}

impl Fetched {
    fn note(&self, size: usize) {
        self.bytes.fetch_add(size, Ordering::Relaxed);
        // A guess that is overwritten by a neighbour's is still a guess.
        self.guess.store((self.guess.load(Ordering::Relaxed) + size) / 2, Ordering::Relaxed);
    }
}

/// What became of one write.
pub type WriteEnd = Result<(Written, Served), NodeError>;

/// What came of one read; a tombstone is `None`.
pub type ReadEnd = Result<(Option<Record>, Served), NodeError>;

impl Node {
    /// Finds the owners and writes there; the ends stand in the order of the writes.
    ///
    /// Writes of one register are done one after the other, in the order given; others in any order and several at a time,
    /// those that lie near each other on the circle one after the other, because they tend to have one owner. What has not
    /// been begun within a third of the operation deadline is not begun any more, and ends as [`NodeError::Unavailable`].
    pub async fn write_many(&self, writes: Vec<Write>) -> Vec<WriteEnd> {
        let node = self.clone();
        let wishes = writes.into_iter().map(|write| (write.id, write)).collect();
        let weigh = |write: &Write| write.content.len() + write.key.as_ref().map_or(0, Vec::len);
        self.many(wishes, weigh, move |write| {
            let node = node.clone();
            async move { node.write(write).await }
        })
        .await
    }

    /// Finds the owners and reads there; the ends stand in the order of the ids.
    ///
    /// Once the values have `most` bytes together, no more are fetched: what is left ends as [`NodeError::Overloaded`]. Of
    /// those under way at that moment some more may come.
    pub async fn read_many(&self, ids: Vec<Id>, most: usize) -> Vec<ReadEnd> {
        let node = self.clone();
        let fetched = Arc::new(Fetched { bytes: AtomicUsize::new(0), guess: AtomicUsize::new(GUESS) });
        let guess = Arc::clone(&fetched);
        let wishes = ids.into_iter().map(|id| (id, id)).collect();
        self.many(
            wishes,
            move |_| guess.guess.load(Ordering::Relaxed),
            move |id| {
                let (node, fetched) = (node.clone(), Arc::clone(&fetched));
                async move {
                    if fetched.bytes.load(Ordering::Relaxed) >= most {
                        return Err(NodeError::Overloaded);
                    }
                    let end = node.read(id).await?;
                    fetched.note(end.0.as_ref().map_or(0, size));
                    Ok(end)
                }
            },
        )
        .await
    }

    async fn many<W, E, Doing>(
        &self,
        wishes: Vec<(Id, W)>,
        weigh: impl Fn(&W) -> usize + Clone + Send + Sync + 'static,
        act: impl Fn(W) -> Doing + Clone + Send + Sync + 'static,
    ) -> Vec<Result<E, NodeError>>
    where
        W: Send + 'static,
        E: Send + 'static,
        Doing: Future<Output = Result<E, NodeError>> + Send,
    {
        let count = wishes.len();
        let begin_by = Instant::now() + self.inner.config.operation_deadline / 3;
        let work = Arc::new(Work { waiting: Mutex::new(chains(wishes)), lane: Semaphore::new(AT_ONCE), begin_by });
        let mut workers = JoinSet::new();
        for _ in 0..AT_ONCE.min(count) {
            let (node, weigh, act, work) = (self.clone(), weigh.clone(), act.clone(), Arc::clone(&work));
            workers.spawn(async move { work.through(&node.inner.many, weigh, act).await });
        }
        let mut ends: Vec<Option<Result<E, NodeError>>> = (0..count).map(|_| None).collect();
        while let Some(done) = workers.join_next().await {
            for (place, end) in done.unwrap_or_default() {
                ends[place] = Some(end);
            }
        }
        // Only a worker that panicked leaves holes, and what it did is not known.
        ends.into_iter().map(|end| end.unwrap_or_else(lost)).collect()
    }
}

/// What the workers of one request share.
struct Work<W> {
    waiting: Mutex<VecDeque<Chain<W>>>,
    lane: Semaphore,
    begin_by: Instant,
}

impl<W> Work<W> {
    /// One worker: takes chains until none is left.
    async fn through<E, Doing>(
        &self,
        of_node: &Lanes,
        weigh: impl Fn(&W) -> usize,
        act: impl Fn(W) -> Doing,
    ) -> Vec<(usize, Result<E, NodeError>)>
    where
        Doing: Future<Output = Result<E, NodeError>>,
    {
        let mut ends = Vec::new();
        while let Some(chain) = self.take() {
            for (place, wish) in chain {
                let count = 1 + (weigh(&wish) / COUNTS_ONCE).min(AT_ONCE - 1) as u32;
                let turn = async { (self.lane.acquire_many(count).await, of_node.0.acquire_many(count).await) };
                let end = match timeout_at(self.begin_by, turn).await {
                    Ok(_permits) if Instant::now() < self.begin_by => act(wish).await,
                    _ => Err(not_begun()),
                };
                ends.push((place, end));
            }
        }
        ends
    }

    fn take(&self) -> Option<Chain<W>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Wishes for one register, each with its place among all.
type Chain<W> = Vec<(usize, W)>;

/// The wishes of each register, in order; the registers in the order of the circle.
fn chains<W>(wishes: Vec<(Id, W)>) -> VecDeque<Chain<W>> {
    let mut chains: BTreeMap<Id, Chain<W>> = BTreeMap::new();
    for (place, (id, wish)) in wishes.into_iter().enumerate() {
        chains.entry(id).or_default().push((place, wish));
    }
    chains.into_values().collect()
}

fn size(record: &Record) -> usize {
    let value = record.content.len();
    value + record.key.as_ref().map_or(value, Vec::len)
}

fn not_begun() -> NodeError {
    NodeError::Unavailable {
        reason: "the records before this one took too long, so it was not begun; send it again, with fewer others"
            .to_owned(),
    }
}

fn lost<E>() -> Result<E, NodeError> {
    let reason = "the node made a mistake, which its log describes".to_owned();
    Err(NodeError::Deadline { waited: std::time::Duration::ZERO, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guess_follows_what_comes() {
        let fetched = Fetched { bytes: AtomicUsize::new(0), guess: AtomicUsize::new(GUESS) };
        (0..20).for_each(|_| fetched.note(100));
        assert_eq!(fetched.bytes.load(Ordering::Relaxed), 2000);
        assert!((90..110).contains(&fetched.guess.load(Ordering::Relaxed)));
        (0..3).for_each(|_| fetched.note(1 << 20));
        assert!(fetched.guess.load(Ordering::Relaxed) > 800 << 10);
    }

    #[test]
    fn wishes_of_one_register_stay_in_order() {
        let (a, b) = (Id::of("a"), Id::of("b"));
        let (first, second) = if a < b { (a, b) } else { (b, a) };
        let chains = chains(vec![(second, 'p'), (first, 'q'), (second, 'r'), (first, 's')]);
        assert_eq!(chains, [vec![(1, 'q'), (3, 's')], vec![(0, 'p'), (2, 'r')]]);
    }
}
