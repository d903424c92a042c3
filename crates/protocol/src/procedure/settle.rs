//! *Settle*: see to it that this node serves what it owns by the ring's pointers. What it lacks it acquires from whoever
//! holds it; what a dead node held it takes.
//!
//! With views of one member a dead holder takes its content with it, and no majority can say that it is dead. So its range
//! is taken only after it was silent for the whole suspicion time, with an epoch far ahead: should it come back, it yields,
//! and its records are merged by version when it acquires its range again.

use super::Replied;
use crate::{
    Call, Chord, Contact, Event, FORCED_EPOCH_STEP, Interval, Membership, Reply, Request, Standing, Step, Time, View,
    between,
};

/// How often a silent holder is asked within the suspicion time.
const QUESTIONS: u64 = 4;

/// For how many suspicion times a node waits for its predecessor to hold its own range first.
const WAITS: u64 = 3;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// The holder of the gap says whether it lives.
    Holder { gap: Interval, left: u64 },
    /// My predecessor tells what it knows of the gap. If its holder is known and silent, this is who.
    Before { gap: Interval, silent: Option<Contact> },
    /// A node on the way round the ring tells what it knows.
    Search(Search),
    /// The node that was given a range says what it holds.
    Receiver { view: View },
}

/// Where a search for the holder of a gap has come to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Search {
    gap: Interval,
    /// The holder, if one is known that gives no answer. What is known of it may be old.
    silent: Option<Contact>,
    /// The last node that answered.
    at: Contact,
    /// The nodes that come next.
    ahead: Vec<Contact>,
    /// How many more nodes may be asked.
    left: u32,
}

impl From<Then> for super::Then {
    fn from(then: Then) -> super::Then {
        super::Then::Settle(then)
    }
}

impl Chord {
    pub(super) fn begin_settle(&mut self, now: Time) -> Step {
        let silent = self.views.sealing().is_some_and(|it| now.since(it.heard) > self.settings.seal_timeout);
        if silent {
            self.views.unseal();
            self.touch();
        }
        if self.membership != Membership::Joined {
            return Step::default();
        }
        let mut step = self.fill_gap(now);
        if let Some(view) = self.views.unacknowledged().cloned() {
            step.next.push(Call::new(&view.primary.clone(), Request::Neighbours, Then::Receiver { view }));
        }
        step
    }

    fn fill_gap(&mut self, now: Time) -> Step {
        let Some(gap) = self.views.first_gap(&self.due()) else {
            self.orphaned_since = None;
            self.behind_since = None;
            return Step::default();
        };
        let settled = self.mutual || self.is_alone();
        let confirmed = self.views.held().iter().all(|held| held.standing == Standing::Serving);
        if !settled || !confirmed {
            return Step::default();
        }
        let holder = self.views.holder_elsewhere(&gap.lo).map(|view| view.primary.clone());
        match holder.filter(|holder| holder.id != self.me.id) {
            Some(holder) => {
                Step::ask(Call::new(&holder, Request::Hello, Then::Holder { gap, left: QUESTIONS }), Vec::new())
            }
            None => self.ask_before(now, gap, None),
        }
    }

    /// Whether the ring stands as it should just before me is asked of the predecessor before anything is taken: in a ring
    /// that still sorts itself the holder may be one that nobody points to yet, or has handed on what it had and left.
    fn ask_before(&mut self, now: Time, gap: Interval, silent: Option<Contact>) -> Step {
        match self.predecessor.clone() {
            Some(predecessor) => {
                let then = Then::Before { gap, silent };
                Step::ask(Call::new(&predecessor, Request::Neighbours, then), Vec::new())
            }
            None if self.is_alone() => match silent {
                Some(dead) => self.take_from_dead(gap, &dead),
                None => self.found_nobody(now, gap),
            },
            None => Step::default(),
        }
    }

