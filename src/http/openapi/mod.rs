//! `GET /openapi.json`: the interface as an OpenAPI 3.1 document, for programs that make clients or pages of it.
//!
//! `operations` has the routes, `schemas` the shapes. A test compares the routes with those that the router serves, and
//! tests/requests.rs holds real answers against the shapes.

mod operations;
mod schemas;

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::authenticate::{OF_ALL, needed};
use super::map::ROUTES;
use crate::auth::Role;
use operations::Operation;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| build().to_string());

/// `GET /openapi.json`.
pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

fn build() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations::all() {
        let described = describe(&operation);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.to_ascii_lowercase()] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Chordal",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT", "identifier": "MIT" },
            "description": "A node of a distributed hash table. Every node takes every request; the routes of the owner say so \
                            where they don't. Errors are problem documents (RFC 9457), whose detail says what to do.",
        },
        "servers": [{ "url": "/" }],
        "tags": tags(),
        "paths": paths,
        "components": { "schemas": schemas::all() },
    })
}

fn tags() -> Value {
    let tag = |name: &str, description: &str| json!({ "name": name, "description": description });
    json!([
        tag("values", "Values as they are, in HTTP's own words."),
        tag("labs", "The interface of the labs: values in JSON."),
        tag("ring", "Who is where, and who owns what."),
        tag("owner", "What a node does by itself as the owner of an id; 421 names the owner where it is another."),
        tag("node", "The node itself."),
        tag("lessons", "GETs that change something: only on rings made with --lab."),
        tag("nodes", "What nodes ask each other."),
    ])
}

fn describe(operation: &Operation) -> Value {
    let mut responses: Map<String, Value> = Map::new();
    for (status, answer) in &operation.answers {
        responses.insert(status.to_string(), answer.clone());
    }
    let error = |why: &str| if operation.method == "HEAD" { json!({ "description": why }) } else { problem(why) };
    for (status, why) in operation.errors.iter().chain(&refusals(operation)) {
        responses.insert(status.to_string(), error(why));
    }
    responses.insert("default".to_owned(), error("An error"));
    let mut described = json!({
        "tags": [operation.tag],
        "operationId": operation.name,
        "summary": summary(operation),
        "responses": responses,
    });
    if !operation.parameters.is_empty() {
        described["parameters"] = json!(operation.parameters);
    }
    if OF_ALL.contains(&operation.path.as_str()) {
        described["description"] = json!(
            "Needs no signature and no role. On a ring of TLS the connection needs a certificate of the ring, of any role, as each does."
        );
    }
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({ "required": true, "content": body });
    }
    described
}

/// How the layer in front of the routes may refuse a request, and a server one that comes too soon after others.
fn refusals(operation: &Operation) -> Vec<(u16, String)> {
    let too_many = "On a closed ring: this client has sent too many requests, or has too many connections; Retry-After";
    let known = operation.errors.iter().find(|(status, _)| *status == 429);
    let too_many = known.map_or_else(|| too_many.to_owned(), |(_, why)| format!("{why}. {too_many}"));
    let mut refusals = vec![(429, too_many)];
    let method = operation.method.parse().expect("it is a method");
    if let Some(role) = needed(&method, &operation.path) {
        let mut may = vec![Role::Reader, Role::Client, Role::Node];
        may.retain(|known| *known >= role);
        let may: Vec<String> = may.iter().map(Role::to_string).collect();
        let stranger =
            "On a ring with a secret: no key of the ring has signed the request, or not just this one just now";
        let forbidden = format!(
            "On a closed ring: the key or the certificate has another role than this takes: {}",
            may.join(", ")
        );
        refusals.extend([(401, stranger.to_owned()), (403, forbidden)]);
    }
    refusals
}

