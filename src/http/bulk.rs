//! `POST /kv`: many records in one request, an answer for each, in order.
//!
//! The body is an array in JSON, or a record a line (NDJSON); the answer has the form of the question. What cannot be read is
//! refused as a whole before anything is done. After that each record ends by itself, as it would have ended alone.

use std::fmt;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chordal_protocol::{Condition, Content, Id, RequestId, Write, Written};
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::precondition::{Demand, Tags};
use super::{ApiError, Kind, body, content, kv, request_id};
use crate::api::{BULK_BODY, BULK_RECORDS, BulkAnswer, BulkOp, BulkRecord, ETag, Text};
use crate::node::{Node, NodeError, ReadEnd, WriteEnd, deletion, id_of_key, mint};

/// How many bytes of values are fetched for one answer; then the rest of the records is to be asked for again.
const FETCHED: usize = 8 << 20;

const NDJSON: &str = "application/x-ndjson";

const EXAMPLE: &str = r#"{"key": "k", "value": "text"}, {"key": "k", "base64": "AAE="}, {"op": "delete", "key": "k"}, or {"op": "get", "key": "k"} for all"#;

/// `POST /kv`.
pub(super) async fn many(State(node): State<Node>, request: Request) -> Result<Response, ApiError> {
    check_headers(request.headers())?;
    let body = body::read(request, BULK_BODY).await?;
    let (form, records) = parse(&body)?;
    drop(body);
    let answers = if records.iter().any(|record| record.op == BulkOp::Get) {
        fetch(&node, records).await?
    } else {
        write(&node, records).await
    };
    Ok(form.answer(&answers))
}

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Array,
    Lines,
}

impl Form {
    fn answer(self, answers: &[BulkAnswer]) -> Response {
        match self {
            Form::Array => axum::Json(answers).into_response(),
            Form::Lines => {
                let mut lines = Vec::new();
                for answer in answers {
                    // Our own shapes have string keys only, which is all that serialising JSON to memory could fail on.
                    lines.extend(serde_json::to_vec(answer).unwrap_or_default());
                    lines.push(b'\n');
                }
                ([(header::CONTENT_TYPE, NDJSON)], lines).into_response()
            }
        }
    }
}

fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_lines = headers.get(header::CONTENT_TYPE).is_some_and(|named| {
        let essence = named.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        ["application/x-ndjson", "application/ndjson", "application/jsonl"]
            .iter()
            .any(|known| essence.eq_ignore_ascii_case(known))
    });
    if !is_lines && !body::is_json(headers) {
        let detail = format!(
            "this route takes NDJSON (Content-Type: {NDJSON}) or an array (application/json) of records such as {EXAMPLE}"
        );
        return Err(ApiError::new(Kind::MediaType, detail));
    }
    for (name, instead) in [("if-match", "if_match"), ("if-none-match", "if_none_match"), ("request-id", "request_id")]
    {
        if headers.contains_key(name) {
            let detail = format!("the header {name} would be for all records; give each its own field {instead}");
            return Err(ApiError::new(Kind::Invalid, detail));
        }
    }
    Ok(())
}

/// The records of a body, at least one; a body that begins with `[` is an array, any other has lines.
fn parse(body: &[u8]) -> Result<(Form, Vec<BulkRecord>), ApiError> {
    let malformed = |what: String| ApiError::new(Kind::Malformed, format!("{what}; nothing was done. Send {EXAMPLE}"));
    let form = if body.trim_ascii_start().starts_with(b"[") { Form::Array } else { Form::Lines };
    let records: Vec<BulkRecord> = match form {
        Form::Array => {
            let read: Result<Few, _> = serde_json::from_slice(body);
            read.map_err(|error| malformed(format!("the array cannot be read: {error}")))?.0
        }
        Form::Lines => {
            let lines = body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
            // One more than is taken tells that there are too many.
            lines
                .take(BULK_RECORDS + 1)
                .map(|(number, line)| {
                    serde_json::from_slice(line)
                        .map_err(|error| malformed(format!("line {} cannot be read: {error}", number + 1)))
                })
                .collect::<Result<_, _>>()?
        }
    };
    if records.len() > BULK_RECORDS {
        let detail = format!("one request has at most {BULK_RECORDS} records; nothing was done, send several requests");
        return Err(ApiError::new(Kind::TooLarge, detail));
    }
    if records.is_empty() {
        return Err(malformed("there is no record".to_owned()));
    }
    Ok((form, records))
}

