//! Signatures of requests and of their answers: HMAC-SHA-256.
//!
//! A request carries `Authorization: Chordal-1 key=ID, time=MS, nonce=HEX, digest=HEX, mac=HEX`. The MAC is over these lines,
//! each with a line feed at its end: `chordal-1 request`, the method, the host and port that were called (in lower case), the
//! path with its query, the key's id, the time in milliseconds since 1970, the nonce (16 bytes in hex), the SHA-256 of the
//! body in hex, and then `name:value` for each of the headers that change what a request means, in the order of [`COVERED`].
//!
//! The answer carries `Chordal-Reply: HEX`, the MAC over `chordal-1 reply`, the nonce, the status, the SHA-256 of the body,
//! and the same for [`REPLY_COVERED`].
//!
//! Calls on a connection that nodes keep for them (`node::frames`) are signed as if each was a request without headers, with a
//! method of its own.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, header};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use super::key_file::Key;

/// The scheme of the Authorization header.
pub(crate) const SCHEME: &str = "Chordal-1";

/// The header with the signature of an answer.
pub(crate) const REPLY: HeaderName = HeaderName::from_static("chordal-reply");

/// The headers of a request that are signed with it.
const COVERED: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH, HeaderName::from_static("request-id")];

/// The headers of an answer that are signed with it.
const REPLY_COVERED: [HeaderName; 2] = [header::CONTENT_TYPE, header::ETAG];

/// The status with which the answer to a call on a connection of its own is signed.
pub(super) const CALL_STATUS: u16 = 200;

/// What is signed of a request, besides what stands in the signature.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// `host:port` in lower case, with the port even where it is the usual one.
    pub(crate) host: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

/// The signature of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) key: String,
    /// Milliseconds since 1970.
    pub(crate) time: u64,
    pub(crate) nonce: [u8; 16],
    /// The SHA-256 of the body.
    pub(crate) digest: [u8; 32],
    mac: [u8; 32],
}

impl Signature {
    /// Signs.
    pub(super) fn new(key: &Key, request: &Signed<'_>, time: u64, nonce: [u8; 16], body: &[u8]) -> Signature {
        let digest = Sha256::digest(body).into();
        let mut signature = Signature { key: key.id.clone(), time, nonce, digest, mac: [0; 32] };
        signature.mac = signature.mac_of(key, request).finalize().into_bytes().into();
        signature
    }

    /// Whether `key` has signed `request` so. Takes as long for any wrong MAC.
    pub(crate) fn is_of(&self, key: &Key, request: &Signed<'_>) -> bool {
        self.mac_of(key, request).verify_slice(&self.mac).is_ok()
    }

    fn mac_of(&self, key: &Key, request: &Signed<'_>) -> Hmac<Sha256> {
        let mut mac = key.mac.clone();
        let (time, nonce, digest) = (self.time.to_string(), hex::encode(self.nonce), hex::encode(self.digest));
        let lines = [request.method, request.host, request.target, &self.key, &time, &nonce, &digest];
        say(&mut mac, "chordal-1 request");
        lines.iter().for_each(|line| say(&mut mac, line));
        cover(&mut mac, request.headers, &COVERED);
        mac
    }
}

/// The signature of an answer to the request with this nonce.
pub(crate) fn reply_mac(key: &Key, nonce: &[u8; 16], status: u16, headers: &HeaderMap, body: &[u8]) -> [u8; 32] {
    reply(key, nonce, status, headers, body).finalize().into_bytes().into()
}

/// The signature of an answer to a call on a connection of its own. Such calls and answers have no headers.
pub(crate) fn call_mac(key: &Key, nonce: &[u8; 16], body: &[u8]) -> [u8; 32] {
    reply_mac(key, nonce, CALL_STATUS, &HeaderMap::new(), body)
}

/// Whether an answer has this signature.
pub(super) fn is_reply_of(
    key: &Key,
    nonce: &[u8; 16],
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    mac: &[u8],
) -> bool {
    reply(key, nonce, status, headers, body).verify_slice(mac).is_ok()
}

fn reply(key: &Key, nonce: &[u8; 16], status: u16, headers: &HeaderMap, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.mac.clone();
    say(&mut mac, "chordal-1 reply");
    say(&mut mac, &hex::encode(nonce));
    say(&mut mac, &status.to_string());
    say(&mut mac, &hex::encode(Sha256::digest(body)));
    cover(&mut mac, headers, &REPLY_COVERED);
    mac
}

fn say(mac: &mut Hmac<Sha256>, line: &str) {
    mac.update(line.as_bytes());
    mac.update(b"\n");
}

fn cover(mac: &mut Hmac<Sha256>, headers: &HeaderMap, names: &[HeaderName]) {
    for name in names {
        for value in headers.get_all(name) {
            mac.update(name.as_str().as_bytes());
            mac.update(b":");
            mac.update(value.as_bytes());
            mac.update(b"\n");
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nonce, digest, mac) = (hex::encode(self.nonce), hex::encode(self.digest), hex::encode(self.mac));
        write!(f, "{SCHEME} key={}, time={}, nonce={nonce}, digest={digest}, mac={mac}", self.key, self.time)
    }
}

