//! The library: nodes inside a program, the client of a ring, and the examples.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chordal::client::SourceError;
use chordal::node::{Config, StartError, Upnp};
use chordal::{Client, Condition, Node, NodeError, OperationError, Outcome};
use common::{Daemon, Lab, Place, eventually};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;

/// No wait of these tests is longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(60);

#[path = "../examples/basic.rs"]
mod basic;
#[path = "../examples/counter.rs"]
mod counter;
#[path = "../examples/distributed.rs"]
mod distributed;
#[path = "../examples/watch.rs"]
mod watch;

/// The examples as modules, so that no other program has to be built and run: what they assert must hold.
#[test]
fn the_examples_run() {
    for example in [basic::main, counter::main, distributed::main, watch::main] {
        let _place = Place::take();
        example().unwrap();
    }
}

fn block_on(test: impl Future<Output = ()>) {
    let _place = Place::take();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it ends in time") });
}

/// So many nodes of one ring, ready.
async fn ring(nodes: usize) -> Vec<Node> {
    let mut ring = vec![Node::builder().start().await.expect("a node")];
    while ring.len() < nodes {
        ring.push(Node::builder().bootstrap([ring[0].addr()]).start().await.expect("a node"));
    }
    for node in &ring {
        ready(node).await;
    }
    ring
}

/// Waits longer than a node does before it says that it is late.
async fn ready(node: &Node) {
    while let Err(reason) = node.ready().await {
        println!("{} is not ready yet: {reason}", node.contact());
    }
}

#[test]
fn a_node_is_a_store_in_its_program() {
    block_on(async {
        let node = Node::builder().name("only").start().await.unwrap();
        assert!(node.get("key").await.unwrap().is_none());
        let first = node.put("key", "value").await.unwrap();
        let value = node.get(b"key").await.unwrap().unwrap();
        assert_eq!((value.bytes.as_slice(), value.content_type.as_str()), (&b"value"[..], "text/plain; charset=utf-8"));
        assert_eq!(value.etag, first);
        let Outcome::Done(second) = node.compare_and_set("key", Some(first), vec![0xff]).await.unwrap() else {
            panic!()
        };
        assert_eq!(node.compare_and_set("key", Some(first), "x").await.unwrap(), Outcome::Refused(Some(second)));
        assert_eq!(node.compare_and_set("key", None, "x").await.unwrap(), Outcome::Refused(Some(second)));
        assert!(matches!(node.compare_and_set("new", None, "x").await.unwrap(), Outcome::Done(_)));
        assert_eq!(node.get("key").await.unwrap().unwrap().content_type, "application/octet-stream");
        assert_eq!((node.delete("key").await.unwrap(), node.delete("key").await.unwrap()), (true, false));
        let info = node.info().await.unwrap();
        assert_eq!((info.name.as_str(), info.keys), ("only", 1));
        for (key, value, says) in [
            (vec![], vec![0], "no key"),
            (vec![b'k'; (64 << 10) + 1], vec![0], "65536"),
            (vec![b'k'], vec![0; (1 << 20) + 1], "1048576"),
        ] {
            let error = node.put(&key, value).await.unwrap_err();
            assert!(matches!(error, NodeError::TooLarge { .. } | NodeError::Invalid { .. }), "{error:?}");
            assert!(error.to_string().contains(says), "{error}");
        }
        node.stop().await;
    });
}

#[test]
fn a_dropped_node_stops_and_goes_on_where_it_was() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let start = || Node::builder().data_dir(dir.path().join("node")).start();
        let node = start().await.unwrap();
        let (addr, clone) = (node.addr(), node.clone());
        node.put("key", "value").await.unwrap();
        drop(node);
        assert!(clone.get("key").await.unwrap().is_some(), "one handle is left");
        drop(clone);
        // Whoever takes its port sees that it is gone; its directory is free a moment later.
        let began = Instant::now();
        let again = loop {
            match start().await {
                Ok(node) => break node,
                Err(StartError::Store(_) | StartError::Listen { .. }) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(again.addr(), addr);
        assert_eq!(again.get("key").await.unwrap().unwrap().bytes, b"value");
        again.stop().await;
    });
}

