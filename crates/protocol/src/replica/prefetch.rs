//! Prefetch: content that would have to travel while a view is sealed travels before, while the view serves.
//!
//! Where what shall follow a view cannot begin without somebody new (rule 5), as in a join, the primary sends that member what
//! the view holds before it asks anybody to promise. A letter has a page of the content, and all that was written since the last
//! letter that was answered. When all has gone through, and little has been written since, the view is sealed; the member is
//! sent that little, merged from the promises, and what the view held is complete there.
//!
//! *Why nothing is missing.* The pages are of different moments. But the primary holds the stable mark where it was before what
//! is not known to have arrived, so that no tombstone of it is collected, and each letter has all that is later than that mark.
//! So who has had all letters has, of each register, the newest record or one that is later than the mark; and what is later
//! than the mark is in the promise of the primary, which is among those that are merged. What the letters carry that no promise
//! of a majority has, the primary's has: it is the only one that writes in this view, and in this life (rule 10).
//!
//! All this is so under one ballot, which is that of the label: what was sent ahead for one proposal is of no use to another.
//! Before it is complete it counts for nothing, is installed by nobody, and goes when the proposer says that it has given up.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Phase;
use super::lead::{HEAVIEST_TAIL, Progress};
use super::stage::Sending;
use super::tick::{AGAIN, CHANGE};
use super::{
    Area, Ballot, Bug, Change, Cursor, Event, Label, Member, Name, Page, Parcel, Replica, Reply, Request, Snapshot,
    Staged, Store, Turn, Upon, Value, View,
};
use crate::{RequestId, Time};

/// The place behind all rows.
const END: Cursor = Cursor::Outcome(RequestId(u128::MAX));

/// How many letters are sent after all of the content, at most, before the view is sealed however much is still being written.
const MOST_ROUNDS: u32 = 16;

/// How many writes the stable mark may be held back, and how many bytes. What was sent by then is not sent again, but the rest
/// travels while the view is sealed.
const MOST_HELD: (u64, u64) = (4_096, HEAVIEST_TAIL as u64 / 2);

/// How far a member is with what it is sent ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Copying {
    /// The number of the letter that is on its way.
    number: u64,
    /// Up to where it has the content, as far as it has said.
    after: Option<Cursor>,
    /// Where the primary was when the last letter that was answered was read: what is stable there the member has.
    has: Progress,
    /// The same of the letter on its way, when it was read first.
    reading: Option<Progress>,
    /// How many letters were answered after all of the content had arrived.
    rounds: u32,
    /// Up to where it has what the promises had, once the view is sealed.
    tail: Option<Cursor>,
    /// Whether it has all of that: from here on it is like any other that stages.
    is_joined: bool,
    asked: Time,
}

impl Copying {
    fn begun(at: Progress, now: Time) -> Copying {
        let (after, reading, tail) = (None, None, None);
        Copying { number: 0, after, has: at, reading, rounds: 0, tail, is_joined: false, asked: now }
    }

    /// Whether so little is lacking that it may be sent while the view is sealed.
    fn is_near(&self, at: Progress, most: usize) -> bool {
        let little = at.written - self.has.written <= most as u64;
        self.after == Some(END) && (little || self.rounds >= MOST_ROUNDS)
    }
}

impl Replica {
    /// Whether content is sent ahead here for just this change of a view.
    pub fn sends_ahead(&self, name: &Name, change: &Change) -> bool {
        let Some(held) = self.durable.held.get(name) else { return false };
        let Some(proposal) = self.proposals.get(name) else { return false };
        let is_same = change.successors(&held.view, self.durable.me).as_ref() == Some(&proposal.wanted.successors);
        is_same && matches!(proposal.phase, Phase::Prefetching)
    }
}

impl<S: Snapshot> Turn<'_, S> {
    /// Up to where the mark must stay, so that what has not arrived can still be told from what never was.
    pub(super) fn held_back(&self, name: &Name) -> Option<u64> {
        let proposal = self.replica.proposals.get(name)?;
        let is_ahead = matches!(proposal.phase, Phase::Prefetching) && !self.has_bug(Bug::MarkNotHeld);
        proposal.copies.values().map(|copying| copying.has.stable).min().filter(|_| is_ahead)
    }
}

