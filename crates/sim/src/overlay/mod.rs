//! Very large overlays: routing, without the machinery that keeps a real network together.

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
