//! A simulated disk for a replica: what it keeps, and what a crash leaves of that.
//!
//! A replica's driver makes durable what a step has changed before anything of that step leaves (docs/decisions/0007-replicas.md).
//! A [`Disk`] is the [`Store`] that the steps write into, and it holds the [`Durable`] that goes with them. What is read is the
//! newest; what is on disk lags behind:
//!
//! ```text
//! step = replica.hear(&mut disk, now, letter)
//! number = disk.end_step(step.persist.then(|| replica.durable().clone()))
//! hold what leaves until disk.is_durable(number)         // also if the step changed nothing: it may have read
//! sync = disk.begin_sync()                               // at once, or when the one under way has ended: group commit
//! ... some time later, at the simulator's choice:
//! up_to = disk.end_sync(sync)                            // what was held up to there leaves; begin the next one
//! ```
//!
//! # Transactions
//!
//! One sync carries all steps that had ended when it was begun, and is one transaction, as with redb: after a crash it is there
//! as a whole, or it is not there; and what was not in a transaction is gone. That may be the one that was under way: it has
//! reached the disk, and nobody was told. [`Flaw::ShowsTorn`] is a disk which leaves a part of that one in sight; a simulator
//! that doesn't notice would not notice a node without transactions either.
//!
//! # How
//!
//! There is one state, the newest, and a log that undoes its pending changes: it holds what they have overwritten or removed, which is
//! moved there and not copied. A sync that ends drops the old end of the log, and a crash undoes the new one. So a step costs what it
//! changes, whatever the size of the store.
//!
//! Nothing is said here of time, except in [`Pace`], and chance is an input.

mod content;
mod counts;
mod crash;
mod pace;
mod undo;

use std::collections::VecDeque;

use chordal_protocol::replica::{Area, Cursor, Durable, Outcome, Parcel, Snapshot, Store};
use chordal_protocol::{Id, Interval, Record, RequestId, Version};

use content::Newest;
use undo::Undo;

pub use counts::Counts;
pub use crash::{Crash, Flaw};
pub use pace::Pace;

/// Names a sync that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncId(u64);

/// Why nothing has become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSynced {
    /// Everything is durable already.
    #[error("nothing is pending")]
    Nothing,
    /// A sync is under way, and there is one at a time. What is pending goes with the next one.
    #[error("a sync is under way")]
    UnderWay,
    /// No space was left. What is pending stays pending, can be read, and goes with a sync that is begun when there is space.
    #[error("the disk is full")]
    Full,
    /// It was under way when the machine crashed, or the disk was changed.
    #[error("this sync is over")]
    Over,
}

/// An old copy of a disk.
///
/// Rule 16 of the views knows such a copy by its boot count, if its owner has started since it was made, and others have heard
/// of that. Of a younger one keepers know that it has fewer transactions than they were told; a replica by itself does not.
#[derive(Debug, Clone)]
pub struct Backup {
    newest: Newest,
    incarnation: u64,
}

impl Backup {
    /// What the replica had on disk besides its content.
    pub fn durable(&self) -> Option<&Durable> {
        self.newest.durable.as_ref()
    }
}

/// The disk of one node. See the module.
#[derive(Debug)]
pub struct Disk {
    newest: Newest,
    incarnation: u64,
    /// How many directories this disk has had: incarnations don't come twice.
    made: u64,
    /// What undoes the pending changes, the oldest first.
    log: VecDeque<Undo>,
    /// How many changes each pending step has made.
    pending: VecDeque<usize>,
    /// How many changes the step has made that has not ended.
    open: usize,
    /// The number of the last step that is durable. Pending ones follow it.
    durable: u64,
    under_way: Option<UnderWay>,
    syncs: u64,
    is_full: bool,
    flaw: Option<Flaw>,
    counts: Counts,
}

#[derive(Debug)]
struct UnderWay {
    sync: SyncId,
    /// The last step that it carries.
    up_to: u64,
    fails: bool,
}

impl Disk {
    /// An empty disk, with a directory of this incarnation.
    pub fn new(incarnation: u64) -> Disk {
        Disk {
            newest: Newest::default(),
            incarnation,
            made: incarnation,
            log: VecDeque::new(),
            pending: VecDeque::new(),
            open: 0,
            durable: 0,
            under_way: None,
            syncs: 0,
            is_full: false,
            flaw: None,
            counts: Counts::default(),
        }
    }

    /// The disk with a flaw, for simulators only.
    #[must_use]
    pub fn planted(self, flaw: Flaw) -> Disk {
        Disk { flaw: Some(flaw), ..self }
    }

    /// Which data directory this is.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What a node finds when it starts, besides its content; none in an empty directory. As with content this is the newest: what
    /// is on disk only after a crash.
    pub fn durable(&self) -> Option<&Durable> {
        self.newest.durable.as_ref()
    }