/// An Authorization header that is not of our form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl FromStr for Signature {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Signature, Unreadable> {
        let (scheme, fields) = text.split_once(' ').ok_or(Unreadable)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(Unreadable);
        }
        let mut fields = fields.split(',').map(str::trim);
        let mut field = |name: &str| {
            let field = fields.next().and_then(|field| field.strip_prefix(name)?.strip_prefix('='));
            field.ok_or(Unreadable)
        };
        let key = field("key")?.to_owned();
        let time = field("time")?.parse().map_err(|_| Unreadable)?;
        let (nonce, digest, mac) = (bytes(field("nonce")?)?, bytes(field("digest")?)?, bytes(field("mac")?)?);
        match fields.next() {
            None => Ok(Signature { key, time, nonce, digest, mac }),
            Some(_) => Err(Unreadable),
        }
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], Unreadable> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| Unreadable)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::HeaderValue;

    use super::super::key_file::{KeyFile, Keys, NewKey};
    use super::*;

    fn key(secret: &str) -> Arc<Key> {
        let key = NewKey { id: "k".to_owned(), secret: secret.repeat(32) };
        Keys::of(&KeyFile { node: vec![key], ..KeyFile::default() }).unwrap().signing().unwrap().clone()
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    /// Computed once with another program, so that the form on the wire does not change unnoticed:
    /// `printf … | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b…0b`.
    #[test]
    fn the_form_on_the_wire_is_fixed() {
        let headers = headers(&[("content-type", "text/plain"), ("if-none-match", "*")]);
        let request = Signed { method: "PUT", host: "h:1", target: "/kv/a?b", headers: &headers };
        let signature = Signature::new(&key("0b"), &request, 1_700_000_000_000, [1; 16], b"hello");
        assert_eq!(signature.to_string(), VECTOR);
        assert_eq!(VECTOR.parse(), Ok(signature));
    }

    const VECTOR: &str = "Chordal-1 key=k, time=1700000000000, nonce=01010101010101010101010101010101, \
         digest=2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824, \
         mac=a95ce4028640675c240004432fab1a406d5f3b1fed1afd0c8ada2a51f8f62cd8";

    #[test]
    fn whatever_is_changed_is_noticed() {
        let plain = headers(&[("content-type", "text/plain")]);
        let request = |method, host, target, headers| Signed { method, host, target, headers };
        let signed = request("PUT", "h:1", "/kv/a", &plain);
        let signature = Signature::new(&key("0b"), &signed, 5, [1; 16], b"hello");
        assert!(signature.is_of(&key("0b"), &signed));
        assert!(!signature.is_of(&key("0c"), &signed), "another key");
        let none = HeaderMap::new();
        let conditional = headers(&[("content-type", "text/plain"), ("if-match", "*")]);
        let named = headers(&[("content-type", "text/plain"), ("request-id", "1")]);
        for other in [
            request("DELETE", "h:1", "/kv/a", &plain),
            request("PUT", "h:2", "/kv/a", &plain),
            request("PUT", "h:1", "/kv/a?x", &plain),
            request("PUT", "h:1", "/kv/a", &none),
            request("PUT", "h:1", "/kv/a", &conditional),
            request("PUT", "h:1", "/kv/a", &named),
        ] {
            assert!(!signature.is_of(&key("0b"), &other), "{} {} {}", other.method, other.host, other.target);
        }
        for changed in [
            Signature { time: 6, ..signature.clone() },
            Signature { nonce: [2; 16], ..signature.clone() },
            Signature { digest: [2; 32], ..signature.clone() },
            Signature { key: "l".to_owned(), ..signature.clone() },
            Signature { mac: [2; 32], ..signature.clone() },
        ] {
            assert!(!changed.is_of(&key("0b"), &signed), "{changed}");
        }
    }

    #[test]
    fn an_answer_belongs_to_its_question() {
        let (key, headers) = (key("0b"), headers(&[("etag", "\"1-1\"")]));
        let mac = reply_mac(&key, &[1; 16], 200, &headers, b"yes");
        assert!(is_reply_of(&key, &[1; 16], 200, &headers, b"yes", &mac));
        assert!(!is_reply_of(&key, &[2; 16], 200, &headers, b"yes", &mac), "of another question");
        assert!(!is_reply_of(&key, &[1; 16], 404, &headers, b"yes", &mac));
        assert!(!is_reply_of(&key, &[1; 16], 200, &HeaderMap::new(), b"yes", &mac));
        assert!(!is_reply_of(&key, &[1; 16], 200, &headers, b"no", &mac));
        assert!(!is_reply_of(&key, &[1; 16], 200, &headers, b"yes", &mac[..31]));
    }

    #[test]
    fn what_is_no_signature_is_not_read() {
        for text in [
            "",
            "Chordal-1",
            "Chordal-1 ",
            "Basic YTpi",
            "Bearer x",
            &VECTOR.replace("Chordal-1", "Chordal-2"),
            &VECTOR.replace("time=17", "time=-17"),
            &VECTOR.replace("nonce=01", "nonce="),
            &VECTOR.replace("key=k, ", ""),
            &VECTOR[..VECTOR.len() - 1],
            &format!("{VECTOR}, mac=00"),
            &format!("{VECTOR}00"),
        ] {
            assert_eq!(text.parse::<Signature>(), Err(Unreadable), "{text}");
        }
    }
}
