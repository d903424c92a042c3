//! Those who are named as nodes and are none, or bad ones: the real node answers its clients in time, and stays up.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chordal_protocol::keeper;
use chordal_protocol::replica::{self, Ballot, Letter, Marks, Member, Name, Operation, Parcel, Value, View};
use chordal_protocol::{
    Condition, Contact, Content, Envelope, Id, Interval, Membership, Record, Refusal, Reply, Request, RequestId,
    RingId, Version, WIRE_VERSION, Write,
};
use serde_json::json;

use crate::common::{Daemon, Lab, eventually, get_json};
use crate::support::{
    Answer, Fake, Manner, Running, Say, ask, dead_address, frame, get, lone, named, post, put, resident_mib, ring_of,
    still_works,
};

/// A call to another node takes 2 s at most, and a question about who one is takes two calls at most.
const GREETING: Duration = Duration::from_secs(6);
/// What a client waits for at most: 10 s, and the call that was under way then.
const DEADLINE: Duration = Duration::from_secs(13);

/// Those who are no nodes at all.
fn rabble() -> Vec<(&'static str, Running)> {
    let of = |manner| Fake::start(manner);
    vec![
        ("closes", of(Manner::Says(b""))),
        ("says nonsense", of(Manner::Says(b"220 mail.example ESMTP\r\n"))),
        ("is a web server", of(Manner::Answers("200 OK", b"<html>hello</html>".to_vec()))),
        ("is a web server without that page", of(Manner::Answers("404 Not Found", b"<html>no</html>".to_vec()))),
        ("sends others away", of(Manner::Answers("302 Found\r\nlocation: http://127.0.0.1:1/", Vec::new()))),
        ("answers nothing", of(Manner::Answers("200 OK", Vec::new()))),
        ("breaks off", of(Manner::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"))),
        ("answers garbage", of(Manner::Speaks(Box::new(|_, _| Say::Garbage)))),
        ("answers another question", of(Manner::Speaks(Box::new(|_, _| Say::Reply(Reply::Accepted))))),
        ("hangs", of(Manner::Hangs)),
        ("babbles", of(Manner::Babbles)),
        ("never begins", of(Manner::NeverBegins)),
    ]
}

#[test]
fn who_is_no_node_cannot_be_joined_or_wired() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let other = Daemon::start(lab.path(), &["--memory", "--bootstrap", &node.addr]);
    let before = resident_mib(node.child.id());
    let pointers = || [get_json(&node.addr, "/pred"), get_json(&node.addr, "/succ")];
    eventually("two nodes know each other", DEADLINE, || {
        ["/pred", "/succ"].iter().all(|side| get(&node.addr, side).status == 200).then_some(())
    });
    let wired = pointers();
    let rabble = rabble();
    std::thread::scope(|scope| {
        for (what, fake) in &rabble {
            let node = &node;
            scope.spawn(move || {
                let asked = |answer: Answer| {
                    let detail = answer.problem(502);
                    assert!(detail.contains(&fake.0.addr) && answer.took < GREETING, "{what}: {answer:?}");
                };
                asked(post(&node.addr, "/dht/join", &named(&fake.0.addr)));
                asked(put(&node.addr, "/succ", &fake.0.addr));
                asked(put(&node.addr, "/pred", &fake.0.addr));
                assert!(fake.0.calls.load(Ordering::Relaxed) > 0);
            });
        }
    });
    assert_eq!(pointers(), wired);
    still_works(&node.addr);
    still_works(&other.addr);
    let after = resident_mib(node.child.id());
    assert!(after < before + 64.0, "{before} MiB, then {after} MiB");
}

#[test]
fn joining_through_those_who_are_no_nodes_ends_in_time() {
    let lab = Lab::empty();
    let rabble = rabble();
    std::thread::scope(|scope| {
        for (what, fake) in rabble.iter().filter(|(what, _)| ["hangs", "babbles", "is a web server"].contains(what)) {
            let dir = lab.path();
            scope.spawn(move || {
                let began = Instant::now();
                let ran = Daemon::try_start(dir, &["--memory", "--bootstrap", &fake.0.addr]).err();
                let ran = ran.unwrap_or_else(|| panic!("{what}: it started"));
                let last = ran.stderr.lines().last().unwrap_or_default();
                assert!(last.starts_with("chordal: could not join") && last.contains(&fake.0.addr), "{what}: {last}");
                assert!(!ran.ok && began.elapsed() < Duration::from_secs(30), "{what}: {:?}", began.elapsed());
            });
        }
    });
}

#[test]
fn a_joiner_that_promises_and_does_not_come_is_waited_for_within_the_deadline() {
    let lab = Lab::with_nodes(2);
    let addr = &lab.addrs()[0];
    // It says that it has no ring; what it does when it is invited differs.
    let joiner = |invited: fn() -> Say| {
        Fake::start(Manner::Speaks(Box::new(move |fake, envelope| match envelope.request {
            Request::Hello => {
                let me = fake.contact();
                Say::Reply(Reply::Hello { me, ring: None, membership: Membership::Joining })
            }
            _ => invited(),
        })))
    };
    let never = joiner(|| Say::Reply(Reply::Accepted));
    let silent = joiner(|| Say::Hang);
    let garbage = joiner(|| Say::Garbage);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let answer = post(addr, "/dht/join", &named(&never.0.addr));
            assert!(answer.problem(504).contains("still joining") && answer.took < DEADLINE, "{answer:?}");
        });
        for fake in [&silent, &garbage] {
            scope.spawn(|| {
                let answer = post(addr, "/dht/join", &named(&fake.0.addr));
                let detail = answer.problem(409);
                assert!(detail.contains(&fake.0.addr) && detail.contains("does not answer"), "{detail}");
                assert!(answer.took < GREETING, "{answer:?}");
            });
        }
        scope.spawn(|| still_works(addr));
    });
    // Nobody was taken for dead on their account.
    lab.ok(&["doctor"]);
}

