//! The one error of the HTTP interface.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::{ETag, NodeRef, Problem};
use crate::auth::SCHEME;
use crate::node::NodeError;
use crate::store::StoreError;

/// The media type of an error, from RFC 9457.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not answered as its sender wished. It becomes an [`api::Problem`](Problem) on the wire, with
/// `Retry-After` where trying again may help, `Allow` where the method was the mistake, and `ETag` where a condition was.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: Kind,
    detail: String,
    hint: Option<NodeRef>,
    allow: Option<&'static str>,
    etag: Option<ETag>,
}

/// The kinds of error, each with a status and a name of its own: `/problems/<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 400: what was sent cannot be read.
    Malformed,
    /// 400: what was sent can be read and makes no sense.
    Invalid,
    /// 401: the request is not signed with a key of the ring.
    Stranger,
    /// 403: it is, but the key is not for that.
    Forbidden,
    /// 403: a page of another site asks, in a browser.
    CrossSite,
    /// 404: no such path.
    NoRoute,
    /// 404: no such value on the ring, or on this node.
    NoValue,
    /// 404: the node knows no such neighbour.
    NoNeighbour,
    /// 405: the path is served, but not with this method.
    Method,
    /// 408: the body came too slowly.
    SlowBody,
    /// 409: something stands in the way.
    Conflict,
    /// 412: a condition of the request does not hold.
    Precondition,
    /// 413: too many bytes.
    TooLarge,
    /// 414: too long a request line.
    LongTarget,
    /// 415: a body of a type that is not read here.
    MediaType,
    /// 421: another node owns the id.
    NotMine,
    /// 429: too much is waiting already.
    Overloaded,
    /// 429: one client asks too often.
    TooMany,
    /// 431: too many bytes of headers, or too many of them.
    LargeHeaders,
    /// 500: a fault of ours.
    Internal,
    /// 500: the disk or the database failed.
    StoreFailed,
    /// 502: a node that was named does not answer.
    Unreachable,
    /// 502: a node that was named answers something else.
    Peer,
    /// 503: not now.
    Unavailable,
    /// 503: the node does not take part in its ring yet, or no longer.
    NotReady,
    /// 503: the node is stopping.
    Stopping,
    /// 504: no outcome within the deadline.
    Deadline,
    /// 507: the disk is full.
    StoreFull,
}

impl Kind {
    /// The status, the name and the title.
    fn describe(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Kind::Malformed => (S::BAD_REQUEST, "malformed", "The request cannot be read"),
            Kind::Invalid => (S::BAD_REQUEST, "invalid", "The request makes no sense"),
            Kind::Stranger => (S::UNAUTHORIZED, "stranger", "The ring is closed to strangers"),
            Kind::Forbidden => (S::FORBIDDEN, "forbidden", "The key is not for that"),
            Kind::CrossSite => (S::FORBIDDEN, "cross-site", "A page of another site asks"),
            Kind::NoRoute => (S::NOT_FOUND, "no-such-route", "There is no such route"),
            Kind::NoValue => (S::NOT_FOUND, "no-such-value", "There is no such value"),
            Kind::NoNeighbour => (S::NOT_FOUND, "no-neighbour", "There is no such neighbour"),
            Kind::Method => (S::METHOD_NOT_ALLOWED, "method", "The route does not take this method"),
            Kind::SlowBody => (S::REQUEST_TIMEOUT, "slow-body", "The body came too slowly"),
            Kind::Conflict => (S::CONFLICT, "conflict", "Something stands in the way"),
            Kind::Precondition => (S::PRECONDITION_FAILED, "precondition", "A condition of the request does not hold"),
            Kind::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "That is too large"),
            Kind::LongTarget => (S::URI_TOO_LONG, "long-target", "The address is too long"),
            Kind::MediaType => (S::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body is of a type that is not read here"),
            Kind::NotMine => (S::MISDIRECTED_REQUEST, "not-mine", "Another node owns this id"),
            Kind::Overloaded => (S::TOO_MANY_REQUESTS, "overloaded", "Too many requests are waiting"),
            Kind::TooMany => (S::TOO_MANY_REQUESTS, "too-many", "This client asks too often"),
            Kind::LargeHeaders => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "large-headers", "The headers are too large"),
            Kind::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "The node made a mistake"),
            Kind::StoreFailed => (S::INTERNAL_SERVER_ERROR, "store-failed", "The store of the node failed"),
            Kind::Unreachable => (S::BAD_GATEWAY, "unreachable", "Another node does not answer"),
            Kind::Peer => (S::BAD_GATEWAY, "peer", "Another node cannot do its part"),
            Kind::Unavailable => (S::SERVICE_UNAVAILABLE, "unavailable", "That cannot be done now"),
            Kind::NotReady => (S::SERVICE_UNAVAILABLE, "not-ready", "The node is not ready"),
            Kind::Stopping => (S::SERVICE_UNAVAILABLE, "stopping", "The node is stopping"),
            Kind::Deadline => (S::GATEWAY_TIMEOUT, "deadline", "No outcome within the deadline"),
            Kind::StoreFull => (S::INSUFFICIENT_STORAGE, "store-full", "The disk of the node is full"),
        }
    }

    /// Whether the same request may well succeed a second later.
    fn is_passing(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::NotReady | Kind::Stopping | Kind::Overloaded | Kind::TooMany)
    }
}

