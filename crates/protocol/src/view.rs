//! Who serves which range. The ring is a hint; a view is the truth.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{Contact, Id, Interval, Time, Version};

/// How far ahead a range is put that is taken by force, so that no epoch of its former view can reach it.
pub const FORCED_EPOCH_STEP: u64 = 1 << 20;

/// No epoch gets here by counting, nor by all the force of a ring's life. Who tells of one lies, or is damaged; counting on
/// from it would overflow.
const EPOCH_LIMIT: u64 = 1 << 62;

/// How many handed-over ranges a node remembers as hints once they have been acknowledged.
const REMEMBERED_HANDOVERS: usize = 64;

/// How many views of others a node remembers.
const KNOWN_VIEWS: usize = 32;

/// How many views a node tells of in one message.
const TOLD_VIEWS: usize = 16;

/// Who serves a range. For any id epochs only grow: whatever follows a view has a greater one.
///
/// Today a view has one member, its primary. A hand-over is *seal* (no more writes), *transfer*, *decide*, *install*,
/// and it is the members of the old view that decide: the form that views of several members need too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// The ids that it covers.
    pub range: Interval,
    /// Its number.
    pub epoch: u64,
    /// Those who keep the content.
    pub members: Vec<Contact>,
    /// The member that clients are served by.
    pub primary: Contact,
}

impl View {
    /// A view of one member.
    pub fn of_one(range: Interval, epoch: u64, member: &Contact) -> View {
        View { range, epoch, members: vec![member.clone()], primary: member.clone() }
    }

    /// Whether this one stands where the two overlap: the later epoch, and between equals, which only forced takeovers
    /// on both sides of a partition can make, the greater primary.
    pub fn supersedes(&self, other: &View) -> bool {
        (self.epoch, self.primary.id) > (other.epoch, other.primary.id)
    }
}

/// Whether a held view is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// The node has restarted and does not know yet whether somebody took the range meanwhile.
    Unconfirmed,
    /// It is served.
    Serving,
}

/// A view of which this node is the primary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// The view.
    pub view: View,
    /// Whether it is served.
    pub standing: Standing,
    /// How many writes it has numbered in this epoch.
    pub sequence: u64,
}

/// A range that takes no writes because it is being handed over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sealing {
    /// What is handed over.
    pub range: Interval,
    /// The epoch in which it was sealed.
    pub epoch: u64,
    /// Who gets it.
    pub to: Contact,
    /// When the receiver was last heard of.
    pub heard: Time,
}

/// A range that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Handed {
    /// The view that followed.
    pub view: View,
    /// Whether its primary has said that it has installed it; until then the content stays here.
    pub acknowledged: bool,
}

/// Why a node does not serve an id now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NotServed {
    /// It holds no view of it.
    NotHeld,
    /// The range is being handed over: ask again in a moment.
    Sealed,
    /// It has restarted, and its predecessor has not agreed yet that nobody took the range: ask again in a moment.
    Unconfirmed,
}

/// The views that a node holds, has handed over, and knows of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Views {
    held: Vec<Held>,
    sealing: Option<Sealing>,
    handed: VecDeque<Handed>,
    known: Vec<View>,
    /// Views that their own primaries say they don't hold. Others may tell of them for a long time; only the primary itself
    /// is believed.
    disowned: VecDeque<View>,
    /// The greatest epoch of what was forgotten.
    forgotten: u64,
}

impl Views {
    /// What was held and handed over when the node stopped. Nothing is served until it is confirmed, and a hand-over that
    /// was open is void.
    pub fn restored(held: Vec<View>, handed: Vec<Handed>) -> Views {
        let unconfirmed = |view| Held { view, standing: Standing::Unconfirmed, sequence: 0 };
        Views { held: held.into_iter().map(unconfirmed).collect(), handed: handed.into(), ..Views::default() }
    }

    /// The views that this node is the primary of.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// The range that is being handed over, if there is one.
    pub fn sealing(&self) -> Option<&Sealing> {
        self.sealing.as_ref()
    }

    /// The ranges that were handed over, oldest first.
    pub fn handed(&self) -> impl Iterator<Item = &Handed> {
        self.handed.iter()
    }

    /// What this node tells its neighbours: the views that it holds, then those that followed them and those it has heard
    /// of, the latest first, as many as a neighbour may need.
    pub fn told(&self) -> Vec<View> {
        let mut told: Vec<View> = Vec::new();
        for view in self.all() {
            if told.len() < TOLD_VIEWS && !told.iter().any(|other| other == view) {
                told.push(view.clone());
            }
        }
        told
    }

