//! One request with one answer, never sent twice, and what its answer means.

use std::time::Duration;

use chordal::api::ETag;
use chordal_protocol::Version;
use chordal_sim::history::{Digest, Kind, Outcome};
use reqwest::header::HeaderMap;

/// A blocking HTTP client.
#[derive(Debug)]
pub(crate) struct Asker {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) method: reqwest::Method,
    pub(crate) addr: &'a str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) patience: Duration,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Nothing came back. `is_sent`: but it may have arrived.
#[derive(Debug)]
pub(crate) struct Silence {
    pub(crate) is_sent: bool,
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Outcome(Outcome),
    /// A delete was done, and the answer does not say with which version.
    Deleted,
    /// No node may answer that.
    Wrong(String),
}

impl Asker {
    pub(crate) fn new() -> Asker {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Asker { runtime, http: crate::common::client() }
    }

    pub(crate) fn ask(&self, question: Question<'_>) -> Result<Answer, Silence> {
        let Question { method, addr, path, headers, body, patience } = question;
        let mut request = self.http.request(method, format!("http://{addr}{path}")).timeout(patience);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let exchange = async {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
        };
        self.runtime.block_on(exchange).map_err(|error: reqwest::Error| Silence { is_sent: !error.is_connect() })
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn version(&self) -> Option<Version> {
        self.header("etag").parse().ok().map(|ETag(version)| version)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Silence {
    /// What it means: that nothing has happened, if nothing was sent.
    pub(crate) fn outcome(&self) -> Outcome {
        if self.is_sent { Outcome::Unknown } else { Outcome::Refused }
    }
}

/// What the status of a write means, with the version that came with it.
pub(crate) fn of_write(kind: Kind, status: u16, version: Option<Version>) -> Meaning {
    Meaning::Outcome(match (kind, status, version) {
        (Kind::Delete, 200 | 204, None) => return Meaning::Deleted,
        (_, 200 | 201 | 204, Some(version)) => Outcome::Done(version),
        (Kind::Cas { .. }, 412, version) => Outcome::ConditionFailed(version),
        (Kind::Delete, 404, _) => Outcome::ConditionFailed(None),
        // It says that nothing has happened.
        (_, 429 | 503, _) => Outcome::Refused,
        (_, 408 | 500 | 502 | 504 | 507, _) => Outcome::Unknown,
        _ => return Meaning::Wrong(format!("{kind:?} was answered with {status}, version {version:?}")),
    })
}

/// What the answer to a read means. Values tell their names in their type, so `body` is not needed.
pub(crate) fn of_read(status: u16, version: Option<Version>, content_type: &str, body: Option<&[u8]>) -> Meaning {
    Meaning::Outcome(match status {
        200 => match (version, name_of(content_type)) {
            (Some(version), Some(name)) if body.is_none_or(|body| body == value_of(name)) => {
                Outcome::Read(Some((version, Digest::of(name))))
            }
            _ => {
                return Meaning::Wrong(format!(
                    "a read brought version {version:?}, type {content_type:?} and {} bytes that do not belong together",
                    body.map_or(0, <[u8]>::len)
                ));
            }
        },
        404 => Outcome::Read(None),
        429 | 503 => Outcome::Refused,
        408 | 500 | 502 | 504 | 507 => Outcome::Unknown,
        _ => return Meaning::Wrong(format!("a read was answered with {status}")),
    })
}

const TYPE: &str = "text/plain; value=";

/// The media type of the value of this name.
pub(crate) fn type_of(name: &str) -> String {
    format!("{TYPE}{name}")
}

fn name_of(content_type: &str) -> Option<&str> {
    content_type.strip_prefix(TYPE)
}

/// The value of this name: few bytes, or in one of eight cases many.
pub(crate) fn value_of(name: &str) -> Vec<u8> {
    let Digest(number) = Digest::of(name);
    let more = if number % 8 == 0 { (number >> 8) as usize % 16_384 } else { 16 };
    let mut value = format!("{name} ").into_bytes();
    value.resize(value.len() + more, b'a' + (number % 26) as u8);
    value
}

#[test]
fn answers_mean_what_the_documentation_says() {
    let version = Version { epoch: 3, sequence: 14 };
    let put = Kind::Put(Digest(1));
    let cas = Kind::Cas { expected: None, value: Digest(1) };
    for (kind, status, version, meaning) in [
        (put, 204, Some(version), Some(Outcome::Done(version))),
        (put, 204, None, None),
        (cas, 412, Some(version), Some(Outcome::ConditionFailed(Some(version)))),
        (put, 412, Some(version), None),
        (Kind::Delete, 404, None, Some(Outcome::ConditionFailed(None))),
        (put, 404, None, None),
        (put, 503, None, Some(Outcome::Refused)),
        (put, 504, None, Some(Outcome::Unknown)),
        (put, 400, None, None),
    ] {
        match (of_write(kind, status, version), meaning) {
            (Meaning::Outcome(outcome), Some(expected)) => assert_eq!(outcome, expected, "{kind:?} {status}"),
            (Meaning::Wrong(_), None) => {}
            (meaning, expected) => panic!("{kind:?} {status}: {meaning:?} in place of {expected:?}"),
        }
    }
    assert_eq!(of_write(Kind::Delete, 204, None), Meaning::Deleted);
    let read = |name: &str, body: &[u8]| of_read(200, Some(version), &type_of(name), Some(body));
    assert_eq!(read("1-2", &value_of("1-2")), Meaning::Outcome(Outcome::Read(Some((version, Digest::of("1-2"))))));
    assert!(matches!(read("1-2", &value_of("1-3")), Meaning::Wrong(_)), "a value under another one's type");
    assert!(matches!(of_read(200, None, &type_of("1-2"), None), Meaning::Wrong(_)));
}
