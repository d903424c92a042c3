//! What is counted.

use std::ops::AddAssign;

/// What has happened to a disk. A fault that never happens proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Syncs that ended well.
    pub syncs: u64,
    /// Steps that became durable by those.
    pub synced_steps: u64,
    /// How often the disk has become full.
    pub full: u64,
    /// Syncs that failed for that, or were not begun.
    pub refused: u64,
    /// Crashes.
    pub crashes: u64,
    /// Steps that crashes have undone.
    pub lost_steps: u64,
    /// Crashes that left a transaction whose end nobody was told of.
    pub landed: u64,
    /// Crashes that left a part of a step in sight.
    pub torn: u64,
    /// How often all was lost.
    pub gone: u64,
    /// How often an old copy was put in place.
    pub restored: u64,
}

/// The sum over several disks.
impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.syncs += other.syncs;
        self.synced_steps += other.synced_steps;
        self.full += other.full;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.lost_steps += other.lost_steps;
        self.landed += other.landed;
        self.torn += other.torn;
        self.gone += other.gone;
        self.restored += other.restored;
    }
}
