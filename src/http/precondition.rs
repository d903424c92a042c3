//! Conditions of requests: `If-Match` and `If-None-Match` (RFC 9110, section 13), and the lists of tags in them.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, header};
use chordal_protocol::{Condition, RequestId, Version};

use super::{ApiError, Kind};
use crate::api::ETag;

/// How many tags a header may list.
const TAGS: usize = 16;

/// What a list of tags names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tags {
    /// `*`: any value.
    Any,
    /// These tags.
    These(Vec<Tag>),
}

/// A tag as somebody sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// Whether `W/` stood in front.
    is_weak: bool,
    /// The version, if it is a tag of ours.
    version: Option<Version>,
}

impl Tags {
    /// The tags of a header; `None` if it is not there. Several lines of it are one list.
    pub(super) fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
        let mut lines = headers.get_all(name).iter().peekable();
        if lines.peek().is_none() {
            return Ok(None);
        }
        let lines: Vec<&[u8]> = lines.map(|line| line.as_bytes()).collect();
        Tags::parse(&lines.join(&b","[..]), name).map(Some)
    }

    /// Reads a list of tags; `name` is what it is called in the refusal.
    pub(super) fn parse(list: &[u8], name: impl fmt::Display) -> Result<Tags, ApiError> {
        if list.trim_ascii() == b"*" {
            return Ok(Tags::Any);
        }
        let wrong = |why: &str| {
            let detail =
                format!("{name} cannot be read: {why}; it is *, or tags in quotes such as \"3-14\", as ETag gave them");
            ApiError::new(Kind::Malformed, detail)
        };
        let mut tags = Vec::new();
        let mut rest = behind_empty_elements(list).trim_ascii_end();
        while !rest.is_empty() {
            let (tag, after) = Tag::first_of(rest).ok_or_else(|| wrong("that is no list of tags"))?;
            tags.push(tag);
            if tags.len() > TAGS {
                return Err(wrong(&format!("more than {TAGS} tags")));
            }
            rest = match after.trim_ascii() {
                [] => break,
                // Lists may have empty elements.
                [b',', after @ ..] => behind_empty_elements(after),
                _ => return Err(wrong("no comma between two tags")),
            };
        }
        if tags.is_empty() { Err(wrong("it names nothing")) } else { Ok(Tags::These(tags)) }
    }

    /// Whether `If-None-Match` names the value of this version: a weak tag does as well (section 13.1.2).
    pub(super) fn name_weakly(&self, version: Version) -> bool {
        match self {
            Tags::Any => true,
            Tags::These(tags) => tags.iter().any(|tag| tag.version == Some(version)),
        }
    }

    /// Whether `If-Match` names the value of this version: a weak tag does not (section 13.1.1).
    pub(super) fn name_strongly(&self, version: Version) -> bool {
        match self {
            Tags::Any => true,
            Tags::These(tags) => tags.iter().any(|tag| !tag.is_weak && tag.version == Some(version)),
        }
    }
}

/// What is left of a list behind its empty elements.
fn behind_empty_elements(list: &[u8]) -> &[u8] {
    let empty = list.iter().take_while(|byte| matches!(byte, b',' | b' ' | b'\t')).count();
    &list[empty..]
}

impl Tag {
    /// The tag that a list begins with, and what follows it. Bytes within the quotes are anything but blanks, quotes and
    /// control characters (section 8.8.3).
    fn first_of(list: &[u8]) -> Option<(Tag, &[u8])> {
        let (is_weak, quoted) = match list.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, list),
        };
        let opaque = quoted.strip_prefix(b"\"")?;
        let end = opaque.iter().position(|byte| *byte == b'"')?;
        if !opaque[..end].iter().all(|byte| matches!(byte, 0x21..=0x7e | 0x80..)) {
            return None;
        }
        let text = std::str::from_utf8(&quoted[..end + 2]).unwrap_or_default();
        Some((Tag { is_weak, version: text.parse().ok().map(|ETag(version)| version) }, &opaque[end + 1..]))
    }
}

/// What must be so for a write to happen, as its sender said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Demand {
    /// What the owner can check at once.
    One(Condition),
    /// The value has one of these versions: none of them (only foreign tags were named), or several.
    OneOf(Vec<Version>),
}

impl Demand {
    /// What the headers of a PUT (`absent_may_be_asked`) or a DELETE demand; without any the write may always happen.
    pub(super) fn of(headers: &HeaderMap, absent_may_be_asked: bool) -> Result<Demand, ApiError> {
        let wanted = Tags::of(headers, &header::IF_MATCH)?;
        let unwanted = Tags::of(headers, &header::IF_NONE_MATCH)?;
        Demand::from(wanted, unwanted, absent_may_be_asked)
    }

    /// The same for tags that were read already.
    pub(super) fn from(
        wanted: Option<Tags>,
        unwanted: Option<Tags>,
        absent_may_be_asked: bool,
    ) -> Result<Demand, ApiError> {
        let nonsense = |detail: &str| Err(ApiError::new(Kind::Invalid, detail));
        match (wanted, unwanted) {
            (None, None) => Ok(Demand::One(Condition::Always)),
            (Some(_), Some(_)) => nonsense("If-Match and If-None-Match contradict each other here; send one of them"),
            (None, Some(_)) if !absent_may_be_asked => {
                nonsense("If-None-Match makes no sense here: only what is there can be deleted")
            }
            (None, Some(Tags::Any)) => Ok(Demand::One(Condition::Absent)),
            (None, Some(Tags::These(_))) => {
                nonsense("If-None-Match with tags makes no sense for a write; * stands for: only if nothing is there")
            }
            (Some(Tags::Any), None) => Ok(Demand::One(Condition::Exists)),
            (Some(Tags::These(tags)), None) => {
                let mut versions: Vec<Version> =
                    tags.iter().filter(|tag| !tag.is_weak).filter_map(|tag| tag.version).collect();
                versions.sort_unstable();
                versions.dedup();
                Ok(match versions[..] {
                    [only] => Demand::One(Condition::Is(only)),
                    _ => Demand::OneOf(versions),
                })
            }
        }
    }
}

