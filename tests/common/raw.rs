//! Requests byte for byte: any path, any header, any body.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// What came back, byte for byte.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    /// A header; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut named = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.next().map_or("", |(_, value)| value.trim())
    }

    /// The tag, which must be there.
    #[track_caller]
    pub(crate) fn etag(&self) -> String {
        let tag = self.header("etag");
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.contains('-'), "{self:?}");
        tag.to_owned()
    }

    /// It must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Raw {
        assert_eq!(self.status, status, "{} {:?}", self.head, String::from_utf8_lossy(&self.body));
        self
    }

    /// It must be a problem document of this status and kind.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, kind: &str) -> Raw {
        let problem: Value = self.json();
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        self.expect(status)
    }

    /// The body, which must be JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The body, which must have a JSON value a line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = serde_json::Deserializer::from_slice(&self.body).into_iter();
        lines.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// One request with one answer. The path and the headers are sent as they are.
#[track_caller]
pub(crate) fn raw(method: &str, addr: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Raw {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || matches!(method, "PUT" | "POST") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    let mut socket = TcpStream::connect(addr).unwrap_or_else(|error| panic!("{addr}: {error}"));
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    socket.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    // All of it is sent before anything is read: who refuses a body must have read it away.
    socket
        .write_all(&[head.as_bytes(), b"\r\n", body].concat())
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no whole answer: {:?}", String::from_utf8_lossy(&answer)));
    let head = String::from_utf8(answer[..end].to_vec()).expect("headers are text");
    let status = head.get(9..12).and_then(|code| code.parse().ok()).expect("a status");
    Raw { status, head, body: answer[end + 4..].to_vec() }
}
