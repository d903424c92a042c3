//! Addresses as clients write them.

use std::net::Ipv6Addr;

use serde::Deserialize;

use super::{ApiError, Kind};
use crate::api::join_host_port;

const EXAMPLE: &str = r#"send 127.0.0.1:9000, 127.0.0.1:9000:name, [::1]:9000, or {"host": "127.0.0.1", "port": 9000}"#;

/// The longest host name of the DNS.
const HOST_LIMIT: usize = 253;

/// A node as JSON names it: `{"name"?, "host", "port"}`. What else a node object carries is not needed and not read:
/// whoever stands at the address says itself who it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(expecting = "a node as an object with host and port")]
pub(super) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Reads the body of `PUT /pred` and `PUT /succ`: JSON, or the raw `host:port` or `host:port:name` of the labs.
    pub(super) fn from_body(body: &[u8]) -> Result<Address, ApiError> {
        let text = std::str::from_utf8(body).map_err(|_| refusal("the body is not UTF-8"))?.trim();
        match text.as_bytes().first() {
            None => Err(refusal("the body is empty")),
            Some(b'{') => serde_json::from_str(text).map_err(|error| refusal(&format!("{error} in this JSON"))),
            Some(b'"') => match serde_json::from_str::<String>(text) {
                Ok(inner) => Address::from_raw(inner.trim()),
                Err(error) => Err(refusal(&format!("{error} in this JSON"))),
            },
            Some(_) => Address::from_raw(text),
        }
    }

    /// `host:port`, checked; with brackets round an IPv6 host.
    pub(super) fn checked(&self) -> Result<String, ApiError> {
        let host = self.host.trim();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() {
            return Err(refusal("the host is missing"));
        }
        if bare.len() > HOST_LIMIT {
            return Err(refusal("the host is too long"));
        }
        if bare.contains(':') || bare.len() != host.len() {
            bare.parse::<Ipv6Addr>().map_err(|_| refusal("the host is no IPv6 address"))?;
        } else if !bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
            return Err(refusal("the host is neither a name nor an IP address"));
        }
        if self.port == 0 {
            return Err(refusal("port 0 is nobody's"));
        }
        Ok(join_host_port(bare, self.port))
    }

    fn from_raw(text: &str) -> Result<Address, ApiError> {
        let (host, rest) = match text.find(']') {
            Some(end) if text.starts_with('[') => (&text[..=end], text[end + 1..].strip_prefix(':')),
            _ => match text.split_once(':') {
                Some((host, rest)) => (host, Some(rest)),
                None => (text, None),
            },
        };
        let rest = rest.ok_or_else(|| refusal("the port is missing"))?;
        let port = rest.split_once(':').map_or(rest, |(port, _name)| port);
        if host.is_empty() {
            return Err(refusal("the host is missing (an IPv6 host stands in brackets)"));
        }
        match port.parse() {
            Ok(port) if !rest.starts_with('+') => Ok(Address { host: host.to_owned(), port }),
            _ => Err(refusal("the port is not a number from 1 to 65535")),
        }
    }
}

fn refusal(what: &str) -> ApiError {
    ApiError::new(Kind::Malformed, format!("this is not the address of a node: {what}; {EXAMPLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<String> {
        Address::from_body(body.as_bytes()).and_then(|address| address.checked()).ok()
    }

    #[test]
    fn the_forms_of_an_address_are_read() {
        for (body, addr) in [
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("127.0.0.1:9000:node-1", "127.0.0.1:9000"),
            ("127.0.0.1:9000:a name: with colons", "127.0.0.1:9000"),
            (" localhost:9000\r\n", "localhost:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("[::1]:9000:six", "[::1]:9000"),
            (r#""127.0.0.1:9000""#, "127.0.0.1:9000"),
            (r#"{"host":"127.0.0.1","port":9000}"#, "127.0.0.1:9000"),
            (r#"{"name":null,"host":"h_1.example","port":1}"#, "h_1.example:1"),
            (r#"{"name":"n","id":"00","host":"::1","port":9000}"#, "[::1]:9000"),
            (r#"{"host":"[::1]","port":9000}"#, "[::1]:9000"),
        ] {
            assert_eq!(read(body).as_deref(), Some(addr), "{body}");
        }
    }

    #[test]
    fn junk_is_refused_with_an_example() {
        for body in [
            "",
            "  \n",
            "junk",
            ":",
            "::1:9000",
            ":9000",
            "h:",
            "h:0",
            "h:65536",
            "h:-1",
            "h:+1",
            "h:nine",
            "[::1]",
            "[::1]9000",
            "[junk]:9000",
            "[h]:1",
            "[",
            "]",
            "a b:1",
            "http://h:1",
            "h/x:1",
            "{}",
            "{",
            "[1]",
            "\"h\"",
            "\"",
            r#"{"host":"h"}"#,
            r#"{"host":"","port":1}"#,
            r#"{"host":"h","port":70000}"#,
            r#"{"host":"h:1","port":1}"#,
            r#"{"host":1,"port":1}"#,
            "\u{fc}:1",
        ] {
            let error = Address::from_body(body.as_bytes()).and_then(|address| address.checked()).unwrap_err();
            assert_eq!(error.kind(), Kind::Malformed, "{body}");
            assert!(error.problem().detail.contains("127.0.0.1:9000"), "{body}");
        }
        assert!(Address::from_body(b"\xff:1").is_err());
        assert_eq!(read(&format!("{}:1", "h".repeat(HOST_LIMIT + 1))), None);
    }
}
