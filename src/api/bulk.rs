//! The shapes of `POST /kv`: many records in one request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chordal_protocol::Id;
use serde::{Deserialize, Serialize};

use super::{ETag, Problem, Text};

/// How many records one request may have.
pub const BULK_RECORDS: usize = 1000;

/// The largest body of such a request, in bytes.
pub const BULK_BODY: usize = 8 << 20;

/// One record of `POST /kv`. What a line of an export holds is one that stores the same again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with the fields of a record")]
pub struct BulkRecord {
    /// What to do; without it the value is stored.
    #[serde(default, skip_serializing_if = "is_put")]
    pub op: BulkOp,
    /// The key. Without one a value that is stored is its own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Text>,
    /// In place of a key, to get or to delete: its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// The value, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value as standard base64 with padding, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// The media type of the value; without one it is `text/plain; charset=utf-8` or `application/octet-stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// A tag that the value there must have, or `*` for any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// `*`: there must be no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<String>,
    /// 32 hex digits that make it safe to send the record again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BulkOp {
    /// Store it.
    #[default]
    Put,
    /// Fetch it. All records of a request are fetched, or none.
    Get,
    /// Delete it.
    Delete,
}

fn is_put(op: &BulkOp) -> bool {
    *op == BulkOp::Put
}

impl BulkRecord {
    /// One that stores these bytes.
    pub fn put(key: &[u8], value: &[u8]) -> BulkRecord {
        BulkRecord { key: Some(Text::of(key)), ..BulkRecord::default() }.with_value(value)
    }

    /// One that fetches a key.
    pub fn get(key: &[u8]) -> BulkRecord {
        BulkRecord { op: BulkOp::Get, key: Some(Text::of(key)), ..BulkRecord::default() }
    }

    /// One that fetches what is stored under an id.
    pub fn get_id(id: Id) -> BulkRecord {
        BulkRecord { op: BulkOp::Get, id: Some(id), ..BulkRecord::default() }
    }

    /// One that deletes a key.
    pub fn delete(key: &[u8]) -> BulkRecord {
        BulkRecord { op: BulkOp::Delete, key: Some(Text::of(key)), ..BulkRecord::default() }
    }

    /// The same with these bytes as its value.
    pub fn with_value(mut self, value: &[u8]) -> BulkRecord {
        (self.value, self.base64) = halves(value);
        self
    }
}

/// How one record of `POST /kv` ended. The answers stand in the order of the records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BulkAnswer {
    /// What the same request alone would have been answered with: 200, 201 or 204, or the status of the problem.
    pub status: u16,
    /// The key, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Text>,
    /// The tag of what was stored or fetched; with 412 that of the value there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<ETag>,
    /// What was fetched, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What was fetched, in base64, where it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// The media type of what was fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How many nodes were asked on the way, the owner included, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<u32>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl BulkAnswer {
    /// An answer that says no more than its status.
    pub fn of(status: u16) -> BulkAnswer {
        BulkAnswer {
            status,
            key: None,
            etag: None,
            value: None,
            base64: None,
            content_type: None,
            hops: None,
            problem: None,
        }
    }

    /// Whether what was asked was done.
    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The same with these bytes as what was fetched.
    pub fn with_value(mut self, value: &[u8]) -> BulkAnswer {
        (self.value, self.base64) = halves(value);
        self
    }

    /// The bytes that were fetched, if any were; an error if the base64 is not that.
    pub fn bytes(&self) -> Result<Option<Vec<u8>>, base64::DecodeError> {
        match (&self.value, &self.base64) {
            (Some(text), _) => Ok(Some(text.clone().into_bytes())),
            (None, Some(base64)) => BASE64.decode(base64).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// How much longer JSON may make a short text before it stands as base64 all the same.
const SLACK: usize = 64;

/// Bytes as text or, where they are none, as base64; so is text that JSON would swell a good deal more than base64 does.
fn halves(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match Text::of(bytes) {
        Text::Plain(text) if growth(bytes) <= text.len() / 2 + SLACK => (Some(text), None),
        Text::Plain(_) => (None, Some(BASE64.encode(bytes))),
        Text::Base64 { base64 } => (None, Some(base64)),
    }
}

/// How many bytes a text has more in JSON.
fn growth(bytes: &[u8]) -> usize {
    let more = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        // Six bytes for one: \u0000.
        0..b' ' => 5,
        _ => 0,
    };
    bytes.iter().map(more).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_no_more_than_they_must() {
        let json = |record: &BulkRecord| serde_json::to_string(record).unwrap();
        assert_eq!(json(&BulkRecord::put(b"k", b"v")), r#"{"key":"k","value":"v"}"#);
        assert_eq!(json(&BulkRecord::put(b"\xff", b"\0\xff")), r#"{"key":{"base64":"/w=="},"base64":"AP8="}"#);
        assert_eq!(json(&BulkRecord::get(b"k")), r#"{"op":"get","key":"k"}"#);
        assert_eq!(json(&BulkRecord::delete(b"k")), r#"{"op":"delete","key":"k"}"#);
        assert!(serde_json::from_str::<BulkRecord>(r#"{"key":"k","valeu":"v"}"#).is_err());
    }

    #[test]
    fn fetched_bytes_read_back() {
        for bytes in [&b""[..], b"text", b"\0\xff", &[0; 100], b"\"\n\"\n"] {
            assert_eq!(BulkAnswer::of(200).with_value(bytes).bytes().unwrap().as_deref(), Some(bytes));
        }
        assert_eq!(BulkAnswer::of(200).with_value(&[b'\n'; 64]).base64, None, "short");
        assert_eq!(BulkAnswer::of(200).with_value(&b"ab\n".repeat(1000)).base64, None, "lines");
        assert_eq!(BulkAnswer::of(200).with_value(&[0; 1000]).value, None, "hardly text");
        assert_eq!(growth(b"\"\0\n"), serde_json::to_string("\"\0\n").unwrap().len() - 2 - 3);
        assert_eq!(BulkAnswer::of(404).bytes().unwrap(), None);
    }
}
