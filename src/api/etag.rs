//! The version of a value as HTTP writes it.

use std::fmt;
use std::str::FromStr;

use chordal_protocol::Version;
use serde::{Deserialize, Serialize};

/// An entity tag: the version of a value in quotes, `"3-14"` (epoch, hyphen, sequence). It is strong: two values of one key with
/// the same tag are the same bytes of the same type. As text, and in JSON, it stands with its quotes, so that it can be passed on
/// in `If-Match` as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ETag(pub Version);

impl From<Version> for ETag {
    fn from(version: Version) -> ETag {
        ETag(version)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}-{}\"", self.0.epoch, self.0.sequence)
    }
}

/// The text is not an entity tag of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tag is two numbers with a hyphen between them, in quotes, such as \"3-14\"")]
pub struct ParseETagError;

impl FromStr for ETag {
    type Err = ParseETagError;

    /// Reads `"3-14"` as it is written, and nothing else that would mean the same numbers: tags are compared byte by byte.
    fn from_str(text: &str) -> Result<ETag, ParseETagError> {
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or(ParseETagError)?;
        let (epoch, sequence) = bare.split_once('-').ok_or(ParseETagError)?;
        let tag = match (epoch.parse(), sequence.parse()) {
            (Ok(epoch), Ok(sequence)) => ETag(Version { epoch, sequence }),
            _ => return Err(ParseETagError),
        };
        if tag.to_string() == text { Ok(tag) } else { Err(ParseETagError) }
    }
}

impl Serialize for ETag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ETag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<ETag, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_read_back_and_nothing_else_does() {
        let tag = ETag(Version { epoch: 3, sequence: 14 });
        assert_eq!(tag.to_string(), "\"3-14\"");
        assert_eq!("\"3-14\"".parse(), Ok(tag));
        assert_eq!(serde_json::to_string(&tag).unwrap(), r#""\"3-14\"""#);
        assert_eq!(serde_json::from_str::<ETag>(r#""\"3-14\"""#).unwrap(), tag);
        for bad in
            ["", "3-14", "\"3-14", "\"3.14\"", "\"03-14\"", "\"3-+14\"", "\"3-14 \"", "W/\"3-14\"", "\"a-b\"", "\""]
        {
            assert_eq!(bad.parse::<ETag>(), Err(ParseETagError), "{bad}");
        }
    }
}