#[test]
fn who_lies_about_who_it_is_is_not_believed() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let ring = ring_of(&node.addr);
    let dead = dead_address();
    let liar = |me: Box<dyn Fn(&Fake) -> Contact + Send + Sync>| {
        let ring = ring.clone();
        Fake::start(Manner::Speaks(Box::new(move |fake, envelope| match envelope.request {
            Request::Hello => Say::Reply(Fake::hello(me(fake), &ring, Membership::Joined)),
            _ => Say::Hang,
        })))
    };
    let elsewhere = liar(Box::new(|fake| Contact { id: Id::of("another place"), ..fake.contact() }));
    let nobody = liar(Box::new(move |_| Contact::at(dead.as_str(), "nobody")));
    let victim = liar(Box::new({
        let other = Fake::start(Manner::Says(b"no node"));
        move |_| Contact::at(other.0.addr.as_str(), "victim")
    }));
    for (fake, says) in [(&elsewhere, "SHA-256"), (&nobody, "it says that it is"), (&victim, "it says that it is")] {
        for answer in [
            post(&node.addr, "/dht/join", &named(&fake.0.addr)),
            put(&node.addr, "/succ", &fake.0.addr),
            put(&node.addr, "/pred", &fake.0.addr),
        ] {
            assert!(answer.problem(502).contains(says), "{answer:?}");
        }
    }
    assert_eq!(get(&node.addr, "/succ").status, 404, "it is alone as before");
    still_works(&node.addr);
}

/// Sends a message as a node would, and returns the reply.
fn tell(addr: &str, ring: Option<&str>, from: Contact, request: Request) -> Reply {
    let ring = ring.map(|ring| {
        let mut id = [0; 16];
        hex::decode_to_slice(ring, &mut id).expect("a message and its reply");
        RingId(id)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a message and its reply");
    let reply = runtime.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().expect("a message and its reply");
        let message = frame(&Envelope { ring, from, request });
        client
            .post(format!("http://{addr}/peer"))
            .body(message)
            .send()
            .await
            .expect("a message and its reply")
            .bytes()
            .await
            .expect("a message and its reply")
    });
    assert_eq!(reply[..2], WIRE_VERSION.to_be_bytes());
    postcard::from_bytes(&reply[2..]).expect("a message and its reply")
}

