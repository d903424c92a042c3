//! What a node keeps: content in areas, and a few named pieces of state.
//!
//! An area holds the content of one view, or what is staged for one that may follow (docs/decisions/0007-replicas.md). All
//! changes of a batch are one transaction ([`Store::transact`]), which the node's one keeping thread makes: it does what has
//! been asked for since the last one, and nobody hears of it before it is durable (group commit). Others only read.
//!
//! - `codec`, `order`: how a record is written down, and clockwise order over keys that are ordered by number
//! - `areas`, `piece`, `tally`: where the records of an area are, and what of them is remembered so that it need not be searched
//!   for
//! - `aside`: content that nobody may merge any more, in a file for a person
//! - `disk`, `transaction`, `snapshot`, `file`: the store on disk ([`DiskStore`]), its open transaction, what can be seen in it or
//!   without one, and the data directory with its lock and its format
//! - `log`, `rows`: what makes a transaction durable before the database has it, and the rows that the database has not yet, in memory
//! - `memory`: the store that forgets ([`MemoryStore`])

mod areas;
mod aside;
mod codec;
mod disk;
mod file;
mod log;
mod memory;
mod order;
mod piece;
mod rows;
mod snapshot;
mod tally;
#[cfg(test)]
mod tests;
mod transaction;

use std::ops::Bound;
use std::path::PathBuf;

use chordal_protocol::replica::Area;
use chordal_protocol::{Id, Record, replica};

pub use disk::DiskStore;
pub use memory::MemoryStore;

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

/// What a transaction can do. Reads see what it has written before. Where the disk fails it says nothing is there, and
/// the transaction fails as a whole: nothing that was decided by it may leave the node.
pub trait Transaction: replica::Store {
    /// Replaces a named piece of state.
    fn put_state(&mut self, name: &'static str, bytes: &[u8]);
}

/// Where content is kept. All calls may block.
pub trait Store: Send + Sync + 'static {
    /// The named piece of state.
    fn state(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Does the work in one transaction; when this returns it is durable, all or nothing. Whether it changed anything. After
    /// an error it may be either: [`Store::transactions`] tells which.
    fn transact(&self, work: &mut dyn FnMut(&mut dyn Transaction)) -> Result<bool, StoreError>;

    /// Shows this all content as the last transaction has left it, and changes nothing. Where the disk fails it shows nothing, and
    /// this fails. For the thread that makes the transactions, or while it makes none.
    fn look(&self, work: &mut dyn FnMut(&dyn replica::Snapshot)) -> Result<(), StoreError>;

    /// How many transactions that changed something are durable, ever.
    fn transactions(&self) -> Result<u64, StoreError>;

    /// The record of this id, tombstones included.
    fn get(&self, area: &Area, id: &Id) -> Result<Option<Record>, StoreError>;

    /// Records of an area in the order of their ids from zero upwards, tombstones included, those from
    /// this bound on: at most `limit` of them, and no more than hold `bytes` bytes of keys and content together (but one in any case).
    fn page(&self, area: &Area, from: Bound<Id>, limit: usize, bytes: usize) -> Result<Vec<Record>, StoreError>;

    /// How many live values an area holds.
    fn count(&self, area: &Area) -> Result<u64, StoreError>;

    /// All areas that there are.
    fn areas(&self) -> Result<Vec<Area>, StoreError>;

    /// Writes the live values of an area to a file of this name, durably, in the form of an export. Where that is, and how many
    /// there were; none if this store keeps no files.
    fn put_aside(&self, area: &Area, name: &str) -> Result<Option<(PathBuf, u64)>, StoreError>;
}
