//! What nodes ask each other.

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::IntoResponse;

use super::{ApiError, body};
use crate::node::Node;

/// The largest question that one node may ask another, in bytes. The largest has what was written lately in a view that
/// changes: what is not known to be at all members, some 32 MiB at most from each of them. What is older travels in pages.
pub const PEER_BODY: usize = 128 << 20;

/// `POST /peer`: an encoded question, an encoded answer.
pub(super) async fn answer(State(node): State<Node>, request: Request) -> Result<impl IntoResponse, ApiError> {
    let envelope = body::read(request, PEER_BODY).await?;
    let answer = node.answer(envelope).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], answer))
}