#[test]
fn messages_of_strangers_are_refused() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    still_works(&node.addr);
    let ring = ring_of(&node.addr);
    let strange = "00112233445566778899aabbccddeeff";
    let genuine = || Contact::at(dead_address(), "stranger");
    let placed = || Contact { id: Id::ZERO, ..genuine() };
    let write = |bytes: usize| {
        let content = Content::Value { bytes: vec![b'x'; bytes], content_type: String::new() };
        let request = chordal::node::mint();
        Request::Operate(Operation::Write(Write {
            id: Id::of("k"),
            key: Some(b"k".to_vec()),
            content,
            condition: Condition::Always,
            request,
        }))
    };
    let read = Request::Operate(Operation::Get(Id::ZERO));
    let introduce = Request::Keep(keeper::Request::Introduce(Member { id: Id::ZERO, incarnation: 1 }));
    for request in [Request::Hello, Request::Neighbours, Request::Notify(Vec::new()), read, introduce, write(1)] {
        let reply = tell(&node.addr, Some(&ring), placed(), request.clone());
        assert!(matches!(&reply, Reply::Refused(Refusal::Malformed(text)) if text.contains("SHA-256")), "{reply:?}");
        if request != Request::Hello {
            let reply = tell(&node.addr, Some(strange), genuine(), request);
            assert!(matches!(reply, Reply::Refused(Refusal::OtherRing(_))), "{reply:?}");
        }
    }
    let reply = tell(&node.addr, Some(&ring), genuine(), write(5 << 20));
    assert!(matches!(&reply, Reply::Refused(Refusal::Malformed(text)) if text.contains("travel")), "{reply:?}");
    for from in [
        Contact::at("127.0.0.1:1", "n".repeat(5 << 20)),
        Contact::at("127.0.0.1:1", "two\nlines"),
        Contact::at("h".repeat(1 << 20) + ":1", ""),
    ] {
        let reply = tell(&node.addr, Some(&ring), from, Request::Notify(Vec::new()));
        assert!(matches!(&reply, Reply::Refused(Refusal::Malformed(_))), "{reply:?}");
    }
    // A node of the ring that nobody can reach may call itself a neighbour; it is found out.
    tell(&node.addr, Some(&ring), genuine(), Request::Notify(Vec::new()));
    let crowd = vec![genuine(); 10_000];
    tell(&node.addr, Some(&ring), genuine(), Request::Notify(crowd));
    eventually("the node is alone again", DEADLINE, || (get(&node.addr, "/pred").status == 404).then_some(()));
    get(&node.addr, "/dht/lookup?key=k").problem(404);
    still_works(&node.addr);
}

/// A stranger who writes letters to the keeper of a real node.
struct Forger {
    addr: String,
    ring: String,
    stranger: Contact,
    /// The stranger as a member, and the node as it says that it is.
    me: Member,
    node: Member,
    /// The view that the node serves.
    name: Name,
}

impl Forger {
    fn at(node: &Daemon) -> Forger {
        let (addr, ring) = (node.addr.clone(), ring_of(&node.addr));
        let stranger = Contact::at(dead_address(), "forger");
        let me = Member { id: stranger.id, incarnation: 1 };
        let introduce = Request::Keep(keeper::Request::Introduce(me));
        let Reply::Kept(keeper::Reply::Introduced(member)) = tell(&addr, Some(&ring), stranger.clone(), introduce)
        else {
            panic!("it says who it is")
        };
        let views = views(&addr);
        let epoch = views[0]["epoch"].as_u64().expect("an epoch");
        assert_eq!(views.as_array().map(Vec::len), Some(1), "{views}");
        Forger { addr, ring, stranger, me, node: member, name: Name { range: Interval::whole(member.id), epoch } }
    }

    /// What the node answers to these letters.
    fn write(&self, letters: Vec<Letter<replica::Request>>) -> Reply {
        let contacts = vec![self.stranger.clone()];
        let request = Request::Keep(keeper::Request::Letters { letters, contacts, age: keeper::Age::default() });
        tell(&self.addr, Some(&self.ring), self.stranger.clone(), request)
    }

