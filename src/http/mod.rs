//! The HTTP interface of a node: the routes of the labs, one file per resource, and the server that bounds them.
//!
//! [`router`] is what a node answers, [`serve`] runs a router within [`Limits`], and every error that leaves either is an
//! [`ApiError`], on the wire `application/problem+json`. Shapes are in [`crate::api`].

mod address;
mod around;
mod authenticate;
mod body;
mod bulk;
mod calls;
mod connection;
mod content;
mod db;
mod error;
mod find;
mod health;
mod kv;
mod lab;
mod limits;
mod map;
mod membership;
mod neighbours;
mod openapi;
mod owner;
mod peer;
mod places;
mod precondition;
mod query;
mod rates;
mod recover;
mod request_id;
mod seen;
mod server;
mod table;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::http::{Method, Uri};

use crate::node::Node;
pub use error::{ApiError, Kind};
pub use limits::Limits;
pub use peer::PEER_BODY;
pub(crate) use query::Params;
pub(crate) use rates::Rates;
pub(crate) use seen::before_start;
pub use server::{serve, serve_tls};
use table::Table;

/// The routes of `node`.
///
/// Whatever is asked, errors are problem documents and bodies are bounded. [`routes`] has the same without the layer and
/// the fallbacks, for those who add routes of their own and then call [`finish`].
pub fn router(node: Node) -> Router {
    finish(routes().with_state(node.clone()), &node)
}

/// The routes for everyone, and those that nodes use among themselves, open to whoever comes.
pub fn routes() -> Router<Node> {
    table().router
}

/// A route is documented in [`map`] and in [`openapi`]; tests compare.
fn table() -> Table {
    Table::default()
        .get("/", map::map)
        .get("/nodeinfo", neighbours::info)
        .get("/pred", neighbours::predecessor)
        .put("/pred", neighbours::rewire_predecessor)
        .get("/succ", neighbours::successor)
        .put("/succ", neighbours::rewire_successor)
        .get("/find", find::by_key)
        .get("/find/{id}", find::by_id)
        .get("/kv/{*key}", kv::get)
        .put("/kv/{*key}", kv::put)
        .delete("/kv/{*key}", kv::delete)
        .refuse("/kv/", kv::no_key)
        .post("/kv", bulk::many)
        .post("/dht/join", membership::join)
        .post("/dht/leave", membership::leave)
        .post("/dht/store", content::store)
        .get("/dht/lookup", content::lookup)
        .delete("/dht/delete", content::delete)
        .post("/recover", recover::recover)
        .post("/insert", owner::insert)
        .get("/get/{id}", owner::get)
        .get("/db", db::page)
        .delete("/db/{id}", owner::delete)
        .get("/health/live", health::live)
        .get("/health/ready", health::ready)
        .get("/openapi.json", openapi::document)
        .post("/peer", peer::answer)
        .get("/peer", peer::open)
        .post("/seen", seen::seen)
        .post("/challenge", seen::challenge)
        .get("/store/{*value}", lab::store)
        .get("/lookup/{*key}", lab::lookup)
        .get("/dht/leave", lab::leave)
}

/// Adds what every router of a node has: answers for unknown paths and methods, the layer that keeps strangers out if its
/// ring is closed to them, and the one that logs requests, reads unwanted bodies away and keeps errors readable.
pub fn finish(router: Router, node: &Node) -> Router {
    let lab = node.clone();
    let router = answering_all(router, move || lab.is_lab());
    layered(match authenticate::Gate::new(node.security(), &node.contact().addr) {
        Some(gate) => router.layer(axum::middleware::from_fn_with_state(gate, authenticate::authenticate)),
        None => router,
    })
}

fn answering_all(router: Router, is_lab: impl Fn() -> bool + Clone + Send + Sync + 'static) -> Router {
    let no_route = move |method: Method, uri: Uri| async move { map::no_route(&method, &uri, is_lab()) };
    router.fallback(no_route).method_not_allowed_fallback(map::wrong_method)
}

/// What a node says to everything else while it looks for its address.
fn answering_before_start<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    let not_yet = || async {
        ApiError::new(Kind::NotReady, "this node has not started yet: it looks for the address to tell others")
    };
    router.fallback(not_yet).method_not_allowed_fallback(not_yet)
}

/// The same without the answers for unknown paths and methods, for routers that have their own.
pub(crate) fn layered(router: Router) -> Router {
    router.layer(axum::middleware::from_fn(around::around))
}
