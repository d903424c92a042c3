//! The request collection in docs/requests: every request in it is sent to a real ring, and must be answered as its first
//! example says, in the shapes that /openapi.json gives. What the collection holds and what a node serves are the same.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Daemon, Described, Lab, Raw, get_json, raw};
use serde_json::Value;

const COLLECTION: &str = include_str!("../docs/requests/chordal.postman_collection.json");

/// The folder that only a ring for lessons serves.
const LESSONS: &str = "For lessons";

/// One request of the collection, with its first example.
#[derive(Debug)]
struct Item {
    folder: String,
    name: String,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
    code: u16,
    example: Example,
}

/// What an answer must be like.
#[derive(Debug)]
enum Example {
    /// JSON with these fields.
    Fields(Value),
    /// A list of JSON values, an array or a line each, with these fields.
    List(Vec<Value>),
    /// This very text.
    Text(String),
}

impl Example {
    fn of(answer: &Value) -> Example {
        let body = text(&answer["body"]);
        let mut headers = answer["header"].as_array().expect("headers").iter();
        let content_type = headers.find(|header| header["key"] == "Content-Type").map(|header| text(&header["value"]));
        if content_type.is_some_and(|named| named.contains("json")) {
            Example::of_json(body.as_bytes())
        } else {
            Example::Text(body)
        }
    }

    fn of_json(body: &[u8]) -> Example {
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(body).into_iter().collect();
        let mut values = values.unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(body)));
        match (values.len(), values.pop()) {
            (1, Some(Value::Array(list))) => Example::List(list),
            (1, Some(value)) => Example::Fields(value),
            (_, last) => Example::List(values.into_iter().chain(last).collect()),
        }
    }

    /// Whether an answer is like this.
    fn is_like(&self, answer: &Raw) -> bool {
        if let Example::Text(text) = self {
            return answer.body == text.as_bytes();
        }
        match (self, Example::of_json(&answer.body)) {
            (Example::Fields(example), Example::Fields(answer)) => fields(&answer) == fields(example),
            (Example::List(examples), Example::List(answers)) => {
                examples.len() == answers.len()
                    && examples.iter().zip(&answers).all(|(example, answer)| fields(example) == fields(answer))
            }
            _ => false,
        }
    }
}

fn collection() -> Value {
    serde_json::from_str(COLLECTION).expect("the collection is JSON")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text, not {value}")).to_owned()
}

fn items() -> Vec<Item> {
    let collection = collection();
    let mut items = Vec::new();
    for folder in collection["item"].as_array().expect("folders") {
        assert!(!text(&folder["description"]).is_empty());
        for item in folder["item"].as_array().expect("requests") {
            let (request, answer) = (&item["request"], &item["response"][0]);
            assert!(!text(&request["description"]).is_empty(), "{item} describes nothing");
            let headers = request["header"].as_array().expect("headers").iter();
            items.push(Item {
                folder: text(&folder["name"]),
                name: text(&item["name"]),
                method: text(&request["method"]),
                url: text(&request["url"]["raw"]),
                headers: headers.map(|header| (text(&header["key"]), text(&header["value"]))).collect(),
                body: request.get("body").map(|body| text(&body["raw"])).unwrap_or_default(),
                code: answer["code"].as_u64().expect("an expected status") as u16,
                example: Example::of(answer),
            });
        }
    }
    items
}

/// Sends the requests of the folders that are wanted, with these values for the variables.
fn replay(wanted: impl Fn(&str) -> bool, ours: &[(&str, &str)]) {
    let collection = collection();
    let mut variables: BTreeMap<String, String> = collection["variable"]
        .as_array()
        .expect("variables")
        .iter()
        .map(|variable| (text(&variable["key"]), text(&variable["value"])))
        .collect();
    for (name, value) in ours {
        assert!(variables.insert((*name).to_owned(), (*value).to_owned()).is_some(), "{name} is not in the collection");
    }
    let fill = |template: &str| {
        let filled = variables
            .iter()
            .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
        assert!(!filled.contains("{{"), "a variable that the collection does not define: {filled}");
        filled
    };
    let mut sent = 0;
    let described = Described::by(&fill("{{host}}:{{port}}"));
    for item in items().iter().filter(|item| wanted(&item.folder)) {
        let url = fill(&item.url);
        let (addr, path) = url.strip_prefix("http://").expect("http").split_once('/').expect("a path");
        let headers: Vec<(&str, &str)> = item.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let answer = raw(&item.method, addr, &format!("/{path}"), &headers, fill(&item.body).as_bytes());
        assert_eq!(answer.status, item.code, "{}: {}: {answer:?}", item.folder, item.name);
        if item.method != "HEAD" {
            assert!(
                item.example.is_like(&answer),
                "{}: {}: {answer:?} is not like {:?}",
                item.folder,
                item.name,
                item.example
            );
        }
        described.check(&item.method, path, &answer);
        sent += 1;
    }
    assert!(sent > 0);
}

fn fields(object: &Value) -> BTreeSet<&String> {
    object.as_object().expect("an object").keys().collect()
}

fn port(addr: &str) -> &str {
    addr.rsplit_once(':').expect("host:port").1
}

#[test]
fn every_request_is_answered_as_its_example_says() {
    let lab = Lab::with_nodes(2);
    let joiner = Daemon::start(lab.path(), &["--memory"]);
    let addrs = lab.addrs();
    let owner = get_json(&addrs[0], "/find?key=colour")["owner"]["port"].to_string();
    let other = addrs.iter().map(|addr| port(addr)).find(|port| *port != owner).expect("the other node");
    let variables = [("port", owner.as_str()), ("other_port", other), ("joiner_port", port(&joiner.addr))];
    replay(|folder| folder != LESSONS, &variables);
    lab.ok(&["doctor", "--wait", "20s"]);
}

#[test]
fn requests_for_lessons_are_answered_on_a_ring_for_lessons() {
    let lab = Lab::empty();
    lab.ok(&["boot", "--lab"]);
    let addrs = lab.addrs();
    let joiner = Daemon::start(lab.path(), &["--memory", "--lab", "--bootstrap", &addrs[0]]);
    let variables = [("port", port(&addrs[0])), ("other_port", port(&addrs[1])), ("joiner_port", port(&joiner.addr))];
    replay(|folder| folder == LESSONS, &variables);
}

#[test]
fn the_collection_has_every_route_and_no_other() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--memory"]);
    let map = get_json(&node.addr, "/");
    let template = |method: &str, path: &str| {
        let path = path.split('?').next().unwrap_or_default().replace("{{id}}", "{id}");
        let first = |prefix: &str| path.starts_with(prefix);
        let path = match () {
            () if first("/kv/") => "/kv/{key}".to_owned(),
            () if first("/store/") => "/store/{value}".to_owned(),
            () if first("/lookup/") => "/lookup/{key}".to_owned(),
            () => path,
        };
        format!("{method} {path}")
    };
    let served: BTreeSet<String> = map["routes"]
        .as_array()
        .expect("routes")
        .iter()
        .map(|route| template(&text(&route["method"]), &text(&route["path"])))
        .chain(["GET /".to_owned()])
        .collect();
    let held: BTreeSet<String> = items()
        .iter()
        .filter(|item| item.folder != "Mistakes")
        .map(|item| {
            let path = item.url.strip_prefix("http://").expect("http").split_once('/').expect("a path").1;
            template(&item.method, &format!("/{path}"))
        })
        .collect();
    assert_eq!(held, served);
}
