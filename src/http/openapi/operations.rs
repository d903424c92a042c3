//! Each route: what it takes, and what it answers.

use serde_json::{Value, json};

use super::schemas::named;
use crate::api::{BULK_BODY, BULK_RECORDS};

/// A route.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) tag: &'static str,
    pub(super) name: &'static str,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    pub(super) answers: Vec<(u16, Value)>,
    pub(super) errors: Vec<(u16, String)>,
}

impl Operation {
    fn new(method: &'static str, path: &str, tag: &'static str, name: &'static str) -> Operation {
        let errors = vec![(400, "The request cannot be read, or makes no sense".to_owned())];
        let (parameters, body, answers) = (Vec::new(), None, Vec::new());
        Operation { method, path: path.to_owned(), tag, name, parameters, body, answers, errors }
    }

    fn with(mut self, parameter: Value) -> Operation {
        self.parameters.push(parameter);
        self
    }

    fn takes(mut self, body: Value) -> Operation {
        self.body = Some(body);
        self.fails(413, "That is too large; what was sent is read away first")
    }

    fn answers(mut self, status: u16, answer: Value) -> Operation {
        self.answers.push((status, answer));
        self
    }

    /// Answers 200 with a shape in JSON.
    fn gives(self, shape: &str) -> Operation {
        let description = "As asked";
        self.answers(200, json!({ "description": description, "content": as_json(named(shape)) }))
    }

    fn fails(mut self, status: u16, why: impl Into<String>) -> Operation {
        self.errors.retain(|(known, _)| *known != status);
        self.errors.push((status, why.into()));
        self
    }

    /// Finds an owner and has it do something.
    fn at_owner(self) -> Operation {
        self.fails(429, "Too much is waiting; Retry-After")
            .fails(503, "There is no owner or no majority now; nothing has changed; Retry-After")
    }

    /// Has the owner write something.
    fn writes(self) -> Operation {
        self.with(request_id())
            .at_owner()
            .fails(504, "No outcome in time: it may have happened. Repeat it with the same Request-Id")
            .fails(507, "The owner's disk is full")
    }

    /// May be kept from finding the owner.
    fn may_stay(self) -> Operation {
        self.with(max_forwards()).with(prefer()).of_owner()
    }

    /// Does the owner's part.
    fn of_owner(self) -> Operation {
        self.fails(421, "Another node owns the id; hint is whom to ask")
    }
}

/// All routes.
pub(super) fn all() -> Vec<Operation> {
    [values(), labs(), ring(), owner(), node(), lessons()].into_iter().flatten().collect()
}

fn values() -> Vec<Operation> {
    let found = json!({
        "description": "The value as it was stored",
        "headers": {
            "ETag": header("The version of the value", "^\"[0-9]+-[0-9]+\"$"),
            "Content-Type": header("The type that it was stored with", "."),
        },
        "content": { "*/*": { "schema": { "type": "string", "format": "binary" } } },
    });
    let headers_only = json!({ "description": "The headers of GET", "headers": found["headers"] });
    let unchanged = json!({ "description": "The value has a tag of If-None-Match", "headers": { "ETag": found["headers"]["ETag"] } });
    let gone = json!({ "description": "It is deleted", "headers": { "Request-Id": name_of_wish() } });
    let stored = |description: &str| {
        let headers = json!({ "ETag": found["headers"]["ETag"], "Request-Id": name_of_wish() });
        json!({ "description": description, "headers": headers })
    };
    let missing = "Nothing is stored there";
    let failed = "A condition does not hold; nothing has changed, ETag is that of the value there";
    let raw = json!({ "*/*": { "schema": { "type": "string", "format": "binary" } } });
    vec![
        Operation::new("GET", "/kv/{key}", "values", "get")
            .with(key())
            .with(condition("If-None-Match", "304 if the value has one of these tags"))
            .with(condition("If-Match", "412 unless it has one of these"))
            .answers(200, found.clone())
            .answers(304, unchanged.clone())
            .fails(404, missing)
            .fails(412, failed)
            .may_stay()
            .at_owner(),
        Operation::new("HEAD", "/kv/{key}", "values", "head")
            .with(key())
            .with(condition("If-None-Match", "304 if the value has one of these tags"))
            .answers(200, headers_only)
            .answers(304, unchanged)
            .fails(404, missing)
            .fails(412, failed)
            .may_stay()
            .at_owner(),
        Operation::new("PUT", "/kv/{key}", "values", "put")
            .with(key())
            .with(condition("If-Match", "only if the value has one of these tags, or, with *, if there is one"))
            .with(condition("If-None-Match", "*: only if there is no value"))
            .takes(raw)
            .answers(204, stored("It is stored; without If-None-Match: * it is not told whether the key is new"))
            .answers(201, stored("It is stored under a new key, as If-None-Match: * demanded"))
            .fails(412, failed)
            .fails(415, "Content-Encoding is not kept")
            .may_stay()
            .writes(),
        Operation::new("DELETE", "/kv/{key}", "values", "delete")
            .with(key())
            .with(condition("If-Match", "only if the value has one of these tags, or, with *, if there is one"))
            .answers(204, gone)
            .fails(404, missing)
            .fails(412, failed)
            .may_stay()
            .writes(),
        bulk(),
    ]
}

