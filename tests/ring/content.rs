//! Values: stored, found, overwritten and deleted through any node, and where they lie.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use crate::common::{Lab, escape, exchange, fields, get, get_json, send, sha256, version, whole_db};
use serde_json::{Value, json};

/// Texts that something on the way could take for something else.
const ODD: [&str; 14] = [
    "two words",
    "a/slash/and//more/",
    "../../etc/passwd",
    "+plus+",
    "100% %41 %zz",
    "a&b=c?d#e;f",
    "Grüße aus Zürich",
    "漢字 と かな 🦀",
    "e\u{301} is not \u{e9}",
    "\"quoted\" 'twice' \\n",
    "{\"json\": [1]}",
    "line\nbreak\ttab",
    " spaces around ",
    "--option",
];

#[test]
fn each_value_lies_with_its_owner_and_nowhere_else() {
    let lab = Lab::with_nodes(6);
    let values = lab.fill(120);
    lab.holds(&values);
    let model = lab.model();
    let mut counted = 0;
    for addr in lab.addrs() {
        let items = whole_db(&addr, 1000);
        for item in &items {
            assert_eq!(fields(item), ["id", "key", "value", "version"]);
            assert_eq!(item["id"], sha256(item["key"].as_str().unwrap()));
            assert_eq!(item["key"], item["value"], "a value without a key is its own key");
            assert_eq!(model.owner(item["id"].as_str().unwrap()), addr);
        }
        assert_eq!(get_json(&addr, "/nodeinfo")["keys"], items.len());
        counted += items.len();
    }
    assert_eq!(counted, 120);
}

