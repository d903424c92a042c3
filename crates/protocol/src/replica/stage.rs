//! Stage: what may follow has its content at enough members before anybody votes for it (rule 5).
//!
//! A member of the view that decides has most of that content already: all members have installed the same, and keep the same
//! writes up to the stable mark. It is sent only what is later, and lays that upon what it has (rule 14). Anybody else is sent
//! all of it, page after page. The content cannot change meanwhile: the view is sealed.

use std::collections::BTreeSet;

use super::change::Phase;
use super::page::page_of;
use super::tick::AGAIN;
use super::{Area, Ballot, Bug, Cursor, Label, Member, Name, Page, Reply, Request, Staged, Store, Turn, Upon, View};
use crate::Time;

/// How far a member is with what it is to stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sending {
    /// Whether it needs all of it.
    pub(super) whole: bool,
    /// Up to where it has come.
    pub(super) after: Option<Cursor>,
    pub(super) is_done: bool,
    /// When it was sent something last.
    pub(super) asked: Time,
}

impl<S: Store> Turn<'_, S> {
    /// Sends to all who have not staged yet what they are at, unless they were sent it a moment ago.
    pub(super) fn ask_to_stage(&mut self, name: Name) {
        let (now, pause) = (self.now, self.replica.settings.suspicion / AGAIN);
        let Some(proposal) = self.replica.proposals.get(&name) else { return };
        let Phase::Staging { value, sent, .. } = &proposal.phase else { return };
        let is_due = |view: &View, member: &Member| {
            let sending = sent.get(&(view.name(), *member));
            sending.is_none_or(|sending| !sending.is_done && now.since(sending.asked) >= pause)
        };
        let mut due: Vec<(View, Member)> = Vec::new();
        for view in &value.successors {
            let members = view.members.iter().filter(|member| is_due(view, member));
            due.extend(members.map(|member| (view.clone(), *member)));
        }
        for (view, member) in due {
            self.send_rest(name, view, member);
        }
    }

    /// What a member is at: of all of the content, or of what is laid upon its own, if it is a member of the view that decides.
    pub(super) fn send_page(&mut self, name: Name, view: View, member: Member) {
        let (now, room) = (self.now, self.replica.settings.page_bytes);
        let hides_outcomes = self.has_bug(Bug::OutcomesStayBehind);
        let Some(base) = self.held(&name).map(|held| held.base) else { return };
        let Some(proposal) = self.replica.proposals.get_mut(&name) else { return };
        let Phase::Staging { value, tail, sent } = &mut proposal.phase else { return };
        let whole = !value.voters.contains(&member);
        let fresh = Sending { whole, after: None, is_done: false, asked: now };
        let sending = sent.entry((view.name(), member)).or_insert(fresh);
        sending.asked = now;
        let upon = Upon { base, since: proposal.since, absorbed: value.absorbs };
        let upon = (!sending.whole).then_some(upon);
        let areas: Vec<Area> = match upon {
            Some(_) => Vec::new(),
            None => std::iter::once(name).chain(value.absorbs).map(|name| name.area()).collect(),
        };
        let mut page = page_of(self.store, &areas, tail, &view.range, sending.after, room);
        if hides_outcomes {
            page.parcel.outcomes.clear();
        }
        let (origin, voters) = (value.origin, value.voters.clone());
        self.ask(member, Request::Stage { name, origin, view, voters, upon, page });
    }

    /// A member has come so far, or needs all of the content where it was thought to have most of it.
    pub(super) fn staging(
        &mut self,
        from: Member,
        name: Name,
        origin: Ballot,
        view: Name,
        whole: bool,
        after: Option<Cursor>,
    ) {
        let now = self.now;
        let Some(proposal) = self.replica.proposals.get_mut(&name) else { return };
        let Phase::Staging { value, sent, .. } = &mut proposal.phase else { return };
        let view = value.successors.iter().find(|successor| successor.name() == view);
        let Some(view) = view.filter(|_| value.origin == origin).cloned() else { return };
        let Some(sending) = sent.get_mut(&(view.name(), from)) else { return };
        // It never goes back, so what says less is late.
        if sending.is_done || (whole, after) <= (sending.whole, sending.after) {
            return;
        }
        (sending.whole, sending.after) = (whole, after);
        proposal.moved = now;
        self.send_page(name, view, from);
    }

    /// A member has all of it.
    pub(super) fn staged(&mut self, from: Member, name: Name, origin: Ballot, view: Name) {
        let now = self.now;
        let Some(proposal) = self.replica.proposals.get_mut(&name) else { return };
        let survivors = &proposal.survivors;
        let Phase::Staging { value, sent, .. } = &mut proposal.phase else { return };
        let Some(sending) = sent.get_mut(&(view, from)).filter(|_| value.origin == origin) else { return };
        if !sending.is_done {
            sending.is_done = true;
            proposal.moved = now;
        }
        let is_staged = |view: &View| {
            let name = view.name();
            let done = sent.iter().filter(|((of, _), sending)| *of == name && sending.is_done);
            let has: BTreeSet<Member> = done.map(|((_, member), _)| *member).collect();
            match survivors {
                Some(survivors) => has.is_superset(survivors),
                None => view.can_begin(|member| has.contains(member)),
            }
        };
        if !value.successors.iter().all(is_staged) {
            return;
        }
        let value = value.clone();
        if proposal.survivors.is_some() {
            self.decide(value);
            return;
        }
        proposal.phase = Phase::Voting { value, votes: BTreeSet::new() };
        self.ask_again(&name);
    }

    /// Rule 5, at a member of a view that may follow.
    pub(super) fn stage(
        &mut self,
        name: Name,
        origin: Ballot,
        view: View,
        voters: Vec<Member>,
        upon: Option<Upon>,
        page: Page,
    ) -> Reply {
        if let Some(reply) = self.keeps_nothing(name, &view, &voters) {
            return reply;
        }
        let (range, view_name) = (view.range, view.name());
        let label = Label { name, origin, range };
        let wants = |whole, after| Reply::Staging { name, origin, view: view_name, whole, after };
        if upon.is_none() && page.after.is_none() {
            self.begin_without_copy(&label);
        }
        match self.replica.durable.staged.get(&label) {
            Some(staged) if staged.is_complete => return Reply::Staged { name, origin, view: view_name },
            Some(staged) if staged.upon.is_some() != upon.is_some() || staged.after != page.after => {
                return wants(staged.upon.is_none(), staged.after);
            }
            None if page.after.is_some() => return wants(upon.is_none(), None),
            _ => {}
        }
        if upon.is_some_and(|upon| !self.has_what_is_below(&name, &upon)) {
            return wants(true, None);
        }
        if upon.is_some() {
            self.seal_for_staging(name, origin);
        }
        self.store.extend(&Area::Staged(label), page.parcel);
        let is_complete = page.next.is_none();
        if let Some(upon) = upon.filter(|_| is_complete)
            && self.lacks_something(&label, &upon)
        {
            self.store.discard(&Area::Staged(label));
            self.durable().staged.remove(&label);
            return wants(true, None);
        }
        let staged = Staged { view, voters, upon, is_complete, after: page.next };
        self.durable().staged.insert(label, staged);
        if is_complete { Reply::Staged { name, origin, view: view_name } } else { wants(upon.is_none(), page.next) }
    }

    /// Why this node stages nothing for a view, if it does not.
    pub(super) fn keeps_nothing(&self, name: Name, view: &View, voters: &[Member]) -> Option<Reply> {
        if let Some(value) = self.replica.durable.decided.get(&name) {
            return Some(Reply::Decided { value: value.clone() });
        }
        if let Some(later) = self.later_than(&name) {
            return Some(Reply::Elsewhere { name, later: Some(later) });
        }
        // Who agrees to wait for a decision must be sure to hear of it: as a voter it will, and it does not forget it then.
        let durable = &self.replica.durable;
        let will_know = |of: &Name| durable.held.contains_key(of) || durable.decided.contains_key(of);
        let is_unwanted = self.replica.takes_no_more && !voters.contains(&self.me());
        let is_unsure = view.deferred.is_some_and(|waits_for| !will_know(&waits_for));
        (is_unwanted || is_unsure).then_some(Reply::Elsewhere { name, later: None })
    }

    /// Whether the content of this node is what the pages are to be laid upon.
    fn has_what_is_below(&self, name: &Name, upon: &Upon) -> bool {
        let is_same = self.held(name).is_some_and(|held| held.installed && held.base == upon.base);
        is_same && upon.absorbed.is_none_or(|absorbed| self.held(&absorbed).is_some_and(|held| held.installed))
    }

    /// What is referred to must not change any more. A promise does no harm at any time, but for a frozen view that may not
    /// thaw; and nothing is written in that one.
    fn seal_for_staging(&mut self, name: Name, origin: Ballot) {
        let is_open = self.held(&name).is_some_and(|held| held.promised.is_none());
        if is_open && self.may_thaw(&name) {
            self.seal(name, origin);
        }
    }

    /// This node has had a write that does not stand, and lacks what it has taken the place of.
    fn lacks_something(&self, label: &Label, upon: &Upon) -> bool {
        if self.has_bug(Bug::LayUponAnything) {
            return false;
        }
        let own = self.store.since(&label.name.area(), label.name.version(upon.since));
        let mut own = own.records.into_keys().filter(|id| label.range.contains(id));
        own.any(|id| self.store.record(&Area::Staged(*label), &id).is_none())
    }

    /// Somebody is still at what it has sealed the view for.
    pub(super) fn proceeding(&mut self, name: Name, ballot: Ballot) -> Reply {
        if let Some(reply) = self.silence(name) {
            return reply;
        }
        if let Some(promised) = self.held(&name).and_then(|held| held.promised).filter(|promised| *promised > ballot) {
            return Reply::Overtaken { name, ballot, promised };
        }
        self.replica.waits.insert(name, self.now);
        Reply::Sealed { name }
    }

    /// Tells those whose view is sealed that it goes on: otherwise they would begin anew.
    pub(super) fn tell_of_progress(&mut self, name: Name) {
        let me = self.me();
        let Some(proposal) = self.replica.proposals.get(&name) else { return };
        let Phase::Staging { value, .. } = &proposal.phase else { return };
        let (ballot, others) = (proposal.ballot, value.voters.clone());
        for member in others.into_iter().filter(|member| *member != me) {
            self.ask(member, Request::Proceeding { name, ballot });
        }
    }
}
