//! What there is: `GET /`, and the answers where there is nothing.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri};
use serde::Serialize;

use super::{ApiError, Kind};
use crate::api::NodeRef;
use crate::node::Node;

/// The routes that everyone may use: method, path, what it does.
pub(super) const ROUTES: [(&str, &str, &str); 28] = [
    ("GET", "/nodeinfo", "what this node knows of itself and of the ring"),
    ("GET", "/pred", "its predecessor"),
    ("PUT", "/pred", "rewire it by hand: {\"host\", \"port\"} or host:port"),
    ("GET", "/succ", "its successor"),
    ("PUT", "/succ", "rewire it by hand: {\"host\", \"port\"} or host:port"),
    ("GET", "/find/{id}", "the owner of an id and the way there; ?mode=linear|fingers|cached"),
    ("GET", "/find?key=…", "the same for the id of a key"),
    ("GET", "/kv/{key}", "fetch a value as it is, from its owner; If-None-Match: 304 if it has not changed"),
    ("HEAD", "/kv/{key}", "the same without the value"),
    ("PUT", "/kv/{key}", "store the body at its owner; If-Match and If-None-Match: * make it compare-and-set"),
    ("DELETE", "/kv/{key}", "delete a value at its owner; If-Match"),
    ("POST", "/kv", "NDJSON or an array of {\"key\", \"value\"}: store, delete or fetch many at once"),
    ("POST", "/dht/join", "{\"host\", \"port\"}: take that node into the ring"),
    ("POST", "/dht/store", "{\"value\", \"key\"?}: store a value at its owner"),
    ("GET", "/dht/lookup?value=… or ?key=…", "fetch a value from its owner"),
    ("DELETE", "/dht/delete?value=… or ?key=…", "delete a value at its owner"),
    ("POST", "/dht/leave", "hand everything over, leave the ring and stop"),
    (
        "POST",
        "/recover",
        "{\"lo\", \"hi\", \"epoch\", \"survivors\", \"accept_loss\"}: serve a range again that has lost its majority",
    ),
    ("POST", "/insert", "{\"value\", \"key\"?}: store a value that this node owns"),
    ("GET", "/get/{id}", "fetch a value that this node owns"),
    ("GET", "/db", "what this node holds, in id order; ?after=<id>&limit=<1..1000>"),
    ("DELETE", "/db/{id}", "delete a value that this node owns"),
    ("GET", "/health/live", "whether the process answers"),
    ("GET", "/health/ready", "whether it takes part in its ring"),
    ("GET", "/openapi.json", "this interface as an OpenAPI 3.1 document"),
    ("GET", "/store/{value}", "with --lab only: POST /dht/store for browsers"),
    ("GET", "/lookup/{key}", "with --lab only: GET /dht/lookup?key= for browsers"),
    ("GET", "/dht/leave", "with --lab only: POST /dht/leave for browsers"),
];

/// Those of them that only rings for lessons serve.
const OF_LESSONS: [(&str, &str); 3] = [("GET", "/store/{value}"), ("GET", "/lookup/{key}"), ("GET", "/dht/leave")];

/// What `GET /` answers.
#[derive(Debug, Serialize)]
pub(super) struct Map {
    node: NodeRef,
    routes: Vec<Route>,
}

#[derive(Debug, Serialize)]
struct Route {
    method: &'static str,
    path: &'static str,
    what: &'static str,
}

/// `GET /`: the routes.
pub(super) async fn map(State(node): State<Node>) -> Json<Map> {
    let routes = ROUTES.iter().map(|&(method, path, what)| Route { method, path, what }).collect();
    Json(Map { node: NodeRef::from(&node.contact()), routes })
}

/// Any path that is not served.
pub(super) fn no_route(method: &Method, uri: &Uri, is_lab: bool) -> ApiError {
    let served = ROUTES.iter().filter(|(method, path, _)| is_lab || !OF_LESSONS.contains(&(method, path)));
    let routes: Vec<_> = served.map(|(method, path, _)| format!("{method} {path}")).collect();
    let asked: String = uri.path().chars().take(100).collect();
    let detail = format!(
        "{method} {asked} is not served; the routes are: {}; and for nodes GET /peer, POST /peer, POST /seen",
        routes.join(", ")
    );
    ApiError::new(Kind::NoRoute, detail)
}

/// Any method that the path does not take; axum adds `Allow`.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let asked: String = uri.path().chars().take(100).collect();
    let detail =
        format!("{asked} is not served with {method}; Allow names the methods that it takes, GET / what they do");
    ApiError::new(Kind::Method, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routes_that_are_told_are_those_that_are_served() {
        let told = |is_lab| no_route(&Method::GET, &Uri::from_static("/nowhere"), is_lab).problem().detail;
        let for_lessons: Vec<&str> =
            ROUTES.iter().filter(|route| route.2.starts_with("with --lab")).map(|it| it.1).collect();
        assert_eq!(for_lessons, OF_LESSONS.map(|(_, path)| path));
        for (method, path, _) in ROUTES {
            let route = format!("{method} {path},");
            assert!(format!("{},", told(true)).replace(';', ",").contains(&route), "{route}");
            assert_eq!(
                told(false).replace(';', ",").contains(&route),
                !OF_LESSONS.contains(&(method, path)),
                "{route}"
            );
        }
        assert!(told(false).contains("POST /seen"));
    }
}