impl ApiError {
    /// An error of this kind. The detail says what went wrong this time, and what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> ApiError {
        ApiError(Box::new(Parts { kind, detail: detail.into(), hint: None, allow: None, etag: None }))
    }

    /// The same, naming the methods that are allowed, such as `"GET, HEAD"`.
    pub fn allowing(mut self, methods: &'static str) -> ApiError {
        self.0.allow = Some(methods);
        self
    }

    /// The same, with the tag of the value that there is.
    pub fn with_tag(mut self, etag: Option<ETag>) -> ApiError {
        self.0.etag = etag;
        self
    }

    /// The tag of the value that there is, if the error tells it.
    pub fn tag(&self) -> Option<ETag> {
        self.0.etag
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// How it stands on the wire.
    pub fn problem(&self) -> Problem {
        let (status, name, title) = self.0.kind.describe();
        Problem {
            kind: format!("/problems/{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.0.detail.clone(),
            hint: self.0.hint.clone(),
        }
    }
}

impl ApiError {
    /// A whole HTTP/1.1 answer, for connections on which no request can be read and that end with it.
    pub(super) fn last_answer(&self) -> Vec<u8> {
        let problem = self.problem();
        // Our own shape has string keys only, which is all that serialising JSON to memory could fail on.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let (status, ..) = self.0.kind.describe();
        let retry = if self.0.kind.is_passing() { "retry-after: 1\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {PROBLEM_JSON}\r\n{retry}content-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> ApiError {
        let said = error.to_string();
        match error {
            NodeError::NotMine { hint } => {
                let mut answer = ApiError::new(Kind::NotMine, said);
                answer.0.hint = hint.as_ref().map(NodeRef::from);
                answer
            }
            NodeError::Unavailable { .. } => ApiError::new(Kind::Unavailable, said),
            NodeError::Deadline { .. } => {
                let advice = "A write may have happened all the same: look before repeating it, or repeat it with the same Request-Id.";
                ApiError::new(Kind::Deadline, format!("{}. {advice}", said.trim_end_matches('.')))
            }
            NodeError::Unreachable { .. } => ApiError::new(Kind::Unreachable, said),
            NodeError::Peer { .. } => ApiError::new(Kind::Peer, said),
            NodeError::Conflict { .. } => ApiError::new(Kind::Conflict, said),
            NodeError::Invalid { .. } => ApiError::new(Kind::Invalid, said),
            NodeError::TooLarge { .. } => ApiError::new(Kind::TooLarge, said),
            NodeError::Overloaded => ApiError::new(Kind::Overloaded, said),
            NodeError::OwnerFull { .. } | NodeError::Store(StoreError::Full(_)) => ApiError::new(Kind::StoreFull, said),
            NodeError::Store(StoreError::Overloaded) => ApiError::new(Kind::Overloaded, said),
            NodeError::Store(StoreError::Closed) => ApiError::new(Kind::Stopping, said),
            NodeError::Store(StoreError::Failed(_) | StoreError::Unusable(_)) => ApiError::new(Kind::StoreFailed, said),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, ..) = self.0.kind.describe();
        let mut response = (status, axum::Json(self.problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.0.kind.is_passing() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.0.kind == Kind::Stranger {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(SCHEME));
        }
        if let Some(methods) = self.0.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        if let Some(etag) = self.0.etag.and_then(|etag| HeaderValue::try_from(etag.to_string()).ok()) {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chordal_protocol::Contact;

    use super::*;

    async fn on_the_wire(error: impl Into<ApiError>) -> (Response<()>, Problem) {
        let (parts, body) = error.into().into_response().into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (Response::from_parts(parts, ()), serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn each_error_of_a_node_has_its_status() {
        let text = || "so".to_owned();
        for (error, status, name, retry) in [
            (NodeError::NotMine { hint: None }, 421, "not-mine", false),
            (NodeError::Unavailable { reason: text() }, 503, "unavailable", true),
            (NodeError::Deadline { waited: Duration::from_secs(3), reason: text() }, 504, "deadline", false),
            (NodeError::Unreachable { addr: text(), reason: text() }, 502, "unreachable", false),
            (NodeError::TooLarge { what: "value", bytes: 2, limit: 1, advice: "" }, 413, "too-large", false),
            (NodeError::Peer { addr: text(), reason: text() }, 502, "peer", false),
            (NodeError::Conflict { reason: text() }, 409, "conflict", false),
            (NodeError::Invalid { reason: text() }, 400, "invalid", false),
            (NodeError::Overloaded, 429, "overloaded", true),
            (NodeError::OwnerFull { owner: text(), reason: text() }, 507, "store-full", false),
            (NodeError::Store(StoreError::Full(text())), 507, "store-full", false),
            (NodeError::Store(StoreError::Overloaded), 429, "overloaded", true),
            (NodeError::Store(StoreError::Closed), 503, "stopping", true),
            (NodeError::Store(StoreError::Failed(text())), 500, "store-failed", false),
            (NodeError::Store(StoreError::Unusable(text())), 500, "store-failed", false),
        ] {
            let (response, problem) = on_the_wire(error).await;
            assert_eq!(response.status().as_u16(), status, "{name}");
            assert_eq!(problem.status, status, "{name}");
            assert_eq!(problem.kind, format!("/problems/{name}"));
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retry, "{name}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
            assert!(!problem.detail.is_empty() && !problem.title.is_empty());
        }
    }

    #[tokio::test]
    async fn not_mine_says_whom_to_ask() {
        let owner = Contact::at("127.0.0.1:9001", "node-1");
        let (_, problem) = on_the_wire(NodeError::NotMine { hint: Some(owner.clone()) }).await;
        assert_eq!(problem.hint, Some(NodeRef::from(&owner)));
        assert!(problem.detail.contains("127.0.0.1:9001"), "{}", problem.detail);
    }

    #[tokio::test]
    async fn a_wrong_method_says_which_are_right() {
        let error = ApiError::new(Kind::Method, "use POST").allowing("POST");
        assert_eq!(error.kind(), Kind::Method);
        let (response, _) = on_the_wire(error).await;
        assert_eq!(response.headers()[header::ALLOW], "POST");
    }
}
