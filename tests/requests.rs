//! The request collection in docs/requests: every request in it is sent to a real ring, and must be answered as its first
//! example says. What the collection holds and what a node serves are the same.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Daemon, Lab, exchange, get_json};
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
    body: Option<(String, String)>,
    code: u16,
    example: Value,
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
            let body = request.get("body").map(|body| (text(&request["header"][0]["value"]), text(&body["raw"])));
            items.push(Item {
                folder: text(&folder["name"]),
                name: text(&item["name"]),
                method: text(&request["method"]),
                url: text(&request["url"]["raw"]),
                body,
                code: answer["code"].as_u64().expect("an expected status") as u16,
                example: serde_json::from_str(&text(&answer["body"])).expect("an example in JSON"),
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
    for item in items().iter().filter(|item| wanted(&item.folder)) {
        let url = fill(&item.url);
        let (addr, path) = url.strip_prefix("http://").expect("http").split_once('/').expect("a path");
        let body = item.body.as_ref().map(|(content_type, body)| (content_type.as_str(), fill(body)));
        let body = body.as_ref().map(|(content_type, body)| (*content_type, body.as_bytes()));
        let answer = exchange(&item.method, addr, &format!("/{path}"), body);
        assert_eq!(answer.status, item.code, "{}: {}: {answer:?}", item.folder, item.name);
        let answer = answer.json();
        assert_eq!(fields(&answer), fields(&item.example), "{}: {}: {answer}", item.folder, item.name);
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
