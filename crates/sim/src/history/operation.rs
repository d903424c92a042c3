//! What a client asked, and what it heard.

use std::fmt;

use chordal_protocol::{Id, RequestId, Version};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Stands for a value: 64 bits of it. Of a million values of one key two share a digest with a chance below 10^-7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of a value's bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Digest {
        let mut head = [0; 8];
        head.copy_from_slice(&Sha256::digest(bytes.as_ref())[..8]);
        Digest(u64::from_be_bytes(head))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Hex digits: many readers of JSON keep no more than 53 bits of a number.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Digest).map_err(serde::de::Error::custom)
    }
}

/// What a client wants of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Its value.
    Get,
    /// That it holds this value. No other write of the key has the same one.
    Put(Digest),
    /// That it holds nothing, if it holds something; if not, the condition has failed.
    Delete,
    /// That it holds this value, if it holds what was expected.
    Cas {
        /// The version of the value that there must be; none if there must be no value.
        expected: Option<Version>,
        /// The new value, as in a put.
        value: Digest,
    },
}

impl Kind {
    /// The value that is written, if one is.
    pub fn value(&self) -> Option<Digest> {
        match self {
            Kind::Put(value) | Kind::Cas { value, .. } => Some(*value),
            Kind::Get | Kind::Delete => None,
        }
    }
}

/// What a client heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What the register holds, and the version that wrote it; none if it holds nothing.
    Read(Option<(Version, Digest)>),
    /// The write has happened, with this version.
    Done(Version),
    /// The condition did not hold and nothing has happened: the version of the value there is, if there is one.
    ConditionFailed(Option<Version>),
    /// Certainly nothing has happened.
    Refused,
    /// A read that was not answered; or a write that may have happened, may yet happen, or may never.
    Unknown,
}

/// One operation of one client. Serialized as JSON it is one line, so that a history can be a file of lines (NDJSON).
///
/// Several operations with one request id are attempts of *one* write: together they happen at most once. A client that asks
/// again may record the whole as one operation, from the first asking to the last answer, or each attempt by itself. If an
/// attempt is without an answer and a later one ends in a failed condition, only the second way tells the truth, for the first
/// attempt may still arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked.
    pub client: u64,
    /// The register.
    pub key: Id,
    /// What was wanted.
    pub kind: Kind,
    /// Names the wish. Means nothing for a get.
    #[serde(with = "request_in_hex")]
    pub request: RequestId,
    /// When it was asked, in any unit.
    pub invoked: u64,
    /// When the client was told or gave up; none if it did neither. The time of an unknown outcome binds nothing.
    pub returned: Option<u64>,
    /// What it was told.
    pub outcome: Outcome,
}

impl Operation {
    /// The end of the time in which it took place.
    pub(super) fn ended(&self) -> u64 {
        match (self.outcome, self.returned) {
            (Outcome::Unknown, _) | (_, None) => u64::MAX,
            (_, Some(returned)) => returned,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let returned = self.returned.map_or("never".to_owned(), |at| at.to_string());
        write!(f, "client {}, {} to {returned}: ", self.client, self.invoked)?;
        match self.kind {
            Kind::Get => f.write_str("get")?,
            Kind::Put(value) => write!(f, "put {value}")?,
            Kind::Delete => f.write_str("delete")?,
            Kind::Cas { expected: None, value } => write!(f, "put {value} if absent")?,
            Kind::Cas { expected: Some(version), value } => write!(f, "put {value} if version {version}")?,
        }
        match self.outcome {
            Outcome::Read(None) => f.write_str(" -> nothing"),
            Outcome::Read(Some((version, value))) => write!(f, " -> {value}, version {version}"),
            Outcome::Done(version) => write!(f, " -> done, version {version}"),
            Outcome::ConditionFailed(None) => f.write_str(" -> condition failed, nothing is there"),
            Outcome::ConditionFailed(Some(version)) => write!(f, " -> condition failed, version {version} is there"),
            Outcome::Refused => f.write_str(" -> refused"),
            Outcome::Unknown => f.write_str(" -> unknown"),
        }
    }
}

mod request_in_hex {
    use super::{Deserialize, Deserializer, RequestId, Serializer};

    pub(super) fn serialize<S: Serializer>(request: &RequestId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:x}", request.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RequestId, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(RequestId).map_err(serde::de::Error::custom)
    }
}
