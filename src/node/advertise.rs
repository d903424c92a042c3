//! Which address a node is told to tell others.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::api::join_host_port;
use crate::client::check_host;

/// Which address a node tells others.
///
/// ```
/// use chordal::node::Advertise;
///
/// assert_eq!("auto".parse(), Ok(Advertise::Auto));
/// assert_eq!("node.example:0".parse(), Ok(Advertise::Host("node.example".to_owned())));
/// assert_eq!("[::1]:4000".parse(), Ok(Advertise::At("[::1]:4000".to_owned())));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertise {
    /// The address that it is seen at by those through whom it joins, once one of them has called it back there; that of its own
    /// interface if it begins a ring.
    Auto,
    /// This host, with the port that it listens on.
    Host(String),
    /// This `host:port`.
    At(String),
}

/// A text that names no address to advertise. The message has an example of each form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no address to advertise: {reason}; one looks like 203.0.113.5:4000, [2001:db8::1]:4000 or node.example:4000, \
     or, with the port that the node listens on, node.example; `auto` has it found"
)]
pub struct AdvertiseError {
    text: String,
    reason: String,
}

impl FromStr for Advertise {
    type Err = AdvertiseError;

    fn from_str(text: &str) -> Result<Advertise, AdvertiseError> {
        let wrong = |reason: String| AdvertiseError { text: text.chars().take(100).collect(), reason };
        if text == "auto" {
            return Ok(Advertise::Auto);
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Advertise::Host(text.to_owned()));
        }
        let (host, port) = match text.rsplit_once(':') {
            // What stands in brackets has colons of its own.
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (text, "0"),
        };
        check_host(host).map_err(wrong)?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(0) if is_number => Ok(Advertise::Host(bare(host).to_owned())),
            Ok(port) if is_number => Ok(Advertise::At(join_host_port(bare(host), port))),
            _ => Err(wrong(format!("`{port}` is no port"))),
        }
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Advertise::Auto => f.write_str("auto"),
            Advertise::Host(host) | Advertise::At(host) => f.write_str(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_told_apart() {
        let host = |host: &str| Ok(Advertise::Host(host.to_owned()));
        let at = |addr: &str| Ok(Advertise::At(addr.to_owned()));
        for (text, is) in [
            ("auto", Ok(Advertise::Auto)),
            ("auto:4000", at("auto:4000")),
            ("node.example", host("node.example")),
            ("node.example:0", host("node.example")),
            ("10.0.0.6", host("10.0.0.6")),
            ("10.0.0.6:0", host("10.0.0.6")),
            ("10.0.0.6:4000", at("10.0.0.6:4000")),
            ("::1", host("::1")),
            ("[::1]", host("::1")),
            ("[::1]:0", host("::1")),
            ("[::1]:4000", at("[::1]:4000")),
        ] {
            assert_eq!(text.parse::<Advertise>(), is, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_examples() {
        for text in [
            "",
            ":",
            ":4000",
            "h:",
            "h:-1",
            "h:+1",
            "h:65536",
            "h:nine",
            "::1:x",
            "[::1",
            "[h]",
            "[h]:1",
            "a b",
            "h/x",
            "http://h:1",
            "1.2.3",
            "0.0.0.0.0:1",
            "Ü:1",
        ] {
            let error = text.parse::<Advertise>().expect_err(text).to_string();
            assert!(error.contains("203.0.113.5:4000") && error.contains("`auto`"), "{text}: {error}");
        }
    }
}
