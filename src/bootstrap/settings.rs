//! What a pool is told, and what of it makes sense.

use std::net::IpAddr;
use std::time::Duration;

use crate::client::{Source, SourceError, check_host};

/// What a pool is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many nodes it keeps, from 1 to [`Settings::LARGEST_SIZE`].
    pub size: usize,
    /// How often each node is checked, from [`Settings::SHORTEST_INTERVAL`] to a day. That a node has ended is noticed at
    /// once, whatever the interval.
    pub check_interval: Duration,
    /// How long a node may take to answer a check.
    pub check_timeout: Duration,
    /// The ring to join: members (`host:port`) or bootstrap services (URLs). Without any the pool goes on with the ring that
    /// it remembers, or begins one.
    pub bootstrap: Vec<String>,
    /// The host that clients are told in place of the one that a node listens on: an address or a name of the DNS, without
    /// a port.
    pub external_address: Option<String>,
}

/// Settings that make no sense. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The size.
    #[error("a pool has from 1 to {most} nodes, not {0}", most = Settings::LARGEST_SIZE)]
    Size(usize),
    /// The interval.
    #[error("nodes are checked every {least:?} to every day, not every {0:?}", least = Settings::SHORTEST_INTERVAL)]
    Interval(Duration),
    /// The time for an answer.
    #[error("a node needs more than no time to answer a check")]
    Timeout,
    /// The external address.
    #[error(
        "the external address `{0}` is none: {1}; it is the host alone under which clients reach this machine, such as \
         203.0.113.7, 2001:db8::7 or boot.example.org"
    )]
    ExternalAddress(String, String),
    /// The ring to join.
    #[error("the ring to join: {0}")]
    Bootstrap(#[from] SourceError),
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            size: 10,
            check_interval: Duration::from_secs(100),
            check_timeout: Duration::from_secs(2),
            bootstrap: Vec::new(),
            external_address: None,
        }
    }
}

impl Settings {
    /// The most nodes that a pool may have.
    pub const LARGEST_SIZE: usize = 200;
    /// The shortest interval between two checks of a node.
    pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
    /// The longest one.
    const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

    /// Whether they make sense; the sources of the ring to join, read.
    pub fn check(&self) -> Result<Vec<Source>, SettingsError> {
        if !(1..=Settings::LARGEST_SIZE).contains(&self.size) {
            return Err(SettingsError::Size(self.size));
        }
        if !(Settings::SHORTEST_INTERVAL..=Settings::LONGEST_INTERVAL).contains(&self.check_interval) {
            return Err(SettingsError::Interval(self.check_interval));
        }
        if self.check_timeout.is_zero() {
            return Err(SettingsError::Timeout);
        }
        if let Some(host) = &self.external_address {
            check_external(host).map_err(|reason| SettingsError::ExternalAddress(host.clone(), reason))?;
        }
        Ok(self.bootstrap.iter().map(|text| text.parse()).collect::<Result<_, SourceError>>()?)
    }
}

fn check_external(host: &str) -> Result<(), String> {
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_multicast() => Err("nobody can connect to it".to_owned()),
        Ok(_) => Ok(()),
        Err(_) if host.contains("://") => Err("it is a URL".to_owned()),
        Err(_) if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            Err("it has a port, and each node has its own".to_owned())
        }
        Err(_) => check_host(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_sense_is_taken() {
        assert_eq!(Settings::default().check(), Ok(Vec::new()));
        for host in ["203.0.113.7", "::1", "[2001:db8::7]", "boot.example.org", "localhost"] {
            assert!(
                Settings { external_address: Some(host.to_owned()), ..Settings::default() }.check().is_ok(),
                "{host}"
            );
        }
        let bootstrap = vec!["127.0.0.1:1".to_owned(), "http://h:5000".to_owned()];
        assert_eq!(Settings { bootstrap, ..Settings::default() }.check().map(|sources| sources.len()), Ok(2));
    }

    #[test]
    fn nonsense_is_told() {
        let none = Settings::default;
        for size in [0, Settings::LARGEST_SIZE + 1, usize::MAX] {
            assert_eq!(Settings { size, ..none() }.check(), Err(SettingsError::Size(size)));
        }
        for check_interval in [Duration::ZERO, Duration::from_millis(49), Duration::from_secs(86_401)] {
            let settings = Settings { check_interval, ..none() };
            assert_eq!(settings.check(), Err(SettingsError::Interval(check_interval)));
        }
        assert_eq!(Settings { check_timeout: Duration::ZERO, ..none() }.check(), Err(SettingsError::Timeout));
        for host in
            ["", "0.0.0.0", "::", "224.0.0.1", "h:5000", "[::1]:5000", "http://h", "a b", "256.1.1.1", "-h", "h/x"]
        {
            let error = Settings { external_address: Some(host.to_owned()), ..none() }.check().expect_err(host);
            assert!(error.to_string().contains("boot.example.org"), "{error}");
        }
        assert!(Settings { bootstrap: vec!["h".to_owned()], ..none() }.check().is_err());
    }
}
