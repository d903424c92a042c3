//! Where the records of an area are, and what of them is remembered so that it need not be searched for.
//!
//! Records lie under the number of their area, so that to rename an area is to give its number another name. What a promise
//! carries, the writes since the last stable one, and the tombstones that may go when more is stable, are remembered in memory
//! while they are few, as they are in a view that is well.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use chordal_protocol::replica::{Area, Parcel};
use chordal_protocol::{Id, Record, RequestId, Version};

/// What is known of an area. Versions order the writes of one view; where views were merged two registers may have the same
/// one, so that nothing here is known by its version alone.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    /// Under which its records lie.
    pub(super) number: u64,
    /// Up to where outcomes have been forgotten.
    pub(super) purged: u64,
    /// How many live values it holds.
    pub(super) live: u64,
    /// Its tombstones.
    tombstones: BTreeSet<(Version, Id)>,
    /// Its writes after [`Shelf::floor`].
    recent: BTreeSet<(Version, Id, RequestId)>,
    /// Up to where `recent` knows nothing.
    floor: Version,
}

impl Shelf {
    pub(super) fn new(number: u64, purged: u64) -> Shelf {
        Shelf { number, purged, ..Shelf::default() }
    }

    /// A record has taken the place of another one.
    pub(super) fn replaced(&mut self, old: Option<&Record>, new: &Record) {
        if let Some(old) = old {
            self.live -= u64::from(old.is_live());
            self.tombstones.remove(&(old.version, old.id));
        }
        self.holds(new.id, new.version, new.is_live());
    }

    /// A record is there.
    pub(super) fn holds(&mut self, id: Id, version: Version, is_live: bool) {
        self.live += u64::from(is_live);
        if !is_live {
            self.tombstones.insert((version, id));
        }
    }

    /// A write has come in, whether or not a newer one is there.
    pub(super) fn written(&mut self, record: &Record) {
        if record.version > self.floor {
            self.recent.insert((record.version, record.id, record.request));
        }
    }

    /// What was there before it was remembered what is written: of all up to here nothing is known.
    pub(super) fn knows_nothing_up_to(&mut self, version: Version) {
        self.floor = self.floor.max(version);
    }

    /// Which registers were written by which requests after this version, if that is known. Some of it may have been written
    /// over since.
    pub(super) fn since(&self, version: Version) -> Option<impl Iterator<Item = (Id, RequestId)> + '_> {
        let later = self.recent.range((Bound::Excluded((version, Id::MAX, RequestId(u128::MAX))), Bound::Unbounded));
        (version >= self.floor).then(|| later.map(|(_, id, request)| (*id, *request)))
    }

    /// All up to here is at all members: nobody asks for it any more. The tombstones up to here may go.
    pub(super) fn stable(&mut self, up_to: Version) -> BTreeSet<Id> {
        self.floor = self.floor.max(up_to);
        self.recent.retain(|(version, ..)| *version > up_to);
        let mut gone = BTreeSet::new();
        self.tombstones.retain(|(version, id)| {
            let stays = *version > up_to;
            if !stays {
                gone.insert(*id);
            }
            stays
        });
        gone
    }

    /// All that it holds is this.
    pub(super) fn filled(&mut self, parcel: &Parcel) {
        self.purged = parcel.purged;
        for (id, record) in &parcel.records {
            self.holds(*id, record.version, record.is_live());
        }
        let records = parcel.records.values().map(|record| record.version);
        let outcomes = parcel.outcomes.values().map(|outcome| outcome.version);
        self.floor = records.chain(outcomes).max().unwrap_or_default();
    }
}

/// All areas, as one transaction has left them. Cloning is cheap; what a transaction then changes becomes its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Areas {
    shelves: BTreeMap<Area, Arc<Shelf>>,
    /// The last number that an area was given.
    last: u64,
    /// Which transaction that was.
    pub(super) transactions: u64,
}

impl Areas {
    pub(super) fn get(&self, area: &Area) -> Option<&Shelf> {
        self.shelves.get(area).map(Arc::as_ref)
    }

    pub(super) fn names(&self) -> Vec<Area> {
        self.shelves.keys().copied().collect()
    }

    pub(super) fn get_mut(&mut self, area: &Area) -> Option<&mut Shelf> {
        self.shelves.get_mut(area).map(Arc::make_mut)
    }

    /// The shelf of an area, a new one if there is none; and whether it is new, and still has to be named on disk.
    pub(super) fn open(&mut self, area: &Area) -> (&mut Shelf, bool) {
        let is_new = !self.shelves.contains_key(area);
        let last = &mut self.last;
        let shelf = self.shelves.entry(*area).or_insert_with(|| {
            *last += 1;
            Arc::new(Shelf::new(*last, 0))
        });
        (Arc::make_mut(shelf), is_new)
    }

    /// Puts a shelf under a name that has none.
    pub(super) fn insert(&mut self, area: Area, shelf: Arc<Shelf>) {
        self.last = self.last.max(shelf.number);
        self.shelves.insert(area, shelf);
    }

    pub(super) fn remove(&mut self, area: &Area) -> Option<Arc<Shelf>> {
        self.shelves.remove(area)
    }
}