    /// All that this node knows about who serves a range.
    pub fn about(&self, range: &Interval) -> Vec<View> {
        self.all().filter(|view| view.range.overlaps(range)).take(TOLD_VIEWS).cloned().collect()
    }

    fn all(&self) -> impl Iterator<Item = &View> {
        let held = self.held.iter().map(|held| &held.view);
        held.chain(self.handed.iter().rev().map(|handed| &handed.view)).chain(&self.known)
    }

    /// The newest view of this id that this node knows of and does not hold.
    pub fn holder_elsewhere(&self, id: &Id) -> Option<&View> {
        let handed = self.handed.iter().map(|handed| &handed.view);
        handed
            .chain(&self.known)
            .filter(|view| view.range.contains(id))
            .max_by_key(|view| (view.epoch, view.primary.id))
    }

    /// Whether a read of this id may be answered. A sealed range is still read here: until the hand-over is decided nobody
    /// else can have written to it.
    pub fn admit_read(&self, id: &Id) -> Result<(), NotServed> {
        let held = self.held.iter().find(|held| held.view.range.contains(id)).ok_or(NotServed::NotHeld)?;
        match held.standing {
            Standing::Serving => Ok(()),
            Standing::Unconfirmed => Err(NotServed::Unconfirmed),
        }
    }

    /// The version of a write to this id, if it may happen.
    pub fn admit_write(&mut self, id: &Id) -> Result<Version, NotServed> {
        self.admit_read(id)?;
        if self.sealing.as_ref().is_some_and(|sealing| sealing.range.contains(id)) {
            return Err(NotServed::Sealed);
        }
        self.number_write(id)
    }

    /// The version of the next write to this id, whether it may happen or not.
    pub(crate) fn number_write(&mut self, id: &Id) -> Result<Version, NotServed> {
        let held = self.held.iter_mut().find(|held| held.view.range.contains(id)).ok_or(NotServed::NotHeld)?;
        held.sequence += 1;
        Ok(Version { epoch: held.view.epoch, sequence: held.sequence })
    }

    /// Starts to serve a view, and joins it with those beside it that this node serves too.
    pub fn install(&mut self, view: View) {
        self.known.retain(|known| !view.range.covers(&known.range));
        self.disowned.retain(|gone| !view.range.overlaps(&gone.range));
        for handed in self.handed.iter_mut().filter(|handed| view.range.covers(&handed.view.range)) {
            handed.acknowledged = true;
        }
        let me = view.primary.clone();
        let mut range = view.range;
        let mut epoch = view.epoch;
        let mut others = Vec::new();
        for held in self.held.drain(..) {
            let beside = !range.is_whole() && (held.view.range.hi == range.lo || held.view.range.lo == range.hi);
            // A range that was taken by force is far ahead in its epochs. To pull another one up there would put it before what
            // others may have taken of that, by force, meanwhile.
            let as_far = held.view.epoch / FORCED_EPOCH_STEP == epoch / FORCED_EPOCH_STEP;
            if beside && as_far && held.standing == Standing::Serving {
                epoch = epoch.max(held.view.epoch) + 1;
                let lo = if held.view.range.hi == range.lo { held.view.range.lo } else { range.lo };
                let hi = if held.view.range.lo == range.hi { held.view.range.hi } else { range.hi };
                // Two halves that meet on both sides make the circle, told from where the earlier one began.
                range = if held.view.range.hi == range.lo && held.view.range.lo == range.hi {
                    Interval::whole(me.id)
                } else {
                    Interval::half_open(lo, hi)
                };
            } else {
                others.push(held);
            }
        }
        others.push(Held { view: View::of_one(range, epoch, &me), standing: Standing::Serving, sequence: 0 });
        self.held = others;
    }

    /// Seals a stretch for `to`. Whoever seals again goes on where it stood.
    pub fn seal(&mut self, range: Interval, epoch: u64, to: Contact, now: Time) {
        self.sealing = Some(Sealing { range, epoch, to, heard: now });
    }

    /// Notes that the receiver of the sealed range was heard of.
    pub fn heard_of_receiver(&mut self, now: Time) {
        if let Some(sealing) = &mut self.sealing {
            sealing.heard = now;
        }
    }

    /// Gives up the open hand-over. The range goes on in a new epoch, so that a decision asked for late finds nothing.
    pub fn unseal(&mut self) {
        let Some(sealing) = self.sealing.take() else { return };
        for held in self.held.iter_mut().filter(|held| held.view.range.overlaps(&sealing.range)) {
            held.view.epoch += 1;
            held.sequence = 0;
        }
    }