    /// All that could take the node's view away from it, or change what it keeps.
    fn forgeries(&self) -> Vec<replica::Request> {
        let (name, claimed) = (self.name, self.me);
        let ballot = Ballot { round: 1 << 40, proposer: claimed, boot: 1 };
        let range = name.range;
        let view = View {
            range,
            epoch: name.epoch + 1,
            members: vec![claimed],
            primary: claimed,
            deferred: None,
            forced: false,
        };
        let value = |view: View| Value {
            by: name,
            successors: vec![view],
            origin: ballot,
            absorbs: None,
            voters: vec![self.node],
        };
        let forced = View { epoch: 1 << 40, forced: true, ..view.clone() };
        let marks = Marks { stable: u64::MAX, purged: u64::MAX };
        let record = forged_record(name.epoch, 10);
        vec![
            replica::Request::Prepare { name, ballot, since: 0, shown: Some(value(view.clone())) },
            replica::Request::Accept { name, ballot, value: value(view.clone()) },
            replica::Request::Decide { value: value(view) },
            replica::Request::Decide { value: value(forced) },
            replica::Request::Store { name, record: record.into(), marks },
            replica::Request::Confirm { name, boot: 1, round: 1, marks },
            replica::Request::Forget { name },
        ]
    }
}

/// A later value of the key that the tests look at.
fn forged_record(epoch: u64, bytes: usize) -> Record {
    Record {
        id: Id::of("k"),
        key: Some(b"k".to_vec()),
        content: Content::Value { bytes: vec![b'x'; bytes], content_type: String::new() },
        version: Version { epoch, sequence: 1 << 40 },
        request: RequestId(1 << 100),
    }
}

/// The views that a node is a member of, without how much is in them.
fn views(addr: &str) -> serde_json::Value {
    let mut views = get_json(addr, "/nodeinfo")["views"].clone();
    for view in views.as_array_mut().expect("a list of views") {
        view.as_object_mut().expect("a view").remove("keys");
    }
    views
}

#[test]
fn letters_in_the_name_of_another_are_not_read() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let forger = Forger::at(&node);
    assert_eq!(post(&node.addr, "/dht/store", &json!({ "key": "k", "value": "v" })).status, 200);
    let before = views(&node.addr);
    // In the name of the node itself, which would believe itself; of this incarnation or of another, in any life.
    for incarnation in [forger.node.incarnation, 1] {
        for boot in [1, 1000, u64::MAX] {
            let from = Member { id: forger.node.id, incarnation };
            let letter = |body| Letter { from, boot, to: forger.node, body };
            let reply = forger.write(forger.forgeries().into_iter().map(letter).collect());
            let Reply::Kept(keeper::Reply::Letters { letters, .. }) = &reply else { panic!("{reply:?}") };
            assert!(letters.is_empty(), "{letters:?}");
        }
    }
    assert_eq!(views(&node.addr), before);
    assert_eq!(get(&node.addr, "/dht/lookup?key=k").json()["value"], "v");
    still_works(&node.addr);
}

#[test]
fn letters_for_another_incarnation_are_unacceptable_and_change_nothing() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let forger = Forger::at(&node);
    assert_eq!(post(&node.addr, "/dht/store", &json!({ "key": "k", "value": "v" })).status, 200);
    let before = views(&node.addr);
    let elsewhere = Member { id: Id::of("another place"), ..forger.node };
    // In later and later lives, for a letter of an earlier one is not even looked at.
    for boot in [0, 1, u64::MAX] {
        for to in [Member { incarnation: forger.node.incarnation ^ 1, ..forger.node }, elsewhere, forger.me] {
            let letter = |body| Letter { from: forger.me, boot, to, body };
            let forgeries: Vec<_> = forger.forgeries().into_iter().map(letter).collect();
            let count = forgeries.len();
            let reply = forger.write(forgeries);
            let Reply::Kept(keeper::Reply::Letters { letters, .. }) = &reply else { panic!("{reply:?}") };
            assert_eq!(letters.len(), count, "{letters:?}");
            for letter in letters {
                assert!(letter.body == replica::Reply::Unacceptable && letter.from == forger.node, "{letter:?}");
            }
        }
    }
    assert_eq!(views(&node.addr), before);
    assert_eq!(get(&node.addr, "/dht/lookup?key=k").json()["value"], "v");
    still_works(&node.addr);
}