#[test]
fn a_node_that_stands_alone_can_be_taken_into_a_ring() {
    block_on(async {
        let ring = ring(2).await;
        let newcomer = Node::builder().start().await.unwrap();
        newcomer.bootstrap([ring[1].addr()]).await.unwrap();
        newcomer.bootstrap([ring[0].addr()]).await.unwrap();
        assert_eq!(newcomer.info().await.unwrap().ring, ring[0].info().await.unwrap().ring);
        ring[0].put("key", "value").await.unwrap();
        assert_eq!(newcomer.get("key").await.unwrap().unwrap().bytes, b"value");
        // One that holds something is not.
        let owner = Node::builder().start().await.unwrap();
        owner.put("mine", "x").await.unwrap();
        let error = owner.bootstrap([ring[0].addr()]).await.unwrap_err();
        assert!(matches!(error, NodeError::Conflict { .. }), "{error:?}");
        let error = owner.bootstrap(["nobody"]).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:9000"), "{error}");
        assert!(matches!(owner.bootstrap([""; 0]).await, Err(NodeError::Invalid { .. })));
    });
}

#[test]
fn the_client_learns_the_owners_and_asks_them() {
    let lab = Lab::with_nodes(6);
    let addrs = lab.addrs();
    block_on_in(async {
        let client = Client::new([&addrs[0]]).unwrap();
        for round in 0..3 {
            for number in 0..60 {
                client.put(format!("key {number}"), format!("{round}")).await.unwrap();
            }
        }
        let known: BTreeSet<String> = client.nodes().iter().map(|node| node.addr()).collect();
        assert_eq!(known, addrs.iter().cloned().collect());
        for number in 0..60 {
            assert_eq!(client.get(format!("key {number}")).await.unwrap().unwrap().bytes, b"2");
        }
        // Who does not own the key says so to those who ask for that, and nothing happens.
        let node = chordal::client::NodeClient::new();
        let mut refusals = 0;
        for addr in &addrs {
            match node.kv(addr).direct().get(b"key 1").await {
                Ok(value) => assert_eq!(value.unwrap().bytes, b"2"),
                Err(error) => {
                    assert_eq!(error.status(), Some(421), "{error}");
                    refusals += 1;
                }
            }
        }
        assert_eq!(refusals, addrs.len() - 1);
    });
}

/// For tests that have their place already.
fn block_on_in(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it ends in time") });
}

#[test]
fn the_client_gets_over_the_death_of_the_node_it_was_told_of() {
    let lab = Lab::with_nodes(5);
    let addrs = lab.addrs();
    block_on_in(async {
        let client = Client::new([&addrs[0]]).unwrap().with_deadline(PATIENCE);
        let mut tags = Vec::new();
        for number in 0..30 {
            tags.push(client.put(format!("key {number}"), "before").await.unwrap());
        }
        // It hears of the others beside its operations.
        while client.nodes().len() < addrs.len() {
            client.get("key 0").await.unwrap();
        }
        lab.ok(&["kill", &lab.name_at(&addrs[0])]);
        for (number, tag) in tags.into_iter().enumerate() {
            let key = format!("key {number}");
            assert_eq!(client.get(&key).await.unwrap().unwrap().bytes, b"before");
            let done = client.compare_and_set(&key, Some(tag), "after").await.unwrap();
            assert!(matches!(done, Outcome::Done(_)), "each write is done once: {done:?}");
        }
    });
}

/// Stops the process, and waits until it has.
fn pause(node: &Daemon) {
    common::signal(node.child.id().into(), Signal::SIGSTOP);
    eventually("it is stopped", PATIENCE, || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.child.id())).expect("it runs");
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')).then_some(())
    });
}

#[test]
fn deadlines_hold_and_tell_what_is_known() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--memory"]);
    block_on_in(async {
        let deadline = Duration::from_millis(900);
        // Nobody there: nothing has happened.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = Client::new([free.to_string()]).unwrap().with_deadline(deadline);
        let began = Instant::now();
        let error = client.put("key", "value").await.unwrap_err();
        assert!(matches!(error, OperationError::Unavailable { attempts: 2.., .. }), "{error:?}");
        assert!(error.to_string().contains("nothing has changed"), "{error}");
        assert!(began.elapsed() < PATIENCE / 2);
        // A node that hangs may have taken the write.
        let client = Client::new([&node.addr]).unwrap();
        client.put("key", "value").await.unwrap();
        pause(&node);
        let hasty = client.clone().with_deadline(deadline);
        let error = hasty.put("key", "other").await.unwrap_err();
        assert!(matches!(error, OperationError::Unknown { .. }), "{error:?}");
        assert!(matches!(hasty.get("key").await, Err(OperationError::Unavailable { .. })), "a read changes nothing");
        common::signal(node.child.id().into(), Signal::SIGCONT);
        assert!(client.get("key").await.unwrap().is_some(), "it is back");
    });
}

