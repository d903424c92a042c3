//! The shapes of bodies, as JSON Schema.

use serde_json::{Map, Value, json};

/// A reference to a shape.
pub(super) fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// All shapes.
pub(super) fn all() -> Map<String, Value> {
    let mut all = Map::new();
    for (name, schema) in [basics(), ring(), content(), bulk(), node()].into_iter().flatten() {
        all.insert(name.to_owned(), schema);
    }
    all
}

/// An object with these fields. Those whose name ends with `?` may be missing.
fn object(description: &str, fields: &[(&str, Value)]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in fields {
        match name.strip_suffix('?') {
            Some(name) => properties.insert(name.to_owned(), schema.clone()),
            None => {
                required.push(*name);
                properties.insert((*name).to_owned(), schema.clone())
            }
        };
    }
    json!({
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn pattern(description: &str, pattern: &str) -> Value {
    json!({ "type": "string", "description": description, "pattern": pattern })
}

fn count(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

fn number(description: &str) -> Value {
    json!({ "type": "number", "minimum": 0, "description": description })
}

fn flag(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

fn list(name: &str) -> Value {
    json!({ "type": "array", "items": named(name) })
}

fn nullable(name: &str) -> Value {
    json!({ "anyOf": [named(name), { "type": "null" }] })
}

fn basics() -> Vec<(&'static str, Value)> {
    let base64 = text("standard base64 with padding");
    let bytes = object("Bytes that are not UTF-8", &[("base64", base64)]);
    let address =
        object("A node by its address", &[("name?", text("not needed")), ("host", text("its host")), ("port", port())]);
    let address = {
        let mut address = address;
        address["additionalProperties"] = json!(true);
        address
    };
    vec![
        ("Id", pattern("A place on the circle: 64 hex digits", "^[0-9a-fA-F]{64}$")),
        ("Version", pattern("When a value was written: epoch, dot, sequence", "^[0-9]+\\.[0-9]+$")),
        ("ETag", pattern("The same as a tag: epoch, hyphen, sequence, in quotes", "^\"[0-9]+-[0-9]+\"$")),
        (
            "RequestId",
            pattern("32 hex digits: the time in milliseconds since 1970 (16), and chance (16)", "^[0-9a-fA-F]{32}$"),
        ),
        ("Text", json!({ "anyOf": [text("the bytes, where they are UTF-8"), bytes] })),
        ("Address", json!({ "anyOf": [address, text("host:port, or host:port:name")] })),
        (
            "Node",
            object(
                "A node",
                &[
                    ("name", text("what people call it")),
                    ("id", named("Id")),
                    ("host", text("the host as it was hashed")),
                    ("port", port()),
                ],
            ),
        ),
        (
            "Problem",
            object(
                "An error (RFC 9457)",
                &[
                    ("type", text("a name for the kind, such as /problems/not-mine")),
                    ("title", text("the kind in words")),
                    ("status", json!({ "type": "integer", "minimum": 400, "maximum": 599 })),
                    ("detail", text("what went wrong this time, and what to do")),
                    ("hint?", named("Node")),
                ],
            ),
        ),
    ]
}

fn port() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": 65535 })
}

fn ring() -> Vec<(&'static str, Value)> {
    vec![
        (
            "Found",
            object(
                "The owner of an id, and the way there",
                &[
                    ("id", named("Id")),
                    ("owner", named("Node")),
                    ("hops", count("nodes asked, the owner included")),
                    ("mode", one_of(&["linear", "fingers", "cached"])),
                    ("trace", list("Hop")),
                ],
            ),
        ),
        (
            "Hop",
            object(
                "A node that was asked",
                &[("node", named("Node")), ("ms", number("milliseconds")), ("why", text("why it was chosen"))],
            ),
        ),
        (
            "Welcomed",
            object("Who has joined, and at whom", &[("joined", named("Node")), ("welcomed_by", named("Node"))]),
        ),
        ("Left", object("Who has left", &[("left", named("Node"))])),
        (
            "Recovery",
            object(
                "A range that has lost its majority for good",
                &[
                    ("lo", named("Id")),
                    ("hi", named("Id")),
                    (
                        "epoch?",
                        json!({ "type": ["integer", "null"], "description": "of its view; null where no member is left" }),
                    ),
                    ("survivors?", list("Id")),
                    ("accept_loss?", flag("must be true: what only lost members had is lost")),
                ],
            ),
        ),
        (
            "Recovered",
            object(
                "The view that serves the range now",
                &[
                    ("range", named("Range")),
                    ("epoch", count("its number")),
                    ("forced", flag("whether it was made by force")),
                ],
            ),
        ),
    ]
}

fn content() -> Vec<(&'static str, Value)> {
    vec![
        (
            "StoreBody",
            object("A value, which without a key is its own key", &[("value", named("Text")), ("key?", named("Text"))]),
        ),
        (
            "Stored",
            object(
                "What was written",
                &[
                    ("id", named("Id")),
                    ("owner", named("Node")),
                    ("version", named("Version")),
                    ("hops", count("nodes asked")),
                ],
            ),
        ),
        (
            "LookedUp",
            object(
                "A value",
                &[
                    ("id", named("Id")),
                    ("key", named("Text")),
                    ("value", named("Text")),
                    ("owner", named("Node")),
                    ("version", named("Version")),
                    ("hops", count("nodes asked")),
                ],
            ),
        ),
        ("DbPage", object("A page, in id order", &[("items", list("DbItem")), ("next", nullable("Id"))])),
        (
            "DbItem",
            object(
                "A value on a node",
                &[("id", named("Id")), ("key", named("Text")), ("value", named("Text")), ("version", named("Version"))],
            ),
        ),
    ]
}

fn bulk() -> Vec<(&'static str, Value)> {
    let base64 = || text("the value in standard base64 with padding");
    vec![
        (
            "BulkRecord",
            object(
                "One record; without an `op` it is stored",
                &[
                    ("op?", one_of(&["put", "get", "delete"])),
                    ("key?", named("Text")),
                    ("id?", named("Id")),
                    ("value?", text("the value, where it is text")),
                    ("base64?", base64()),
                    ("content_type?", text("its media type")),
                    ("if_match?", text("a tag, or *")),
                    ("if_none_match?", one_of(&["*"])),
                    ("request_id?", named("RequestId")),
                ],
            ),
        ),
        (
            "BulkAnswer",
            object(
                "How one record ended",
                &[
                    ("status", json!({ "type": "integer", "minimum": 200, "maximum": 599 })),
                    ("key?", named("Text")),
                    ("etag?", named("ETag")),
                    ("value?", text("what was fetched, where it is text")),
                    ("base64?", base64()),
                    ("content_type?", text("its media type")),
                    ("hops?", count("nodes asked")),
                    ("problem?", named("Problem")),
                ],
            ),
        ),
    ]
}

fn node() -> Vec<(&'static str, Value)> {
    vec![
        ("Health", object("How it is", &[("status", one_of(&["live", "ready"]))])),
        ("Map", object("What there is", &[("node", named("Node")), ("routes", list("Route"))])),
        (
            "Route",
            object(
                "A route",
                &[("method", text("the method")), ("path", text("the path")), ("what", text("what it does"))],
            ),
        ),
        ("NodeInfo", node_itself()),
        (
            "Finger",
            object(
                "An entry of a finger table",
                &[("first", count("i of 2^i")), ("last", count("i")), ("node", named("Node"))],
            ),
        ),
        (
            "Range",
            object(
                "A stretch [lo, hi) of the circle",
                &[("lo", named("Id")), ("hi", named("Id")), ("share", number("its share, up to 1"))],
            ),
        ),
        (
            "View",
            open(
                "A range that the node keeps",
                &[
                    "range",
                    "epoch",
                    "members",
                    "primary",
                    "primary_node",
                    "status",
                    "lag",
                    "sealed_s",
                    "forced",
                    "keys",
                ],
            ),
        ),
        ("Handover", open("A range that came or went", &["kind", "range", "peer", "records", "ago_s"])),
    ]
}

/// An object that grows with what nodes do inside; programs should not depend on more than these fields.
fn open(description: &str, required: &[&str]) -> Value {
    json!({
        "type": "object",
        "description": description,
        "properties": { "range": named("Range") },
        "required": required,
    })
}

fn node_itself() -> Value {
    let mut shape = object(
        "What a node knows of itself",
        &[
            ("name", text("what people call it")),
            ("id", named("Id")),
            ("host", text("its host")),
            ("port", port()),
            ("pred", nullable("Node")),
            ("succ", nullable("Node")),
            ("successors", list("Node")),
            ("fingers", list("Finger")),
            ("range", named("Range")),
            ("views", list("View")),
            ("keys", count("values it holds")),
            ("routing", one_of(&["linear", "fingers", "cached"])),
            ("membership", one_of(&["joining", "joined", "leaving", "isolated", "left"])),
            ("ready", flag("whether it does its part")),
            ("ring", json!({ "type": ["string", "null"], "description": "the ring's id" })),
            ("lab", flag("whether the ring is for lessons")),
            ("replication_factor", json!({ "type": ["integer", "null"], "description": "how many keep each value" })),
            ("uptime_s", number("seconds")),
            ("version", text("of chordal")),
            ("wire", count("version of the protocol between nodes")),
            ("pid", count("the process")),
            ("handovers", list("Handover")),
        ],
    );
    shape["additionalProperties"] = json!(true);
    shape
}