#[test]
fn writes_of_who_is_not_the_primary_are_not_kept() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let forger = Forger::at(&node);
    assert_eq!(post(&node.addr, "/dht/store", &json!({ "key": "k", "value": "v" })).status, 200);
    let before = views(&node.addr);
    let later = Name { epoch: forger.name.epoch + 1, ..forger.name };
    for name in [forger.name, later] {
        let marks = Marks { stable: 1 << 40, purged: 0 };
        let record = forged_record(name.epoch, 10);
        let bodies = [
            replica::Request::Store { name, record: record.into(), marks },
            replica::Request::Confirm { name, boot: 1, round: 1, marks },
        ];
        let letter = |body| Letter { from: forger.me, boot: 1, to: forger.node, body };
        let reply = forger.write(bodies.map(letter).into());
        let Reply::Kept(keeper::Reply::Letters { letters, .. }) = &reply else { panic!("{reply:?}") };
        let refused =
            |body: &replica::Reply| matches!(body, replica::Reply::Sealed { .. } | replica::Reply::Elsewhere { .. });
        assert!(letters.len() == 2 && letters.iter().all(|letter| refused(&letter.body)), "{letters:?}");
    }
    assert_eq!(views(&node.addr), before);
    assert_eq!(get(&node.addr, "/dht/lookup?key=k").json()["value"], "v");
    still_works(&node.addr);
}

#[test]
fn a_flood_of_large_letters_is_bounded() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let forger = Forger::at(&node);
    assert_eq!(post(&node.addr, "/dht/store", &json!({ "key": "k", "value": "v" })).status, 200);
    let before = resident_mib(node.child.id());
    // Some 4 MB each, and 160 MB in all; for a life that the node never had, and for a view that the forger does not serve.
    let (name, range) = (forger.name, forger.name.range);
    let view = View { range, epoch: 2, members: vec![forger.me], primary: forger.me, deferred: None, forced: false };
    let origin = Ballot { round: 1, proposer: forger.me, boot: 1 };
    let mut parcel = Parcel::default();
    parcel.records.insert(Id::of("k"), forged_record(1, 4_000_000));
    let page = replica::Page { after: None, parcel, next: None };
    let stage = replica::Request::Stage { name, origin, view, voters: vec![forger.me], upon: None, page };
    let other = Member { incarnation: forger.node.incarnation ^ 1, ..forger.node };
    let marks = Marks::default();
    let store = replica::Request::Store { name, record: forged_record(name.epoch, 4_000_000).into(), marks };
    let flood = [
        Letter { from: forger.me, boot: 1, to: other, body: stage },
        Letter { from: forger.me, boot: 1, to: forger.node, body: store },
    ];
    std::thread::scope(|scope| {
        for sender in 0..10 {
            let (forger, flood) = (&forger, &flood);
            scope.spawn(move || {
                for letter in 0..4 {
                    let reply = forger.write(vec![flood[(sender + letter) % 2].clone()]);
                    assert!(
                        matches!(reply, Reply::Kept(_) | Reply::Refused(Refusal::Overloaded | Refusal::Busy)),
                        "{reply:?}"
                    );
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..10 {
                assert_eq!(get(&node.addr, "/dht/lookup?key=k").json()["value"], "v");
            }
        });
    });
    let after = resident_mib(node.child.id());
    assert!(after < before + 200.0, "{before} MiB, then {after} MiB");
    still_works(&node.addr);
}

#[test]
fn another_wire_version_is_named_on_both_sides() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    // Asked by another version.
    let mut message = frame(&Envelope { ring: None, from: Contact::at("127.0.0.1:1", ""), request: Request::Hello });
    message[1] = 99;
    let detail = ask("POST", &node.addr, "/peer", "", &message).problem(400);
    assert!(detail.contains("wire version 99") && detail.contains("same release"), "{detail}");
    // Answered by another version: in its words, or in its bytes.
    let words = json!({
        "type": "/problems/invalid", "title": "The request makes no sense", "status": 400,
        "detail": "this is no message of a node: it speaks wire version 1, this node speaks 99: run the same release"
    });
    let in_words = Fake::start(Manner::Answers("400 Bad Request", words.to_string().into()));
    let in_bytes = Fake::start(Manner::Answers("200 OK", vec![0, 99, 1, 2, 3]));
    std::thread::scope(|scope| {
        for fake in [&in_words, &in_bytes] {
            scope.spawn(|| {
                for answer in [
                    post(&node.addr, "/dht/join", &named(&fake.0.addr)),
                    put(&node.addr, "/succ", &fake.0.addr),
                    put(&node.addr, "/pred", &fake.0.addr),
                ] {
                    let detail = answer.problem(502);
                    assert!(detail.contains("99") && detail.contains("same release"), "{detail}");
                }
                let ran = Daemon::try_start(lab.path(), &["--memory", "--bootstrap", &fake.0.addr]).err().unwrap();
                let line = ran.stderr.lines().last().unwrap();
                assert!(line.contains("99") && line.contains("same release"), "{line}");
            });
        }
    });
    still_works(&node.addr);
}