    /// Decides the open hand-over: the sealed range goes to its receiver, and what remains goes on here, all one epoch on.
    pub fn decide(&mut self) -> Option<View> {
        let sealing = self.sealing.take()?;
        // The view may have grown since it was sealed, and with it the epoch.
        let parents = self.held.iter().filter(|held| held.view.range.overlaps(&sealing.range));
        let epoch = 1 + parents.map(|held| held.view.epoch).max()?;
        self.cut(&sealing.range);
        let view = View::of_one(sealing.range, epoch, &sealing.to);
        self.handed.retain(|handed| !view.range.covers(&handed.view.range));
        self.handed.push_back(Handed { view: view.clone(), acknowledged: false });
        while self.handed.len() > REMEMBERED_HANDOVERS && self.handed.front().is_some_and(|handed| handed.acknowledged)
        {
            self.handed.pop_front();
        }
        Some(view)
    }

    /// Notes that a handed-over range has arrived. Returns the parts whose content is no longer needed here.
    pub fn acknowledge(&mut self, view: &View) -> Vec<Interval> {
        let mut droppable = Vec::new();
        for handed in self.handed.iter_mut().filter(|handed| !handed.acknowledged) {
            let is_meant = handed.view.primary == view.primary && view.epoch >= handed.view.epoch;
            if is_meant && view.range.covers(&handed.view.range) {
                handed.acknowledged = true;
                droppable.push(handed.view.range);
            }
        }
        self.held
            .iter()
            .fold(droppable, |parts, held| parts.iter().flat_map(|part| part.minus(&held.view.range)).collect())
    }

    /// This range is coming back: whoever hands it over holds it, so it had arrived where it was given to, and a word of
    /// that which comes late must not drop what has come back by then.
    pub fn comes_back(&mut self, range: &Interval) {
        for handed in self.handed.iter_mut().filter(|handed| handed.view.range.overlaps(range)) {
            handed.acknowledged = true;
        }
    }

    /// The handed-over range that still waits for its receiver's word.
    pub fn unacknowledged(&self) -> Option<&View> {
        self.handed.iter().find(|handed| !handed.acknowledged).map(|handed| &handed.view)
    }

    /// Takes in what `by` told: newer views of what is held here are yielded to, and the rest is remembered. Returns the
    /// views that this node had to yield to, with the part that it lost.
    pub fn reconcile(&mut self, me: &Contact, by: &Contact, told: &[View]) -> Vec<(Interval, View)> {
        let mut lost = Vec::new();
        for view in told.iter().filter(|view| view.primary != *me && view.epoch < EPOCH_LIMIT) {
            let over: Vec<Interval> = self
                .held
                .iter()
                .filter(|held| view.supersedes(&held.view))
                .flat_map(|held| held.view.range.intersection(&view.range))
                .collect();
            for part in over {
                if self.sealing.as_ref().is_some_and(|sealing| sealing.range.overlaps(&part)) {
                    self.sealing = None;
                }
                self.cut(&part);
                lost.push((part, view.clone()));
            }
            if view.primary == *by {
                // It may have denied the view before it had heard that it was decided.
                self.disowned.retain(|gone| gone != view);
            }
            self.remember(view);
        }
        lost
    }

    /// The first stretch of `due` that is not held, clockwise from where it begins.
    pub fn first_gap(&self, due: &Interval) -> Option<Interval> {
        let mut parts = vec![*due];
        for held in &self.held {
            parts = parts.iter().flat_map(|part| part.minus(&held.view.range)).collect();
        }
        parts.into_iter().min_by_key(|part| due.lo.distance(&part.lo))
    }

    /// Serves what was held before a restart, each view in a new epoch. Returns whether there was any.
    pub fn confirm(&mut self) -> bool {
        let mut any = false;
        for held in self.held.iter_mut().filter(|held| held.standing == Standing::Unconfirmed) {
            held.standing = Standing::Serving;
            held.view.epoch += 1;
            held.sequence = 0;
            any = true;
        }
        any
    }

    /// The greatest epoch that this node has seen.
    pub fn greatest_epoch(&self) -> u64 {
        self.all().map(|view| view.epoch).max().unwrap_or(0).max(self.forgotten)
    }

