//! The auxiliary routes: what a node does as the owner of an id, or refuses with a hint to who that is.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;

use super::query::PathId;
use super::{ApiError, content, request_id};
use crate::api::{LookedUp, Stored};
use crate::node::{Node, deletion};

/// `POST /insert`.
pub(super) async fn insert(State(node): State<Node>, request: Request) -> Result<Json<Stored>, ApiError> {
    let wish = content::wish(&node, request).await?;
    let id = wish.id;
    content::stored(id, node.write_here(wish).await?, &node.contact(), 0)
}

/// `GET /get/{id}`.
pub(super) async fn get(State(node): State<Node>, PathId(id): PathId) -> Result<Json<LookedUp>, ApiError> {
    content::looked_up(id, node.read_here(id).await?, &node.contact(), 0)
}

/// `DELETE /db/{id}`.
pub(super) async fn delete(
    State(node): State<Node>,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Json<Stored>, ApiError> {
    let deletion = deletion(id, request_id::of_or_new(&headers)?);
    content::stored(id, node.write_here(deletion).await?, &node.contact(), 0)
}
