//! `/kv`: values as they are, with tags and conditions, and many at once.

use std::time::Duration;

use chordal_protocol::{Condition, RequestId};
use reqwest::Method;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, MAX_FORWARDS,
};

use super::transport::{Answer, Ask, garbled};
use super::{Error, NodeClient, REQUEST_ID, in_query};
use crate::api::{BulkAnswer, BulkOp, BulkRecord, ETag, fitting_type};
use crate::words::counted;

/// What a client would like.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How much of the time for a request is left for its way.
const ON_THE_WAY: Duration = Duration::from_millis(200);

/// The values of a ring, through one of its nodes. [`NodeClient::kv`] makes it.
///
/// Keys are any bytes, 1 to 65,536 of them. Those that no path can carry (not UTF-8, very long, or `.` and `..`, which paths
/// take for something else) travel in the bulk form; their answers are the same.
///
/// Writes have a [`RequestId`], made by [`mint`](crate::node::mint): whoever gets [`Error::Unreachable`] or a problem with the
/// status 504 does not know whether the write has happened, and sends it again with the same id, through any node.
#[derive(Debug, Clone, Copy)]
pub struct Kv<'a> {
    pub(super) client: &'a NodeClient,
    pub(super) addr: &'a str,
    pub(super) direct: bool,
    /// How long an answer is waited for.
    pub(super) wait: Duration,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The media type that it was stored with.
    pub content_type: String,
    /// Its version.
    pub etag: ETag,
}

/// A value, told without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How many bytes it has.
    pub length: u64,
    /// The media type that it was stored with.
    pub content_type: String,
    /// Its version.
    pub etag: ETag,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable, and the value has this tag.
    Done(ETag),
    /// Its condition did not hold, and nothing changed. The tag is that of the value there is, if there is one.
    Refused(Option<ETag>),
}

/// How a deletion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The value is gone.
    Done,
    /// There was none.
    Missing,
    /// The value had another tag than was expected, this one, or was gone already; nothing changed.
    Refused(Option<ETag>),
}

