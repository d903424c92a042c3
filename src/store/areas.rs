//! Where the records of an area are, and what of them is remembered so that it need not be searched for.
//!
//! Records lie under the number of their area, so that to rename an area is to give its number another name. What a promise
//! carries, the writes since the last stable one, and the tombstones that may go when more is stable, are remembered in memory
//! while they are few, as they are in a view that is well.

use std::collections::BTreeMap;

use chordal_protocol::replica::{Area, Parcel};
use chordal_protocol::{Id, Record, RequestId, Version};

/// What is known of an area.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    /// Under which its records lie.
    pub(super) number: u64,
    /// Up to where outcomes have been forgotten.
    pub(super) purged: u64,
    /// How many live values it holds.
    pub(super) live: u64,
    /// Its tombstones.
    pub(super) tombstones: BTreeMap<Version, Id>,
    /// Its writes after [`Shelf::floor`].
    pub(super) recent: BTreeMap<Version, (Id, RequestId)>,
    /// Up to where `recent` knows nothing.
    pub(super) floor: Version,
}

impl Shelf {
    pub(super) fn new(number: u64) -> Shelf {
        Shelf { number, ..Shelf::default() }
    }

    /// A record has taken the place of another one.
    pub(super) fn replaced(&mut self, old: Option<&Record>, new: &Record) {
        if let Some(old) = old {
            self.live -= u64::from(old.is_live());
            self.tombstones.remove(&old.version);
        }
        self.holds(new);
    }

    /// A record is there.
    pub(super) fn holds(&mut self, record: &Record) {
        self.live += u64::from(record.is_live());
        if !record.is_live() {
            self.tombstones.insert(record.version, record.id);
        }
    }

    /// A write has come in, whether or not a newer one is there.
    pub(super) fn written(&mut self, record: &Record) {
        self.recent.insert(record.version, (record.id, record.request));
    }

    /// What was written after this version, if that is known; the newest first stands for its register.
    pub(super) fn since(&self, version: Version) -> Option<Vec<(Version, Id, RequestId)>> {
        let later = (std::ops::Bound::Excluded(version), std::ops::Bound::Unbounded);
        let known = self.recent.range(later).map(|(version, (id, request))| (*version, *id, *request));
        (version >= self.floor).then(|| known.collect())
    }

    /// All up to here is at all members: nobody asks for it any more. The tombstones up to here may go.
    pub(super) fn stable(&mut self, up_to: Version) -> Vec<Id> {
        self.floor = self.floor.max(up_to);
        self.recent = self.recent.split_off(&up_to);
        self.recent.remove(&up_to);
        let later = self.tombstones.split_off(&Version { sequence: up_to.sequence + 1, ..up_to });
        std::mem::replace(&mut self.tombstones, later).into_values().collect()
    }

    /// All that it holds is this.
    pub(super) fn filled(&mut self, parcel: &Parcel) {
        self.purged = parcel.purged;
        for record in parcel.records.values() {
            self.holds(record);
        }
        let records = parcel.records.values().map(|record| record.version);
        let outcomes = parcel.outcomes.values().map(|outcome| outcome.version);
        self.floor = records.chain(outcomes).max().unwrap_or_default();
    }
}

/// All areas.
#[derive(Debug, Clone, Default)]
pub(super) struct Areas {
    pub(super) shelves: BTreeMap<Area, Shelf>,
    /// The next number that no area has had.
    pub(super) next: u64,
}

impl Areas {
    /// The shelf of an area, a new one if there is none.
    pub(super) fn open(&mut self, area: &Area) -> (&mut Shelf, bool) {
        let is_new = !self.shelves.contains_key(area);
        let next = &mut self.next;
        let shelf = self.shelves.entry(*area).or_insert_with(|| {
            *next += 1;
            Shelf::new(*next)
        });
        (shelf, is_new)
    }
}
