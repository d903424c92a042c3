//! From where others see a node, put in order.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::auth::{Reach, reach};

/// Somebody sees the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    /// Who.
    pub(super) by: String,
    /// Where.
    pub(super) ip: IpAddr,
}

/// Where a node is seen, and by whom.
pub(super) struct Sightings(BTreeMap<IpAddr, Vec<String>>);

impl Sightings {
    pub(super) fn new(all: Vec<Sighting>) -> Sightings {
        let mut by_address: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for Sighting { by, ip } in all {
            by_address.entry(ip.to_canonical()).or_default().push(by);
        }
        by_address.values_mut().for_each(|by| by.sort_unstable());
        Sightings(by_address)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (IpAddr, &[String])> {
        self.0.iter().map(|(ip, by)| (*ip, &by[..]))
    }

    /// How far the furthest of them leads.
    pub(super) fn reach(&self) -> Reach {
        self.0.keys().map(|ip| reach(*ip)).max().unwrap_or(Reach::Nowhere)
    }

    /// Those that may be the address of the node, the best first. A near one leads nobody there who is further away, so only the
    /// furthest count; of these the ones that most others see.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (IpAddr, &[String])> {
        let furthest = self.reach();
        let mut candidates: Vec<_> = self.all().filter(|(ip, _)| reach(*ip) == furthest).collect();
        candidates.sort_by_key(|(ip, by)| (std::cmp::Reverse(by.len()), *ip));
        candidates.into_iter()
    }

    /// Who sees it where, if that is not the same for all.
    pub(super) fn differing(&self) -> Option<String> {
        let told = || self.all().map(|(ip, by)| format!("{ip} (says {})", by.join(", ")));
        (self.0.len() > 1).then(|| told().collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sightings(all: &[(&str, &str)]) -> Sightings {
        let sighting = |(by, ip): &(&str, &str)| Sighting { by: (*by).to_owned(), ip: ip.parse().unwrap() };
        Sightings::new(all.iter().map(sighting).collect())
    }

    fn candidates(all: &[(&str, &str)]) -> Vec<String> {
        sightings(all).candidates().map(|(ip, _)| ip.to_string()).collect()
    }

    #[test]
    fn the_furthest_counts_and_then_what_most_see() {
        assert_eq!(candidates(&[("a", "10.0.0.1"), ("b", "::ffff:10.0.0.1")]), ["10.0.0.1"]);
        assert_eq!(candidates(&[("a", "127.0.0.1"), ("b", "127.0.0.1"), ("c", "10.0.0.1")]), ["10.0.0.1"]);
        assert_eq!(candidates(&[("a", "10.0.0.1"), ("b", "192.168.0.1"), ("c", "203.0.113.5")]), ["203.0.113.5"]);
        assert_eq!(candidates(&[("a", "10.0.0.2"), ("b", "10.0.0.1"), ("c", "10.0.0.2")]), ["10.0.0.2", "10.0.0.1"]);
        assert_eq!(candidates(&[("b", "10.0.0.2"), ("a", "10.0.0.1")]), ["10.0.0.1", "10.0.0.2"], "always the same");
        assert!(candidates(&[]).is_empty());
    }

    #[test]
    fn what_differs_is_told() {
        assert_eq!(sightings(&[("b", "10.0.0.1"), ("a", "10.0.0.1")]).differing(), None);
        let told = sightings(&[("b", "10.0.0.1"), ("c", "127.0.0.1"), ("a", "10.0.0.1")]).differing().unwrap();
        assert_eq!(told, "10.0.0.1 (says a, b); 127.0.0.1 (says c)");
    }
}