impl<'a> Kv<'a> {
    /// The same, but the node shall not pass on what it is asked: where it does not own the key, it answers with a problem of
    /// the status 421, whose hint names who does, and nothing has happened. Keys that travel in the bulk form are passed on.
    pub fn direct(self) -> Kv<'a> {
        Kv { direct: true, ..self }
    }

    /// The same, of which the answer is waited for so long: the node shall say by then what stands in the way.
    pub(super) fn within(self, wait: Duration) -> Kv<'a> {
        Kv { wait, ..self }
    }

    /// The value of a key; `None` if nothing is stored there.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let Some(path) = path(key) else { return self.value(self.alone(BulkRecord::get(key)).await?) };
        let ask = self.addressed(Ask::get(self.addr, path));
        let answer = self.client.transport.answer(&ask, &[404]).await?;
        if answer.status == 404 {
            return self.nothing(&ask, &answer).map(|()| None);
        }
        let (content_type, etag) = (content_type(&answer.headers), self.tag(&ask, &answer.headers)?);
        Ok(Some(Value { bytes: answer.body, content_type, etag }))
    }

    /// What is told of a value without its bytes; `None` if nothing is stored there.
    pub async fn head(&self, key: &[u8]) -> Result<Option<Head>, Error> {
        let Some(path) = path(key) else {
            let value = self.value(self.alone(BulkRecord::get(key)).await?)?;
            let head = |Value { bytes, content_type, etag }| Head { length: bytes.len() as u64, content_type, etag };
            return Ok(value.map(head));
        };
        let ask = self.addressed(Ask::new(Method::HEAD, self.addr, path)).again();
        let answer = self.client.transport.answer(&ask, &[404]).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let length = answer.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length = length.ok_or_else(|| garbled(&ask, "its answer has no length".to_owned()))?;
        let (content_type, etag) = (content_type(&answer.headers), self.tag(&ask, &answer.headers)?);
        Ok(Some(Head { length, content_type, etag }))
    }

    /// Stores a value under a key if the condition holds. Without a content type it gets the one of text
    /// or of bytes, whichever it is.
    pub async fn put(
        &self,
        key: &[u8],
        value: &[u8],
        content_type: Option<&str>,
        condition: Condition,
        request: RequestId,
    ) -> Result<Outcome, Error> {
        let content_type = content_type.unwrap_or(fitting_type(value));
        let Some(path) = path(key) else {
            let record = BulkRecord { content_type: Some(content_type.to_owned()), ..BulkRecord::put(key, value) };
            let answer = self.alone(conditional(record, condition, request)).await?;
            return match (answer.status, answer.etag) {
                (412, etag) => Ok(Outcome::Refused(etag)),
                (_, Some(etag)) if answer.is_done() => Ok(Outcome::Done(etag)),
                _ => Err(self.failed(answer)),
            };
        };
        let ask = self.addressed(Ask::new(Method::PUT, self.addr, path)).again().bytes(content_type, value.to_vec());
        let ask = with_condition(ask, condition).header(REQUEST_ID, request.to_string());
        let answer = self.client.transport.answer(&ask, &[412]).await?;
        match answer.status {
            412 => Ok(Outcome::Refused(self.tag(&ask, &answer.headers).ok())),
            _ => Ok(Outcome::Done(self.tag(&ask, &answer.headers)?)),
        }
    }

    /// Stores a value if the one there has this tag, or if there is none (`None`): nobody has written since it was read.
    pub async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<ETag>,
        value: &[u8],
        content_type: Option<&str>,
        request: RequestId,
    ) -> Result<Outcome, Error> {
        let condition = expected.map_or(Condition::Absent, |etag| Condition::Is(etag.0));
        self.put(key, value, content_type, condition, request).await
    }

    /// Deletes the value of a key; if a tag is expected, only the value that has it.
    pub async fn delete(&self, key: &[u8], expected: Option<ETag>, request: RequestId) -> Result<Deleted, Error> {
        let condition = expected.map_or(Condition::Always, |etag| Condition::Is(etag.0));
        let Some(path) = path(key) else {
            let answer = self.alone(conditional(BulkRecord::delete(key), condition, request)).await?;
            return match answer.status {
                404 => Ok(Deleted::Missing),
                412 => Ok(Deleted::Refused(answer.etag)),
                _ if answer.is_done() => Ok(Deleted::Done),
                _ => Err(self.failed(answer)),
            };
        };
        let ask =
            self.addressed(Ask::new(Method::DELETE, self.addr, path)).again().header(REQUEST_ID, request.to_string());
        let ask = with_condition(ask, condition);
        let answer = self.client.transport.answer(&ask, &[404, 412]).await?;
        match answer.status {
            404 => self.nothing(&ask, &answer).map(|()| Deleted::Missing),
            412 => Ok(Deleted::Refused(self.tag(&ask, &answer.headers).ok())),
            _ => Ok(Deleted::Done),
        }
    }

    /// Stores and deletes, or fetches, up to [`BULK_RECORDS`](crate::api::BULK_RECORDS) records in one request, which has at
    /// most [`BULK_BODY`](crate::api::BULK_BODY) bytes. An answer for each, in order; each record ends by itself, so look at
    /// the statuses. It is sent again over a broken connection only if all that it writes has request ids.
    pub async fn bulk(&self, records: &[BulkRecord]) -> Result<Vec<BulkAnswer>, Error> {
        let mut lines = Vec::new();
        for record in records {
            // Our own shapes have string keys only, which is all that serialising JSON to memory could fail on.
            lines.extend(serde_json::to_vec(record).unwrap_or_default());
            lines.push(b'\n');
        }
        let mut ask = Ask::new(Method::POST, self.addr, "/kv").bytes("application/x-ndjson", lines);
        if records.iter().all(|record| record.op == BulkOp::Get || record.request_id.is_some()) {
            ask = ask.again();
        }
        let body = self.client.transport.answer(&ask, &[]).await?.body;
        let answers: Result<Vec<BulkAnswer>, _> = serde_json::Deserializer::from_slice(&body).into_iter().collect();
        match answers {
            Ok(answers) if answers.len() == records.len() => Ok(answers),
            Ok(answers) => Err(garbled(
                &ask,
                format!("{} for {}", counted(answers.len(), "answer"), counted(records.len(), "record")),
            )),
            Err(error) => Err(garbled(&ask, error.to_string())),
        }
    }

    /// To this node, or to the owner through it.
    fn addressed(&self, ask: Ask) -> Ask {
        // What stands in the way is to be heard before the time for asking is over.
        let ask = match self.wait.saturating_sub(ON_THE_WAY) {
            Duration::ZERO => ask,
            wait => ask.header(PREFER, format!("wait={:.2}", wait.as_secs_f32())),
        };
        if self.direct { ask.header(MAX_FORWARDS, "0") } else { ask }
    }

    /// One record in the bulk form.
    async fn alone(&self, record: BulkRecord) -> Result<BulkAnswer, Error> {
        let mut answers = self.bulk(&[record]).await?;
        // As many answers as records: that was looked at.
        Ok(answers.pop().unwrap_or_else(|| BulkAnswer::of(500)))
    }

    fn value(&self, answer: BulkAnswer) -> Result<Option<Value>, Error> {
        if answer.status == 404 {
            return Ok(None);
        }
        match (answer.bytes(), &answer.content_type, answer.etag) {
            (Ok(Some(bytes)), Some(content_type), Some(etag)) if answer.is_done() => {
                Ok(Some(Value { bytes, content_type: content_type.clone(), etag }))
            }
            _ => Err(self.failed(answer)),
        }
    }

    fn failed(&self, answer: BulkAnswer) -> Error {
        let addr = self.addr.to_owned();
        match answer.problem {
            Some(problem) => Error::Problem { addr, problem: Box::new(problem) },
            None => {
                Error::Garbled { addr, reason: format!("a record was answered with {} and no more", answer.status) }
            }
        }
    }

    /// A 404 must be that of a node: another program's page would be taken for the absence of a value.
    fn nothing(&self, ask: &Ask, answer: &Answer) -> Result<(), Error> {
        match serde_json::from_slice::<crate::api::Problem>(&answer.body) {
            Ok(problem) if problem.kind == "/problems/no-such-value" => Ok(()),
            Ok(problem) => Err(Error::Problem { addr: self.addr.to_owned(), problem: Box::new(problem) }),
            Err(_) => Err(garbled(ask, "404 without a problem document".to_owned())),
        }
    }

    fn tag(&self, ask: &Ask, headers: &HeaderMap) -> Result<ETag, Error> {
        let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok()?.parse().ok());
        tag.ok_or_else(|| garbled(ask, "its answer has no tag of a version".to_owned()))
    }
}