    /// The areas that hold something, in order.
    pub fn areas(&self) -> impl Iterator<Item = &Area> {
        self.newest.areas()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many steps are pending.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The step is over: what it has written into the store, and the state if it has changed, become durable together, and
    /// after those of all steps before. Returns the number of the step that its outputs wait for: its own, or, if it has changed
    /// nothing, that of the last one that has.
    ///
    /// A crash takes numbers back, as it does steps: whatever the machine has held is gone with it.
    pub fn end_step(&mut self, durable: Option<Durable>) -> u64 {
        if let Some(durable) = durable {
            let undo = Undo::Durable(self.newest.durable.replace(durable).map(Box::new));
            self.note(Some(undo));
        }
        if self.open > 0 {
            self.pending.push_back(std::mem::take(&mut self.open));
        }
        self.last_step()
    }

    /// Whether everything up to this step is on disk.
    pub fn is_durable(&self, step: u64) -> bool {
        step <= self.durable
    }

    /// How many steps have been durable, ever.
    pub fn steps(&self) -> u64 {
        self.durable
    }

    /// Begins to write all pending steps in one transaction.
    pub fn begin_sync(&mut self) -> Result<SyncId, NotSynced> {
        if self.under_way.is_some() {
            return Err(NotSynced::UnderWay);
        }
        if self.pending.is_empty() {
            return Err(NotSynced::Nothing);
        }
        if self.is_full {
            self.counts.refused += 1;
            return Err(NotSynced::Full);
        }
        self.syncs += 1;
        let sync = SyncId(self.syncs);
        self.under_way = Some(UnderWay { sync, up_to: self.last_step(), fails: false });
        Ok(sync)
    }

    /// The sync has ended: everything up to the step that is returned is durable.
    pub fn end_sync(&mut self, sync: SyncId) -> Result<u64, NotSynced> {
        let Some(ended) = self.under_way.take_if(|under_way| under_way.sync == sync) else {
            return Err(NotSynced::Over);
        };
        if ended.fails {
            self.counts.refused += 1;
            return Err(NotSynced::Full);
        }
        self.counts.syncs += 1;
        self.counts.synced_steps += ended.up_to - self.durable;
        self.settle(ended.up_to);
        Ok(self.durable)
    }

    /// The disk is full: a sync that is under way fails, and none is begun. Reads work.
    pub fn fill(&mut self) {
        self.counts.full += u64::from(!self.is_full);
        self.is_full = true;
        if let Some(under_way) = &mut self.under_way {
            under_way.fails = true;
        }
    }

    /// There is space again.
    pub fn free(&mut self) {
        self.is_full = false;
    }

    /// Whether no space is left.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// The disk is lost. The node comes back with an empty one, and so in a new incarnation.
    pub fn gone(&mut self) {
        self.made += 1;
        self.incarnation = self.made;
        self.put_in(Newest::default());
        self.is_full = false;
        self.counts.gone += 1;
    }

    /// A copy of what is on disk now: not of what is pending.
    pub fn backup(&self) -> Backup {
        let mut newest = self.newest.clone();
        self.log.iter().rev().for_each(|undo| newest.undo(undo.clone()));
        Backup { newest, incarnation: self.incarnation }
    }

    /// An old copy is put in place of the disk, while the machine is down.
    pub fn restore(&mut self, backup: &Backup) {
        self.incarnation = backup.incarnation;
        self.put_in(backup.newest.clone());
        self.counts.restored += 1;
    }

    fn put_in(&mut self, newest: Newest) {
        self.durable = self.last_step();
        self.forget_pending();
        self.newest = newest;
    }

    fn forget_pending(&mut self) {
        self.log.clear();
        self.pending.clear();
        self.open = 0;
        self.under_way = None;
    }

    fn last_step(&self) -> u64 {
        self.durable + self.pending.len() as u64
    }

    /// What the pending steps up to this one have overwritten is not needed any more.
    fn settle(&mut self, up_to: u64) {
        let steps = (up_to - self.durable) as usize;
        let changes: usize = self.pending.drain(..steps).sum();
        self.log.drain(..changes);
        self.durable = up_to;
    }

    fn note(&mut self, undo: Option<Undo>) {
        self.open += usize::from(undo.is_some());
        self.log.extend(undo);
    }
}

/// Reads see the newest; writes belong to the step that ends next.
impl Snapshot for Disk {
    fn record(&self, area: &Area, id: &Id) -> Option<Record> {
        self.newest.parcel(area)?.records.get(id).cloned()
    }

    fn outcome(&self, area: &Area, request: RequestId) -> Option<Outcome> {
        self.newest.parcel(area)?.outcomes.get(&request).copied()
    }

    fn purged(&self, area: &Area) -> u64 {
        self.newest.parcel(area).map_or(0, |parcel| parcel.purged)
    }

    fn since(&self, area: &Area, version: Version) -> Parcel {
        self.newest.parcel(area).map(|parcel| parcel.since(version)).unwrap_or_default()
    }

    fn page(&self, area: &Area, range: &Interval, after: Option<Cursor>, room: usize) -> (Parcel, Option<Cursor>) {
        self.newest.parcel(area).map(|parcel| parcel.page(range, after, room)).unwrap_or_default()
    }
}

impl Store for Disk {
    fn put(&mut self, area: &Area, record: &Record) {
        let undo = self.newest.put(area, record);
        self.note(undo);
    }

    fn purge(&mut self, area: &Area, mark: u64) {
        let undo = self.newest.purge(area, mark);
        self.note(undo);
    }

    fn collect(&mut self, area: &Area, up_to: Version) -> bool {
        let undo = self.newest.collect(area, up_to);
        let collects = undo.is_some();
        self.note(undo);
        collects
    }

    fn extend(&mut self, area: &Area, parcel: Parcel) {
        let undo = self.newest.extend(area, parcel);
        self.note(Some(undo));
    }

    fn derive(&mut self, from: &Area, to: &Area, range: &Interval, up_to: Version) {
        let undo = self.newest.derive(from, to, range, up_to);
        self.note(undo);
    }

    fn discard(&mut self, area: &Area) {
        let undo = self.newest.discard(area);
        self.note(undo);
    }
}
