//! A Kademlia network in memory.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use super::client::Client;
use super::table::{Near, Room, RoutingTable};
use super::{Settings, World};
use crate::overlay::SettingsError;
use crate::overlay::conditions::{Conditions, Micros};
use crate::overlay::connection::{Connection, ConnectionError, ConnectionSummary, Metrics, Traffic};
use crate::overlay::hash::Hash;
use crate::overlay::members::{Members, NodeId};
use crate::overlay::rng::{Use, stream};
use crate::overlay::settings_error;

/// How a network is to be.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct NetworkSettings {
    /// Its id: networks of different ids have different nodes.
    pub id: u64,
    /// How many nodes it begins with.
    pub nodes: usize,
    /// How its clients look things up.
    pub kademlia: Settings,
    /// What connections meet with.
    pub conditions: Conditions,
    /// What decides everything that is drawn.
    pub seed: u64,
}

impl NetworkSettings {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        settings_error::nodes(self.nodes)?;
        self.kademlia.check()?;
        self.conditions.check()
    }

    /// How many bytes of memory the network takes, a little too many rather than too few.
    pub fn memory_bytes(&self) -> u64 {
        let (nodes, k) = (self.nodes.max(2) as f64, self.kademlia.k as f64);
        // Full buckets as long as the other half has k nodes, then at most about twice k more.
        let entries = (k * (nodes / k).log2().max(0.0) + 2.0 * k).min(nodes);
        (nodes * (4.0 * entries + 4.0 * nodes.log2() + 200.0)) as u64
    }
}

/// What there is to say of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NetworkSummary {
    /// Living nodes.
    pub nodes: usize,
    /// Connections since the last reset.
    pub connections: Metrics,
}

impl std::fmt::Display for NetworkSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Metrics { attempts, successes, .. } = self.connections;
        let failures = self.connections.failures();
        write!(f, "{} nodes; {attempts} connections tried, {successes} made, {failures} failed", self.nodes)
    }
}

/// There has never been a node of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no node {0}")]
pub struct UnknownNode(pub NodeId);

/// What a node answers when it is asked for the nodes closest to a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The k closest of its table with their distances to the hash, the closest first.
    pub closest: Vec<(NodeId, Hash)>,
    /// What it holds under that hash.
    pub value: Option<Vec<u8>>,
    /// What the question has taken.
    pub delay_us: Micros,
}

/// What a connection brought for a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt<T> {
    /// What came of it.
    pub outcome: T,
    /// What it has taken.
    pub delay_us: Micros,
}

/// A network: its nodes, what they know and hold, and what their connections meet with.
///
/// What is drawn comes from a stream that the seed begins, in the order of the calls; so the same calls give the same.
pub struct Network {
    pub(super) settings: NetworkSettings,
    pub(super) members: Members,
    pub(super) tables: Vec<RoutingTable>,
    pub(super) traffic: Traffic<'static>,
    pub(super) segments: BTreeMap<NodeId, BTreeMap<Hash, Vec<u8>>>,
}

impl Network {
    /// A network of nodes that all have the best table there can be. Built on all threads of the pool that this is called
    /// in; the result is the same on any number of them.
    pub fn new(settings: NetworkSettings) -> Result<Network, SettingsError> {
        settings.check()?;
        let mut network = Network::without_tables(settings)?;
        network.bootstrap_all();
        Ok(network)
    }

    /// The same nodes with empty tables.
    pub fn without_tables(settings: NetworkSettings) -> Result<Network, SettingsError> {
        settings.check()?;
        let members = Members::new(settings.id, settings.nodes, settings.seed);
        let k = settings.kademlia.k;
        let tables = (0..members.len() as NodeId).into_par_iter().map(|node| RoutingTable::new(node, k)).collect();
        let rng = stream(settings.seed, Use::Clients, settings.id);
        let traffic = Traffic::new(settings.conditions, rng).logging();
        Ok(Network { settings, members, tables, traffic, segments: BTreeMap::new() })
    }

    /// Gives every node that lives the best table there can be, as if each had bootstrapped.
    pub fn bootstrap_all(&mut self) {
        let Network { members, tables, settings, .. } = self;
        let members = &*members;
        tables.par_iter_mut().for_each_init(Room::default, |room, table| {
            if members.is_alive(table.owner()) {
                let k = settings.kademlia.k;
                *table = RoutingTable::optimal(table.owner(), k, members.index(), members.hashes(), room);
            }
        });
    }

    /// How it was to be.
    pub fn settings(&self) -> &NetworkSettings {
        &self.settings
    }

    /// Its nodes.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// What a node knows of the others.
    pub fn table(&self, node: NodeId) -> Result<&RoutingTable, UnknownNode> {
        self.tables.get(node as usize).ok_or(UnknownNode(node))
    }

