//! A ring in memory, and lookups in it.

use chordal_protocol::{Contact, Hop, Id, Lookup, Mode, NextHop, OwnerCache, Table, next_hop};
use rayon::prelude::*;

use super::RingSettings;
use super::links::{Links, contact};
use crate::overlay::SettingsError;
use crate::overlay::conditions::{Conditions, ErrorKind};
use crate::overlay::connection::Traffic;
use crate::overlay::hash::Hash;
use crate::overlay::members::{Members, NodeId};
use crate::overlay::simulated::{Outcome, Simulated, Task};

/// A ring: its nodes and what they know.
#[derive(Debug, Clone)]
pub struct Ring {
    settings: RingSettings,
    members: Members,
    links: Vec<Links>,
}

impl Ring {
    /// A ring in which everybody knows what it should. Built on all threads of the pool that this is called in; the result
    /// is the same on any number of them.
    pub fn new(settings: RingSettings) -> Result<Ring, SettingsError> {
        settings.check()?;
        let members = Members::with_virtual_nodes(settings.id, settings.nodes, settings.virtual_nodes, settings.seed);
        let nodes = 0..members.len() as NodeId;
        let links = nodes.into_par_iter().map(|node| Links::right(node, settings.successors, &members)).collect();
        Ok(Ring { settings, members, links })
    }

    /// How it was to be.
    pub fn settings(&self) -> &RingSettings {
        &self.settings
    }

    /// What a node knows.
    ///
    /// # Panics
    /// If there has never been such a node.
    pub fn links(&self, node: NodeId) -> &Links {
        &self.links[node as usize]
    }

    /// The living node that owns a key: the last one at or before it.
    pub fn owner(&self, key: &Hash) -> Option<NodeId> {
        self.members.at_or_before(key)
    }

    /// The share of the circle that each living machine owns. The shares add up to one.
    pub fn shares(&self) -> Vec<f64> {
        let mut shares: Vec<Option<f64>> = vec![None; self.members.machines()];
        let order = self.members.in_order();
        for (at, node) in order.iter().enumerate() {
            let next = order[(at + 1) % order.len()];
            let range = self.members.hash(*node).clockwise_distance(&self.members.hash(next));
            let share = if range == Hash::ZERO { 1.0 } else { range.as_fraction() };
            *shares[self.members.host(*node) as usize].get_or_insert(0.0) += share;
        }
        shares.into_iter().flatten().collect()
    }

    /// What a node answers when it is asked the way: by the protocol, on what the node knows.
    pub fn next_hop(&self, node: NodeId, key: &Hash, cache: Option<&OwnerCache>) -> NextHop {
        self.answer(node, &self.links[node as usize], key, cache)
    }

    fn answer(&self, node: NodeId, links: &Links, key: &Hash, cache: Option<&OwnerCache>) -> NextHop {
        let (successors, fingers) = links.tables(node, &self.members);
        let me = contact(node, &self.members);
        let table = Table { me: &me, successors: &successors, fingers: &fingers, cache };
        next_hop(table, &Id::from(*key), self.settings.mode, None)
    }
}

/// A lookup under way.
struct Way<'a> {
    ring: &'a Ring,
    task: &'a Task<'a>,
    /// Who stands behind the ids that were named.
    named: Vec<(Id, NodeId)>,
    outcome: Outcome,
}

