//! What nodes ask each other.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;

use super::authenticate::{Ends, Gate, called};
use super::calls::{Calls, Onward};
use super::{ApiError, Kind, body};
use crate::node::{Node, frames};

/// Where nodes are asked.
pub(super) const PEER: &str = "/peer";

/// The largest question that one node may ask another, in bytes. The largest has what was written lately in a view that
/// changes: what is not known to be at all members, some 32 MiB at most from each of them. What is older travels in pages.
pub const PEER_BODY: usize = 128 << 20;

/// `POST /peer`: an encoded question, an encoded answer.
pub(super) async fn answer(State(node): State<Node>, request: Request) -> Result<impl IntoResponse, ApiError> {
    let envelope = body::read(request, PEER_BODY).await?;
    let answer = node.answer(envelope).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], answer))
}

/// `GET /peer`: the connection becomes one for calls. What then travels on it is described in `node::frames`.
pub(super) async fn open(State(node): State<Node>, mut request: Request) -> Result<Response, ApiError> {
    let asked = request.method() == Method::GET && wants_calls(request.headers());
    let ends = request.extensions().get::<Ends>().copied();
    // The latter two are missing where another server than ours runs these routes.
    let (true, Some(upgrade), Some(ends)) = (asked, request.extensions_mut().remove::<OnUpgrade>(), ends) else {
        let how = format!(
            "GET /peer is for nodes, which have the connection upgraded to {}; POST /peer takes a message",
            frames::PROTOCOL
        );
        return Err(ApiError::new(Kind::Method, how).allowing("POST"));
    };
    let gate = request.extensions().get::<Arc<Gate>>().cloned();
    let host = called(&request, if ends.role.is_some() { ":443" } else { ":80" });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static(frames::PROTOCOL));
    response.extensions_mut().insert(Onward { upgrade, calls: Calls { node, gate, ends, host } });
    Ok(response)
}

/// Whether the sender wants to go on with calls.
fn wants_calls(headers: &HeaderMap) -> bool {
    let names = |header: header::HeaderName, name: &str| {
        let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|each| each.trim().eq_ignore_ascii_case(name))
    };
    names(header::CONNECTION, "upgrade") && names(header::UPGRADE, frames::PROTOCOL)
}
