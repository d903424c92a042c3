//! `/kv/{key}`: values as they are, in HTTP's own words, through any node.
//!
//! The rest of the path is the key, percent-encoded; a slash in it may stand as it is. The tag (`ETag`) of a value is its
//! version, and conditions on tags are checked by the owner, at one moment with the write. Clients that know the owner ask it
//! with `Max-Forwards: 0`: who does not own the key then names who does (421), and the client learns.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use chordal_protocol::{Condition, Content, Id, Record, RequestId, Version, Write, Written};

use super::precondition::{Demand, Tags, name_of_try};
use super::query::{Plus, decode};
use super::{ApiError, Kind, body, content, request_id};
use crate::api::ETag;
use crate::node::{Node, NodeError, VALUE_ADVICE, deletion, id_of_key, storing};

/// The longest content type, in bytes.
const LONGEST_TYPE: usize = 255;

/// What a value is that was sent without a type.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// What who asks would like.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// `GET /kv/{key}` and `HEAD /kv/{key}`.
pub(super) async fn get(State(node): State<Node>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let id = id_of_key(key(&uri)?.as_bytes())?;
    let wanted = Tags::of(&headers, &header::IF_MATCH)?;
    let unwanted = Tags::of(&headers, &header::IF_NONE_MATCH)?;
    let record = Reach::of(&headers).read(&node, id).await?;
    let version = record.as_ref().map(|record| record.version);
    if let Some(wanted) = wanted
        && !version.is_some_and(|version| wanted.name_strongly(version))
    {
        return Err(refused(version));
    }
    let Some(record) = record else { return Err(content::no_value(id)) };
    if unwanted.is_some_and(|unwanted| unwanted.name_weakly(record.version)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag(record.version))]).into_response());
    }
    Ok(shown(record))
}

/// `PUT /kv/{key}`.
pub(super) async fn put(state: State<Node>, request: Request) -> Response {
    named(request, |request, name| store(state, request, name)).await
}

/// `DELETE /kv/{key}`.
pub(super) async fn delete(state: State<Node>, request: Request) -> Response {
    named(request, |request, name| remove(state, request, name)).await
}

/// `/kv/`, with any method: no key.
pub(super) async fn no_key() -> ApiError {
    let detail = "the key is missing: /kv/{key}, percent-encoded; an empty text is no key. POST /kv takes many records";
    ApiError::new(Kind::Invalid, detail)
}

/// Answers with the name of the wish, whatever comes of it, so that it can be sent again.
async fn named<Doing>(request: Request, act: impl FnOnce(Request, RequestId) -> Doing) -> Response
where
    Doing: Future<Output = Result<Response, ApiError>>,
{
    let name = match request_id::of_or_new(request.headers()) {
        Ok(name) => name,
        Err(error) => return error.into_response(),
    };
    let mut response = act(request, name).await.into_response();
    response.headers_mut().insert(request_id::REQUEST_ID, request_id::header(name));
    response
}

async fn store(State(node): State<Node>, request: Request, name: RequestId) -> Result<Response, ApiError> {
    let key = key(request.uri())?;
    id_of_key(key.as_bytes())?;
    let (demand, reach) = (Demand::of(request.headers(), true)?, Reach::of(request.headers()));
    let content_type = content_type(request.headers())?;
    let limit = node.value_limit();
    let value = body::read(request, limit).await.map_err(|error| match error.kind() {
        Kind::TooLarge => {
            ApiError::new(Kind::TooLarge, format!("the value has more than {limit} bytes; {VALUE_ADVICE}"))
        }
        _ => error,
    })?;
    let write = storing(value.into(), Some(key.into_bytes()), Some(content_type), node.value_limit(), name)?;
    let is_new = demand == Demand::One(Condition::Absent);
    match write_if(&node, write, demand, reach).await? {
        Written::Done(version) => {
            let status = if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
            Ok((status, [(header::ETAG, tag(version))]).into_response())
        }
        Written::Refused(now) => Err(refused(now)),
    }
}

