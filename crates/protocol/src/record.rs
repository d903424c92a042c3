//! What is stored: a register for each id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Id;

/// When a register was written: the epoch of the view that took the write, and the number of the write in that view.
/// For any key epochs only grow, so versions order all writes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// The epoch of the view.
    pub epoch: u64,
    /// The number of the write within the epoch.
    pub sequence: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

/// The text is not a version such as `3.14`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a version is two numbers with a dot between them, such as 3.14")]
pub struct ParseVersionError;

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Version, ParseVersionError> {
        let (epoch, sequence) = text.split_once('.').ok_or(ParseVersionError)?;
        match (epoch.parse(), sequence.parse()) {
            (Ok(epoch), Ok(sequence)) => Ok(Version { epoch, sequence }),
            _ => Err(ParseVersionError),
        }
    }
}

/// Names one wish of one client, so that asking again does not do it again. The upper 64 bits are the time at which it was
/// minted, in milliseconds since 1970; as text it is 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The text is not 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a request id is 32 hex digits")]
pub struct ParseRequestIdError;

impl FromStr for RequestId {
    type Err = ParseRequestIdError;

    fn from_str(text: &str) -> Result<RequestId, ParseRequestIdError> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        id.map(RequestId).ok_or(ParseRequestIdError)
    }
}

/// What a register holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Content {
    /// Bytes and their media type.
    Value {
        /// The bytes.
        bytes: Vec<u8>,
        /// The media type, such as `text/plain; charset=utf-8`.
        content_type: String,
    },
    /// Nothing any more. It is kept so that an older copy cannot bring the value back.
    Tombstone,
}

impl Content {
    /// How many bytes it has, the media type not counted.
    pub fn len(&self) -> usize {
        match self {
            Content::Value { bytes, .. } => bytes.len(),
            Content::Tombstone => 0,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A register: the newest content of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// SHA-256 of the key.
    pub id: Id,
    /// The key, if it is not the value itself (a value that was stored without a key is its own key).
    pub key: Option<Vec<u8>>,
    /// The newest content.
    pub content: Content,
    /// When that was written.
    pub version: Version,
    /// The request that wrote it.
    pub request: RequestId,
}

impl Record {
    /// The bytes that hash to the id, if they are known: a tombstone of a value that was its own key has lost them.
    pub fn key_bytes(&self) -> Option<&[u8]> {
        match (&self.key, &self.content) {
            (Some(key), _) => Some(key),
            (None, Content::Value { bytes, .. }) => Some(bytes),
            (None, Content::Tombstone) => None,
        }
    }

    /// How many bytes of key and content it has.
    pub fn weight(&self) -> usize {
        self.content.len() + self.key.as_ref().map_or(0, Vec::len)
    }

    /// Whether there is a value.
    pub fn is_live(&self) -> bool {
        matches!(self.content, Content::Value { .. })
    }
}

/// What a client wants done to a register.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Write {
    /// The register.
    pub id: Id,
    /// The key, if it is not the value itself.
    pub key: Option<Vec<u8>>,
    /// What it shall hold.
    pub content: Content,
    /// What must be so for the write to happen.
    pub condition: Condition,
    /// The name of this wish.
    pub request: RequestId,
}

/// What must be so for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is a value.
    Exists,
    /// There is no value.
    Absent,
    /// There is a value, and this is its version.
    Is(Version),
}

impl Condition {
    /// Whether it holds for what is stored now.
    pub fn holds(&self, now: Option<&Record>) -> bool {
        let live = now.filter(|record| record.is_live());
        match self {
            Condition::Always => true,
            Condition::Exists => live.is_some(),
            Condition::Absent => live.is_none(),
            Condition::Is(version) => live.is_some_and(|record| record.version == *version),
        }
    }
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Written {
    /// It is durable, with this version.
    Done(Version),
    /// Its condition did not hold, and nothing changed. The version is that of the value there is, if there is one.
    Refused(Option<Version>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_epoch_first_and_read_back() {
        let version = |epoch, sequence| Version { epoch, sequence };
        assert!(version(1, 9) < version(2, 0));
        assert!(version(2, 0) < version(2, 1));
        assert_eq!("3.14".parse(), Ok(version(3, 14)));
        assert_eq!(version(3, 14).to_string(), "3.14");
        for bad in ["", "3", "3.", ".1", "a.b", "1.2.3", "-1.2"] {
            assert_eq!(bad.parse::<Version>(), Err(ParseVersionError), "{bad}");
        }
    }

    #[test]
    fn request_ids_read_back() {
        let id = RequestId(0x0123_4567_89ab_cdef_0000_0000_0000_00ff);
        assert_eq!(id.to_string(), "0123456789abcdef00000000000000ff");
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        for bad in ["", "12", "+123456789abcdef00000000000000ff", "0123456789abcdef00000000000000fg", &"0".repeat(33)] {
            assert_eq!(bad.parse::<RequestId>(), Err(ParseRequestIdError), "{bad}");
        }
    }

    #[test]
    fn conditions_see_a_tombstone_as_nothing() {
        let version = Version { epoch: 1, sequence: 1 };
        let value = Content::Value { bytes: b"v".to_vec(), content_type: String::new() };
        let live = Record { id: Id::of("v"), key: None, content: value, version, request: RequestId(0) };
        let dead = Record { content: Content::Tombstone, ..live.clone() };
        assert_eq!(live.key_bytes(), Some(&b"v"[..]));
        assert_eq!(dead.key_bytes(), None);
        for (condition, on_live, on_dead) in [
            (Condition::Always, true, true),
            (Condition::Exists, true, false),
            (Condition::Absent, false, true),
            (Condition::Is(version), true, false),
            (Condition::Is(Version::default()), false, false),
        ] {
            assert_eq!(condition.holds(Some(&live)), on_live);
            assert_eq!(condition.holds(Some(&dead)), on_dead);
            assert_eq!(condition.holds(None), on_dead);
        }
    }
}
