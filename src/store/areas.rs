//! Where the records of an area are, and what of them is remembered so that it need not be searched for.
//!
//! An area is made of pieces: records lie under a number, and a piece is what lies under its number between two ids. So to give a
//! part of an area to another one, or to join two, is to give pieces other owners, whatever they hold. What a promise carries, the
//! writes since the last stable one, and the tombstones that may go when more is stable, are remembered in memory while they are
//! few, as they are in a view that is well.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use chordal_protocol::replica::Area;
use chordal_protocol::{Id, Interval, Record, RequestId, Version};

use super::piece::{self, Piece};
use super::tally::Tally;

/// How many writes are remembered beyond those that have not been stable yet: more than a view takes without their becoming
/// so, and than a primary holds the mark back for.
const REMEMBERED: usize = 16_384;

/// What is known of an area. Versions order the writes of one view; where views were merged two registers may have the same
/// one, so that nothing here is known by its version alone.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    /// Where its records lie, in the order of their ids. They do not overlap.
    pub(super) pieces: Vec<Piece>,
    /// Up to where outcomes have been forgotten.
    pub(super) purged: u64,
    /// How many live values it holds, and about where.
    pub(super) live: Tally,
    /// Its tombstones.
    tombstones: BTreeSet<(Version, Id)>,
    /// Its writes after [`Shelf::floor`].
    recent: BTreeSet<(Version, Id, RequestId)>,
    /// Up to where `recent` knows nothing.
    floor: Version,
}

impl Shelf {
    pub(super) fn new(pieces: Vec<Piece>, purged: u64) -> Shelf {
        Shelf { pieces, purged, ..Shelf::default() }
    }

    /// A record has taken the place of another one.
    pub(super) fn replaced(&mut self, old: Option<&Record>, new: &Record) {
        if let Some(old) = old {
            self.lost(old);
        }
        self.holds(new.id, new.version, new.is_live());
    }

    /// A record is not there any more.
    pub(super) fn lost(&mut self, old: &Record) {
        if old.is_live() {
            self.live.take(&old.id, 1);
        }
        self.tombstones.remove(&(old.version, old.id));
    }

    /// A record is there.
    pub(super) fn holds(&mut self, id: Id, version: Version, is_live: bool) {
        if is_live {
            self.live.add(&id, 1);
        } else {
            self.tombstones.insert((version, id));
        }
    }

    /// A write has come in, whether or not a newer one is there.
    pub(super) fn written(&mut self, version: Version, id: Id, request: RequestId) {
        if version > self.floor {
            self.recent.insert((version, id, request));
        }
    }

    /// Of what has been there for long only the latest is remembered.
    pub(super) fn forgets_oldest(&mut self) {
        while self.recent.len() > REMEMBERED
            && let Some((version, ..)) = self.recent.pop_first()
        {
            self.floor = version;
        }
        let floor = self.floor;
        while self.recent.first().is_some_and(|(version, ..)| *version <= floor) {
            self.recent.pop_first();
        }
    }

    /// Nobody will ask for what was written up to here, and so nothing of it is remembered.
    pub(super) fn forgets(&mut self, up_to: Version) {
        self.floor = self.floor.max(up_to);
        self.forgets_oldest();
    }

    /// Which registers were written by which requests after this version, if that is known. Some of it may have been written
    /// over since.
    pub(super) fn since(&self, version: Version) -> Option<impl Iterator<Item = (Id, RequestId)> + '_> {
        let later = self.recent.range((Bound::Excluded((version, Id::MAX, RequestId(u128::MAX))), Bound::Unbounded));
        (version >= self.floor).then(|| later.map(|(_, id, request)| (*id, *request)))
    }

    /// All up to here is at all members: nobody asks for it any more. The tombstones up to here may go.
    pub(super) fn stable(&mut self, up_to: Version) -> BTreeSet<Id> {
        self.forgets(up_to);
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

    /// Takes out what lies between these ids, of which so many values are live by the exact count.
    pub(super) fn take(&mut self, range: &Interval, live: Tally) -> Shelf {
        let within = piece::spans(range);
        let mut taken = Shelf { purged: self.purged, floor: self.floor, ..Shelf::default() };
        (taken.pieces, self.pieces) = piece::divide(&self.pieces, &within);
        taken.tombstones = self.tombstones.extract_if(.., |(_, id)| range.contains(id)).collect();
        taken.recent = self.recent.extract_if(.., |(_, id, _)| range.contains(id)).collect();
        self.live.remove(&live);
        taken.live = live;
        taken
    }

    /// Takes in what another one had, where nothing is.
    pub(super) fn join(&mut self, other: Shelf) {
        self.pieces.extend(other.pieces);
        piece::tidy(&mut self.pieces);
        self.purged = self.purged.max(other.purged);
        self.live.join(&other.live);
        self.tombstones.extend(other.tombstones);
        self.recent.extend(other.recent);
        self.forgets(other.floor);
    }
}

/// How far what belongs to nobody has been removed from a piece: what is before this need not be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// Of its records, which come first.
    Records(Id),
    /// Of the outcomes under its number.
    Outcomes(RequestId, Id),
}

/// All areas, as one transaction has left them. Cloning is cheap; what a transaction then changes becomes its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Areas {
    shelves: BTreeMap<Area, Arc<Shelf>>,
    /// Pieces that belong to nobody any more, and whose rows have to be removed.
    pub(super) gone: Vec<Piece>,
    /// The last number that a piece was given.
    last: u64,
    /// How far the last of them has been swept.
    pub(super) swept: Option<Swept>,
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
        (Arc::make_mut(self.shelves.entry(*area).or_default()), is_new)
    }

    /// Sees that an area has a place for this id; whether that is new, and still has to be written down.
    pub(super) fn make_room(&mut self, area: &Area, id: &Id) -> bool {
        if self.get(area).is_some_and(|shelf| piece::number_of(&shelf.pieces, id).is_some()) {
            return false;
        }
        self.last += 1;
        let number = self.last;
        let (shelf, _) = self.open(area);
        let gap = piece::gap(&shelf.pieces, id, number, range_of(area));
        shelf.pieces.push(gap);
        piece::tidy(&mut shelf.pieces);
        true
    }

    /// Puts a shelf under a name that has none.
    pub(super) fn insert(&mut self, area: Area, shelf: Shelf) {
        self.uses(&shelf.pieces);
        self.shelves.insert(area, Arc::new(shelf));
    }

    /// These pieces belong to nobody any more.
    pub(super) fn abandon(&mut self, pieces: Vec<Piece>) {
        self.uses(&pieces);
        self.gone.extend(pieces);
        self.swept = None;
    }

    /// These numbers are taken.
    fn uses(&mut self, pieces: &[Piece]) {
        self.last = pieces.iter().map(|piece| piece.number).fold(self.last, u64::max);
    }

    pub(super) fn remove(&mut self, area: &Area) -> Option<Arc<Shelf>> {
        self.shelves.remove(area)
    }
}

/// What an area can hold, as its name says.
fn range_of(area: &Area) -> &Interval {
    match area {
        Area::View(name) => &name.range,
        Area::Staged(label) => &label.range,
    }
}