impl Way<'_> {
    /// Notes whom `by` has named.
    fn note(&mut self, by: NodeId, hops: &[Hop]) {
        let Ring { links, members, .. } = self.ring;
        for hop in hops {
            if let Some(node) = links[by as usize].find(&Hash::from(hop.contact.id), members) {
                self.named.push((hop.contact.id, node));
            }
        }
    }

    /// The node behind a contact. One that comes from a cache is looked for on the whole ring: it lives, or it is gone.
    fn node(&self, contact: &Contact) -> Option<NodeId> {
        let named = self.named.iter().rev().find(|(id, _)| *id == contact.id).map(|(_, node)| *node);
        named.or_else(|| {
            let hash = Hash::from(contact.id);
            self.ring.members.at_or_after(&hash).filter(|node| self.ring.members.hash(*node) == hash)
        })
    }

    /// Asks a node, so many times as it may be tried. Returns whether it has answered.
    fn ask(&mut self, node: NodeId, origin_overhead_us: u64, traffic: &mut Traffic<'_>) -> bool {
        for _ in 0..self.ring.settings.tries {
            self.outcome.contacted += 1;
            match traffic.connect(&self.ring.members, self.task.from, node, origin_overhead_us) {
                Ok(connection) => {
                    self.outcome.delay_us += connection.connect_delay_us() + connection.question_delay_us();
                    self.outcome.hops += 1;
                    return true;
                }
                Err(error) => {
                    self.outcome.delay_us += error.summary.total_delay_us();
                    self.outcome.failed += 1;
                    if error.kind == ErrorKind::NotFound {
                        self.outcome.dead.push(node);
                        return false;
                    }
                }
            }
        }
        false
    }

    fn owned_by(&mut self, owner: NodeId) {
        self.outcome.closest = vec![owner];
        self.outcome.found = self.task.holders.is_none_or(|holders| holders.contains(&owner));
    }

    /// Goes to the owner, or until no way is left. One who finds that nodes of its own tables are dead takes them out, and
    /// then begins anew: it may know other ways.
    fn go(mut self, mut cache: Option<&mut OwnerCache>, traffic: &mut Traffic<'_>) -> Outcome {
        let origin_overhead_us = traffic.begin(self.task.from);
        let mut links = self.ring.links(self.task.from).clone();
        loop {
            self.walk(&links, cache.as_deref_mut(), origin_overhead_us, traffic);
            let known = links.clone();
            links.forget(&self.outcome.dead);
            if !self.outcome.closest.is_empty() || links == known {
                return self.outcome;
            }
        }
    }

    fn walk(
        &mut self,
        links: &Links,
        mut cache: Option<&mut OwnerCache>,
        origin_overhead_us: u64,
        traffic: &mut Traffic<'_>,
    ) {
        let (ring, from, key) = (self.ring, self.task.from, self.task.key);
        let begin = match ring.answer(from, links, &key, cache.as_deref()) {
            // Without its dead successors it would believe that it owns what was theirs.
            NextHop::Owner { .. } if self.outcome.dead.is_empty() => return self.owned_by(from),
            NextHop::Owner { .. } => return,
            NextHop::Via(hops) => hops,
        };
        self.note(from, &begin);
        // Nobody is asked twice and each hop is nearer than the one before, so a lookup ends without a budget, too.
        let budget = if ring.settings.budget == 0 { u32::MAX } else { ring.settings.budget };
        let mut lookup = Lookup::new(Id::from(key), ring.settings.mode, None, budget, begin);
        while let Ok(hop) = lookup.next_hop() {
            let there = self.node(&hop.contact).filter(|node| !self.outcome.dead.contains(node));
            let Some(node) = there.filter(|node| self.ask(*node, origin_overhead_us, traffic)) else {
                cache.as_mut().into_iter().for_each(|cache| cache.forget_node(&hop.contact));
                continue;
            };
            match ring.next_hop(node, &key, None) {
                NextHop::Owner { range, .. } => {
                    traffic.metrics.question_answered(1);
                    cache.as_mut().into_iter().for_each(|cache| cache.learn(range, &hop.contact));
                    return self.owned_by(node);
                }
                NextHop::Via(hops) => {
                    traffic.metrics.question_answered(hops.len());
                    self.note(node, &hops);
                    lookup.led_on(&hop.contact, hops);
                }
            }
        }
    }
}

impl Simulated for Ring {
    fn name(&self) -> &'static str {
        "chord"
    }

    fn members(&self) -> &Members {
        &self.members
    }

    fn conditions(&self) -> Conditions {
        self.settings.conditions
    }

    fn wanted(&self) -> usize {
        1
    }

    fn truth(&self, key: &Hash) -> Vec<NodeId> {
        self.owner(key).into_iter().collect()
    }

    fn holders(&self, key: &Hash) -> Vec<NodeId> {
        self.members.before_deaths(|members| members.at_or_before(key)).into_iter().collect()
    }

    fn shares(&self) -> Option<Vec<f64>> {
        Some(Ring::shares(self))
    }

    fn remembers(&self) -> bool {
        self.settings.mode == Mode::Cached
    }

    fn find(&self, task: &Task<'_>, traffic: &mut Traffic<'_>) -> Outcome {
        let outcome = Outcome {
            found: false,
            closest: Vec::new(),
            hops: 0,
            contacted: 0,
            failed: 0,
            delay_us: 0,
            dead: Vec::new(),
        };
        let way = Way { ring: self, task, named: Vec::new(), outcome };
        if !self.remembers() {
            return way.go(None, traffic);
        }
        let known = traffic.caches.remove(&task.from);
        let mut cache = known.unwrap_or_else(|| OwnerCache::new(self.settings.cache));
        let outcome = way.go(Some(&mut cache), traffic);
        traffic.caches.insert(task.from, cache);
        outcome
    }

    fn kill(&mut self, percent: f64, seed: u64) -> usize {
        self.members.kill(percent, seed)
    }

    fn join(&mut self) -> NodeId {
        let node = self.members.add();
        self.links.push(Links::right(node, self.settings.successors, &self.members));
        node
    }

    fn leave(&mut self, node: NodeId) {
        self.members.remove(node);
        // Nobody will ask it any more, and those that have gone may be many more than those that live.
        self.links[node as usize] = Links::default();
    }

    fn stabilizes(&self) -> bool {
        true
    }

    fn stabilize(&mut self, node: NodeId) {
        self.links[node as usize].stabilize(node, self.settings.successors, &self.members);
    }

    fn refresh(&mut self, node: NodeId) {
        self.links[node as usize].fix_fingers(node, &self.members);
    }

    fn forget(&mut self, node: NodeId, dead: &[NodeId]) {
        self.links[node as usize].forget(dead);
    }
}
