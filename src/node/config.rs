//! What a node is told when it starts, with every default in one place.

use std::path::PathBuf;
use std::time::Duration;

use chordal_protocol::{Id, Mode, Ring, RingId, Settings, keeper};

use super::Advertise;
use super::detector::Patience;
use crate::auth::Security;

/// What a node is told when it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 takes any that is free, or the one that the data directory remembers.
    pub port: u16,
    /// What others are told, a `host:port` whose SHA-256 is the node's id; without it the address that is listened on.
    pub advertise: Option<Advertise>,
    /// Whether a router is asked to forward a port. What others are told is then its outer address, unless something else is named.
    pub upnp: Option<Upnp>,
    /// The name of a ring, if nodes of it are to find each other on the local network (feature `discover`). A node that has no ring
    /// yet and nobody to join joins the one that it finds there, and begins none unless `begin` says so.
    pub discover: Option<String>,
    /// Whether it is to begin a ring, where it could also look for one.
    pub begin: bool,
    /// What people call the node; without it `node-<port>`.
    pub name: Option<String>,
    /// Members of the ring to join, `host:port`, or bootstrap services that name some, as [`Source`](crate::client::Source)
    /// reads them. Without any the node begins a ring of its own, or goes on with the one that its data directory remembers.
    pub bootstrap: Vec<String>,
    /// Where it keeps what it must not forget.
    pub data: Data,
    /// How it routes when a client does not say.
    pub routing: Mode,
    /// Where a lesson places it; only on a ring that was created with `lab`.
    pub id: Option<Id>,
    /// Whether a ring that it begins is one for lessons.
    pub lab: bool,
    /// Wire the predecessor by hand to this address; only with `lab`.
    pub pred: Option<String>,
    /// Wire the successor by hand to this address; only with `lab`.
    pub succ: Option<String>,
    /// The largest value that a ring takes which this node begins, in bytes; without it [`Config::VALUE_LIMIT`]. Who joins learns it.
    pub value_limit: Option<usize>,
    /// How many nodes keep each value on a ring which this node begins, from 1 to [`Ring::MOST_COPIES`], or [`Ring::ALL`] for every
    /// node of a ring of no more than that; without it [`Config::REPLICATION_FACTOR`]. Who joins learns it.
    pub replication_factor: Option<u8>,
    /// How strangers are kept out.
    pub security: Security,
    /// How often it stabilizes.
    pub stabilize_interval: Duration,
    /// How long other nodes may take to answer.
    pub patience: Patience,
    /// For how long a client's request is tried.
    pub operation_deadline: Duration,
    /// For how long a leave may go on before it is given up, or, when the process is told to stop, cut short.
    pub leave_deadline: Duration,
    /// How often it tries to join before it gives up; `None` for as often as it takes.
    pub join_attempts: Option<u32>,
    /// How long a restarted node, or one that has joined, may take to be ready before it says so in its log.
    pub ready_deadline: Duration,
    /// The bounds of the protocol: list length, hop budget, caches.
    pub protocol: Settings,
    /// How content is kept: on how many nodes, and how long a primary may be silent.
    pub content: keeper::Settings,
}

/// How a router is asked to forward a port (feature `upnp`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upnp {
    /// For how long it is asked for; it is renewed when half of that is over.
    pub lease: Duration,
}

impl Default for Upnp {
    fn default() -> Upnp {
        Upnp { lease: Duration::from_secs(3600) }
    }
}

/// Where a node keeps what it must not forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nowhere: all of it is gone when the node stops.
    Memory,
    /// In this directory, which belongs to the node and remembers its address.
    Dir(PathBuf),
    /// In a directory within this one that is named for the address that the node listens on.
    DirWithin(PathBuf),
}

impl Config {
    /// What a ring is called whose nodes find each other, unless it has a name of its own.
    pub const RING: &str = "chordal";

    /// Whether a node without a ring looks for one on the local network.
    pub(crate) fn seeks(&self) -> bool {
        self.discover.is_some() && !self.begin
    }

    /// The largest [`Config::value_limit`]: a value and its key, which may be the same bytes again, fit into one message.
    pub const LARGEST_VALUE_LIMIT: usize = 4 << 20;

    /// The largest value of a ring, in bytes, unless it is begun with another limit.
    pub const VALUE_LIMIT: usize = 1 << 20;

    /// How many nodes keep each value of a ring, unless it is begun with another number.
    pub const REPLICATION_FACTOR: u8 = 3;

    /// The settings of a ring that this node begins.
    pub(crate) fn ring(&self, id: RingId) -> Ring {
        Ring {
            id,
            lab: self.lab,
            replication_factor: self.replication_factor.unwrap_or(Config::REPLICATION_FACTOR),
            value_limit: self.value_limit.unwrap_or(Config::VALUE_LIMIT) as u32,
        }
    }

    /// What was asked of a ring to begin, and is otherwise on this one, which others have begun or an earlier run: a sentence each.
    pub(crate) fn unheeded(&self, ring: &Ring) -> Vec<String> {
        let copies = |copies: u8| if copies == Ring::ALL { "all".to_owned() } else { copies.to_string() };
        let factor = self.replication_factor.filter(|wanted| *wanted != ring.replication_factor).map(|wanted| {
            let is = copies(ring.replication_factor);
            format!("--replication-factor {} is not heeded: this ring was begun with {is}", copies(wanted))
        });
        let limit = self.value_limit.filter(|wanted| *wanted != ring.value_limit as usize).map(|wanted| {
            format!("--value-limit {wanted} is not heeded: this ring was begun with {}", ring.value_limit)
        });
        let lab = (self.lab && !ring.lab).then(|| "--lab is not heeded: this ring was begun without it".to_owned());
        [factor, limit, lab].into_iter().flatten().collect()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            host: "127.0.0.1".to_owned(),
            port: 0,
            advertise: None,
            upnp: None,
            discover: None,
            begin: false,
            name: None,
            bootstrap: Vec::new(),
            data: Data::Memory,
            routing: Mode::default(),
            id: None,
            lab: false,
            pred: None,
            succ: None,
            value_limit: None,
            replication_factor: None,
            security: Security::default(),
            stabilize_interval: Duration::from_millis(500),
            patience: Patience::default(),
            operation_deadline: Duration::from_secs(10),
            leave_deadline: Duration::from_secs(10),
            join_attempts: Some(8),
            ready_deadline: Duration::from_secs(20),
            protocol: Settings::default(),
            content: keeper::Settings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ring_does_not_heed_is_told() {
        let ring = Config::default().ring(RingId::WIRED_BY_HAND);
        assert!(Config::default().unheeded(&ring).is_empty());
        let same = Config { replication_factor: Some(3), value_limit: Some(1 << 20), ..Config::default() };
        assert!(same.unheeded(&ring).is_empty());
        let other =
            Config { replication_factor: Some(Ring::ALL), value_limit: Some(9), lab: true, ..Config::default() };
        assert_eq!(
            other.unheeded(&ring),
            [
                "--replication-factor all is not heeded: this ring was begun with 3",
                "--value-limit 9 is not heeded: this ring was begun with 1048576",
                "--lab is not heeded: this ring was begun without it",
            ]
        );
        assert!(other.unheeded(&other.ring(RingId::WIRED_BY_HAND)).is_empty());
    }
}