    /// The predecessor has told what it knows. If it stands where it should, points to me, holds all that lies between us and
    /// knows of no later holder, one is sought round the ring before a silent holder is taken for dead.
    fn asked_before(
        &mut self,
        now: Time,
        gap: Interval,
        silent: Option<Contact>,
        by: &Contact,
        neighbours: (Vec<Contact>, Vec<View>),
    ) -> Step {
        let (successors, views) = neighbours;
        let mut events = Vec::new();
        self.reconcile(by, &views, &mut events);
        let between_us = Interval::half_open(by.id, self.me.id);
        let theirs = views.iter().filter(|view| view.primary == *by);
        let lacks = theirs
            .fold(vec![between_us], |parts, view| parts.iter().flat_map(|part| part.minus(&view.range)).collect());
        let holds = lacks.is_empty() || self.has_waited_for_the_one_before(now);
        let points = self.predecessor.as_ref() == Some(by) && successors.first() == Some(&self.me);
        let holder = self.views.holder_elsewhere(&gap.lo).map(|view| view.primary.clone());
        let step = match (holder.filter(|holder| *holder != self.me), silent) {
            (Some(holder), silent) if Some(&holder) != silent.as_ref() => self.ask_another(now, &gap, silent.as_ref()),
            _ if !(holds && points) => {
                self.orphaned_since = None;
                Step::default()
            }
            (_, silent) => {
                let (at, ahead) = (self.me.clone(), self.successors.entries().to_vec());
                self.search(now, Search { gap, silent, at, ahead, left: self.settings.hop_budget })
            }
        };
        step.after(events)
    }

    /// Whether the predecessor, which lacks a range itself, has had its time to get it. When many have died at once each node
    /// may wait for the one before it, all round the ring.
    fn has_waited_for_the_one_before(&mut self, now: Time) -> bool {
        let since = *self.behind_since.get_or_insert(now);
        now.since(since) >= WAITS * self.settings.suspicion
    }

    /// Whether another holder of the gap is known than the one that is silent.
    fn knows_holder(&self, gap: &Interval, silent: Option<&Contact>) -> bool {
        let holder = self.views.holder_elsewhere(&gap.lo).map(|view| &view.primary);
        holder.is_some_and(|holder| *holder != self.me && Some(holder) != silent)
    }

    /// A later holder is known than the one that was silent. That one is not asked again because others still tell of it, or two
    /// who are both dead would be asked in turn for ever.
    fn ask_another(&mut self, now: Time, gap: &Interval, silent: Option<&Contact>) -> Step {
        if let Some(silent) = silent {
            self.views.disowned(silent, gap);
            self.touch();
        }
        self.fill_gap(now)
    }

    /// Asks the next node on the way round the ring.
    fn search(&mut self, now: Time, mut search: Search) -> Step {
        if search.left == 0 {
            return Step::default();
        }
        let next = if search.ahead.is_empty() { self.me.clone() } else { search.ahead.remove(0) };
        if between(&search.at.id, &next.id, &self.me.id) {
            search.left -= 1;
            return Step::ask(Call::new(&next, Request::Neighbours, Then::Search(search)), Vec::new());
        }
        match search.silent {
            Some(dead) => self.take_from_dead(search.gap, &dead),
            None => self.found_nobody(now, search.gap),
        }
    }

    fn searched(&mut self, now: Time, search: Search, by: &Contact, successors: Vec<Contact>, views: &[View]) -> Step {
        let mut events = Vec::new();
        self.reconcile(by, views, &mut events);
        let step = if self.knows_holder(&search.gap, search.silent.as_ref()) {
            self.ask_another(now, &search.gap, search.silent.as_ref())
        } else {
            self.search(now, Search { at: by.clone(), ahead: successors, ..search })
        };
        step.after(events)
    }

