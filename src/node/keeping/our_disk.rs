//! How far the disk of this node has come, as its letters say it (rule 16).

use std::sync::atomic::{AtomicU64, Ordering};

use chordal_protocol::keeper::Age;

/// What a node says when others have refused its disk.
pub(crate) const RESTORED: &str = "the data directory of this node is an older copy of the one that it had: other nodes know it from \
     later, and heed nothing that it says. Move the directory away and start the node with an empty one";

/// What is durable, for those who send letters. Only what is below a letter when it leaves counts, so it is read then.
#[derive(Debug)]
pub(super) struct OurDisk {
    life: u32,
    began: u64,
    durable: AtomicU64,
}

impl OurDisk {
    /// The disk of a node that starts now and finds so many transactions.
    pub(super) fn new(transactions: u64) -> OurDisk {
        OurDisk { life: rand::random(), began: transactions, durable: AtomicU64::new(transactions) }
    }

    /// So many transactions are durable now. To be called before anything leaves that rests on the last of them.
    pub(super) fn has(&self, transactions: u64) {
        self.durable.store(transactions, Ordering::Release);
    }

    /// What a letter says that leaves now.
    pub(super) fn age(&self) -> Age {
        Age { life: self.life, began: self.began, durable: self.durable.load(Ordering::Acquire) }
    }
}