    /// A node says that it does not hold this range, and knows of nobody who does: what was known of it is no use. Its disk
    /// may be gone, or it has forgotten to whom it gave the range.
    pub fn disowned(&mut self, by: &Contact, range: &Interval) {
        self.forgotten = self.greatest_epoch();
        let meant = |view: &&View| view.primary == *by && view.range.overlaps(range);
        let handed = self.handed.iter().map(|handed| &handed.view);
        let denied: Vec<View> = self.known.iter().chain(handed).filter(meant).cloned().collect();
        self.known.retain(|view| !meant(&view));
        self.handed.retain(|handed| !meant(&&handed.view));
        self.disowned.extend(denied);
        while self.disowned.len() > REMEMBERED_HANDOVERS {
            self.disowned.pop_front();
        }
    }

    /// The first stretch of a gap: up to where another node than the dead one is known to hold something.
    pub fn unclaimed(&self, gap: &Interval, dead: Option<&Contact>) -> Interval {
        let others = self.handed.iter().map(|handed| &handed.view).chain(&self.known);
        let begins = others
            .filter(|view| Some(&view.primary) != dead && view.range.lo != gap.lo && gap.contains(&view.range.lo))
            .map(|view| view.range.lo)
            .min_by_key(|lo| gap.lo.distance(lo));
        begins.map_or(*gap, |hi| Interval::half_open(gap.lo, hi))
    }

    /// Forgets the views of others that are told of this stretch: it has been taken from them.
    pub fn forget_known(&mut self, range: &Interval) {
        self.known.retain(|view| !range.covers(&view.range));
    }

    fn remember(&mut self, view: &View) {
        // Neighbours tell the same again and again.
        if self.known.contains(view) || self.disowned.contains(view) {
            return;
        }
        if self.known.iter().any(|known| known.range.overlaps(&view.range) && known.supersedes(view)) {
            return;
        }
        self.known.retain(|known| !known.range.overlaps(&view.range));
        self.known.insert(0, view.clone());
        self.known.truncate(KNOWN_VIEWS);
    }

