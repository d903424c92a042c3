//! The HTTP interface of a node: the routes of the labs, one file per resource, and the server that bounds them.
//!
//! [`router`] is what a node answers, [`serve`] runs a router within [`Limits`], and every error that leaves either is an
//! [`ApiError`], on the wire `application/problem+json`. Shapes are in [`crate::api`].

mod address;
mod around;
mod body;
mod connection;
mod content;
mod db;
mod error;
mod find;
mod health;
mod lab;
mod limits;
mod map;
mod membership;
mod neighbours;
mod owner;
mod peer;
mod places;
mod query;
mod server;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::routing::{delete, get, post};

use crate::node::Node;
pub(crate) use content::KEY_LIMIT;
pub use error::{ApiError, Kind};
pub use limits::Limits;
pub use peer::PEER_BODY;
pub(crate) use query::Params;
pub use server::serve;

/// The routes of `node`.
///
/// Whatever is asked, errors are problem documents and bodies are bounded. [`routes`] has the same without the layer and
/// the fallbacks, for those who add routes of their own and then call [`finish`].
pub fn router(node: Node) -> Router {
    finish(routes().with_state(node))
}

/// The routes of the labs, and those that nodes use among themselves.
pub fn routes() -> Router<Node> {
    Router::new()
        .route("/", get(map::map))
        .route("/nodeinfo", get(neighbours::info))
        .route("/pred", get(neighbours::predecessor).put(neighbours::rewire_predecessor))
        .route("/succ", get(neighbours::successor).put(neighbours::rewire_successor))
        .route("/find", get(find::by_key))
        .route("/find/{id}", get(find::by_id))
        .route("/dht/join", post(membership::join))
        .route("/dht/leave", post(membership::leave).get(lab::leave))
        .route("/dht/store", post(content::store))
        .route("/dht/lookup", get(content::lookup))
        .route("/dht/delete", delete(content::delete))
        .route("/insert", post(owner::insert))
        .route("/get/{id}", get(owner::get))
        .route("/db", get(db::page))
        .route("/db/{id}", delete(owner::delete))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/peer", post(peer::answer))
        .route("/store/{*value}", get(lab::store))
        .route("/lookup/{*key}", get(lab::lookup))
}

/// Adds what every router of ours has: answers for unknown paths and methods, and the layer that logs requests, reads
/// unwanted bodies away and keeps errors readable.
pub fn finish(router: Router) -> Router {
    layered(router.fallback(map::no_route).method_not_allowed_fallback(map::wrong_method))
}

/// The same without the answers for unknown paths and methods, for routers that have their own.
pub(crate) fn layered(router: Router) -> Router {
    router.layer(axum::middleware::from_fn(around::around))
}