/// The records of an array, at most one more than is taken: a record takes much more room than the `{}` that it may be in JSON.
struct Few(Vec<BulkRecord>);

impl<'de> Deserialize<'de> for Few {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Few, D::Error> {
        deserializer.deserialize_seq(FewVisitor)
    }
}

struct FewVisitor;

impl<'de> Visitor<'de> for FewVisitor {
    type Value = Few;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Few, A::Error> {
        let mut records = Vec::new();
        while records.len() <= BULK_RECORDS
            && let Some(record) = array.next_element()?
        {
            records.push(record);
        }
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Few(records))
    }
}

async fn write(node: &Node, records: Vec<BulkRecord>) -> Vec<BulkAnswer> {
    let limit = node.value_limit();
    let mut answers = Vec::with_capacity(records.len());
    let (mut places, mut wishes, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    for (place, record) in records.into_iter().enumerate() {
        let key = record.key.clone();
        match Wish::of(record, limit) {
            Ok((wish, write)) => {
                places.push(place);
                wishes.push(wish);
                writes.push(write);
                answers.push(BulkAnswer { key, ..BulkAnswer::of(204) });
            }
            Err(error) => answers.push(failed(key, &error)),
        }
    }
    let ends = node.write_many(writes).await;
    for ((place, wish), end) in places.into_iter().zip(wishes).zip(ends) {
        let key = answers[place].key.take();
        answers[place] = wish.answer(key, end);
    }
    answers
}

/// What is to be remembered of a record until its write has ended.
struct Wish {
    id: Id,
    is_deletion: bool,
    condition: Condition,
}

impl Wish {
    /// The write that a record asks for.
    fn of(record: BulkRecord, limit: usize) -> Result<(Wish, Write), ApiError> {
        let name = match &record.request_id {
            Some(text) => request_id::parse(text)?,
            None => mint(),
        };
        let is_deletion = record.op == BulkOp::Delete;
        let condition = condition(&record, is_deletion)?;
        let write = if is_deletion { deletion(named_id(&record)?, name) } else { storing(record, limit, name)? };
        Ok((Wish { id: write.id, is_deletion, condition }, Write { condition, ..write }))
    }

    fn answer(&self, key: Option<Text>, end: WriteEnd) -> BulkAnswer {
        let is_plain_deletion = self.is_deletion && self.condition == Condition::Exists;
        match end {
            Ok((Written::Done(version), served)) => {
                let is_new = self.condition == Condition::Absent;
                let etag = (!self.is_deletion).then_some(ETag(version));
                BulkAnswer { key, etag, hops: Some(served.hops), ..BulkAnswer::of(if is_new { 201 } else { 204 }) }
            }
            Ok((Written::Refused(None), _)) if is_plain_deletion => failed(key, &content::no_value(self.id)),
            Ok((Written::Refused(now), _)) => failed(key, &kv::refused(now)),
            Err(error) => failed(key, &error.into()),
        }
    }
}

/// The write that stores the value of a record.
fn storing(record: BulkRecord, limit: usize, name: RequestId) -> Result<Write, ApiError> {
    let invalid = |detail: &str| ApiError::new(Kind::Invalid, detail);
    if record.id.is_some() {
        return Err(invalid("a value is stored under a key, not under an id: the key must hash to it"));
    }
    let value = match (record.value, record.base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(base64)) => content::bytes_of("value", &Text::Base64 { base64 })?,
        (None, None) => return Err(invalid(r#"there is no value: give "value" or "base64", or say "op": "delete""#)),
        (Some(_), Some(_)) => return Err(invalid(r#"give the value as "value" or as "base64", not both"#)),
    };
    let key = record.key.as_ref().map(|key| content::bytes_of("key", key)).transpose()?;
    let content_type = record.content_type.map(|named| kv::checked_type(named.as_bytes())).transpose()?;
    Ok(crate::node::storing(value, key, content_type, limit, name)?)
}

/// The condition of a record: one that its owner can check at once.
fn condition(record: &BulkRecord, is_deletion: bool) -> Result<Condition, ApiError> {
    let tags =
        |name: &str, text: &Option<String>| text.as_ref().map(|text| Tags::parse(text.as_bytes(), name)).transpose();
    let wanted = tags("if_match", &record.if_match)?;
    let unwanted = tags("if_none_match", &record.if_none_match)?;
    match Demand::from(wanted, unwanted, !is_deletion)? {
        Demand::One(Condition::Always) if is_deletion => Ok(Condition::Exists),
        Demand::One(condition) => Ok(condition),
        Demand::OneOf(_) => {
            let detail = r#"if_match is one tag of a value of this ring, such as "\"3-14\"", or "*" here"#;
            Err(ApiError::new(Kind::Invalid, detail))
        }
    }
}

/// The id that a record without a value names, by itself or by its key.
fn named_id(record: &BulkRecord) -> Result<Id, ApiError> {
    let invalid = |detail: &str| Err(ApiError::new(Kind::Invalid, detail));
    if record.value.is_some() || record.base64.is_some() || record.content_type.is_some() {
        return invalid("only a record that is stored has a value");
    }
    match (&record.key, record.id) {
        (Some(key), None) => Ok(id_of_key(&content::bytes_of("key", key)?)?),
        (None, Some(id)) => Ok(id),
        (None, None) => invalid("say which record: give its key, or its id"),
        (Some(_), Some(_)) => invalid("give the key or the id, not both"),
    }
}

async fn fetch(node: &Node, records: Vec<BulkRecord>) -> Result<Vec<BulkAnswer>, ApiError> {
    if records.iter().any(|record| record.op != BulkOp::Get) {
        let detail = "a request fetches all its records or none of them, because they are not done in order; nothing was \
                      done, send two requests";
        return Err(ApiError::new(Kind::Invalid, detail));
    }
    let mut answers = Vec::with_capacity(records.len());
    let (mut places, mut ids) = (Vec::new(), Vec::new());
    for (place, record) in records.into_iter().enumerate() {
        match fetched_id(&record) {
            Ok(id) => {
                places.push(place);
                ids.push(id);
                answers.push(BulkAnswer { key: record.key, ..BulkAnswer::of(200) });
            }
            Err(error) => answers.push(failed(record.key, &error)),
        }
    }
    let ends = node.read_many(ids.clone(), FETCHED).await;
    for ((place, id), end) in places.into_iter().zip(ids).zip(ends) {
        let key = answers[place].key.take();
        answers[place] = fetched(key, id, end);
    }
    Ok(answers)
}

fn fetched_id(record: &BulkRecord) -> Result<Id, ApiError> {
    if record.if_match.is_some() || record.if_none_match.is_some() || record.request_id.is_some() {
        return Err(ApiError::new(Kind::Invalid, "conditions and request ids are for what is written"));
    }
    named_id(record)
}

fn fetched(key: Option<Text>, id: Id, end: ReadEnd) -> BulkAnswer {
    match end {
        Ok((Some(record), served)) => {
            let key = key.or_else(|| record.key_bytes().map(Text::of));
            let etag = Some(ETag(record.version));
            let Content::Value { bytes, content_type } = record.content else {
                return failed(key, &content::no_value(id));
            };
            let said = BulkAnswer { key, etag, hops: Some(served.hops), ..BulkAnswer::of(200) };
            BulkAnswer { content_type: Some(content_type), ..said }.with_value(&bytes)
        }
        Ok((None, _)) => failed(key, &content::no_value(id)),
        Err(NodeError::Overloaded) => {
            let detail = format!(
                "too much is waiting, or the values before this one fill the answer ({FETCHED} bytes); ask for it again"
            );
            failed(key, &ApiError::new(Kind::Overloaded, detail))
        }
        Err(error) => failed(key, &error.into()),
    }
}

fn failed(key: Option<Text>, error: &ApiError) -> BulkAnswer {
    let problem = error.problem();
    BulkAnswer { key, etag: error.tag(), problem: Some(problem.clone()), ..BulkAnswer::of(problem.status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(json: &str) -> Result<Write, (Kind, String)> {
        let record: BulkRecord = serde_json::from_str(json).unwrap();
        Wish::of(record, 5).map(|(_, write)| write).map_err(|error| (error.kind(), error.problem().detail))
    }

    #[test]
    fn a_body_is_an_array_or_lines() {
        let read = |body: &str| parse(body.as_bytes()).map(|(form, records)| (form, records.len()));
        let record = r#"{"key":"k","value":"v"}"#;
        assert_eq!(read(record).unwrap(), (Form::Lines, 1));
        assert_eq!(read(&format!("\n{record}\r\n\n{record}\n")).unwrap(), (Form::Lines, 2));
        assert_eq!(read(&format!(" [{record}, {record}]\n")).unwrap(), (Form::Array, 2));
        for body in ["", "\n", "[]", "[", "{", "{} {}", "null", "[1]", "{\"valeu\": 1}", "\"k\""] {
            assert_eq!(parse(body.as_bytes()).unwrap_err().kind(), Kind::Malformed, "{body}");
        }
        let error = parse(format!("{record}\n\n{{\n").as_bytes()).unwrap_err();
        assert!(error.problem().detail.starts_with("line 3 cannot be read"), "{error:?}");
        for (count, is_taken) in [(BULK_RECORDS, true), (BULK_RECORDS + 1, false), (BULK_RECORDS + 2, false)] {
            let (lines, array) = (vec![record; count].join("\n"), format!("[{}]", vec![record; count].join(",")));
            for body in [lines, array] {
                let read = parse(body.as_bytes()).map(|(_, records)| records.len()).map_err(|error| error.kind());
                assert_eq!(read, if is_taken { Ok(count) } else { Err(Kind::TooLarge) });
            }
        }
    }

    #[test]
    fn records_become_writes() {
        let write = wish(r#"{"key":"k","base64":"AP8=","content_type":"image/png","if_match":"\"3-14\""}"#).unwrap();
        let version = chordal_protocol::Version { epoch: 3, sequence: 14 };
        let content = Content::Value { bytes: vec![0, 255], content_type: "image/png".to_owned() };
        assert_eq!((write.id, write.key, write.content), (Id::of("k"), Some(b"k".to_vec()), content));
        assert_eq!(write.condition, Condition::Is(version));
        let name = mint();
        let again = wish(&format!(r#"{{"value":"v","if_none_match":"*","request_id":"{name}"}}"#)).unwrap();
        assert_eq!((again.id, again.key, again.condition, again.request), (Id::of("v"), None, Condition::Absent, name));
        let gone = wish(&format!(r#"{{"op":"delete","id":"{}"}}"#, Id::of("k"))).unwrap();
        assert_eq!((gone.id, gone.content, gone.condition), (Id::of("k"), Content::Tombstone, Condition::Exists));
    }

    #[test]
    fn nonsense_is_told_for_each_record() {
        for (json, kind, words) in [
            (r#"{"key":"k"}"#, Kind::Invalid, "no value"),
            (r#"{"key":"k","value":"v","base64":""}"#, Kind::Invalid, "not both"),
            (r#"{"key":"","value":"v"}"#, Kind::Invalid, "no key"),
            (r#"{"value":""}"#, Kind::Invalid, "no key"),
            (r#"{"key":"k","value":"123456"}"#, Kind::TooLarge, "6 bytes"),
            (r#"{"key":"k","base64":"%"}"#, Kind::Malformed, "base64"),
            (r#"{"key":"k","value":"v","content_type":"a\nb"}"#, Kind::Invalid, "content type"),
            (r#"{"key":"k","value":"v","if_match":"3-14"}"#, Kind::Malformed, "if_match"),
            (r#"{"key":"k","value":"v","if_match":"\"1-1\",\"1-2\""}"#, Kind::Invalid, "one tag"),
            (r#"{"key":"k","value":"v","if_match":"*","if_none_match":"*"}"#, Kind::Invalid, "contradict"),
            (r#"{"key":"k","value":"v","request_id":"1"}"#, Kind::Malformed, "32 hex"),
            (r#"{"op":"delete","key":"k","value":"v"}"#, Kind::Invalid, "has a value"),
            (r#"{"op":"delete","key":"k","if_none_match":"*"}"#, Kind::Invalid, "deleted"),
            (r#"{"op":"delete"}"#, Kind::Invalid, "which record"),
        ] {
            let (is, detail) = wish(json).unwrap_err();
            assert!(is == kind && detail.contains(words), "{json}: {is:?} {detail}");
        }
    }

    #[test]
    fn what_a_request_as_a_whole_may_not_have() {
        let kind = |name: &'static str, value: &'static str| {
            let pair = (header::HeaderName::from_static(name), header::HeaderValue::from_static(value));
            check_headers(&HeaderMap::from_iter([pair])).err().map(|error| error.kind())
        };
        assert_eq!(kind("content-type", "application/x-ndjson; charset=utf-8"), None);
        assert_eq!(kind("content-type", "application/json"), None);
        assert_eq!(kind("content-type", "text/plain"), Some(Kind::MediaType));
        for name in ["if-match", "if-none-match", "request-id"] {
            assert_eq!(kind(name, "*"), Some(Kind::Invalid));
        }
    }
}