fn bulk() -> Operation {
    let lines = |shape: &str| json!({ "type": "string", "description": format!("A {shape} in JSON a line") });
    let array =
        |shape: &str| json!({ "type": "array", "items": named(shape), "minItems": 1, "maxItems": BULK_RECORDS });
    let forms = |shape: &str| {
        json!({
            "application/json": { "schema": array(shape) },
            "application/x-ndjson": { "schema": lines(shape) },
        })
    };
    let answer = json!({
        "description": "An answer for each record, in order, in the form of the question. Records of one key are done in order, \
                        others in any, and each ends by itself",
        "content": forms("BulkAnswer"),
    });
    let too_large = format!("More than {} MiB, or more than {BULK_RECORDS} records; nothing was done", BULK_BODY >> 20);
    Operation::new("POST", "/kv", "values", "bulk")
        .takes(forms("BulkRecord"))
        .answers(200, answer)
        .fails(413, too_large)
        .fails(415, "Neither NDJSON nor JSON")
}

fn labs() -> Vec<Operation> {
    let missing = "Nothing is stored there";
    vec![
        Operation::new("POST", "/dht/store", "labs", "store")
            .takes(as_json(named("StoreBody")))
            .gives("Stored")
            .fails(415, "The body is not JSON")
            .writes(),
        what(Operation::new("GET", "/dht/lookup", "labs", "lookup")).gives("LookedUp").fails(404, missing).at_owner(),
        what(Operation::new("DELETE", "/dht/delete", "labs", "remove")).gives("Stored").fails(404, missing).writes(),
        Operation::new("POST", "/dht/join", "labs", "join")
            .takes(as_json(named("Address")))
            .gives("Welcomed")
            .fails(409, "That node is this one, or of another ring")
            .fails(502, "That node does not answer")
            .fails(504, "It has not joined in time"),
        Operation::new("POST", "/dht/leave", "labs", "leave")
            .gives("Left")
            .fails(409, "The last node holds values that nobody could take")
            .fails(503, "It could not hand over, and stays; Retry-After"),
    ]
}

fn ring() -> Vec<Operation> {
    let mode =
        || query("mode", json!({ "enum": ["linear", "fingers", "cached"] }), "how to route; else the node's own way");
    let address =
        || json!({ "application/json": { "schema": named("Address") }, "text/plain": { "schema": named("Address") } });
    let none = "The node knows no such neighbour";
    let mut routes = vec![
        Operation::new("GET", "/find", "ring", "findKey")
            .with(query("key", json!({ "type": "string", "minLength": 1 }), "the key"))
            .with(mode())
            .gives("Found")
            .at_owner(),
        Operation::new("GET", "/find/{id}", "ring", "findId").with(id()).with(mode()).gives("Found").at_owner(),
    ];
    for (path, get, put) in [("/pred", "predecessor", "rewirePredecessor"), ("/succ", "successor", "rewireSuccessor")] {
        routes.push(Operation::new("GET", path, "ring", get).gives("Node").fails(404, none));
        routes.push(
            Operation::new("PUT", path, "ring", put)
                .takes(address())
                .gives("Node")
                .fails(409, "That node is of another ring")
                .fails(502, "That node does not answer"),
        );
    }
    routes
}

fn owner() -> Vec<Operation> {
    vec![
        Operation::new("POST", "/insert", "owner", "insert")
            .takes(as_json(named("StoreBody")))
            .gives("Stored")
            .fails(415, "The body is not JSON")
            .of_owner()
            .writes(),
        Operation::new("GET", "/get/{id}", "owner", "getHere")
            .with(id())
            .gives("LookedUp")
            .fails(404, "Nothing is stored there")
            .of_owner(),
        Operation::new("GET", "/db", "owner", "page")
            .with(query("after", named("Id"), "the `next` of the page before"))
            .with(query("limit", json!({ "type": "integer", "minimum": 1, "default": 100 }), "how many; 1000 at most"))
            .gives("DbPage"),
        Operation::new("DELETE", "/db/{id}", "owner", "deleteHere")
            .with(id())
            .gives("Stored")
            .fails(404, "Nothing is stored there")
            .of_owner()
            .writes(),
    ]
}