async fn remove(State(node): State<Node>, request: Request, name: RequestId) -> Result<Response, ApiError> {
    let id = id_of_key(key(request.uri())?.as_bytes())?;
    let demand = match Demand::of(request.headers(), false)? {
        Demand::One(Condition::Always) => None,
        demand => Some(demand),
    };
    let is_conditional = demand.is_some();
    let demand = demand.unwrap_or(Demand::One(Condition::Exists));
    let reach = Reach::of(request.headers());
    match write_if(&node, deletion(id, name), demand, reach).await? {
        Written::Done(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Written::Refused(now) if is_conditional => Err(refused(now)),
        Written::Refused(_) => Err(content::no_value(id)),
    }
}

/// Who shall do what is asked, and for how long it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    /// Whether this node does it, or nobody.
    is_here: bool,
    /// If that is less than the node tries by itself.
    wait: Option<Duration>,
}

impl Reach {
    /// `Max-Forwards: 0` (RFC 9110, section 7.6.2): the request is not passed on. Other numbers are no bound for a lookup.
    /// `Prefer: wait=SECONDS` (RFC 7240, section 4.3, here with fractions too): who asks waits no longer, and wants to know by
    /// then what stands in the way.
    fn of(headers: &HeaderMap) -> Reach {
        let is_here = headers.get(header::MAX_FORWARDS).is_some_and(|most| most == "0");
        let preferred = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        let mut preferences = preferred.flat_map(|value| value.split(',').map(str::trim));
        let wait = preferences.find_map(|preference| preference.strip_prefix("wait=")?.parse().ok());
        Reach { is_here, wait: wait.and_then(|wait| Duration::try_from_secs_f64(wait).ok()) }
    }

    async fn read(self, node: &Node, id: Id) -> Result<Option<Record>, NodeError> {
        if self.is_here { node.read_here_for(id, self.wait).await } else { Ok(node.read_for(id, self.wait).await?.0) }
    }

    async fn write(self, node: &Node, write: Write) -> Result<Written, NodeError> {
        if self.is_here {
            node.write_here_for(write, self.wait).await
        } else {
            Ok(node.write_for(write, self.wait).await?.0)
        }
    }
}

/// Writes if what is demanded is so there.
async fn write_if(node: &Node, write: Write, demand: Demand, reach: Reach) -> Result<Written, NodeError> {
    let versions = match demand {
        Demand::One(condition) => return reach.write(node, Write { condition, ..write }).await,
        Demand::OneOf(versions) => versions,
    };
    // The owner compares with one version at a time, so each has a try. Versions of a key only grow and never come back, so
    // the first that fits is the one that the value has. All are tried, for the wish may have been done by an earlier try.
    let mut last = Written::Refused(None);
    for version in versions {
        let request = name_of_try(write.request, version);
        last = reach.write(node, Write { condition: Condition::Is(version), request, ..write.clone() }).await?;
        if matches!(last, Written::Done(_)) {
            break;
        }
    }
    Ok(last)
}

/// A condition did not hold. The version is that of the value there is, as far as it was looked at.
pub(super) fn refused(now: Option<Version>) -> ApiError {
    let etag = now.map(ETag);
    let detail = match etag {
        Some(etag) => {
            format!("the condition does not hold, and nothing has changed: the value there has the tag {etag}")
        }
        None => "the condition does not hold, and nothing has changed: no value that fits is there".to_owned(),
    };
    ApiError::new(Kind::Precondition, detail).with_tag(etag)
}

/// The key in a path.
fn key(uri: &Uri) -> Result<String, ApiError> {
    if uri.query().is_some() {
        return Err(ApiError::new(Kind::Malformed, "this route has no parameters; a ? within a key is written %3F"));
    }
    decode(uri.path().strip_prefix("/kv/").unwrap_or_default(), Plus::IsPlus)
}

/// The type of the value that is sent. What would not be given back as it came is refused.
fn content_type(headers: &HeaderMap) -> Result<String, ApiError> {
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(ApiError::new(
            Kind::Invalid,
            "a value is stored as a whole; Content-Range would store a part of it",
        ));
    }
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let detail =
            "the coding of a value is not kept, so its reader could not undo it; send it without Content-Encoding";
        return Err(ApiError::new(Kind::MediaType, detail));
    }
    match headers.get(header::CONTENT_TYPE) {
        Some(named) => checked_type(named.as_bytes()),
        None => Ok(UNKNOWN_TYPE.to_owned()),
    }
}

