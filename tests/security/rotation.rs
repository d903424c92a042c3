//! Keys replaced while the ring runs: nobody is refused meanwhile, and what is retired is refused after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chordal::auth::{KeyRing, Security};
use chordal::client::NodeClient;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::common::{Lab, eventually};
use crate::support::{CLIENT, Key, NODE, Request, closed, secret_file, stranger};

/// The ids of the keys of this role, the one that signs in front.
fn ids(lab: &Lab, role: &str) -> Vec<String> {
    let keys = lab.json(&["secret", "list", "ring.secret"])["keys"].as_array().expect("keys").clone();
    let of_role = keys.iter().filter(|key| key["role"] == role);
    of_role.map(|key: &Value| key["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn keys_are_replaced_without_stopping_the_ring() {
    let lab = Lab::empty();
    lab.ok(&["secret", "new", "ring.secret", "--client", "client.secret"]);
    lab.ok(&["boot", "--secret-file", "ring.secret"]);
    let path = lab.path().join("ring.secret");
    let keys = Arc::new(KeyRing::open(&path).expect("keys"));
    let retired = lab.path().join("retired.secret");
    std::fs::copy(&path, &retired).expect("a copy");
    let (addrs, stop, stored) = (lab.addrs(), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            // Reads the file again as nodes do.
            let client = NodeClient::new().with_security(&Security { keys: Some(keys.clone()), ..Security::default() });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            while !stop.load(Ordering::Relaxed) {
                let number = stored.fetch_add(1, Ordering::Relaxed);
                let (addr, key) = (&addrs[number % addrs.len()], format!("key-{number}"));
                runtime.block_on(client.store(addr, b"v", Some(key.as_bytes()))).expect("it is stored");
            }
        });
        let more = |by: usize| {
            let before = stored.load(Ordering::Relaxed);
            let grown = || (busy.is_finished() || stored.load(Ordering::Relaxed) >= before + by).then_some(());
            eventually("more is stored", Duration::from_secs(30), grown);
        };
        more(20);
        for step in ["add", "promote", "retire"] {
            lab.ok(&["secret", step, "ring.secret", "--client", "client.secret"]);
            for addr in &addrs {
                // Each node must have seen the new file before the next step: what a person waits for, too.
                seen(&lab, addr);
            }
            let signing = format!("key={},", ids(&lab, "node")[0]);
            eventually("the client signs with the first key", Duration::from_secs(20), || {
                let signed = keys.sign("GET", "h:1", "/", &HeaderMap::new(), b"").authorization;
                signed.to_str().is_ok_and(|signed| signed.contains(&signing)).then_some(())
            });
            more(20);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!((ids(&lab, "node").len(), ids(&lab, "client").len()), (1, 1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = NodeClient::new().with_security(&Security {
        keys: Some(Arc::new(KeyRing::open(&retired).expect("keys"))),
        ..Security::default()
    });
    let error = runtime.block_on(client.node_info(&addrs[0])).expect_err("it is retired");
    assert!(error.to_string().contains("no key with the id"), "{error}");
    lab.ok(&["doctor", "--wait", "30s"]);
    lab.ok(&["add"]);
    // Who has no more than the keys for clients has been given the new ones, and still no key of nodes.
    lab.ok(&["--secret-file", "client.secret", "store", "of a client"]);
    let of_clients = lab.json(&["secret", "list", "client.secret"]);
    assert!(of_clients["keys"].as_array().is_some_and(|keys| keys.iter().all(|key| key["role"] == "client")));
}

/// Waits until a node has read the file in its present form: its log says so.
fn seen(lab: &Lab, addr: &str) {
    let keys: Vec<String> = ["node", "client"].iter().flat_map(|role| ids(lab, role)).collect();
    let (log, line) = (lab.node(&lab.name_at(addr))["log"].as_str().expect("a log").to_owned(), keys.join(" "));
    eventually(&format!("{addr} reads the file"), Duration::from_secs(20), || {
        // It looks when it is asked, which its neighbour does all the time.
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains(&line)).then_some(())
    });
}

#[test]
fn a_file_that_became_unusable_changes_nothing() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    let path = lab.path().join("ring.secret");
    let ask = |key: &Key| Request::new("GET", &node.addr, "/nodeinfo").signed(key).send();
    assert_eq!(ask(&CLIENT).status, 200);
    std::fs::write(&path, "[[node]]\nid = 5\n").expect("it is written");
    let warned = || std::fs::read_to_string(&node.log).expect("a log").contains("the keys stay as they were");
    eventually("it is told", Duration::from_secs(20), || {
        assert_eq!(ask(&CLIENT).status, 200);
        warned().then_some(())
    });
    std::fs::remove_file(&path).expect("it is gone");
    assert_eq!(ask(&CLIENT).status, 200);
    let new = Key { id: "c2", secret: [7; 32], ..CLIENT };
    secret_file(lab.path(), "ring.secret", &[NODE, new.clone()]);
    eventually("the new key is taken", Duration::from_secs(20), || (ask(&new).status == 200).then_some(()));
    stranger(&ask(&CLIENT), "no key with the id c");
}
