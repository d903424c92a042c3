//! How a record lies in a store: a tag byte, then its fields in postcard. The id is the key it lies under.
//!
//! The tag tells values from tombstones, so that counting values reads one byte of each. It tells the format too: a
//! later layout takes tags of its own and raises the format of the file. The fields are named here and not taken from
//! [`Record`], whose shape on the wire may change while files stay.

use chordal_protocol::replica::Outcome;
use chordal_protocol::{Content, Id, Record, RequestId, Version};
use serde::{Deserialize, Serialize, Serializer};

const VALUE: u8 = 1;
const TOMBSTONE: u8 = 2;

/// What lies under an id is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record {id} is damaged ({reason})")]
pub(super) struct Damaged {
    id: Id,
    reason: String,
}

/// The fields behind the tag. A tombstone has no content type and no bytes.
#[derive(Serialize, Deserialize)]
struct Fields<'a> {
    version: Version,
    request: RequestId,
    #[serde(borrow)]
    key: Option<&'a [u8]>,
    content_type: &'a str,
    #[serde(serialize_with = "in_one_piece")]
    bytes: &'a [u8],
}

/// Serde would write a slice byte by byte, in the same format.
fn in_one_piece<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// The stored form of a record.
pub(super) fn encode(record: &Record) -> Result<Vec<u8>, Damaged> {
    let (tag, content_type, bytes) = match &record.content {
        Content::Value { bytes, content_type } => (VALUE, content_type.as_str(), bytes.as_slice()),
        Content::Tombstone => (TOMBSTONE, "", &[][..]),
    };
    let Record { id, version, request, .. } = *record;
    let fields = Fields { version, request, key: record.key.as_deref(), content_type, bytes };
    let mut stored = Vec::with_capacity(1 + size(record) + 64);
    stored.push(tag);
    postcard::to_extend(&fields, stored).map_err(|error| Damaged { id, reason: error.to_string() })
}

/// The record that was stored under `id` in this form.
pub(super) fn decode(id: Id, stored: &[u8]) -> Result<Record, Damaged> {
    let (tag, fields) = fields(id, stored)?;
    let Fields { version, request, key, content_type, bytes } = fields;
    let content = match tag {
        VALUE => Content::Value { bytes: bytes.to_vec(), content_type: content_type.to_owned() },
        _ => Content::Tombstone,
    };
    Ok(Record { id, key: key.map(<[u8]>::to_vec), content, version, request })
}

/// The version of the record that was stored under `id` in this form, the request that wrote it, and whether it is a value: what
/// is looked at in each record when a store is opened, without copying its content.
pub(super) fn glance(id: Id, stored: &[u8]) -> Result<(Version, RequestId, bool), Damaged> {
    let (tag, fields) = fields(id, stored)?;
    Ok((fields.version, fields.request, tag == VALUE))
}

/// The tag, which is one that is known, and the fields.
fn fields(id: Id, stored: &[u8]) -> Result<(u8, Fields<'_>), Damaged> {
    let damaged = |reason: &str| Damaged { id, reason: reason.to_owned() };
    let (tag, rest) = stored.split_first().ok_or_else(|| damaged("it is empty"))?;
    let (fields, rest) = postcard::take_from_bytes::<Fields<'_>>(rest).map_err(|error| damaged(&error.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged("something follows it"));
    }
    match *tag {
        VALUE | TOMBSTONE => Ok((*tag, fields)),
        _ => Err(damaged("its tag is unknown")),
    }
}

/// How much a record weighs in a page or in a queue, in bytes: its key, its value and its content type.
pub(super) fn size(record: &Record) -> usize {
    record.key.as_ref().map_or(0, Vec::len) + content_size(&record.content)
}

/// The part of [`size`] that is the content's.
pub(super) fn content_size(content: &Content) -> usize {
    match content {
        Content::Value { bytes, content_type } => bytes.len() + content_type.len(),
        Content::Tombstone => 0,
    }
}

/// The id in what a record lies under.
pub(super) fn id_of(key: &[u8; 40]) -> Id {
    let mut id = [0; 32];
    id.copy_from_slice(&key[8..]);
    Id::from_bytes(id)
}

/// The request and the id in what an outcome lies under.
pub(super) fn request_of(key: &[u8; 56]) -> (RequestId, Id) {
    let (mut request, mut id) = ([0; 16], [0; 32]);
    request.copy_from_slice(&key[8..24]);
    id.copy_from_slice(&key[24..]);
    (RequestId(u128::from_be_bytes(request)), Id::from_bytes(id))
}

/// What a record lies under: the number of its area, and its id.
pub(super) fn record_key(number: u64, id: &Id) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(id.as_bytes());
    key
}

/// What the outcome of a request for a register lies under: areas may share a number, and a request id.
pub(super) fn outcome_key(number: u64, request: RequestId, id: &Id) -> [u8; 56] {
    let mut key = [0; 56];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..24].copy_from_slice(&request.0.to_be_bytes());
    key[24..].copy_from_slice(id.as_bytes());
    key
}

/// The stored form of a version.
pub(super) fn version_bytes(version: Version) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&version.epoch.to_be_bytes());
    bytes[8..].copy_from_slice(&version.sequence.to_be_bytes());
    bytes
}

/// The outcome that was stored under this key in this form.
pub(super) fn outcome_of(id: Id, bytes: &[u8; 16]) -> Outcome {
    let part = |from: usize| {
        let mut part = [0; 8];
        part.copy_from_slice(&bytes[from..from + 8]);
        u64::from_be_bytes(part)
    };
    Outcome { id, version: Version { epoch: part(0), sequence: part(8) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: Content) -> Record {
        let version = Version { epoch: 300, sequence: u64::MAX };
        Record { id: Id::of("k"), key: Some(b"k".to_vec()), content, version, request: RequestId(u128::MAX) }
    }

    fn value(bytes: &[u8]) -> Content {
        Content::Value { bytes: bytes.to_vec(), content_type: "text/plain".to_owned() }
    }

    #[test]
    fn records_come_back_as_they_were() {
        for content in [value(b""), value(&[0xff; 10_000]), Content::Tombstone] {
            for key in [None, Some(Vec::new()), Some(b"k".to_vec())] {
                let record = Record { key, ..record(content.clone()) };
                let stored = encode(&record).unwrap();
                assert_eq!(decode(record.id, &stored), Ok(record));
            }
        }
    }

    /// A file that was written last year reads the same next year: if this fails, raise the format of the file.
    #[test]
    fn the_layout_is_pinned() {
        let version = Version { epoch: 1, sequence: 2 };
        let record = Record { version, request: RequestId(3), ..record(value(b"v")) };
        assert_eq!(encode(&record).unwrap(), b"\x01\x01\x02\x03\x01\x01k\x0atext/plain\x01v");
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_damaged() {
        let stored = encode(&record(value(b"v"))).unwrap();
        for end in 0..stored.len() {
            assert!(decode(Id::ZERO, &stored[..end]).is_err(), "{end}");
        }
        assert!(decode(Id::ZERO, &[&stored[..], b"more"].concat()).is_err());
        assert!(decode(Id::ZERO, &[&[9], &stored[1..]].concat()).is_err());
    }
}
