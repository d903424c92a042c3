//! What nodes ask each other.

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::IntoResponse;

use super::{ApiError, body};
use crate::node::Node;

/// The largest question that one node may ask another, in bytes. What follows a view is staged in one message, so no range may
/// have more content than fits into one.
pub const PEER_BODY: usize = 128 << 20;

/// `POST /peer`: an encoded question, an encoded answer.
pub(super) async fn answer(State(node): State<Node>, request: Request) -> Result<impl IntoResponse, ApiError> {
    let envelope = body::read(request, PEER_BODY).await?;
    let answer = node.answer(envelope).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], answer))
}
