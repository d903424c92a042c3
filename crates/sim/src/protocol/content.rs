//! What the machines keep for clients: the keepers of the protocol's own code, over the event loop.

use std::collections::BTreeMap;

use chordal_protocol::replica::{Answer, Event as Told, MemoryStore, Operation, Refusal as NotDone, Store, Token, View};
use chordal_protocol::{
    Contact, Envelope, Id, Interval, Membership, Procedure, Refusal, Reply, Request, Time, Unreachable, keeper,
};
use keeper::Keeper;
use rand::RngExt;

use super::host::State;
use super::setup::Negligence;
use super::world::{Back, Event, KEEP, MS, Timer, World};

/// The run by which answers to letters are told from others. Nobody waits for them: a letter is written again.
pub(crate) const LETTERS: u64 = u64::MAX;

/// What a machine keeps.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) keeper: Keeper,
    store: MemoryStore,
    /// Who waits for which operation.
    waiting: BTreeMap<Token, (Id, Back)>,
}

impl Shelf {
    /// Its machine ends.
    pub(crate) fn interrupt(&mut self) {
        self.waiting.clear();
    }
}

impl World<'_> {
    /// A machine gets an empty disk for content, if nodes keep something.
    pub(crate) fn put_up_shelf(&mut self, host: usize) {
        let Some(settings) = self.setup.content.clone() else { return };
        let me = self.hosts[host].chord.me().clone();
        let keeper = Keeper::new(me, self.chance.random(), settings);
        self.hosts[host].shelf = Some(Shelf { keeper, store: MemoryStore::default(), waiting: BTreeMap::new() });
    }

    /// The disk of a machine is gone. What comes with the next one is another member.
    pub(crate) fn wipe_shelf(&mut self, host: usize) {
        let before = self.hosts[host].shelf.as_ref().map(|shelf| shelf.keeper.me().incarnation);
        self.put_up_shelf(host);
        let (Some(settings), Some(before)) = (self.setup.content.clone(), before) else { return };
        if self.setup.negligence == Some(Negligence::LostDiskKeepsItsVote) {
            let me = self.hosts[host].chord.me().clone();
            let keeper = Keeper::new(me, before, settings);
            self.hosts[host].shelf = Some(Shelf { keeper, store: MemoryStore::default(), waiting: BTreeMap::new() });
        }
    }

    /// A machine starts again.
    pub(crate) fn reopen_shelf(&mut self, host: usize) {
        let Some(settings) = self.setup.content.clone() else { return };
        let me = self.hosts[host].chord.me().clone();
        if let Some(shelf) = &mut self.hosts[host].shelf {
            shelf.keeper = Keeper::restored(me, shelf.keeper.durable(), settings);
        }
    }

    /// The first node of a ring keeps all of it.
    pub(crate) fn found(&mut self, host: usize) {
        let Some(shelf) = &mut self.hosts[host].shelf else { return };
        let range = Interval::whole(shelf.keeper.me().id);
        let step = shelf.keeper.found(range);
        self.keeper_did(host, step);
    }

    /// The beat of a keeper.
    pub(crate) fn keep(&mut self, host: usize) {
        let now = self.time();
        let machine = &mut self.hosts[host];
        let Some(shelf) = &mut machine.shelf else { return };
        shelf.keeper.purge(&mut shelf.store, now.since(Time(self.setup.outcomes_kept)));
        let step = shelf.keeper.tick(&mut shelf.store, now, &machine.chord.around());
        self.keeper_did(host, step);
        let next = self.chance.random_range(KEEP / 2..KEEP);
        self.timer_in(host, Timer::Keep, next);
    }

    /// A node that is asked to leave goes once nothing is kept on it any more.
    pub(crate) fn released(&mut self, host: usize) {
        let Some(shelf) = &self.hosts[host].shelf else { return };
        if !shelf.keeper.is_leaving() || self.hosts[host].chord.membership() != Membership::Joined {
            return;
        }
        if shelf.keeper.is_released() {
            self.begin_alone(host, Procedure::Leave);
        } else {
            self.timer_in(host, Timer::Released, 50 * MS);
        }
    }

    pub(crate) fn keeper_serves(&mut self, at: usize, from: &Contact, request: keeper::Request) -> Option<Reply> {
        let now = self.time();
        let asked = self.sink.is_some().then(|| request.clone());
        let shelf = self.hosts[at].shelf.as_mut()?;
        let keeper::Served { reply, step } = shelf.keeper.serve(&mut shelf.store, now, from, request);
        if let Some(asked) = asked {
            self.tell_deeds(at, &asked, &reply);
        }
        self.keeper_did(at, step);
        Some(Reply::Kept(reply))
    }

    fn tell_deeds(&mut self, at: usize, asked: &keeper::Request, reply: &keeper::Reply) {
        let keeper::Request::Letters { letters: asked, .. } = asked else { return };
        let keeper::Reply::Letters { letters: answers, .. } = reply else { return };
        for (asked, answer) in asked.iter().zip(answers) {
            if let Some(deed) = super::trace::deed(&asked.body, &answer.body) {
                self.tell_change(|world| format!("{} {deed}", world.hosts[at].name()));
            }
        }
    }

    pub(crate) fn keeper_hears(&mut self, back: Back, outcome: Result<Reply, Unreachable>) {
        let Ok(Reply::Kept(reply)) = outcome else { return };
        let now = self.time();
        let from = self.hosts[back.number as usize].chord.me().clone();
        let Some(shelf) = &mut self.hosts[back.host].shelf else { return };
        let step = shelf.keeper.hear(&mut shelf.store, now, &from, reply);
        self.keeper_did(back.host, step);
    }

    /// A client's operation arrives at whom it takes for the primary.
    pub(crate) fn operate_at(&mut self, at: usize, operation: Operation, back: Back) -> Option<Reply> {
        let now = self.time();
        let token = Token(self.next_number());
        let shelf = self.hosts[at].shelf.as_mut()?;
        let id = *operation.id();
        shelf.waiting.insert(token, (id, back));
        let mut step = shelf.keeper.operate(&mut shelf.store, now, token, operation);
        let not_served = (token, Answer::Refused(NotDone::NotServed));
        if step.answers.contains(&not_served) {
            step.answers.retain(|answer| *answer != not_served);
            shelf.waiting.remove(&token);
            let hint = shelf.keeper.hint(&id).cloned();
            self.keeper_did(at, step);
            let hint = hint.or_else(|| self.hosts[at].chord.predecessor().cloned());
            return Some(Reply::Refused(Refusal::NotMine(hint)));
        }
        self.keeper_did(at, step);
        None
    }

    /// What a step of a keeper wants done.
    fn keeper_did(&mut self, host: usize, step: keeper::Step) {
        let keeper::Step { calls, answers, events, .. } = step;
        let (ring, from) = {
            let chord = &self.hosts[host].chord;
            (chord.ring().map(|ring| ring.id), chord.me().clone())
        };
        let life = self.hosts[host].life;
        for (to, request) in calls {
            let Some(place) = self.place_of(&to.addr) else { continue };
            let envelope = Envelope { ring, from: from.clone(), request: Request::Keep(request) };
            self.send(host, place, envelope, Back { host, life, run: LETTERS, number: place as u64 });
        }
        for (token, answer) in answers {
            let Some((_, back)) = self.hosts[host].shelf.as_mut().and_then(|shelf| shelf.waiting.remove(&token)) else {
                continue;
            };
            if back.host == host {
                self.at(0, Event::Answered { back, outcome: Ok(Reply::Answered(answer)) });
            } else {
                self.send_back(host, back, Ok(Reply::Answered(answer)));
            }
        }
        for event in events {
            if let Told::Followed(_, next) = &event {
                self.service.followed(next);
            }
            self.tell_change(|world| format!("{}: {}", world.hosts[host].name(), told(&event)));
        }
    }

    /// The primary of an id, if a client waits for a write there that another member has already and the primary does not know
    /// of.
    pub(crate) fn primary_in_write(&self, id: &Id) -> Option<usize> {
        (0..self.hosts.len()).filter(|at| self.hosts[*at].is_live()).find(|at| {
            let Some(shelf) = &self.hosts[*at].shelf else { return false };
            let Some(view) = shelf.keeper.leads().find(|view| view.range.contains(id)) else { return false };
            let has = |shelf: &Shelf| shelf.store.record(&view.name().area(), id).map(|record| record.version);
            let newest = has(shelf);
            let is_awaited = shelf.waiting.values().any(|(waiting, _)| waiting == id);
            let others = self.hosts.iter().enumerate().filter(|(other, _)| other != at);
            let mut others = others.filter_map(|(_, host)| host.shelf.as_ref());
            newest.is_some() && is_awaited && others.any(|other| has(other) == newest)
        })
    }

    // ---- what may be lost ----

    /// All views that somebody holds or may come to hold.
    fn all_views(&self) -> Vec<View> {
        let shelves = self.hosts.iter().filter(|host| host.state != State::Gone).filter_map(|host| host.shelf.as_ref());
        let mut views: Vec<View> = Vec::new();
        for shelf in shelves {
            let durable = shelf.keeper.replica().durable();
            views.extend(durable.held.values().map(|held| held.view.clone()));
            views.extend(durable.staged.values().map(|staged| staged.view.clone()));
            views.extend(durable.decided.values().flat_map(|value| value.successors.iter().cloned()));
        }
        views.sort_unstable();
        views.dedup();
        views
    }

    /// Whether each view keeps a majority of members that are there, or come back, when these are gone for good.
    pub(crate) fn keeps_majorities(&self, lost: &[usize]) -> bool {
        if self.setup.content.is_none() {
            return true;
        }
        let stays = |member: &chordal_protocol::replica::Member| {
            self.hosts.iter().enumerate().any(|(at, host)| {
                host.state != State::Gone
                    && !lost.contains(&at)
                    && host.shelf.as_ref().is_some_and(|shelf| shelf.keeper.me() == *member)
            })
        };
        self.all_views().iter().all(|view| view.members.iter().filter(|member| stays(member)).count() >= view.majority())
    }

    /// Whether a disk may be gone for good.
    pub(crate) fn may_wipe(&self, host: usize) -> bool {
        self.keeps_majorities(&[host])
    }
}

fn told(event: &Told) -> String {
    let name = super::trace::called;
    match event {
        Told::Installed(view) => format!("has installed {} of {} members", name(&view.name()), view.members.len()),
        Told::Followed(old, _) => format!("{} is over", name(old)),
        Told::Silent(view) => format!("does not hear the primary of {}", name(view)),
        Told::Lagging(view, _) => format!("somebody lags behind in {}", name(view)),
        Told::Fenced(view) => format!("{} has been pushed aside", name(view)),
        Told::MajorityAnswers(view) => format!("a majority of {} answers", name(view)),
        Told::Unacceptable => "somebody is another member than was thought".to_owned(),
    }
}