/// A content type that a header can carry.
pub(super) fn checked_type(named: &[u8]) -> Result<String, ApiError> {
    let text = std::str::from_utf8(named).unwrap_or_default().trim();
    if text.is_empty() || text.len() > LONGEST_TYPE || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        let detail = format!("a content type is 1 to {LONGEST_TYPE} printable characters of ASCII, such as text/plain");
        return Err(ApiError::new(Kind::Invalid, detail));
    }
    Ok(text.to_owned())
}

/// The answer that carries a value. Whoever stored it may have called it a page: a browser shall neither guess that nor run
/// its scripts as if they were this node's.
fn shown(record: Record) -> Response {
    let version = record.version;
    let Content::Value { bytes, content_type } = record.content else {
        return content::no_value(record.id).into_response();
    };
    let content_type = HeaderValue::try_from(content_type).unwrap_or_else(|_| HeaderValue::from_static(UNKNOWN_TYPE));
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::ETAG, tag(version)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ];
    (headers, Body::from(bytes)).into_response()
}

fn tag(version: Version) -> HeaderValue {
    // Digits, a hyphen and quotes are always a header.
    HeaderValue::try_from(ETag(version).to_string()).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

#[cfg(test)]
mod tests {
    use chordal_protocol::Id;

    use super::*;
    use crate::node::mint;

    #[test]
    fn the_rest_of_the_path_is_the_key() {
        let key = |path: &str| key(&path.parse().unwrap()).map_err(|error| error.kind());
        for (path, expected) in [
            ("/kv/a/b", "a/b"),
            ("/kv/a%2Fb", "a/b"),
            ("/kv/a%2fb", "a/b"),
            ("/kv//", "/"),
            ("/kv/../x", "../x"),
            ("/kv/a+b%20c", "a+b c"),
            ("/kv/%C3%BC", "ü"),
            ("/kv/%00", "\0"),
            ("/kv/%3F%23%25", "?#%"),
            ("/kv/", ""),
        ] {
            assert_eq!(key(path).as_deref(), Ok(expected), "{path}");
        }
        for path in ["/kv/a?b", "/kv/a?", "/kv/%", "/kv/%4", "/kv/%zz", "/kv/%ff", "/kv/%C3"] {
            assert_eq!(key(path), Err(Kind::Malformed), "{path}");
        }
    }

    #[test]
    fn a_content_type_comes_back_or_is_refused() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (header::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            content_type(&pairs.iter().map(pair).collect()).map_err(|error| error.kind())
        };
        assert_eq!(of(&[]).as_deref(), Ok("application/octet-stream"));
        assert_eq!(of(&[("content-type", "Text/HTML; charset=\"x\"")]).as_deref(), Ok("Text/HTML; charset=\"x\""));
        assert_eq!(of(&[("content-encoding", "identity")]).as_deref(), Ok("application/octet-stream"));
        assert_eq!(of(&[("content-encoding", "gzip")]), Err(Kind::MediaType));
        assert_eq!(of(&[("content-range", "bytes 0-1/2")]), Err(Kind::Invalid));
        assert_eq!(of(&[("content-type", "")]), Err(Kind::Invalid));
        for bad in [&b"a\nb"[..], b"\xff", "ü/ü".as_bytes(), &[b'a'; LONGEST_TYPE + 1]] {
            assert_eq!(checked_type(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
        assert_eq!(checked_type(&[b'a'; LONGEST_TYPE]).unwrap().len(), LONGEST_TYPE);
    }

    #[test]
    fn a_page_is_shown_and_does_not_run() {
        let content = Content::Value { bytes: b"<script>".to_vec(), content_type: "text/html".to_owned() };
        let version = Version { epoch: 3, sequence: 14 };
        let record = Record { id: Id::of("k"), key: Some(b"k".to_vec()), content, version, request: mint() };
        let gone = Record { content: Content::Tombstone, ..record.clone() };
        let shown_headers = shown(record).headers().clone();
        for (name, value) in [
            ("content-type", "text/html"),
            ("etag", "\"3-14\""),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
        ] {
            assert_eq!(shown_headers[name], value);
        }
        assert_eq!(shown(gone).status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_refusal_tells_the_tag_there_is() {
        let error = refused(Some(Version { epoch: 3, sequence: 14 }));
        assert_eq!(error.tag(), Some(ETag(Version { epoch: 3, sequence: 14 })));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::PRECONDITION_FAILED);
        assert_eq!(response.headers()[header::ETAG], "\"3-14\"");
        assert!(!refused(None).into_response().headers().contains_key(header::ETAG));
    }
}