/// What the map of the node says of a route.
fn summary(operation: &Operation) -> &'static str {
    let path = |known: &'static str| known.split(['?', ' ']).next().unwrap_or_default();
    let known = ROUTES.iter().find(|(method, known, _)| *method == operation.method && path(known) == operation.path);
    match known {
        Some((_, _, what)) => what,
        None if operation.path == "/" => "the routes",
        None if operation.path == "/seen" => "from where this node sees the one that asks, which it may call back",
        None if operation.path == "/challenge" => "proves that this is the node that wants to be called back",
        None => "a message of another node, in a form of their own",
    }
}

fn problem(why: &str) -> Value {
    json!({
        "description": why,
        "content": { "application/problem+json": { "schema": schemas::named("Problem") } },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Method and path of all operations.
    fn documented() -> BTreeSet<(String, String)> {
        let mut documented = BTreeSet::new();
        for (path, methods) in build()["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                documented.insert((method.to_ascii_uppercase(), path.clone()));
            }
        }
        documented
    }

    #[test]
    fn every_route_of_the_router_is_documented_and_no_other() {
        let served = crate::http::table().served;
        let mut served: BTreeSet<(String, String)> =
            served.into_iter().map(|(method, path)| (method.to_owned(), path.replace("{*", "{"))).collect();
        // axum answers HEAD wherever it answers GET; where that is of use it is documented.
        assert!(served.insert(("HEAD".to_owned(), "/kv/{key}".to_owned())));
        assert_eq!(documented(), served);
    }

    #[test]
    fn every_route_of_the_map_is_documented() {
        let mapped: BTreeSet<(String, String)> = ROUTES
            .iter()
            .map(|(method, path, _)| {
                ((*method).to_owned(), path.split(['?', ' ']).next().unwrap_or_default().to_owned())
            })
            .collect();
        let hidden = [("GET", "/"), ("POST", "/peer"), ("GET", "/peer"), ("POST", "/seen"), ("POST", "/challenge")]
            .map(|(method, path)| (method.to_owned(), path.to_owned()));
        let expected: BTreeSet<_> = mapped.into_iter().chain(hidden).collect();
        assert_eq!(documented(), expected);
    }

    #[test]
    fn every_route_says_how_a_closed_ring_refuses() {
        let for_all = crate::http::authenticate::OF_ALL;
        for (path, methods) in build()["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let says = |status: &str| operation["responses"][status]["description"].as_str().map(str::to_owned);
                assert!(
                    says("429").is_some_and(|why| why.contains("this client has sent too many")),
                    "{method} {path}"
                );
                let refuses = !for_all.contains(&path.as_str());
                assert_eq!((says("401").is_some(), says("403").is_some()), (refuses, refuses), "{method} {path}");
            }
        }
        let forbidden = |path: &str, method: &str| build()["paths"][path][method]["responses"]["403"].to_string();
        assert!(forbidden("/kv/{key}", "get").contains("takes: reader, client, node"));
        assert!(forbidden("/kv/{key}", "put").contains("takes: client, node"));
        assert!(forbidden("/peer", "post").contains("takes: node"));
        let busy = build()["paths"]["/kv/{key}"]["put"]["responses"]["429"].to_string();
        assert!(busy.contains("Too much is waiting") && busy.contains("too many requests"), "{busy}");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_shape_is_used() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").map(|to| to.as_str().unwrap().to_owned()));
                    fields.values().for_each(|field| references(field, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = build();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let shapes: BTreeSet<String> = document["components"]["schemas"]
            .as_object()
            .unwrap()
            .keys()
            .map(|name| format!("#/components/schemas/{name}"))
            .collect();
        assert_eq!(found, shapes);
    }

    #[test]
    fn each_operation_has_a_name_of_its_own_and_its_parameters() {
        let mut names = BTreeSet::new();
        for (path, methods) in build()["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{path}");
                let in_path: BTreeSet<&str> =
                    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let told: Vec<&Value> = parameters.iter().filter(|it| it["in"] == "path").collect();
                let told: BTreeSet<&str> = told.iter().map(|it| it["name"].as_str().unwrap()).collect();
                assert_eq!(told, in_path, "{method} {path}");
            }
        }
    }
}
