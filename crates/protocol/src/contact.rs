//! Who a node is and where it can be asked.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Id;

/// The longest address: a host name of the DNS, brackets or not, and a port.
const LONGEST_ADDR: usize = 264;

/// The longest name of a node, in bytes.
pub const LONGEST_NAME: usize = 128;

/// A node as others know it.
///
/// The id is SHA-256 of the address, so anyone can check it; only a ring made for lessons (`--lab`) may place nodes.
/// The name is for people and decides nothing: two contacts are the same node if id and address agree.
#[derive(Clone, Serialize, Deserialize)]
pub struct Contact {
    /// Where the node stands on the circle.
    pub id: Id,
    /// The advertised `host:port` (`[host]:port` for IPv6), as it was hashed.
    pub addr: String,
    /// What people call it.
    pub name: String,
}

impl Contact {
    /// The contact of the node at this address, with the id that belongs to it.
    pub fn at(addr: impl Into<String>, name: impl Into<String>) -> Contact {
        let addr = addr.into();
        Contact { id: Id::of(&addr), addr, name: name.into() }
    }

    /// Whether the id is the one that the address hashes to.
    pub fn is_genuine(&self) -> bool {
        self.id == Id::of(&self.addr)
    }

    /// Whether address and name are such as nodes have: what is remembered, written down and logged of a stranger is short
    /// and stays on one line.
    pub fn is_well_formed(&self) -> bool {
        let is_line = |text: &str, most: usize| text.len() <= most && !text.contains(char::is_control);
        is_line(&self.addr, LONGEST_ADDR) && is_line(&self.name, LONGEST_NAME)
    }

    /// The host part of the address, without the brackets of an IPv6 one.
    pub fn host(&self) -> &str {
        let host = self.addr.rsplit_once(':').map_or(self.addr.as_str(), |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The port part of the address, 0 if it has none.
    pub fn port(&self) -> u16 {
        self.addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
    }
}

impl PartialEq for Contact {
    fn eq(&self, other: &Contact) -> bool {
        self.id == other.id && self.addr == other.addr
    }
}

impl Eq for Contact {}

impl std::hash::Hash for Contact {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        self.addr.hash(state);
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { f.write_str(&self.addr) } else { write!(f, "{} ({})", self.name, self.addr) }
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.id, self.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_known_by_its_address() {
        let contact = Contact::at("127.0.0.1:9000", "node-1");
        assert!(contact.is_genuine());
        assert_eq!((contact.host(), contact.port()), ("127.0.0.1", 9000));
        let six = Contact::at("[::1]:9000", "");
        assert_eq!((six.host(), six.port()), ("::1", 9000));
        assert_eq!(six.to_string(), "[::1]:9000");
        let long = "x".repeat(200);
        let named = |name: &str| Contact::at("127.0.0.1:9000", name).is_well_formed();
        assert!(named("") && named("node-ü") && !named(&long) && !named("two\nlines"));
        assert!(!Contact::at(long.repeat(2) + ":1", "").is_well_formed());
        let placed = Contact { id: Id::ZERO, ..contact.clone() };
        assert!(!placed.is_genuine());
        assert_ne!(placed, contact);
        assert_eq!(Contact { name: "other".into(), ..contact.clone() }, contact);
    }
}
