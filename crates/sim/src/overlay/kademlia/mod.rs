//! Kademlia (Maymounkov and Mazières 2002), as data-availability studies simulate it: buckets that keep the closest, and
//! lookups that end after some steps without news.

mod client;
mod lookup;
mod network;
mod simulated;
mod table;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::SettingsError;
use super::settings_error::within;

pub use client::{Client, LookupSummary, NotStored, ProvideSummary};
pub use network::{Answer, Network, NetworkSettings, NetworkSummary, Receipt, UnknownNode};
pub use table::{KBucket, RoutingTable};

use lookup::{Search, World, run};

/// The largest bucket that can be asked for.
pub const MOST_K: usize = 10_000;

/// How clients look things up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The most nodes of a bucket, and of an answer.
    pub k: usize,
    /// How many questions of a lookup are under way at once (section 2.3).
    pub alpha: usize,
    /// How many of the closest nodes a lookup returns; it ends at the latest when all of them have answered.
    pub beta: usize,
    /// After how many answers in a row that name nobody new among the beta closest a lookup ends.
    pub steps_to_stop: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { k: 20, alpha: 1, beta: 20, steps_to_stop: 3 }
    }
}

impl Settings {
    /// Refuses what makes no sense: anything zero, and more questions at once than an answer names nodes.
    pub fn check(&self) -> Result<(), SettingsError> {
        within("k", self.k, MOST_K)?;
        within("alpha", self.alpha, MOST_K)?;
        within("beta", self.beta, MOST_K)?;
        within("steps-to-stop", self.steps_to_stop as usize, u32::MAX as usize)?;
        if self.alpha > self.k {
            return Err(SettingsError::Alpha { alpha: self.alpha, k: self.k });
        }
        Ok(())
    }
}