#[test]
fn pages_show_every_value_once() {
    let lab = Lab::with_nodes(2);
    let mut values = lab.fill(230);
    values.sort_by_cached_key(|value| sha256(value));
    let addrs = lab.addrs();
    for limit in [1, 7, 100, 1000] {
        let mut seen: Vec<Value> = addrs.iter().flat_map(|addr| whole_db(addr, limit)).collect();
        seen.sort_by_key(|item| item["id"].as_str().unwrap().to_owned());
        let shown: Vec<&str> = seen.iter().map(|item| item["value"].as_str().unwrap()).collect();
        assert_eq!(shown, values, "{limit} at a time");
    }
    let addr = addrs.iter().max_by_key(|addr| whole_db(addr, 1000).len()).unwrap();
    let all = whole_db(addr, 1000);
    assert!(all.len() > 100);
    let usual = get_json(addr, "/db");
    assert_eq!(usual["items"].as_array().unwrap()[..], all[..100], "a hundred, if nobody says");
    assert_eq!(usual["next"], all[99]["id"]);
    // A page that ends with the last value says so, and so does one that begins behind it.
    let exact = get_json(addr, &format!("/db?limit={}", all.len()));
    assert_eq!((exact["items"].as_array().unwrap().len(), &exact["next"]), (all.len(), &Value::Null));
    let behind = get_json(addr, &format!("/db?after={}", all.last().unwrap()["id"].as_str().unwrap()));
    assert_eq!(behind, json!({"items": [], "next": null}));
    for query in ["limit=0", "limit=-1", "limit=x", "after=12", "befor=1"] {
        let answer = get(addr, &format!("/db?{query}"));
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[test]
fn tasks_store_look_up_and_delete_any_text() {
    let lab = Lab::with_nodes(3);
    for text in ODD {
        let stored = lab.json(&["store", "--", text]);
        assert_eq!(fields(&stored), ["hops", "id", "owner", "version", "via"]);
        assert_eq!(stored["id"], sha256(text), "{text:?}");
        lab.ok(&["store", &format!("--key={text}k"), "--", &format!("value of {text}")]);
    }
    for text in ODD {
        let found = lab.json(&["lookup", "--", text]);
        assert_eq!(fields(&found), ["hops", "id", "key", "owner", "value", "version", "via"]);
        assert_eq!((&found["key"], &found["value"]), (&text.into(), &text.into()));
        let found = lab.json(&["lookup", &format!("--key={text}k")]);
        assert_eq!(found["key"], format!("{text}k"));
        assert_eq!(found["value"], format!("value of {text}"));
        let shown = lab.ok(&["lookup", "--", text]);
        assert!(shown.starts_with(text), "{shown:?}");
    }
    for text in ODD {
        lab.ok(&["delete", "--", text]);
        for task in ["lookup", "delete"] {
            let refusal = lab.fails(&[task, "--", text]);
            assert!(refusal.contains("nothing is stored"), "{refusal}");
        }
        lab.ok(&["lookup", &format!("--key={text}k")]);
    }
}

#[test]
fn routes_store_look_up_and_delete_any_text() {
    let lab = Lab::with_nodes(3);
    let addrs = lab.addrs();
    for (number, text) in ODD.iter().enumerate() {
        let (here, there) = (&addrs[number % 3], &addrs[(number + 1) % 3]);
        let stored = send("POST", here, "/dht/store", &json!({ "value": text })).expect(200);
        assert_eq!(stored["id"], sha256(text));
        for parameter in ["value", "key"] {
            let found = get_json(there, &format!("/dht/lookup?{parameter}={}", escape(text)));
            assert_eq!((&found["key"], &found["value"]), (&(*text).into(), &(*text).into()));
            assert_eq!(found["version"], stored["version"]);
        }
        let deleted = exchange("DELETE", there, &format!("/dht/delete?value={}", escape(text)), None).expect(200);
        assert_eq!(deleted["id"], sha256(text));
        get(here, &format!("/dht/lookup?key={}", escape(text))).problem(404, "no-such-value");
    }
    // In a query a plus is a space, as in a form.
    send("POST", &addrs[0], "/dht/store", &json!({ "value": "two words" })).expect(200);
    assert_eq!(get_json(&addrs[1], "/dht/lookup?value=two+words")["value"], "two words");
}

#[test]
fn bytes_that_are_no_text_stand_as_base64() {
    let lab = Lab::with_nodes(3);
    let addrs = lab.addrs();
    let bytes = json!({ "base64": "AP+A/w==" });
    let stored = send("POST", &addrs[0], "/dht/store", &json!({ "value": bytes, "key": "bytes" })).expect(200);
    assert_eq!(stored["id"], sha256("bytes"));
    for addr in &addrs {
        assert_eq!(get_json(addr, "/dht/lookup?key=bytes")["value"], bytes);
    }
    assert_eq!(lab.json(&["lookup", "--key", "bytes"])["value"], bytes);
    lab.ok(&["lookup", "--key", "bytes"]);
    // Without a key the bytes are their own key; only their id goes into a path.
    let stored = send("POST", &addrs[0], "/dht/store", &json!({ "value": bytes })).expect(200);
    let id = sha256([0, 255, 128, 255]);
    assert_eq!(stored["id"], id);
    let owner = crate::common::addr_of(&stored["owner"]);
    let found = get_json(&owner, &format!("/get/{id}"));
    assert_eq!((&found["key"], &found["value"]), (&bytes, &bytes));
    assert!(whole_db(&owner, 10).iter().any(|item| item["id"] == id && item["value"] == bytes));
    // Text may come as base64 too, and is text again afterwards.
    let text = json!({ "value": { "base64": "aGVsbG8=" } });
    assert_eq!(send("POST", &addrs[0], "/dht/store", &text).expect(200)["id"], sha256("hello"));
    assert_eq!(get_json(&addrs[1], "/dht/lookup?value=hello")["value"], "hello");
    send("POST", &addrs[0], "/dht/store", &json!({ "value": { "base64": "%%%" } })).problem(400, "malformed");
}

#[test]
fn an_empty_value_needs_a_key() {
    let lab = Lab::with_nodes(2);
    assert!(lab.fails(&["store", ""]).contains("key"));
    lab.ok(&["store", "", "--key", "empty"]);
    let found = lab.json(&["lookup", "--key", "empty"]);
    assert_eq!((&found["key"], &found["value"]), (&"empty".into(), &"".into()));
    let addr = &lab.addrs()[0];
    for body in [json!({"value": ""}), json!({"value": "v", "key": ""})] {
        send("POST", addr, "/dht/store", &body).problem(400, "invalid");
    }
    for query in ["", "?key=", "?value=", "?key=a&value=b"] {
        get(addr, &format!("/dht/lookup{query}")).problem(400, "invalid");
        exchange("DELETE", addr, &format!("/dht/delete{query}"), None).problem(400, "invalid");
    }
}

#[test]
fn versions_grow_with_every_write() {
    let lab = Lab::with_nodes(4);
    let addrs = lab.addrs();
    let mut last = (0, 0);
    let mut grows = |answer: &Value| {
        assert!(version(answer) > last, "{answer} after {last:?}");
        last = version(answer);
    };
    for number in 0..12 {
        let addr = &addrs[number % 4];
        let stored = send("POST", addr, "/dht/store", &json!({ "value": number.to_string(), "key": "k" })).expect(200);
        grows(&stored);
        let found = get_json(&addrs[(number + 1) % 4], "/dht/lookup?key=k");
        assert_eq!((&found["value"], &found["version"]), (&number.to_string().into(), &stored["version"]));
        if number % 4 == 3 {
            grows(&exchange("DELETE", addr, "/dht/delete?key=k", None).expect(200));
        }
    }
    // The same value again is a write as well.
    lab.ok(&["store", "same", "--key", "k"]);
    grows(&lab.json(&["store", "same", "--key", "k"]));
    // Also after the owner has changed twice: by a joiner, and by its leaving.
    let newcomer = lab.json(&["add"])["nodes"][0]["name"].as_str().unwrap().to_owned();
    grows(&lab.json(&["store", "same", "--key", "k"]));
    lab.ok(&["leave", &newcomer]);
    grows(&lab.json(&["store", "same", "--key", "k"]));
}

#[test]
fn a_lookup_draws_its_way() {
    let lab = Lab::with_nodes(5);
    lab.ok(&["store", "a value"]);
    let model = lab.model();
    let owner = model.owner(&sha256("a value")).to_owned();
    let from = lab.name_at(model.after(&owner, 1));
    let found = lab.json(&["lookup", "a value", "--trace", "--mode", "linear", "--via", &from]);
    assert_eq!((&found["via"], &found["value"]), (&from.as_str().into(), &"a value".into()));
    // The owner stands before the node that is asked, so the linear way leads once round.
    let trace = found["find"]["trace"].as_array().unwrap();
    let names: Vec<&str> = trace.iter().map(|hop| hop["node"]["name"].as_str().unwrap()).collect();
    let expected: Vec<String> = (2..=5).map(|places| lab.name_at(model.after(&owner, places))).collect();
    assert_eq!(names, expected);
    let drawn = lab.ok(&["lookup", "a value", "--trace", "--mode", "linear", "--via", &from]);
    let mut rest = drawn.as_str();
    for name in [from.clone()].iter().chain(&expected) {
        let (_, after) = rest.split_once(name.as_str()).unwrap_or_else(|| panic!("no {name} in order in\n{drawn}"));
        rest = after;
    }
    assert!(drawn.contains("a value"));
    // The way to where nothing is stored is drawn as well, and the exit is not zero.
    let nothing = lab.tasks(&["lookup", "nothing", "--trace"]);
    assert!(!nothing.ok && nothing.stdout.is_empty() && nothing.stderr.contains("was asked"), "{nothing:?}");
}

#[test]
fn what_is_stored_through_one_node_is_found_through_all() {
    let lab = Lab::with_nodes(4);
    let names: Vec<String> = lab.addrs().iter().map(|addr| lab.name_at(addr)).collect();
    for name in &names {
        let value = format!("through {name}");
        assert_eq!(lab.json(&["store", &value, "--via", name])["via"], name.as_str());
        for other in &names {
            assert_eq!(lab.json(&["lookup", &value, "--via", other])["via"], other.as_str());
        }
    }
    assert!(lab.fails(&["lookup", "x", "--via", "nobody"]).contains("nobody"));
}

#[test]
fn storemany_takes_the_lines_of_a_file() {
    let lab = Lab::with_nodes(2);
    std::fs::write(lab.path().join("own.txt"), "one\ntwo\nthree\n").unwrap();
    let stored = lab.json(&["storemany", "3", "--lipsum", "own.txt"]);
    let mut values: Vec<&str> = stored["values"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, ["one", "three", "two"]);
    // A file of the usual name in the current directory goes before the text that is compiled in.
    std::fs::write(lab.path().join("lipsum.txt"), "dolor sit amet\n").unwrap();
    assert_eq!(lab.json(&["storemany", "1"])["values"], json!(["dolor sit amet"]));
    assert!(lab.fails(&["storemany", "1", "--lipsum", "missing.txt"]).contains("missing.txt"));
    // More than there are lines: all different all the same.
    let many = lab.json(&["storemany", "20", "--lipsum", "own.txt"]);
    let different: std::collections::BTreeSet<&str> =
        many["values"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!((many["stored"].as_u64(), different.len()), (Some(20), 20));
}