    /// No living node knows of a holder. What moves while the search goes on can be missed, so it must end in the same way
    /// once more, some time later.
    fn found_nobody(&mut self, now: Time, gap: Interval) -> Step {
        let settled = (self.mutual || self.is_alone()) && self.membership == Membership::Joined;
        if !settled || self.views.first_gap(&self.due()) != Some(gap) {
            self.orphaned_since = None;
            return Step::default();
        }
        let since = *self.orphaned_since.get_or_insert(now);
        if now.since(since) < 2 * self.settings.suspicion {
            return Step::default();
        }
        self.take(gap, None)
    }

    pub(super) fn resume_settle(&mut self, now: Time, then: Then, by: &Contact, outcome: Replied) -> Step {
        match (then, outcome) {
            (Then::Holder { gap, .. }, Ok(Reply::Hello { me, ring, membership })) if me == *by => {
                let same_ring = ring.map(|ring| ring.id) == self.ring.map(|ring| ring.id);
                if same_ring && membership != Membership::Joining {
                    return self.begin_acquire(gap, by);
                }
                // Somebody else lives there now, or the same one without what it had.
                self.ask_before(now, gap, Some(by.clone()))
            }
            // It lives, and will answer when it can: its disk may be full.
            (Then::Holder { .. }, Ok(Reply::Refused(refusal))) if refusal.is_passing() => Step::default(),
            (Then::Holder { gap, left }, _) if left > 0 => {
                let call = Call::new(by, Request::Hello, Then::Holder { gap, left: left - 1 });
                Step::ask(call.after(self.settings.suspicion / QUESTIONS), Vec::new())
            }
            (Then::Holder { gap, .. }, _) => {
                self.forget_node(by);
                self.ask_before(now, gap, Some(by.clone()))
            }
            (Then::Before { gap, silent }, Ok(Reply::Neighbours { successors, views, .. })) => {
                self.asked_before(now, gap, silent, by, (successors, views))
            }
            (Then::Before { .. }, _) => Step::default(),
            (Then::Search(search), Ok(Reply::Neighbours { successors, views, .. })) => {
                self.searched(now, search, by, successors, &views)
            }
            (Then::Search(search), _) => self.search(now, search),
            (Then::Receiver { view }, Ok(Reply::Neighbours { views, .. })) => {
                let arrived = views.iter().any(|told| told.epoch >= view.epoch && told.range.overlaps(&view.range));
                let mut step = Step::default();
                if arrived {
                    self.serve_installed(view, 0, &mut step.drop, &mut step.events);
                }
                step
            }
            (Then::Receiver { .. }, _) => Step::default(),
        }
    }

    /// The holder was silent for the whole suspicion time. What of its range this node still lacks and owns is taken.
    fn take_from_dead(&mut self, gap: Interval, dead: &Contact) -> Step {
        let settled = (self.mutual || self.is_alone()) && self.membership == Membership::Joined;
        let still = self.views.first_gap(&self.due()).filter(|now| now.lo == gap.lo);
        let Some(gap) = still.filter(|_| settled) else {
            return Step::default();
        };
        let held = self.views.holder_elsewhere(&gap.lo).filter(|view| view.primary == *dead).map(|view| view.range);
        match held.and_then(|range| gap.intersection(&range).into_iter().find(|part| part.lo == gap.lo)) {
            Some(part) => self.take(part, Some(dead.clone())),
            None => Step::default(),
        }
    }

    /// Takes a stretch, up to where somebody else is known to hold what follows.
    fn take(&mut self, range: Interval, from: Option<Contact>) -> Step {
        let range = self.views.unclaimed(&range, from.as_ref());
        let epoch = self.views.greatest_epoch() + FORCED_EPOCH_STEP;
        self.views.forget_known(&range);
        self.views.install(View::of_one(range, epoch, &self.me));
        self.orphaned_since = None;
        self.behind_since = None;
        self.touch();
        Step::done(vec![Event::Taken { range, from }, Event::Begin(crate::Procedure::Settle)])
    }
}