    /// All routing tables by node.
    pub(crate) fn world(&self) -> World<'_> {
        World { members: &self.members, tables: &self.tables, settings: &self.settings.kademlia }
    }

    /// One more node, with the best table there can be; all others that have a place for it take it into theirs.
    pub fn add_node(&mut self) -> NodeId {
        let node = self.push_node();
        let members = &self.members;
        self.tables.par_iter_mut().filter(|table| members.is_alive(table.owner())).for_each(|table| {
            table.insert(node, members.hashes());
        });
        node
    }

    /// One more node, of which only those know that are closest to it: the ones that it asks when it looks itself up
    /// (section 2.3).
    pub(super) fn join_quietly(&mut self) -> NodeId {
        let node = self.push_node();
        let hash = self.members.hash(node);
        for neighbour in self.members.closest(&hash, self.settings.kademlia.k + 1) {
            self.tables[neighbour as usize].insert(node, self.members.hashes());
        }
        node
    }

    fn push_node(&mut self) -> NodeId {
        let node = self.members.add();
        self.tables.push(RoutingTable::new(node, self.settings.kademlia.k));
        self.bootstrap(node);
        node
    }

    /// A node is gone without a word; those who list it will find out. Returns whether it lived.
    pub fn remove_node(&mut self, node: NodeId) -> bool {
        self.members.remove(node)
    }

    /// So many percent of the nodes die at once, drawn by the seed. Returns how many.
    pub fn kill(&mut self, percent: f64) -> Result<usize, SettingsError> {
        settings_error::percentage("the share of nodes that die", percent)?;
        Ok(self.members.kill(percent, self.settings.seed))
    }

    /// Gives a living node the best table there can be.
    pub(super) fn bootstrap(&mut self, node: NodeId) {
        let (k, members) = (self.settings.kademlia.k, &self.members);
        let table = RoutingTable::optimal(node, k, members.index(), members.hashes(), &mut Room::default());
        self.tables[node as usize] = table;
    }

    /// The best table that a node could have, without giving it to the node.
    pub fn best_table(&self, node: NodeId) -> Result<RoutingTable, UnknownNode> {
        let table = self.table(node)?;
        let (index, hashes) = (self.members.index(), self.members.hashes());
        Ok(RoutingTable::optimal(node, table.k(), index, hashes, &mut Room::default()))
    }

    /// A node, to do things with.
    pub fn client(&mut self, node: NodeId) -> Result<Client<'_>, UnknownNode> {
        self.table(node)?;
        Ok(Client::new(self, node))
    }

    /// The `count` living nodes that truly are the closest to a hash, the closest first.
    pub fn closest_nodes(&self, hash: &Hash, count: usize) -> Vec<NodeId> {
        self.members.closest(hash, count)
    }

    /// Connects two nodes. A node that is not there is an error of the kind not found.
    pub fn connect(&mut self, from: NodeId, to: NodeId) -> Result<Connection, ConnectionError> {
        let overhead = self.traffic.begin(from);
        self.traffic.connect(&self.members, from, to, overhead)
    }

    /// What a node holds under a hash.
    pub fn segment(&self, node: NodeId, key: &Hash) -> Option<&[u8]> {
        self.segments.get(&node)?.get(key).map(Vec::as_slice)
    }

    pub(super) fn keep(&mut self, node: NodeId, segment: &[u8]) -> Hash {
        let key = Hash::of(segment);
        self.segments.entry(node).or_default().insert(key, segment.to_vec());
        key
    }

    /// The count of connections since the last reset.
    pub fn metrics(&self) -> Metrics {
        self.traffic.metrics
    }

    /// All connections since the last reset, in order.
    pub fn connections(&self) -> &[ConnectionSummary] {
        self.traffic.connections()
    }

    /// Forgets connections, counts and overheads: what went on at the same time has ended.
    pub fn reset_metrics(&mut self) {
        self.traffic.reset();
    }

    /// What there is to say.
    pub fn summary(&self) -> NetworkSummary {
        NetworkSummary { nodes: self.members.living(), connections: self.metrics() }
    }
}

impl Connection {
    /// Asks for the closest nodes that the other side knows, and for the value if it holds it.
    pub fn closest_nodes(&self, network: &mut Network, key: &Hash) -> Answer {
        let hashes = network.members.hashes();
        let mut found: Vec<Near> = Vec::new();
        network.tables[self.to() as usize].closest(key, network.settings.kademlia.k, hashes, &mut found);
        let closest: Vec<(NodeId, Hash)> =
            found.iter().map(|near| (near.node, hashes[near.node as usize].xor_distance(key))).collect();
        network.traffic.metrics.question_answered(closest.len());
        let value = network.segment(self.to(), key).map(<[u8]>::to_vec);
        network.traffic.metrics.bytes += value.as_ref().map_or(0, Vec::len) as u64;
        Answer { closest, value, delay_us: self.question_delay_us() }
    }

    /// Stores a segment at the other side, under the hash of its bytes.
    pub fn store(&self, network: &mut Network, segment: &[u8]) -> Receipt<Hash> {
        network.traffic.metrics.bytes += segment.len() as u64;
        network.traffic.metrics.question_answered(0);
        Receipt { outcome: network.keep(self.to(), segment), delay_us: self.question_delay_us() }
    }

    /// Asks the other side for a segment; none if it does not hold it.
    pub fn retrieve(&self, network: &mut Network, key: &Hash) -> Receipt<Option<Vec<u8>>> {
        let outcome = network.segment(self.to(), key).map(<[u8]>::to_vec);
        network.traffic.metrics.question_answered(0);
        network.traffic.metrics.bytes += outcome.as_ref().map_or(0, Vec::len) as u64;
        Receipt { outcome, delay_us: self.question_delay_us() }
    }
}