#[test]
fn a_neighbour_that_says_hello_and_then_goes_bad_is_done_without() {
    let lab = Lab::with_nodes(3);
    let addrs = lab.addrs();
    let ring = ring_of(&addrs[0]);
    for value in ["one", "two", "three", "four", "five", "six"] {
        lab.ok(&["store", value]);
    }
    let ways: [fn() -> Say; 3] = [|| Say::Hang, || Say::Garbage, || Say::Babble];
    for bad in ways {
        let ring = ring.clone();
        let fake = Fake::start(Manner::Speaks(Box::new(move |fake, envelope| match envelope.request {
            Request::Hello => Say::Reply(Fake::hello(fake.contact(), &ring, Membership::Joined)),
            _ => bad(),
        })));
        for (addr, route) in [(&addrs[0], "/succ"), (&addrs[1], "/pred"), (&addrs[2], "/succ")] {
            let answer = put(addr, route, &fake.0.addr);
            assert!(answer.status == 200 && answer.took < GREETING, "{answer:?}");
        }
        // Clients are answered in time: with what they want, or with why not now.
        std::thread::scope(|scope| {
            for addr in &addrs {
                for value in ["one", "two", "three", "four", "five", "six"] {
                    scope.spawn(move || {
                        let found = get(addr, &format!("/dht/lookup?value={value}"));
                        assert!(matches!(found.status, 200 | 503) && found.took < DEADLINE, "{found:?}");
                        let stored = post(addr, "/dht/store", &json!({ "value": value }));
                        assert!(matches!(stored.status, 200 | 503 | 504) && stored.took < DEADLINE, "{stored:?}");
                    });
                }
            }
        });
        lab.ok(&["doctor", "--wait", "30s"]);
        for addr in &addrs {
            still_works(addr);
            for value in ["one", "two", "three", "four", "five", "six"] {
                assert_eq!(get(addr, &format!("/dht/lookup?value={value}")).status, 200, "{value} is lost");
            }
        }
    }
    for pid in lab.state()["nodes"].as_array().unwrap().iter().map(|node| node["pid"].as_u64().unwrap()) {
        let mib = resident_mib(pid as u32);
        assert!(mib < 100.0, "{mib} MiB");
    }
}

#[test]
fn tasks_says_what_is_wrong_with_those_who_are_no_nodes() {
    let lab = Lab::empty();
    for (what, fake) in rabble().iter().filter(|(what, _)| !["hangs", "babbles"].contains(what)) {
        let line = lab.fails(&["join", &fake.0.addr]);
        assert!(line.contains(&fake.0.addr), "{what}: {line}");
    }
    assert!(!lab.path().join("network_state.json").exists());
    let status = get(&lone(lab.path()).addr, "/health/live").status;
    assert_eq!(status, 200);
}
