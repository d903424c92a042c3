//! What the machines keep for clients: the keepers of the protocol's own code, over the event loop.

use chordal_protocol::replica::{Answer, Event as Told, Operation, Refusal as NotDone, Token, View};
use chordal_protocol::{Contact, Id, Membership, Procedure, Refusal, Reply, Time, Unreachable, keeper};
use rand::RngExt;

use super::host::State;
use super::world::{Back, KEEP, MS, Timer, World};

/// The run by which answers to letters are told from others. Nobody waits for them: a letter is written again.
pub(crate) const LETTERS: u64 = u64::MAX;

impl World<'_> {
    /// The beat of a keeper.
    pub(crate) fn keep(&mut self, host: usize) {
        let now = self.time();
        let machine = &mut self.hosts[host];
        let Some(shelf) = &mut machine.shelf else { return };
        shelf.keeper.purge(&mut shelf.disk, now.since(Time(self.setup.outcomes_kept)));
        let step = shelf.keeper.tick(&mut shelf.disk, now, &machine.chord.around());
        self.keeper_did(host, step, None);
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

    pub(crate) fn keeper_serves(&mut self, at: usize, from: &Contact, request: keeper::Request, back: Back) {
        let now = self.time();
        let asked = self.sink.is_some().then(|| request.clone());
        let Some(shelf) = &mut self.hosts[at].shelf else { return };
        let keeper::Served { reply, step } = shelf.keeper.serve(&mut shelf.disk, now, from, request);
        if let Some(asked) = asked {
            self.tell_deeds(at, &asked, &reply);
        }
        self.keeper_did(at, step, Some((back, Reply::Kept(reply))));
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
        let step = if shelf.keeper.only_acknowledges(&from, &reply) {
            shelf.keeper.hear_acknowledgements(&shelf.disk, now, &from, &reply)
        } else {
            shelf.keeper.hear(&mut shelf.disk, now, &from, reply)
        };
        self.keeper_did(back.host, step, None);
    }

    /// A client's operation arrives at whom it takes for the primary.
    pub(crate) fn operate_at(&mut self, at: usize, operation: Operation, back: Back) {
        let now = self.time();
        let token = Token(self.next_number());
        let Some(shelf) = &mut self.hosts[at].shelf else { return };
        let id = *operation.id();
        shelf.waiting.insert(token, (id, back));
        let mut step = match operation {
            Operation::Get(id) => shelf.keeper.read(&shelf.disk, now, token, &id),
            write @ Operation::Write(_) => shelf.keeper.operate(&mut shelf.disk, now, token, write),
        };
        let not_served = (token, Answer::Refused(NotDone::NotServed));
        if !step.answers.contains(&not_served) {
            self.keeper_did(at, step, None);
            return;
        }
        step.answers.retain(|answer| *answer != not_served);
        shelf.waiting.remove(&token);
        let hint = shelf.keeper.hint(&id).cloned();
        let hint = hint.or_else(|| self.hosts[at].chord.predecessor().cloned());
        self.keeper_did(at, step, Some((back, Reply::Refused(Refusal::NotMine(hint)))));
    }

    pub(crate) fn tell_events(&mut self, host: usize, events: Vec<Told>) {
        for event in events {
            if let Told::Followed(_, next) = &event {
                self.service.followed(next);
            }
            // No disk here is put back from a copy.
            if matches!(event, Told::Restored(_) | Told::IsRestored) && self.setup.negligence.is_none() {
                self.checker.violated("disks_go_on", told(&event));
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
            let newest = shelf.version(view, id);
            let is_awaited = shelf.waiting.values().any(|(waiting, _)| waiting == id);
            let others = self.hosts.iter().enumerate().filter(|(other, _)| other != at);
            let mut others = others.filter_map(|(_, host)| host.shelf.as_ref());
            newest.is_some() && is_awaited && others.any(|other| other.version(view, id) == newest)
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
        self.all_views()
            .iter()
            .all(|view| view.members.iter().filter(|member| stays(member)).count() >= view.majority())
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
        Told::SentAhead(view, _) => format!("has sent ahead what {} holds", name(view)),
        Told::Fenced(view) => format!("{} has been pushed aside", name(view)),
        Told::MajorityAnswers(view) => format!("a majority of {} answers", name(view)),
        Told::Unacceptable => "somebody is another member than was thought".to_owned(),
        Told::Restored(member) => format!("the disk of {} is an older copy", member.id.short()),
        Told::IsRestored => "its disk is an older copy, somebody says".to_owned(),
    }
}