fn node() -> Vec<Operation> {
    let binary = json!({ "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } });
    vec![
        Operation::new("GET", "/", "node", "routes").gives("Map"),
        Operation::new("GET", "/nodeinfo", "node", "info").gives("NodeInfo"),
        Operation::new("GET", "/health/live", "node", "live").gives("Health"),
        Operation::new("GET", "/health/ready", "node", "ready")
            .gives("Health")
            .fails(503, "Not ready; detail says why"),
        Operation::new("GET", "/openapi.json", "node", "openapi")
            .answers(200, json!({ "description": "This document", "content": as_json(json!({ "type": "object" })) })),
        Operation::new("POST", "/recover", "node", "recover")
            .takes(as_json(named("Recovery")))
            .gives("Recovered")
            .fails(
                409,
                "A majority answers, not all survivors do, or this node is not one of them; nothing has changed",
            )
            .fails(421, "No member is left, and another node owns the range now; hint is whom to ask")
            .fails(503, "The survivors have carried out what had been voted for; look again; Retry-After"),
        Operation::new("POST", "/peer", "nodes", "peer")
            .takes(binary.clone())
            .answers(200, json!({ "description": "The reply", "content": binary })),
        Operation::new("GET", "/peer", "nodes", "peerCalls")
            .answers(101, json!({ "description": "With Upgrade: chordal-peer, the connection goes on with calls" }))
            .fails(405, "The connection is not to be upgraded to chordal-peer"),
        Operation::new("POST", "/seen", "nodes", "seen")
            .takes(as_json(json!({ "type": "object" })))
            .answers(
                200,
                json!({ "description": "From where the request came", "content": as_json(json!({ "type": "object" })) }),
            )
            .fails(429, "Too many are called back now; Retry-After"),
        Operation::new("POST", "/challenge", "nodes", "challenge")
            .takes(as_json(json!({ "type": "object" })))
            .answers(
                200,
                json!({ "description": "What has the digest", "content": as_json(json!({ "type": "object" })) }),
            )
            .fails(409, "This node has not made that challenge"),
    ]
}

fn lessons() -> Vec<Operation> {
    let text =
        |name: &str, what: &str| parameter(name, "path", true, json!({ "type": "string", "minLength": 1 }), what);
    let elsewhere = "The ring was not made with --lab";
    vec![
        Operation::new("GET", "/store/{value}", "lessons", "storeByGet")
            .with(text("value", "the value, which is its own key; slashes may stand as they are"))
            .gives("Stored")
            .fails(404, elsewhere)
            .at_owner(),
        Operation::new("GET", "/lookup/{key}", "lessons", "lookupByPath")
            .with(text("key", "the key; slashes may stand as they are"))
            .gives("LookedUp")
            .fails(404, "Nothing is stored there, or the ring was not made with --lab")
            .at_owner(),
        Operation::new("GET", "/dht/leave", "lessons", "leaveByGet").gives("Left").fails(405, elsewhere),
    ]
}

/// The value or the key in the query of a route of the labs.
fn what(operation: Operation) -> Operation {
    let text = || json!({ "type": "string", "minLength": 1 });
    operation.with(query("key", text(), "the key; this or `value`")).with(query(
        "value",
        text(),
        "the value, if it was stored without a key",
    ))
}

fn as_json(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn parameter(name: &str, place: &str, is_required: bool, schema: Value, what: &str) -> Value {
    json!({ "name": name, "in": place, "required": is_required, "schema": schema, "description": what })
}

fn query(name: &str, schema: Value, what: &str) -> Value {
    parameter(name, "query", false, schema, what)
}

fn key() -> Value {
    let what = "the key, percent-encoded UTF-8; slashes may stand as they are, which this document cannot say";
    parameter("key", "path", true, json!({ "type": "string", "minLength": 1 }), what)
}

fn id() -> Value {
    parameter("id", "path", true, named("Id"), "SHA-256 of the key")
}

fn condition(name: &str, what: &str) -> Value {
    parameter(name, "header", false, json!({ "type": "string" }), what)
}

fn request_id() -> Value {
    let what = "the name of the wish: sent again with the same one, it is not done again";
    parameter("Request-Id", "header", false, named("RequestId"), what)
}

fn prefer() -> Value {
    let what = "wait=SECONDS: for how long it is tried at most, if that is less than the 10 s of the node";
    parameter("Prefer", "header", false, json!({ "type": "string" }), what)
}

fn max_forwards() -> Value {
    let what = "0: the node does not pass the request on, and says 421 with the owner if it is not that itself";
    parameter("Max-Forwards", "header", false, json!({ "type": "integer", "minimum": 0 }), what)
}

fn name_of_wish() -> Value {
    json!({ "description": "The name of the wish, for sending it again", "schema": named("RequestId") })
}

fn header(description: &str, pattern: &str) -> Value {
    json!({ "description": description, "schema": { "type": "string", "pattern": pattern } })
}
