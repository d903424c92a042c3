//! The routes as they are put together: what a router serves can be asked of it.

use axum::Router;
use axum::handler::Handler;
use axum::routing::MethodFilter;

use crate::node::Node;

/// A router, and what it serves.
#[derive(Default)]
pub(super) struct Table {
    pub(super) router: Router<Node>,
    /// Method and path of each route.
    pub(super) served: Vec<(&'static str, &'static str)>,
}

impl Table {
    /// Serves GET, and HEAD with it.
    pub(super) fn get<H: Handler<T, Node>, T: 'static>(self, path: &'static str, handler: H) -> Table {
        self.on(MethodFilter::GET, "GET", path, handler)
    }

    /// Serves POST.
    pub(super) fn post<H: Handler<T, Node>, T: 'static>(self, path: &'static str, handler: H) -> Table {
        self.on(MethodFilter::POST, "POST", path, handler)
    }

    /// Serves PUT.
    pub(super) fn put<H: Handler<T, Node>, T: 'static>(self, path: &'static str, handler: H) -> Table {
        self.on(MethodFilter::PUT, "PUT", path, handler)
    }

    /// Serves DELETE.
    pub(super) fn delete<H: Handler<T, Node>, T: 'static>(self, path: &'static str, handler: H) -> Table {
        self.on(MethodFilter::DELETE, "DELETE", path, handler)
    }

    /// Answers any method with a refusal; nothing is served there.
    pub(super) fn refuse<H: Handler<T, Node>, T: 'static>(self, path: &'static str, handler: H) -> Table {
        Table { router: self.router.route(path, axum::routing::any(handler)), ..self }
    }

    fn on<H: Handler<T, Node>, T: 'static>(
        mut self,
        filter: MethodFilter,
        method: &'static str,
        path: &'static str,
        handler: H,
    ) -> Table {
        self.served.push((method, path));
        Table { router: self.router.route(path, axum::routing::on(filter, handler)), ..self }
    }
}