    /// Takes a stretch out of what is held. What remains of a view goes on in its next epoch.
    fn cut(&mut self, part: &Interval) {
        let mut kept = Vec::with_capacity(self.held.len() + 1);
        for held in self.held.drain(..) {
            if !held.view.range.overlaps(part) {
                kept.push(held);
                continue;
            }
            for rest in held.view.range.minus(part) {
                let view = View { range: rest, epoch: held.view.epoch + 1, ..held.view.clone() };
                kept.push(Held { view, standing: held.standing, sequence: 0 });
            }
        }
        self.held = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(prefix: &str) -> Id {
        Id::from_hex_prefix(prefix).unwrap()
    }

    fn range(lo: &str, hi: &str) -> Interval {
        Interval::half_open(point(lo), point(hi))
    }

    fn node(prefix: &str) -> Contact {
        Contact { id: point(prefix), addr: prefix.into(), name: String::new() }
    }

    fn serving(view: View) -> Views {
        let mut views = Views::default();
        views.install(view);
        views
    }

    fn held(views: &Views) -> Vec<(Interval, u64)> {
        views.held().iter().map(|held| (held.view.range, held.view.epoch)).collect()
    }

    #[test]
    fn a_handover_is_seal_decide_acknowledge() {
        let mut views = serving(View::of_one(range("1", "9"), 3, &node("1")));
        assert_eq!(views.admit_write(&point("6")).unwrap(), Version { epoch: 3, sequence: 1 });
        views.seal(range("5", "9"), 3, node("5"), Time::ZERO);
        assert_eq!(views.admit_write(&point("6")), Err(NotServed::Sealed));
        assert_eq!(views.admit_read(&point("6")), Ok(()));
        assert_eq!(views.admit_write(&point("4")).unwrap(), Version { epoch: 3, sequence: 2 });
        let decided = views.decide().unwrap();
        assert_eq!(decided, View::of_one(range("5", "9"), 4, &node("5")));
        assert_eq!(held(&views), [(range("1", "5"), 4)]);
        assert_eq!(views.admit_read(&point("6")), Err(NotServed::NotHeld));
        assert_eq!(views.holder_elsewhere(&point("6")), Some(&decided));
        assert_eq!(views.unacknowledged(), Some(&decided));
        assert_eq!(views.acknowledge(&decided), [range("5", "9")]);
        assert_eq!(views.acknowledge(&decided), [], "once");
        assert_eq!(views.admit_write(&point("4")).unwrap(), Version { epoch: 4, sequence: 1 });
    }

    #[test]
    fn a_handover_that_is_given_up_goes_on_in_a_new_epoch() {
        let mut views = serving(View::of_one(range("1", "9"), 3, &node("1")));
        views.seal(range("5", "9"), 3, node("5"), Time::ZERO);
        views.unseal();
        assert_eq!(views.decide(), None);
        assert_eq!(views.admit_write(&point("6")).unwrap(), Version { epoch: 4, sequence: 1 });
    }

    #[test]
    fn a_view_that_grows_while_a_part_is_sealed_hands_it_over_in_a_later_epoch() {
        let mut views = serving(View::of_one(range("1", "9"), 3, &node("1")));
        views.seal(range("5", "9"), 3, node("5"), Time::ZERO);
        views.install(View::of_one(range("9", "d"), 6, &node("1")));
        let grown = views.held()[0].view.clone();
        let decided = views.decide().unwrap();
        assert!(decided.supersedes(&grown), "{decided:?} follows {grown:?}");
    }

    #[test]
    fn ranges_that_meet_become_one_in_a_later_epoch() {
        let mut views = serving(View::of_one(range("1", "5"), 3, &node("1")));
        views.install(View::of_one(range("5", "9"), 7, &node("1")));
        assert_eq!(held(&views), [(range("1", "9"), 8)]);
        views.install(View::of_one(range("9", "1"), 2, &node("1")));
        assert_eq!(held(&views), [(Interval::whole(point("1")), 9)]);
    }

    #[test]
    fn the_older_view_yields() {
        let mut views = serving(View::of_one(range("1", "9"), 3, &node("1")));
        let newer = View::of_one(range("4", "6"), 5, &node("4"));
        let older = View::of_one(range("7", "8"), 2, &node("7"));
        let lost = views.reconcile(&node("1"), &node("4"), &[newer.clone(), older]);
        assert_eq!(lost, [(range("4", "6"), newer.clone())]);
        assert_eq!(held(&views), [(range("1", "4"), 4), (range("6", "9"), 4)]);
        assert_eq!(views.first_gap(&range("1", "9")), Some(range("4", "6")));
        assert_eq!(views.holder_elsewhere(&point("5")), Some(&newer));
        let tie = View::of_one(range("6", "9"), 4, &node("f"));
        assert_eq!(views.reconcile(&node("1"), &node("f"), std::slice::from_ref(&tie)), [(range("6", "9"), tie)]);
    }

    #[test]
    fn a_view_that_was_denied_too_early_is_believed_of_its_primary_alone() {
        let (me, other, receiver) = (node("1"), node("3"), node("5"));
        let decided = View::of_one(range("5", "9"), 4, &receiver);
        let mut views = serving(View::of_one(range("1", "5"), 3, &me));
        let _ = views.reconcile(&me, &other, std::slice::from_ref(&decided));
        // The receiver has not heard of the decision yet.
        views.disowned(&receiver, &decided.range);
        let _ = views.reconcile(&me, &other, std::slice::from_ref(&decided));
        assert_eq!(views.holder_elsewhere(&point("6")), None);
        let _ = views.reconcile(&me, &receiver, std::slice::from_ref(&decided));
        assert_eq!(views.holder_elsewhere(&point("6")), Some(&decided));
    }

    #[test]
    fn nothing_is_served_after_a_restart_until_it_is_confirmed() {
        let mut views = Views::restored(vec![View::of_one(range("1", "9"), 3, &node("1"))], Vec::new());
        assert_eq!(views.admit_read(&point("2")), Err(NotServed::Unconfirmed));
        assert!(views.confirm());
        assert!(!views.confirm());
        assert_eq!(views.admit_write(&point("2")).unwrap(), Version { epoch: 4, sequence: 1 });
    }

    #[test]
    fn a_late_word_does_not_drop_what_is_coming_back() {
        let mut views = serving(View::of_one(range("1", "9"), 3, &node("1")));
        views.seal(range("5", "9"), 3, node("5"), Time::ZERO);
        let given = views.decide().unwrap();
        views.comes_back(&range("7", "9"));
        assert_eq!(views.acknowledge(&given), []);
    }

    #[test]
    fn content_that_came_back_is_not_dropped() {
        let mut views = serving(View::of_one(range("1", "9"), 3, &node("1")));
        views.seal(range("5", "9"), 3, node("5"), Time::ZERO);
        let given = views.decide().unwrap();
        views.install(View::of_one(range("7", "9"), 9, &node("1")));
        assert_eq!(views.acknowledge(&given), [range("5", "7")]);
    }
}
