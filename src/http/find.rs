//! findNode: the owner of an id, and the way there.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use chordal_protocol::{Id, Mode};

use super::query::{Params, PathId};
use super::{ApiError, Kind};
use crate::api::Found;
use crate::node::Node;

/// `GET /find/{id}`.
pub(super) async fn by_id(State(node): State<Node>, PathId(id): PathId, uri: Uri) -> Result<Json<Found>, ApiError> {
    let mode = mode(&mut Params::of(&uri, &["mode"])?)?;
    Ok(Json(node.find(id, mode).await?))
}

/// `GET /find?key=text`.
pub(super) async fn by_key(State(node): State<Node>, uri: Uri) -> Result<Json<Found>, ApiError> {
    let mut params = Params::of(&uri, &["key", "mode"])?;
    let mode = mode(&mut params)?;
    match params.take("key") {
        Some(key) if !key.is_empty() => Ok(Json(node.find(Id::of(key), mode).await?)),
        _ => Err(ApiError::new(
            Kind::Malformed,
            "say what to find: GET /find?key=text, or GET /find/{id} with 64 hex digits",
        )),
    }
}

fn mode(params: &mut Params) -> Result<Option<Mode>, ApiError> {
    params.parse("mode", "one of linear, fingers, cached")
}
