//! What a node keeps: records in id order, and a few named pieces of state.
//!
//! Every change goes through one [`Writer`] thread, which drains its queue into one transaction and acknowledges all of
//! it (group commit). Nothing is acknowledged before it is durable. Reads go to the [`Store`] itself, beside the writer,
//! and see what the last transaction left.
//!
//! Records lie in id order, so that a hand-over is a range scan. A deleted one stays as a tombstone until its range is
//! dropped, so that an older copy cannot bring it back.
//!
//! - `change`: what each change means, once for all stores
//! - `codec`, `order`: how a record is written down, and clockwise order over keys that are ordered by number
//! - `disk`, `file`: the store on disk ([`DiskStore`]), and the data directory with its lock and its format
//! - `memory`: the store for tests ([`MemoryStore`])
//! - `writer`: the queue and its thread

mod change;
mod codec;
mod disk;
mod file;
mod memory;
mod order;
#[cfg(test)]
mod tests;
mod writer;

use chordal_protocol::{Id, Interval, Record, Version, Write, Written};

pub use disk::DiskStore;
pub use memory::MemoryStore;
pub use writer::{Pending, SubmitError, WAITING_BATCHES, WAITING_BYTES, Writer};

/// The store failed; what was asked has not been acknowledged, and may or may not be on disk.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no room left.
    #[error("the disk of this node is full: {0}. Free some space; the node goes on by itself")]
    Full(String),
    /// Too much waits for the disk already; it was not even tried.
    #[error("too many changes are waiting for the disk of this node; try again shortly")]
    Overloaded,
    /// Anything else that the disk or the database said.
    #[error("the store of this node failed: {0}")]
    Failed(String),
    /// The store has been closed.
    #[error("this node is stopping")]
    Closed,
    /// The data directory can't be used.
    #[error("{0}")]
    Unusable(String),
}

/// One change. A batch of them is one transaction, applied in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A client's write, given this version if its condition holds for what is stored when its turn comes.
    ///
    /// A record that was already written by the same request is left alone, and its version is the outcome. A tombstone
    /// without a key takes over that of what it buries, so that one can still tell what was deleted; a value that was its
    /// own key becomes the tombstone's key if it has at most 1 KiB.
    Write {
        /// The wish.
        write: Write,
        /// The version it gets.
        version: Version,
    },
    /// Records from another node: each is kept if it is newer than what is stored.
    Merge(Vec<Record>),
    /// Forget every record in this range.
    Drop(Interval),
    /// Replace the named piece of state.
    Put {
        /// Its name.
        name: &'static str,
        /// Its new value.
        bytes: Vec<u8>,
    },
}

/// How one change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// A [`Change::Write`].
    Write(Written),
    /// Anything else is done.
    Done,
}

/// Where records are kept. All calls may block.
pub trait Store: Send + Sync + 'static {
    /// The record of this id, tombstones included.
    fn get(&self, id: &Id) -> Result<Option<Record>, StoreError>;

    /// Records in `range`, tombstones included, clockwise from `range.lo`, those strictly after `after` if it is given:
    /// at most `limit` of them, and no more than hold `bytes` bytes of keys and content together (but one in any case, if
    /// there is one).
    fn scan(&self, range: Interval, after: Option<Id>, limit: usize, bytes: usize) -> Result<Vec<Record>, StoreError>;

    /// How many live values there are in `range`.
    fn count(&self, range: Interval) -> Result<u64, StoreError>;

    /// The named piece of state.
    fn state(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Applies the changes in order, in one transaction; when this returns they are durable, all or none.
    fn commit(&self, changes: &[Change]) -> Result<Vec<Changed>, StoreError>;
}
