//! Whether ranges are served, and for how long they are not although they could be.
//!
//! Ten times a simulated second the views that stand are looked at: those that somebody holds or knows to have been decided, and
//! that no later one covers. A range is *without service* if no member of its view serves it, although a majority of the
//! members runs and can reach each other. A frozen view is never served, so its time counts.

use std::collections::{BTreeMap, BTreeSet};

use chordal_protocol::Id;
use chordal_protocol::replica::{Member, Name, Value, View};

use super::host::State;
use super::world::{Event, MS, World};

/// How often it is looked whether ranges are served.
const LOOK: u64 = 100 * MS;

/// After how long without service, although a majority could talk all that time, something is wrong with the protocol. The
/// members take their turns after up to three suspicion times, and each attempt may meet a message that is lost.
const TOO_LONG: u64 = 30_000 * MS;

/// What is known of the service so far.
#[derive(Debug, Default)]
pub(crate) struct Service {
    /// In simulated microseconds, summed over ranges.
    pub(crate) missed: u64,
    /// The longest time for which a key was without service, without a break, in simulated microseconds.
    pub(crate) longest: u64,
    /// The greatest number of views that a node knew to be over in the end.
    pub(crate) most_over: u64,
    /// The views that were decided. Of two that follow one decision the first stands for both.
    changes: BTreeSet<Name>,
    /// Since when a key has been without service.
    dark: BTreeMap<Id, u64>,
}

impl Service {
    /// How many view changes were decided.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.len() as u64
    }

    /// A node knows what follows a view.
    pub(crate) fn followed(&mut self, next: &[View]) {
        self.changes.extend(next.first().map(View::name));
    }
}

impl World<'_> {
    /// Looks at the service for the first time.
    pub(crate) fn watch_service(&mut self) {
        if self.setup.content.is_some() {
            self.at(LOOK, Event::LookAtService);
        }
    }

    /// Looks whether what could be served is served.
    pub(crate) fn look_at_service(&mut self) {
        self.at(LOOK, Event::LookAtService);
        let standing = self.standing_views();
        let without: Vec<&View> = standing.iter().filter(|view| self.could_be_served(view)).collect();
        self.service.missed += without.len() as u64 * LOOK;
        for id in self.keys() {
            let Some(view) = without.iter().find(|view| view.range.contains(&id)) else {
                self.service.dark.remove(&id);
                continue;
            };
            let since = *self.service.dark.entry(id).or_insert(self.now);
            let long = self.now - since;
            self.service.longest = self.service.longest.max(long);
            if long >= TOO_LONG {
                let name = super::trace::called(&view.name());
                let text = format!("key {} is not served for {} s: {name}", id.short(), long / 1_000_000);
                self.checker.violated("comes_back_to_service", text);
            }
        }
    }

    /// When all has been quiet for long enough, a decision is remembered only for the sake of a member that is not there to be
    /// told.
    pub(crate) fn look_at_decisions(&mut self) {
        let mut there: BTreeSet<Member> = BTreeSet::new();
        for host in self.hosts.iter().filter(|host| host.ring == 0 && host.is_live()) {
            there.extend(host.shelf.as_ref().map(|shelf| shelf.keeper.me()));
        }
        let mut forgettable = None;
        for shelf in
            self.hosts.iter().filter(|host| host.ring == 0 && host.is_live()).filter_map(|it| it.shelf.as_ref())
        {
            let durable = shelf.keeper.replica().durable();
            self.service.most_over = self.service.most_over.max(durable.over.len() as u64);
            let told = |value: &Value| {
                let new = value.successors.iter().flat_map(|view| &view.members);
                value.voters.iter().chain(new).all(|member| there.contains(member))
            };
            let known = durable.decided.iter().find(|(_, value)| told(value));
            forgettable = forgettable.or(known.map(|(name, _)| (shelf.keeper.me(), *name)));
        }
        if let Some((member, name)) = forgettable {
            let text = format!("{} still remembers what followed {}", member.id.short(), super::trace::called(&name));
            self.checker.violated("decisions_are_forgotten", text);
        }
    }

    /// The views that no later one has followed.
    fn standing_views(&self) -> Vec<View> {
        let mut views: BTreeMap<Name, &View> = BTreeMap::new();
        let shelves = self.hosts.iter().filter(|host| host.ring == 0).filter_map(|host| host.shelf.as_ref());
        for durable in shelves.map(|shelf| shelf.keeper.replica().durable()) {
            let held = durable.held.values().map(|held| &held.view);
            let decided = durable.decided.values().flat_map(|value| &value.successors);
            views.extend(held.chain(decided).map(|view| (view.name(), view)));
        }
        let names: Vec<Name> = views.keys().copied().collect();
        let stands = |name: &Name| !names.iter().any(|later| name.is_before(later));
        views.into_iter().filter(|(name, _)| stands(name)).map(|(_, view)| view.clone()).collect()
    }

    /// Whether a majority of a view's members runs and can reach each other, and none of them serves it.
    fn could_be_served(&self, view: &View) -> bool {
        [false, true].into_iter().any(|side| {
            let members = self.hosts.iter().enumerate().filter(|(at, host)| {
                let is_member = host.shelf.as_ref().is_some_and(|shelf| view.has(&shelf.keeper.me()));
                let has_room = host.shelf.as_ref().is_some_and(|shelf| !shelf.disk.is_full());
                is_member && has_room && host.state == State::Running && self.network.side(*at) == side
            });
            let there: Vec<usize> = members.map(|(at, _)| at).collect();
            let serves = |at: &usize| {
                let mut leads = self.hosts[*at].shelf.iter().flat_map(|shelf| shelf.keeper.leads());
                leads.any(|led| led.name() == view.name())
            };
            there.len() >= view.majority() && !there.iter().any(serves)
        })
    }
}
