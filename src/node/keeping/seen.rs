//! What can be seen of the keeper without asking the thread, and what is told of it to people.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use chordal_protocol::replica::{Event, Member, View};
use chordal_protocol::{Contact, Id, Interval};

use super::{RESTORED, Work};

/// A view as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenView {
    pub(crate) view: View,
    pub(crate) installed: bool,
    /// Since when it is sealed, as far as was seen.
    pub(crate) sealed: Option<Instant>,
    /// Whether this node serves it now.
    pub(crate) leads: bool,
    /// As of the last beat: how many writes of a view that is served here are not known to be at all its members.
    pub(crate) lag: usize,
}

/// What can be seen of the keeper without asking the thread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    pub(crate) me: Option<Member>,
    pub(crate) views: Vec<SeenView>,
    /// Whether it keeps nothing for anybody.
    pub(crate) released: bool,
    /// Whether it has never kept anything.
    pub(crate) is_new: bool,
    /// Whether others know this node's data directory from later.
    pub(crate) is_restored: bool,
    /// Where members can be asked.
    pub(crate) contacts: BTreeMap<Id, Contact>,
}

impl Seen {
    /// Whether all of this range is served here.
    pub(crate) fn serves(&self, range: &Interval) -> bool {
        self.covers(range, |seen| seen.leads)
    }

    /// Whether all of this range is kept here, by whomever it is served.
    pub(crate) fn keeps(&self, range: &Interval) -> bool {
        self.covers(range, |seen| seen.installed)
    }

    fn covers(&self, range: &Interval, counts: impl Fn(&SeenView) -> bool) -> bool {
        let mut rest = vec![*range];
        for seen in self.views.iter().filter(|seen| counts(seen)) {
            rest = rest.iter().flat_map(|part| part.minus(&seen.view.range)).collect();
        }
        rest.is_empty()
    }

    /// Whether this id is served here.
    pub(crate) fn serves_id(&self, id: &Id) -> bool {
        self.views.iter().any(|seen| seen.leads && seen.view.range.contains(id))
    }
}

/// Something that moved, for people.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub(crate) kind: &'static str,
    pub(crate) range: Interval,
    pub(crate) peer: Option<Contact>,
    pub(crate) records: u64,
}

impl Work {
    /// Publishes what can be seen now, and tells what has moved; counts how far members lag behind if it is asked to.
    pub(super) fn show(&mut self, events: &[Event], counts: bool) {
        let before = Arc::clone(&self.tell.borrow());
        for event in events {
            log(event);
            if let Some(moved) = self.moved(&before, event) {
                self.outside.moved(moved);
            }
        }
        let leads: Vec<_> = self.keeper.leads().map(View::name).collect();
        let replica = self.keeper.replica();
        let held = replica.durable().held.iter();
        let views: Vec<SeenView> = held
            .map(|(name, held)| {
                let seen = before.views.iter().find(|seen| seen.view.name() == *name);
                let since = seen.and_then(|seen| seen.sealed);
                SeenView {
                    view: held.view.clone(),
                    installed: held.installed,
                    sealed: held.promised.map(|_| since.unwrap_or_else(Instant::now)),
                    leads: leads.contains(name),
                    // It changes with each write, and who waits for a change of views is not to be woken by each.
                    lag: if counts { replica.unstable(name) } else { seen.map_or(0, |seen| seen.lag) },
                }
            })
            .collect();
        let members = views.iter().flat_map(|seen| &seen.view.members);
        let contacts = members.filter_map(|member| Some((member.id, self.keeper.contact(member)?.clone()))).collect();
        let durable = self.keeper.replica().durable();
        let is_new = durable.held.is_empty() && durable.over.is_empty() && durable.staged.is_empty();
        let (released, is_restored) = (self.keeper.is_released(), self.keeper.is_restored());
        let seen = Seen { me: Some(self.keeper.me()), views, released, is_new, is_restored, contacts };
        self.tell.send_if_modified(|told| {
            let is_new = **told != seen;
            if is_new {
                *told = Arc::new(seen);
            }
            is_new
        });
    }

    /// What an event moves: what this node serves now and did not before, or served and does not any more.
    fn moved(&self, before: &Seen, event: &Event) -> Option<Moved> {
        let me = self.keeper.me();
        let was_mine = |range: &Interval| {
            before.views.iter().any(|seen| seen.view.primary == me && seen.view.range.overlaps(range))
        };
        match event {
            Event::Installed(view) if view.primary == me && !was_mine(&view.range) => {
                let held = self.keeper.replica().durable().held.get(&view.name());
                let proposer = held.and_then(|held| held.base).map(|(_, ballot)| ballot.proposer)?;
                let by_me = proposer == me;
                let peer = if by_me { None } else { self.keeper.contact(&proposer).cloned() };
                let records = self.store.count(&view.name().area()).unwrap_or_default();
                Some(Moved { kind: if by_me { "taken" } else { "received" }, range: view.range, peer, records })
            }
            Event::Followed(name, successors) if was_mine(&name.range) => {
                let next = successors.iter().find(|view| view.primary != me)?;
                let peer = self.keeper.contact(&next.primary).cloned();
                Some(Moved { kind: "given", range: next.range, peer, records: 0 })
            }
            _ => None,
        }
    }
}

fn log(event: &Event) {
    let range = |range: &Interval| format!("[{}, {})", range.lo.short(), range.hi.short());
    match event {
        Event::Installed(view) if view.forced => tracing::error!(
            range = range(&view.range),
            epoch = view.epoch,
            "a view was made by force: what only its lost members had is lost"
        ),
        Event::Installed(view) => {
            let members = view.members.len();
            tracing::info!(range = range(&view.range), epoch = view.epoch, members, "installed a view");
        }
        Event::Followed(name, _) => tracing::debug!(range = range(&name.range), epoch = name.epoch, "a view is over"),
        Event::Silent(name) => {
            tracing::warn!(range = range(&name.range), epoch = name.epoch, "the primary is silent; taking over");
        }
        Event::Lagging(name, members) => {
            let count = members.len();
            tracing::warn!(range = range(&name.range), epoch = name.epoch, count, "members have missed many writes");
        }
        Event::SentAhead(name, members) => {
            let count = members.len();
            tracing::info!(range = range(&name.range), epoch = name.epoch, count, "content was sent ahead");
        }
        Event::Fenced(name) => {
            tracing::error!(range = range(&name.range), epoch = name.epoch, "pushed aside by a view made by force");
        }
        Event::MajorityAnswers(name) => {
            tracing::info!(range = range(&name.range), epoch = name.epoch, "a majority answers: nothing is forced");
        }
        Event::Unacceptable => tracing::debug!("somebody is another member than was thought"),
        Event::Restored(member) => tracing::error!(
            id = %member.id.short(),
            "the data directory of a node is an older copy of the one that it had, and nothing that it says is heeded"
        ),
        Event::IsRestored => tracing::error!("{RESTORED}"),
    }
}
