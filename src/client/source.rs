//! Through whom a node joins: a member of the ring, or a bootstrap service that names some.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::transport::Ask;
use super::{Error, NodeClient};
use crate::api::InitialPeers;

/// The route of a bootstrap service, and what a URL without a path stands for.
pub const RETURN_DHT_ADDRESS: &str = "/return_dht_address";

/// The largest answer of a bootstrap service that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;

/// How many of the addresses that it names are used.
const MOST_PEERS: usize = 32;

/// What a bootstrap service answers.
const EXPECTED: &str = r#"{"initial_peers": ["host:port"]}"#;

/// The longest host name of the DNS.
const LONGEST_HOST: usize = 253;

/// Through whom a node joins.
///
/// ```
/// use chordal::client::Source;
///
/// let member: Source = "127.0.0.1:9000".parse()?;
/// let service: Source = "http://boot.example:5000/return_dht_address".parse()?;
/// assert!(matches!((member, service), (Source::Member(_), Source::Service { .. })));
/// # Ok::<(), chordal::client::SourceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A member of the ring, `host:port`; the host is an address or a name of the DNS.
    Member(String),
    /// A bootstrap service, which names members when it is asked.
    Service {
        /// Its `host:port`.
        addr: String,
        /// Path and query.
        path: String,
    },
}

/// A text that names nobody to join through. The message has an example of each form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` names nobody to join through: {reason}; a member of the ring is named like 127.0.0.1:9000, [2001:db8::1]:9000 or \
     node.example:9000, a bootstrap service like http://127.0.0.1:5000/return_dht_address"
)]
pub struct SourceError {
    text: String,
    reason: String,
}

impl SourceError {
    /// An empty list.
    pub(crate) fn nobody() -> SourceError {
        SourceError { text: String::new(), reason: "the list is empty".to_owned() }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Source, SourceError> {
        let wrong = |reason: String| SourceError { text: text.chars().take(100).collect(), reason };
        match text.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => service(text).map_err(wrong),
            Some((scheme, _)) => Err(wrong(format!("this version speaks http, not {scheme}"))),
            None => check_member(text).map(|()| Source::Member(text.to_owned())).map_err(wrong),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Member(addr) => f.write_str(addr),
            Source::Service { addr, path } => write!(f, "http://{addr}{path}"),
        }
    }
}

impl Source {
    /// The members, `host:port`, that it stands for: itself, or those that the service names, at least one and at most 32.
    pub async fn members(&self, client: &NodeClient) -> Result<Vec<String>, Error> {
        let (addr, path) = match self {
            Source::Member(addr) => return Ok(vec![addr.clone()]),
            Source::Service { addr, path } => (addr, path),
        };
        let ask = Ask::get(addr, path.clone()).at_most(LARGEST_ANSWER);
        let nobody = |reason: String| Error::NobodyNamed { service: self.to_string(), reason };
        let named: InitialPeers = client.transport.json(ask).await.map_err(|error| match error {
            Error::Garbled { reason, .. } => {
                nobody(format!("expected was {EXPECTED}, and what came is something else ({reason})"))
            }
            error => error,
        })?;
        if named.initial_peers.is_empty() {
            return Err(nobody("its list is empty".to_owned()));
        }
        let is_member = |peer: &String| check_member(peer).is_ok();
        let members: Vec<String> = named.initial_peers.into_iter().filter(is_member).take(MOST_PEERS).collect();
        if members.is_empty() {
            return Err(nobody(format!("expected was {EXPECTED}, and nothing in its list is host:port")));
        }
        Ok(members)
    }
}

/// Whether this is `host:port` as a node could have it.
pub(crate) fn check_member(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err("an IPv6 address stands in brackets, and the port behind them".to_owned());
    }
    // What stands in brackets has colons of its own.
    let parted = text.rsplit_once(':').filter(|_| !text.ends_with(']'));
    let (host, port) = parted.ok_or("the port is missing")?;
    match port.parse::<u16>() {
        Ok(1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => check_host(host),
        _ => Err(format!("`{port}` is no port")),
    }
}

/// Whether this is a host as it stands before a port: an address, an IPv6 one in brackets, or a name of the DNS.
pub(crate) fn check_host(host: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("`{host}` {what}"));
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if let Some(bare) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return if bare.parse::<Ipv6Addr>().is_ok() { Ok(()) } else { wrong("is no IPv6 address") };
    }
    if host.contains(':') {
        return wrong("is no host (an IPv6 address stands in brackets)");
    }
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if host.len() > LONGEST_HOST || !name.split('.').all(is_label) {
        return wrong("is neither an address nor a name");
    }
    // No top-level domain is a number, so this was meant to be an address.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return wrong("is no IPv4 address");
    }
    Ok(())
}

fn service(text: &str) -> Result<Source, String> {
    let url = reqwest::Url::parse(text).map_err(|error| error.to_string())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a bootstrap service takes no user and no password".to_owned());
    }
    let host = url.host_str().ok_or("the host is missing")?;
    check_host(host)?;
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("the port is missing")?;
    let path = if url.path() == "/" { RETURN_DHT_ADDRESS } else { url.path() };
    let query = url.query().map_or(String::new(), |query| format!("?{query}"));
    Ok(Source::Service { addr: format!("{host}:{port}"), path: format!("{path}{query}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Source>().map_or_else(|error| error.to_string(), |source| source.to_string())
    }

    #[test]
    fn members_and_services_are_told_apart() {
        for text in ["127.0.0.1:9000", "localhost:1", "node-1.example.org:65535", "[::1]:9000", "a_b:1", "example.:80"]
        {
            assert_eq!(text.parse(), Ok(Source::Member(text.to_owned())), "{text}");
        }
        for (text, is) in [
            ("http://h:5000/return_dht_address", "http://h:5000/return_dht_address"),
            ("HTTP://h:5000", "http://h:5000/return_dht_address"),
            ("http://h/", "http://h:80/return_dht_address"),
            ("http://[::1]:5000/x?count=3#y", "http://[::1]:5000/x?count=3"),
        ] {
            assert_eq!(shown(text), is, "{text}");
        }
    }

    #[test]
    fn what_names_nobody_is_refused_with_examples() {
        for text in [
            "",
            "h",
            "9000",
            ":9000",
            "h:",
            "h:0",
            "h:65536",
            "h:-1",
            "h:+1",
            "h:nine",
            "::1:9000",
            "[::1]",
            "[h]:1",
            "a b:1",
            "h/x:1",
            "u@h:1",
            "-h:1",
            "h..i:1",
            "256.1.1.1:1",
            "1.2.3:1",
            "https://h:1/",
            "ftp://h",
            "http://",
            "http://:1",
            "http://h:0/",
            "http://u:p@h:1/",
            "http://h:99999/",
            "http://a b/",
            "ü:1",
        ] {
            let error = text.parse::<Source>().expect_err(text).to_string();
            assert!(error.contains("127.0.0.1:9000") && error.contains("/return_dht_address"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_of_ipv6_is_told() {
        for (text, says) in [
            ("[::1]", "the port is missing"),
            ("::1", "stands in brackets, and the port behind them"),
            ("2001:db8::1", "stands in brackets, and the port behind them"),
            ("[::1]:x", "`x` is no port"),
            ("", "it is empty"),
        ] {
            let error = text.parse::<Source>().expect_err(text).to_string();
            assert!(error.contains(says) && error.contains("[2001:db8::1]:9000"), "{text}: {error}");
        }
    }
}