/// The path of a key, if it fits into one.
fn path(key: &[u8]) -> Option<String> {
    let escaped = in_query(key)?;
    // Clients of HTTP resolve these two before they send a path, escaped or not.
    (!matches!(&*escaped, "." | "..")).then(|| format!("/kv/{escaped}"))
}

fn content_type(headers: &HeaderMap) -> String {
    headers.get(CONTENT_TYPE).and_then(|named| named.to_str().ok()).unwrap_or("application/octet-stream").to_owned()
}

fn with_condition(ask: Ask, condition: Condition) -> Ask {
    match condition {
        Condition::Always => ask,
        Condition::Exists => ask.header(IF_MATCH, "*"),
        Condition::Absent => ask.header(IF_NONE_MATCH, "*"),
        Condition::Is(version) => ask.header(IF_MATCH, ETag(version).to_string()),
    }
}

fn conditional(record: BulkRecord, condition: Condition, request: RequestId) -> BulkRecord {
    let (if_match, if_none_match) = match condition {
        Condition::Always => (None, None),
        Condition::Exists => (Some("*".to_owned()), None),
        Condition::Absent => (None, Some("*".to_owned())),
        Condition::Is(version) => (Some(ETag(version).to_string()), None),
    };
    BulkRecord { if_match, if_none_match, request_id: Some(request.to_string()), ..record }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_paths_unless_none_can_carry_them() {
        for (key, expected) in [
            (&b"a/b c"[..], Some("/kv/a%2Fb%20c")),
            ("ü?#".as_bytes(), Some("/kv/%C3%BC%3F%23")),
            (b"a/../b", Some("/kv/a%2F..%2Fb")),
            (b"...", Some("/kv/...")),
            (b".", None),
            (b"..", None),
            (b"\xff", None),
        ] {
            assert_eq!(path(key).as_deref(), expected, "{key:?}");
        }
        assert_eq!(path(&[b'a'; 5000]), None);
    }

    #[test]
    fn conditions_travel_in_records_as_in_headers() {
        let request = crate::node::mint();
        let version = chordal_protocol::Version { epoch: 3, sequence: 14 };
        for (condition, expected) in [
            (Condition::Always, (None, None)),
            (Condition::Exists, (Some("*"), None)),
            (Condition::Absent, (None, Some("*"))),
            (Condition::Is(version), (Some("\"3-14\""), None)),
        ] {
            let record = conditional(BulkRecord::put(b"k", b"v"), condition, request);
            assert_eq!((record.if_match.as_deref(), record.if_none_match.as_deref()), expected);
            assert_eq!(record.request_id, Some(request.to_string()));
        }
    }
}
