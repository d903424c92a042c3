//! Very large overlays, Chord and Kademlia, in memory: routing, without the machinery that keeps a real network together.
//!
//! What there is, from the ground up:
//!
//! - [`Hash`](struct@Hash): where nodes and keys stand, and how far apart. [`Members`]: the nodes, in one array ordered by hash, which is
//!   a binary trie; who is closest to what is a walk down that trie, and so are the buckets of a routing table.
//! - [`Conditions`]: errors and delays. [`Connection`]: one node reaching another under them, or a [`ConnectionError`].
//! - [`kademlia`]: [`Network`](kademlia::Network), [`Client`](kademlia::Client),
//!   [`RoutingTable`](kademlia::RoutingTable), [`KBucket`](kademlia::KBucket). [`chord`]: [`Ring`](chord::Ring), which routes
//!   by [`chordal_protocol::next_hop`].
//! - What can be done with either, by way of [`Simulated`]: a [`Workload`] of lookups, [`Churn`], and [`Availability`]
//!   sampling.
//!
//! Delays are simulated time in microseconds, unless a name ends in `_ms` or `_s`; no clock is read. Whatever is drawn comes
//! from a seed and from the number of the thing that it is drawn for, so results are the same on any number of threads.
//! Parameters that make no sense are a [`SettingsError`] before anything is built.
//!
//! ```
//! use chordal_sim::overlay::kademlia::{Network, NetworkSettings};
//! use chordal_sim::overlay::{Conditions, DelayRange};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let conditions =
//!     Conditions { slow_error: 10.0, connect_delay: DelayRange::of_ms(10.0, 80.0)?, ..Conditions::default() };
//! let mut network = Network::new(NetworkSettings { nodes: 1000, conditions, seed: 7, ..NetworkSettings::default() })?;
//!
//! let provided = network.client(3)?.provide_block_segment(b"block 12, row 4, column 9");
//! let lookup = network.client(500)?.lookup(&provided.key, true);
//! assert_eq!(lookup.value.as_deref(), Some(&b"block 12, row 4, column 9"[..]));
//! println!("{} nodes asked, {} ms; {}", lookup.attempts, lookup.delay_us / 1000, network.summary());
//! # Ok(())
//! # }
//! ```
//!
//! Sources: Maymounkov and Mazières, "Kademlia: A Peer-to-Peer Information System Based on the XOR Metric" (IPTPS 2002);
//! Stoica et al., "Chord: A Scalable Peer-to-Peer Lookup Protocol for Internet Applications" (IEEE/ACM Transactions on
//! Networking 11, 2003).

mod availability;
pub mod chord;
mod churn;
mod conditions;
mod connection;
mod hash;
mod index;
pub mod kademlia;
mod members;
mod rng;
mod settings_error;
mod simulated;
mod statistics;
mod workload;

pub use availability::{Availability, AvailabilityReport};
pub use churn::{Churn, ChurnReport, Sessions, Window};
pub use conditions::{Conditions, DelayRange, ErrorKind, Micros, micros, millis};
pub use connection::{
    ANSWER_BYTES, CONTACT_BYTES, Connection, ConnectionError, ConnectionSummary, Metrics, QUESTION_BYTES, Traffic,
};
pub use hash::{BITS, Hash};
pub use members::{MOST_NODES, Members, NodeId};
pub use settings_error::SettingsError;
pub use simulated::{Outcome, Simulated, Task};
pub use statistics::{Distribution, histogram};
pub use workload::{LookupRow, Workload, WorkloadReport, on_threads};