/// The name of the try for one of several versions. It follows from the name of the wish, so that the wish, sent again, finds
/// each of its tries again; the time in its upper half stays.
pub(super) fn name_of_try(wish: RequestId, version: Version) -> RequestId {
    // Odd multipliers keep versions apart, which differ in few bits.
    let mixed =
        version.epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.sequence.wrapping_mul(0xd6e8_feb8_6659_fd93);
    RequestId(wish.0 ^ u128::from(mixed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(epoch: u64, sequence: u64) -> Version {
        Version { epoch, sequence }
    }

    fn tags(list: &str) -> Result<Tags, Kind> {
        Tags::parse(list.as_bytes(), "If-Match").map_err(|error| error.kind())
    }

    fn demand(headers: &[(&'static str, &'static str)]) -> Result<Demand, Kind> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), axum::http::HeaderValue::from_static(value))
        };
        Demand::of(&headers.iter().map(pair).collect(), true).map_err(|error| error.kind())
    }

    #[test]
    fn lists_of_tags_are_read() {
        let strong = |epoch, sequence| Tag { is_weak: false, version: Some(version(epoch, sequence)) };
        let foreign = Tag { is_weak: false, version: None };
        for (list, expected) in [
            ("\"3-14\"", vec![strong(3, 14)]),
            (" \"3-14\" , \"4-1\"\t", vec![strong(3, 14), strong(4, 1)]),
            ("\"3-14\",,  ,\"4-1\",", vec![strong(3, 14), strong(4, 1)]),
            (", \"3-14\"", vec![strong(3, 14)]),
            ("W/\"3-14\"", vec![Tag { is_weak: true, version: Some(version(3, 14)) }]),
            ("\"a,b\",\"\"", vec![foreign, foreign]),
            ("\"*\"", vec![foreign]),
            ("\"03-14\"", vec![foreign]),
        ] {
            assert_eq!(tags(list), Ok(Tags::These(expected)), "{list}");
        }
        assert_eq!(tags(" * "), Ok(Tags::Any));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        let many = vec!["\"1-1\""; TAGS + 1].join(",");
        for list in [
            "",
            " ",
            ",",
            "3-14",
            "\"3-14",
            "\"3-14\" \"4-1\"",
            "*, \"3-14\"",
            "\"3-14\", *",
            "w/\"1-1\"",
            "\"a b\"",
            "'1-1'",
            &many,
        ] {
            assert_eq!(tags(list), Err(Kind::Malformed), "{list}");
        }
    }

    #[test]
    fn weak_tags_name_a_value_for_reading_only() {
        let list = Tags::parse(b"W/\"3-14\", \"4-1\"", "If-Match").unwrap();
        assert!(list.name_weakly(version(3, 14)) && !list.name_strongly(version(3, 14)));
        assert!(list.name_weakly(version(4, 1)) && list.name_strongly(version(4, 1)));
        assert!(!list.name_weakly(version(5, 1)) && !list.name_strongly(version(5, 1)));
        assert!(Tags::Any.name_strongly(version(1, 1)));
    }

    #[test]
    fn headers_become_conditions() {
        for (headers, expected) in [
            (&[][..], Demand::One(Condition::Always)),
            (&[("if-match", "*")], Demand::One(Condition::Exists)),
            (&[("if-none-match", "*")], Demand::One(Condition::Absent)),
            (&[("if-match", "\"3-14\"")], Demand::One(Condition::Is(version(3, 14)))),
            (&[("if-match", "\"3-14\", \"3-14\", \"x\"")], Demand::One(Condition::Is(version(3, 14)))),
            (&[("if-match", "\"x\"")], Demand::OneOf(vec![])),
            (&[("if-match", "W/\"3-14\"")], Demand::OneOf(vec![])),
            (&[("if-match", "\"4-1\""), ("if-match", "\"3-14\"")], Demand::OneOf(vec![version(3, 14), version(4, 1)])),
        ] {
            assert_eq!(demand(headers), Ok(expected), "{headers:?}");
        }
        for headers in [&[("if-match", "*"), ("if-none-match", "*")][..], &[("if-none-match", "\"3-14\"")]] {
            assert_eq!(demand(headers), Err(Kind::Invalid), "{headers:?}");
        }
        assert_eq!(demand(&[("if-match", "3-14")]), Err(Kind::Malformed));
        let absent = Demand::from(None, Some(Tags::Any), false);
        assert_eq!(absent.unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn tries_have_names_of_their_own() {
        let wish = RequestId(7 << 64);
        let names =
            [version(1, 1), version(1, 2), version(2, 1), version(2, 2)].map(|version| name_of_try(wish, version));
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert!(names.iter().all(|name| name.0 >> 64 == 7 && *name != wish));
        assert_eq!(name_of_try(wish, version(1, 1)), names[0]);
    }
}
