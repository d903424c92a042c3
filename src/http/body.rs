//! Reading the bodies of requests, within bounds of size and time.
//!
//! What is refused here is not lost on its sender: the layer around the routes reads the rest away (see
//! [`around`](super::around)), so that the sender gets to see the refusal.

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::authenticate::WrongBody;
use super::{ApiError, Kind, Limits};

/// The body of a request: at most `limit` bytes (else 413), within the times of its [`Limits`] (else 408).
pub(super) async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let limits = request.extensions().get::<Limits>().copied().unwrap_or_default();
    let body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    collect(body, limit, limits).await
}

/// The body of a request as JSON. A content type other than JSON is a 415, none at all is taken for JSON.
/// `example` shows what the route takes.
pub(super) async fn json<T: DeserializeOwned>(request: Request, limit: usize, example: &str) -> Result<T, ApiError> {
    if !is_json(request.headers()) {
        let detail = format!("this route takes JSON, such as {example}; send it with Content-Type: application/json");
        return Err(ApiError::new(Kind::MediaType, detail));
    }
    let bytes = read(request, limit).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let is_object = bytes.trim_ascii_start().starts_with(b"{");
        let why = if is_object { error.to_string() } else { "it is no JSON object".to_owned() };
        ApiError::new(Kind::Malformed, format!("the body is not what this route takes: {why}; send {example}"))
    })
}

async fn collect(mut body: Body, limit: usize, limits: Limits) -> Result<Bytes, ApiError> {
    let end = Instant::now() + limits.body;
    let mut first = Bytes::new();
    let mut all = Vec::new();
    loop {
        let frame = match timeout_at(end.min(Instant::now() + limits.body_gap), body.frame()).await {
            Err(_) => {
                return Err(ApiError::new(Kind::SlowBody, "the rest of the body did not come in time; send it again"));
            }
            Ok(Some(Err(error))) => return Err(cut_short(&error)),
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(if all.is_empty() { first } else { all.into() }),
        };
        let Ok(chunk) = frame.into_data() else { continue };
        if first.len() + all.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Kind::TooLarge, format!("the body is larger than the {limit} bytes that this route takes"))
}

fn cut_short(error: &axum::Error) -> ApiError {
    // axum wraps an error once more for each body around another.
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| (*error).source());
    if let Some(changed) = causes.find_map(|cause| cause.downcast_ref::<WrongBody>()) {
        return ApiError::new(Kind::Stranger, format!("{changed}; nothing was done"));
    }
    ApiError::new(Kind::Malformed, format!("the body broke off: {error}; nothing was done, send it again"))
}

/// Whether the body is called JSON, or nothing at all.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(named) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = named.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    subtype == "json" || subtype.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use axum::http::HeaderValue;
    use hyper::body::Frame;

    use super::*;

    #[test]
    fn what_counts_as_json() {
        let with = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        assert!(is_json(&HeaderMap::new()));
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(with(good), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "json"] {
            assert!(!with(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let read = |text: &'static str, limit| read(Request::new(Body::from(text)), limit);
        assert_eq!(read("", 0).await.unwrap(), "");
        assert_eq!(read("12345", 5).await.unwrap(), "12345");
        assert_eq!(read("123456", 5).await.unwrap_err().kind(), Kind::TooLarge);
    }

    /// A body in pieces, which ends after them or never.
    struct Pieces(VecDeque<&'static str>, bool);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.0.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
                None if self.1 => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test]
    async fn pieces_are_put_together_and_counted() {
        let pieces = || Request::new(Body::new(Pieces(["12", "", "34", "5"].into(), true)));
        assert_eq!(read(pieces(), 5).await.unwrap(), "12345");
        assert_eq!(read(pieces(), 4).await.unwrap_err().kind(), Kind::TooLarge);
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_is_given_up() {
        let mut request = Request::new(Body::new(Pieces(["1"].into(), false)));
        request.extensions_mut().insert(Limits { body_gap: Duration::from_millis(10), ..Limits::default() });
        assert_eq!(read(request, 5).await.unwrap_err().kind(), Kind::SlowBody);
    }

    #[tokio::test]
    async fn json_that_does_not_fit_is_refused_with_an_example() {
        for body in ["", "{", "[]", "{} x", "\u{7f}"] {
            let request = Request::new(Body::from(body));
            let read = json::<std::collections::BTreeMap<String, String>>(request, 100, "EXAMPLE").await;
            let error = read.unwrap_err();
            assert_eq!(error.kind(), Kind::Malformed, "{body}");
            assert!(error.problem().detail.contains("EXAMPLE"));
        }
        // What it is in Rust is nobody's business.
        for body in ["[]", "1", "[1]"] {
            let read = json::<crate::api::StoreBody>(Request::new(Body::from(body)), 100, "EXAMPLE").await;
            let detail = read.unwrap_err().problem().detail;
            assert_eq!(detail, "the body is not what this route takes: it is no JSON object; send EXAMPLE", "{body}");
        }
    }
}