#[test]
fn a_refusal_is_told_at_once() {
    block_on(async {
        let node = Node::builder().value_limit(1 << 20).start().await.unwrap();
        let client = Client::new([node.addr()]).unwrap();
        client.put("large", vec![7; 70_000]).await.unwrap();
        assert_eq!(client.get("large").await.unwrap().unwrap().bytes, [7; 70_000]);
        client.put("large", vec![7; 1 << 20]).await.unwrap();
        for bytes in [(1 << 20) + 1, 10 << 20] {
            let error = client.put("larger", vec![7; bytes]).await.unwrap_err();
            assert_eq!(error.status(), Some(413), "{error:?}");
            assert!(error.to_string().contains("1048576"), "{error}");
        }
        let refused = client.put_if("large", "x", None, Condition::Absent).await.unwrap();
        assert!(matches!(refused, Outcome::Refused(Some(_))));
        for key in [&b""[..], &[b'k'; (64 << 10) + 1]] {
            let error = client.get(key).await.unwrap_err();
            assert!(matches!(error.status(), Some(400 | 413)), "{error:?}");
        }
        // Keys that no path carries.
        for key in [&b"."[..], b"\xff", &[b'k'; 64 << 10]] {
            client.put(key, "x").await.unwrap();
            assert!(client.delete(key).await.unwrap());
        }
    });
}

#[test]
fn contacts_that_name_nobody_are_refused_with_examples() {
    for contacts in [&["junk"][..], &["127.0.0.1:1", "a:b"], &["ftp://x"], &[]] {
        let error: SourceError = Client::new(contacts).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:9000"), "{error}");
    }
}

#[test]
fn a_service_names_the_nodes() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--memory"]);
    let port = node.addr.rsplit_once(':').unwrap().1.to_owned();
    block_on_in(async {
        // The shape that such services have: a list of addresses, names of the DNS among them.
        let answer = format!(r#"{{"initial_peers": ["localhost:{port}", "junk"]}}"#);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/return_dht_address", listener.local_addr().unwrap());
        let router = axum::Router::new().route(
            "/return_dht_address",
            axum::routing::get(|| async { ([("content-type", "application/json")], answer) }),
        );
        tokio::spawn(async { axum::serve(listener, router).await });
        let client = Client::new([&url]).unwrap();
        client.put("key", "value").await.unwrap();
        let joiner = Node::builder().bootstrap([&url]).start().await.unwrap();
        assert_eq!(joiner.get("key").await.unwrap().unwrap().bytes, b"value");
        joiner.leave().await.unwrap();
    });
}

#[test]
fn on_a_ring_where_all_keep_all_the_ready_have_everything() {
    block_on(async {
        let first = Node::builder().replicate_to_all().start().await.unwrap();
        let mut ring = vec![first];
        for _ in 0..3 {
            ring.push(Node::builder().bootstrap([ring[0].addr()]).start().await.unwrap());
        }
        for number in 0..200 {
            ring[number % 4].put(format!("key {number}"), vec![b'v'; 2000]).await.unwrap();
        }
        let late = Node::builder().bootstrap([ring[1].addr()]).start().await.unwrap();
        ready(&late).await;
        let info = late.info().await.unwrap();
        assert!(info.ready, "{info:?}");
        let kept: u64 = info.views.iter().filter(|view| view.status != "fetching").map(|view| view.keys).sum();
        assert_eq!(kept, 200, "{info:#?}");
    });
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    block_on(async {
        for (builder, says) in [
            (Node::builder().replication_factor(0), "16"),
            (Node::builder().replication_factor(17), "16"),
            (Node::builder().value_limit(Config::LARGEST_VALUE_LIMIT + 1), "4194304"),
            (Node::builder().join_attempts(Some(0)), "at least one"),
            (Node::builder().begin().bootstrap(["127.0.0.1:9"]), "either begins a ring (--begin) or joins one"),
            (Node::builder().discover(""), "is no name"),
            (Node::builder().upnp(Upnp::default()), "--upnp has a router forward a port to an IPv4 address"),
            (Node::builder().bootstrap(["junk"]), "127.0.0.1:9000"),
            (Node::builder().host("nowhere.invalid"), "cannot listen"),
        ] {
            let Err(error) = builder.start().await else { panic!("{says}: it has started") };
            assert!(error.to_string().contains(says), "{error}");
        }
    });
}

#[test]
fn nodes_of_a_program_find_each_other_on_the_local_network() {
    block_on(async {
        let ring = format!("library-{}", rand::random::<u32>());
        let first = Node::builder().discover(&ring).begin().start().await.unwrap();
        let second = Node::builder().discover(&ring).start().await.unwrap();
        let (first, second) = (first.info().await.unwrap(), second.info().await.unwrap());
        assert_eq!(second.ring, first.ring);
        assert!(first.ring.is_some());
    });
}
