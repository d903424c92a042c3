//! What a node can do.

use serde::Serialize;

use super::lookup::{Search, World, run};
use super::network::Network;
use super::table::RoutingTable;
use crate::overlay::conditions::Micros;
use crate::overlay::hash::Hash;
use crate::overlay::members::NodeId;

/// A node of a network, to do things with. A view: what it knows and holds lies in the network.
pub struct Client<'a> {
    network: &'a mut Network,
    node: NodeId,
}

/// How a lookup went. Delays in microseconds of simulated time, counted from its beginning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LookupSummary {
    /// The hash that was looked for.
    #[serde(serialize_with = "as_text")]
    pub target: Hash,
    /// The closest nodes seen, at most beta, the closest first; the node that asked may be among them.
    pub closest: Vec<NodeId>,
    /// The value, if a node that was asked holds one (or the node itself).
    #[serde(skip)]
    pub value: Option<Vec<u8>>,
    /// How many nodes were asked in sequence until the value or the closest node was reached, that one included.
    pub hops: u32,
    /// Connections begun.
    pub attempts: u32,
    /// Those that were answered before the end.
    pub successes: u32,
    /// Those that had failed before the end.
    pub failures: u32,
    /// Nodes seen, the node itself left out.
    pub nodes_seen: u32,
    /// What it has taken: with alpha questions at once, not their sum.
    pub delay_us: Micros,
    /// The share of the beta that truly are the closest which was found, 0 to 1.
    pub accuracy: f64,
}

/// How providing a segment went. Delays in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProvideSummary {
    /// The hash that it is stored under.
    #[serde(serialize_with = "as_text")]
    pub key: Hash,
    /// The lookup that came first.
    pub lookup: LookupSummary,
    /// Who stores it now.
    pub stored_at: Vec<NodeId>,
    /// Who could not be reached.
    pub failed_at: Vec<NodeId>,
    /// What the lookup has taken.
    pub lookup_delay_us: Micros,
    /// What the slowest of the stores, all begun at once, has taken.
    pub provide_delay_us: Micros,
}

impl ProvideSummary {
    /// Lookup and stores together.
    pub fn total_delay_us(&self) -> Micros {
        self.lookup_delay_us + self.provide_delay_us
    }
}

/// The node holds nothing under this hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node {node} holds nothing under {key}")]
pub struct NotStored {
    /// Who was asked.
    pub node: NodeId,
    /// For what.
    pub key: Hash,
}

impl<'a> Client<'a> {
    pub(super) fn new(network: &'a mut Network, node: NodeId) -> Client<'a> {
        Client { network, node }
    }

    /// Its number.
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// Where it stands.
    pub fn hash(&self) -> Hash {
        self.network.members.hash(self.node)
    }

    /// What it knows of the others.
    pub fn table(&self) -> &RoutingTable {
        &self.network.tables[self.node as usize]
    }

    /// Fills its table with the best that the network has; returns the table.
    pub fn bootstrap(&mut self) -> &RoutingTable {
        self.network.bootstrap(self.node);
        self.table()
    }

    /// Takes note of another node. Returns whether its table has changed.
    pub fn discover(&mut self, other: NodeId) -> bool {
        let Network { tables, members, .. } = &mut *self.network;
        tables[self.node as usize].insert(other, members.hashes())
    }

    /// The k closest nodes of its own table, the closest first.
    pub fn closest_nodes(&self, key: &Hash) -> Vec<NodeId> {
        let mut found = Vec::new();
        let table = self.table();
        table.closest(key, table.k(), self.network.members.hashes(), &mut found);
        found.into_iter().map(|near| near.node).collect()
    }

    /// Looks for the nodes closest to a hash and for the value, if there is one; if it is told to stop at the first value
    /// the lookup ends there. Errors of connections are part of the summary.
    pub fn lookup(&mut self, key: &Hash, stop_at_value: bool) -> LookupSummary {
        let Network { settings, members, tables, traffic, segments } = &mut *self.network;
        let world = World { members, tables, settings: &settings.kademlia };
        let holds = |node: NodeId| segments.get(&node).is_some_and(|held| held.contains_key(key));
        let search = Search { from: self.node, key: *key, holds: Some(&holds), stop_at_value };
        let found = run(world, &search, traffic);
        if let Some(other) = found.value_from.filter(|node| *node != self.node) {
            let held = segments.get(&other).and_then(|held| held.get(key));
            traffic.metrics.bytes += held.map_or(0, Vec::len) as u64;
        }
        let network = &*self.network;
        let truth = network.closest_nodes(key, network.settings().kademlia.beta);
        let right = truth.iter().filter(|node| found.closest.contains(node)).count();
        LookupSummary {
            target: *key,
            value: found.value_from.and_then(|node| network.segment(node, key)).map(<[u8]>::to_vec),
            accuracy: if truth.is_empty() { 0.0 } else { right as f64 / truth.len() as f64 },
            closest: found.closest,
            hops: found.hops,
            attempts: found.attempts,
            successes: found.successes,
            failures: found.failures,
            nodes_seen: found.seen,
            delay_us: found.delay_us,
        }
    }

    /// Looks for the nodes closest to a segment of a block and stores it at them, all at once.
    pub fn provide_block_segment(&mut self, segment: &[u8]) -> ProvideSummary {
        let lookup = self.lookup(&Hash::of(segment), false);
        let (mut stored_at, mut failed_at, mut slowest) = (Vec::new(), Vec::new(), 0);
        for node in &lookup.closest {
            if *node == self.node {
                self.store_segment(segment);
                stored_at.push(*node);
                continue;
            }
            let delay = match self.network.connect(self.node, *node) {
                Ok(connection) => {
                    stored_at.push(*node);
                    connection.connect_delay_us() + connection.store(self.network, segment).delay_us
                }
                Err(error) => {
                    failed_at.push(*node);
                    error.summary.total_delay_us()
                }
            };
            slowest = slowest.max(delay);
        }
        let lookup_delay_us = lookup.delay_us;
        ProvideSummary { key: lookup.target, lookup, stored_at, failed_at, lookup_delay_us, provide_delay_us: slowest }
    }

    /// Keeps a segment itself, under the hash of its bytes, which is returned.
    pub fn store_segment(&mut self, segment: &[u8]) -> Hash {
        self.network.keep(self.node, segment)
    }

    /// What it holds under a hash itself.
    pub fn retrieve_segment(&self, key: &Hash) -> Result<&[u8], NotStored> {
        self.network.segment(self.node, key).ok_or(NotStored { node: self.node, key: *key })
    }
}

fn as_text<S: serde::Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hash)
}