impl<S: Store> Turn<'_, S> {
    // ---- at the primary, while the view serves ----

    /// To whom content is sent ahead: those who are new in a view that cannot begin without any of them. What fits into a page is
    /// not worth it.
    pub(super) fn to_send_ahead(&self, name: &Name, wanted: &Value) -> BTreeMap<(Name, Member), Copying> {
        let mut copies = BTreeMap::new();
        let Some(lead) = self.replica.leads.get(name).filter(|_| wanted.absorbs.is_none()) else { return copies };
        let (Some(held), now, room) = (self.held(name), self.now, self.replica.settings.page_bytes) else {
            return copies;
        };
        let begun = Copying::begun(Progress { stable: held.stable, ..lead.progress() }, now);
        for view in wanted.successors.iter().filter(|view| !view.can_begin(|member| held.view.has(member))) {
            if self.store.page(&name.area(), &view.range, None, room).1.is_some() {
                let new = view.members.iter().filter(|member| !held.view.has(member));
                copies.extend(new.map(|member| ((view.name(), *member), begun)));
            }
        }
        copies
    }

    /// Sends to all what they are at, unless they were sent it a moment ago.
    pub(super) fn send_ahead(&mut self, name: Name) {
        let (now, pause) = (self.now, self.replica.settings.suspicion / AGAIN);
        let Some(proposal) = self.replica.proposals.get(&name) else { return };
        let is_due = |copying: &Copying| copying.reading.is_none() || now.since(copying.asked) >= pause;
        let due = proposal.copies.iter().filter(|(_, copying)| is_due(copying)).map(|(whom, _)| *whom);
        for (view, member) in due.collect::<Vec<_>>() {
            self.send_copy(name, view, member);
        }
    }

    /// The next page, with all that is later than what the member is known to have.
    fn send_copy(&mut self, name: Name, view: Name, member: Member) {
        let (now, room) = (self.now, self.replica.settings.page_bytes);
        let Some(at) = self.replica.leads.get(&name).map(|lead| lead.progress()) else { return };
        let Some(proposal) = self.replica.proposals.get_mut(&name) else { return };
        let Some(copying) = proposal.copies.get_mut(&(view, member)) else { return };
        copying.asked = now;
        // Sent again, it has more than at first; but it is the first one that may have arrived.
        copying.reading.get_or_insert(at);
        let Copying { number, after, has, .. } = *copying;
        let Some(follows) = proposal.wanted.successors.iter().find(|follows| follows.name() == view).cloned() else {
            return;
        };
        let (origin, voters) = (proposal.ballot, proposal.wanted.voters.clone());
        let area = name.area();
        let (mut parcel, next) = match after {
            Some(END) => (Parcel::default(), None),
            _ => self.store.page(&area, &view.range, after, room),
        };
        let mut later = self.store.since(&area, name.version(has.stable));
        parcel.merge(later.take(&view.range));
        let page = Page { after, parcel, next: next.or(Some(END)) };
        let body = Request::Prefetch { name, origin, view: follows, voters, number, is_last: false, page };
        self.ask(member, body);
    }

    /// A member has what a letter carried.
    pub(super) fn prefetched(
        &mut self,
        from: Member,
        name: Name,
        origin: Ballot,
        view: Name,
        number: u64,
        after: Cursor,
    ) {
        let now = self.now;
        let Some(proposal) = self.replica.proposals.get_mut(&name).filter(|it| it.ballot == origin) else { return };
        let copying = proposal.copies.get_mut(&(view, from)).filter(|copying| copying.number == number);
        let Some(copying) = copying.filter(|copying| !copying.is_joined) else { return };
        proposal.moved = now;
        let had_all = copying.after == Some(END);
        copying.after = copying.after.max(Some(after));
        match &proposal.phase {
            Phase::Prefetching => {
                copying.number += 1;
                copying.rounds += u32::from(had_all);
                copying.has = copying.reading.take().unwrap_or(copying.has);
                self.settle_stable(&name);
                self.collect(&name);
                if self.is_near(&name) {
                    self.seal_after_prefetch(name);
                } else {
                    self.send_copy(name, view, from);
                }
            }
            Phase::Staging { .. } => self.rest_arrived(name, view, from),
            Phase::Preparing { .. } | Phase::Voting { .. } => {}
        }
    }

    /// Whether enough have so much that what shall follow can begin soon after the view is sealed.
    fn is_near(&self, name: &Name) -> bool {
        let most = self.replica.settings.rest_bytes;
        let Some(at) = self.replica.leads.get(name).map(|lead| lead.progress()) else { return false };
        let Some(proposal) = self.replica.proposals.get(name) else { return false };
        let sent: BTreeSet<Name> = proposal.copies.keys().map(|(view, _)| *view).collect();
        let voters = &proposal.wanted.voters;
        let mut views = proposal.wanted.successors.iter().filter(|view| sent.contains(&view.name()));
        views.all(|view| {
            let is_near = |member: &Member| {
                let copying = proposal.copies.get(&(view.name(), *member));
                voters.contains(member) || copying.is_some_and(|copying| copying.is_near(at, most))
            };
            view.can_begin(is_near)
        })
    }

    /// Enough has been sent: the view is sealed, and what follows is decided.
    fn seal_after_prefetch(&mut self, name: Name) {
        let (now, stable) = (self.now, self.held(&name).map_or(0, |held| held.stable));
        let Some(proposal) = self.replica.proposals.get_mut(&name) else { return };
        proposal.copies.retain(|_, copying| copying.after.is_some());
        for copying in proposal.copies.values_mut() {
            // What is under way is not waited for. It does no harm.
            copying.number += 1;
            copying.asked = Time::ZERO;
        }
        proposal.since = stable;
        proposal.moved = now;
        proposal.phase = Phase::preparing();
        let all = proposal.copies.iter().filter(|(_, copying)| copying.after == Some(END));
        let all = all.map(|((_, member), _)| *member).collect();
        self.step.events.push(Event::SentAhead(name, all));
        self.ask_again(&name);
    }

    /// Sends again what was not answered. Who does not answer for long is not waited for, and if too much is written meanwhile
    /// the rest travels as if there were no prefetch.
    pub(super) fn attend_prefetch(&mut self, name: Name) {
        let suspicion = self.replica.settings.suspicion;
        let Some(proposal) = self.replica.proposals.get(&name) else { return };
        if !matches!(proposal.phase, Phase::Prefetching) {
            return;
        }
        let silent_for = self.now.since(proposal.moved);
        let is_late = silent_for >= 2 * suspicion;
        let holds_much = self.holds_much(&name);
        if silent_for >= CHANGE * suspicion || (holds_much && is_late) {
            self.stop_sending_ahead(&name);
            self.settle_stable(&name);
            self.collect(&name);
        } else if holds_much {
            self.seal_after_prefetch(name);
        } else {
            self.send_ahead(name);
        }
    }

    /// Only who serves a view sends its content ahead.
    pub(super) fn stop_sending_ahead(&mut self, name: &Name) {
        let proposal = self.replica.proposals.get(name);
        if proposal.is_some_and(|proposal| matches!(proposal.phase, Phase::Prefetching)) {
            self.replica.proposals.remove(name);
        }
    }

    fn holds_much(&self, name: &Name) -> bool {
        let Some(lead) = self.replica.leads.get(name) else { return false };
        let Some(proposal) = self.replica.proposals.get(name) else { return false };
        let at = lead.progress();
        let mut copies = proposal.copies.values();
        let holds = |has: Progress| {
            at.stable.saturating_sub(has.stable) >= MOST_HELD.0 || at.written - has.written >= MOST_HELD.1
        };
        lead.is_half_full(&self.replica.settings) || copies.any(|copying| holds(copying.has))
    }

    // ---- at the primary, once the view is sealed ----

    /// Sends a member that stages what it is at. Who was sent the content ahead is sent first what the promises had.
    pub(super) fn send_rest(&mut self, name: Name, view: View, member: Member) {
        let (now, room) = (self.now, self.replica.settings.page_bytes);
        let key = (view.name(), member);
        let Some(proposal) = self.replica.proposals.get_mut(&name) else { return };
        let Phase::Staging { value, tail, sent } = &mut proposal.phase else { return };
        let is_own = value.origin == proposal.ballot;
        let copying = proposal.copies.get_mut(&key).filter(|copying| is_own && !copying.is_joined);
        let Some(copying) = copying else { return self.send_page(name, view, member) };
        copying.asked = now;
        let fresh = Sending { whole: true, after: None, is_done: false, asked: now };
        sent.entry(key).or_insert(fresh).asked = now;
        let Copying { number, after, .. } = *copying;
        let (parcel, next) = tail.page(&view.range, copying.tail, room);
        let (origin, voters) = (value.origin, value.voters.clone());
        let page = Page { after, parcel, next: after };
        let body = Request::Prefetch { name, origin, view, voters, number, is_last: next.is_none(), page };
        self.ask(member, body);
    }

    /// A member has a part of what the promises had.
    fn rest_arrived(&mut self, name: Name, view: Name, member: Member) {
        let room = self.replica.settings.page_bytes;
        let Some(proposal) = self.replica.proposals.get_mut(&name) else { return };
        let Phase::Staging { value, tail, sent } = &mut proposal.phase else { return };
        let Some(follows) = value.successors.iter().find(|follows| follows.name() == view).cloned() else { return };
        let (Some(copying), Some(sending)) = (proposal.copies.get_mut(&(view, member)), sent.get_mut(&(view, member)))
        else {
            return;
        };
        match tail.page(&view.range, copying.tail, room).1 {
            Some(next) => {
                copying.tail = Some(next);
                copying.number += 1;
            }
            None => {
                copying.is_joined = true;
                sending.after = copying.after;
            }
        }
        self.send_rest(name, follows, member);
    }

    // ---- at the member ----

    /// Keeps what is sent ahead. Whatever the order in which letters arrive, all that they carry is true, and the newest of each
    /// register stands.
    #[expect(clippy::too_many_arguments, reason = "all that the letter says")]
    pub(super) fn prefetch(
        &mut self,
        name: Name,
        origin: Ballot,
        view: View,
        voters: Vec<Member>,
        number: u64,
        is_last: bool,
        page: Page,
    ) -> Reply {
        if let Some(reply) = self.keeps_nothing(name, &view, &voters) {
            return reply;
        }
        let (me, view_name) = (self.me(), view.name());
        let label = Label { name, origin, range: view.range };
        if number == 0 {
            self.goes_on_with_any(&label, true);
        }
        let nothing = Reply::Elsewhere { name, later: None };
        let had = match self.replica.durable.staged.get(&label) {
            Some(staged) if staged.is_complete => return Reply::Staged { name, origin, view: view_name },
            // The last letter has been here, and its answer was lost.
            Some(Staged { upon: None, after: Some(after), .. }) if is_last => {
                return Reply::Prefetched { name, origin, view: view_name, number, after: *after };
            }
            Some(staged) if staged.is_ahead(&me) && staged.after >= page.after => staged.after,
            None if number == 0 => None,
            // Something of what this letter rests on is not here.
            _ => return nothing,
        };
        let after = if had == page.after { page.next } else { had };
        let Some(reached) = after else { return nothing };
        self.store.extend(&Area::Staged(label), page.parcel);
        let is_complete = reached == END && (is_last || self.has_bug(Bug::CopyWithoutTail));
        let ahead = Upon { base: None, since: 0, absorbed: None };
        let upon = (!is_last && !is_complete).then_some(ahead);
        let staged = Staged { view, voters, upon, is_complete, after };
        self.durable().staged.insert(label, staged);
        if is_complete && is_last {
            return Reply::Staged { name, origin, view: view_name };
        }
        Reply::Prefetched { name, origin, view: view_name, number, after: reached }
    }

    /// All of the content is sent after all: what was sent ahead under this label is of no use.
    pub(super) fn begin_without_copy(&mut self, label: &Label) {
        self.goes_on_with_any(label, false);
        let me = self.me();
        if self.replica.durable.staged.get(label).is_some_and(|staged| staged.is_ahead(&me)) {
            self.drop_copy(label);
        }
    }

    /// Only as a planted bug: what was sent ahead for another proposal is taken for this one.
    fn goes_on_with_any(&mut self, label: &Label, is_ahead: bool) {
        if !self.has_bug(Bug::CopyOfAnyBallot) || self.replica.durable.staged.contains_key(label) {
            return;
        }
        let (me, of) = (self.me(), |other: &Label| (other.name, other.range));
        let staged = self.replica.durable.staged.iter();
        let known = staged.filter(|(other, staged)| of(other) == of(label) && staged.is_ahead(&me));
        let Some((other, staged)) = known.map(|(other, staged)| (*other, staged.clone())).next() else { return };
        let all = crate::Version { epoch: u64::MAX, sequence: u64::MAX };
        self.store.derive(&Area::Staged(other), &Area::Staged(*label), &label.range, all);
        self.drop_copy(&other);
        let upon = staged.upon.filter(|_| is_ahead);
        self.durable().staged.insert(*label, Staged { upon, ..staged });
    }

    fn drop_copy(&mut self, label: &Label) {
        self.durable().staged.remove(label);
        self.store.discard(&Area::Staged(*label));
    }

    /// What was sent ahead waits for its proposer, who says when it has given up. A node that leaves does not wait.
    pub(super) fn inquire_after_copies(&mut self) {
        let (me, takes_no_more) = (self.me(), self.replica.takes_no_more);
        let staged = self.replica.durable.staged.iter();
        let ahead: Vec<Label> = staged.filter(|(_, it)| it.is_ahead(&me)).map(|(label, _)| *label).collect();
        for label in ahead {
            if takes_no_more {
                self.drop_copy(&label);
            } else {
                let Label { name, origin, .. } = label;
                self.ask(origin.proposer, Request::Proposing { name, origin });
            }
        }
    }

    pub(super) fn proposing(&mut self, name: Name, origin: Ballot) -> Reply {
        let stands = self.replica.proposals.get(&name).is_some_and(|proposal| proposal.ballot == origin);
        Reply::Proposing { name, origin, stands }
    }

    /// No ballot is used twice, so a proposal that was given up never comes back.
    pub(super) fn proposed(&mut self, from: Member, name: Name, origin: Ballot, stands: bool) {
        let me = self.me();
        if stands || from != origin.proposer {
            return;
        }
        let staged = self.replica.durable.staged.iter();
        let of = staged.filter(|(label, it)| (label.name, label.origin) == (name, origin) && it.is_ahead(&me));
        for label in of.map(|(label, _)| *label).collect::<Vec<Label>>() {
            self.drop_copy(&label);
        }
    }
}
