use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use chordal_protocol::replica::{Answer, Operation};
use chordal_protocol::{Contact, Id, Mode, NextHop};
use tokio::net::TcpListener;

use super::*;

/// A node that answers some of what it is asked, and leaves the rest open for ever.
struct Hangs {
    addr: String,
    asked: Arc<AtomicUsize>,
}

impl Hangs {
    /// Answers if this says so of the number of the question, from 0, and the question.
    async fn unless(answers: impl Fn(usize, &Request) -> bool + Clone + Send + Sync + 'static) -> Hangs {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let handler = move |body: Bytes| {
            let (answers, count) = (answers.clone(), Arc::clone(&count));
            async move {
                let request = wire::decode_envelope(&body).unwrap().request;
                if !answers(count.fetch_add(1, Ordering::SeqCst), &request) {
                    pending::<()>().await;
                }
                let reply = match request {
                    Request::Operate(_) => Reply::Answered(Answer::Read(None)),
                    Request::Route { .. } => Reply::Route(NextHop::Via(Vec::new())),
                    _ => Reply::Accepted,
                };
                wire::encode_reply(&reply)
            }
        };
        let router = axum::Router::new().route("/peer", axum::routing::post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Hangs { addr, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A transport that passes over for long. Nothing here measures times: they are short enough to be waited for, and long enough
/// for a machine that has other work.
fn transport() -> HttpTransport {
    let short = |limit| crate::node::Bounds {
        floor: Duration::from_millis(400),
        untried: Duration::from_millis(400),
        ceiling: Duration::from_millis(2_000),
        limit: Duration::from_millis(limit),
    };
    let passed_over = Duration::from_secs(60);
    let patience = Patience { ring: short(10_000), content: short(10_000), page: short(10_000), passed_over };
    HttpTransport::new(Peers::new(patience), &Security::default(), Nets::new(&[], &[[127, 0, 0, 1].into()])).unwrap()
}

async fn ask(transport: &HttpTransport, addr: &str, request: Request) -> Result<Reply, NoAnswer> {
    let envelope = Envelope { ring: None, from: Contact::at("127.0.0.1:1", "asker"), request };
    transport.call(addr, &envelope).await
}

fn route() -> Request {
    Request::Route { key: Id::ZERO, mode: Mode::Fingers, excluding: None }
}

#[tokio::test]
async fn one_answer_that_does_not_come_makes_nobody_dead() {
    let node = Hangs::unless(|number, _| number > 0).await;
    let transport = transport();
    assert_eq!(ask(&transport, &node.addr, Request::Neighbours).await, Ok(Reply::Accepted));
    assert_eq!(node.asked(), 2);
    assert!(!transport.peers.is_passed_over(&node.addr));
}

#[tokio::test]
async fn who_stays_silent_is_given_up_and_then_only_greeted() {
    let node = Hangs::unless(|_, _| false).await;
    let transport = transport();
    assert!(ask(&transport, &node.addr, Request::Neighbours).await.is_err());
    assert_eq!(node.asked(), 2, "it was asked again before it was given up");
    assert!(transport.peers.is_passed_over(&node.addr));
    assert!(ask(&transport, &node.addr, Request::Operate(Operation::Get(Id::ZERO))).await.is_err());
    assert_eq!(node.asked(), 3, "one greeting");
    assert!(ask(&transport, &node.addr, route()).await.is_err());
    assert_eq!(node.asked(), 3, "no lookup waits for it");
    transport.peers.heard_of(&node.addr);
    assert!(!transport.peers.is_passed_over(&node.addr), "it has spoken");
}

#[tokio::test]
async fn a_lookup_goes_on_at_the_first_late_answer() {
    let node = Hangs::unless(|_, _| false).await;
    let transport = transport();
    assert!(ask(&transport, &node.addr, route()).await.is_err());
    assert_eq!(node.asked(), 1);
    assert!(transport.peers.is_passed_over(&node.addr));
    let standing = transport.peers.with(|detector, _| detector.standing(&node.addr));
    assert_eq!(standing, Standing::Suspected, "that is no verdict");
}

#[tokio::test]
async fn who_answers_a_greeting_may_take_its_time_for_the_rest() {
    let greeted = Arc::new(tokio::sync::Notify::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let handler = move |body: Bytes| {
        let greeted = Arc::clone(&greeted);
        async move {
            match wire::decode_envelope(&body).unwrap().request {
                Request::Hello => greeted.notify_one(),
                // Not before it was asked whether it lives.
                _ => greeted.notified().await,
            }
            wire::encode_reply(&Reply::Accepted)
        }
    };
    let router = axum::Router::new().route("/peer", axum::routing::post(handler));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let transport = transport();
    assert_eq!(ask(&transport, &addr, Request::Operate(Operation::Get(Id::ZERO))).await, Ok(Reply::Accepted));
    assert!(!transport.peers.is_passed_over(&addr));
}

#[tokio::test]
async fn a_refused_connection_is_a_verdict_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let transport = transport();
    let answer = ask(&transport, &addr, Request::Hello).await;
    assert_eq!(answer, Err(NoAnswer { reason: "Connection refused".to_owned(), answers: false }));
    assert_eq!(transport.peers.with(|detector, _| detector.standing(&addr)), Standing::Condemned);
}

#[tokio::test]
async fn what_makes_no_sense_is_final() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let router = axum::Router::new().route("/peer", axum::routing::post(async || "babble"));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let transport = transport();
    assert!(ask(&transport, &addr, Request::Hello).await.is_err());
    assert_eq!(transport.peers.with(|detector, _| detector.standing(&addr)), Standing::Condemned);
}

/// Asks until there is a connection for calls.
async fn ask_much(transport: &HttpTransport, addr: &str) {
    let opened = async {
        loop {
            assert!(matches!(ask(transport, addr, Request::Hello).await, Ok(Reply::Hello { .. })));
            if transport.clients.now().streams.to(addr).is_some() {
                break;
            }
        }
    };
    timeout(Duration::from_secs(10), opened).await.expect("it should be open by now");
}

#[tokio::test]
async fn who_is_asked_much_is_asked_on_one_connection_and_who_is_gone_is_refused_at_once() {
    let node = crate::Node::builder().start().await.unwrap();
    let (addr, transport) = (node.addr(), transport());
    ask_much(&transport, &addr).await;
    let many = (0..300).map(|_| ask(&transport, &addr, Request::Hello));
    for answer in futures_util::future::join_all(many).await {
        assert!(matches!(answer, Ok(Reply::Hello { .. })), "{answer:?}");
    }
    let began = Instant::now();
    node.stop().await;
    // The connection did not keep it, and it is known at once that nobody is there.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let answer = ask(&transport, &addr, Request::Hello).await;
    assert_eq!(answer, Err(NoAnswer { reason: "Connection refused".to_owned(), answers: false }));
    assert_eq!(transport.peers.with(|detector, _| detector.standing(&addr)), Standing::Condemned);

    let port = addr.rsplit_once(':').unwrap().1.parse().unwrap();
    let again = crate::Node::builder().port(port).start().await.unwrap();
    assert_eq!(again.addr(), addr);
    ask_much(&transport, &addr).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_under_calls_costs_none_of_them() {
    let node = crate::Node::builder().start().await.unwrap();
    let (addr, transport) = (node.addr(), transport());
    ask_much(&transport, &addr).await;
    let stream = transport.clients.now().streams.to(&addr).unwrap();
    let calls = (0..20).map(|_| ask(&transport, &addr, Request::Hello));
    let cut = async {
        tokio::task::yield_now().await;
        stream.cut();
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), cut);
    for answer in answers {
        assert!(matches!(answer, Ok(Reply::Hello { .. })), "{answer:?}");
    }
    ask_much(&transport, &addr).await;
}

#[tokio::test]
async fn who_knows_no_such_connections_is_asked_for_one_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let upgrade = async move || {
        count.fetch_add(1, Ordering::SeqCst);
        axum::http::StatusCode::METHOD_NOT_ALLOWED
    };
    let answer = async || wire::encode_reply(&Reply::Accepted);
    let router = axum::Router::new().route("/peer", axum::routing::post(answer).get(upgrade));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let transport = transport();
    let refused = async {
        while asked.load(Ordering::SeqCst) == 0 {
            assert_eq!(ask(&transport, &addr, Request::Neighbours).await, Ok(Reply::Accepted));
        }
    };
    timeout(Duration::from_secs(10), refused).await.expect("it should have been asked for by now");
    for _ in 0..50 {
        assert_eq!(ask(&transport, &addr, Request::Neighbours).await, Ok(Reply::Accepted));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_is_asked_now_and_then_has_no_connection_for_calls() {
    let node = crate::Node::builder().start().await.unwrap();
    let (addr, transport) = (node.addr(), transport());
    // Three are few, however quickly they come.
    for _ in 0..3 {
        assert!(matches!(ask(&transport, &addr, Request::Hello).await, Ok(Reply::Hello { .. })));
    }
    assert!(!transport.clients.now().streams.knows_way(&addr));
}

#[tokio::test]
async fn values_too_long_for_the_connection_come_all_the_same() {
    let node = crate::Node::builder().start().await.unwrap();
    node.ready().await.unwrap();
    let (addr, transport) = (node.addr(), transport());
    let values = [vec![b'a'; 2 * frames::LONGEST], vec![b'b'; 10]];
    for (key, value) in ["long", "short"].iter().zip(&values) {
        node.put(key, value.clone()).await.unwrap();
    }
    ask_much(&transport, &addr).await;
    let ring = node.inner.driver.lock().chord.ring().map(|ring| ring.id);
    for (key, value) in [("long", &values[0]), ("long", &values[0]), ("short", &values[1]), ("short", &values[1])] {
        let request = Request::Operate(Operation::Get(Id::of(key)));
        let envelope = Envelope { ring, from: Contact::at("127.0.0.1:1", "asker"), request };
        match transport.call(&addr, &envelope).await {
            Ok(Reply::Answered(Answer::Read(Some(record)))) => {
                assert!(matches!(record.content, chordal_protocol::Content::Value { bytes, .. } if bytes == *value));
            }
            other => panic!("{key}: {other:?}"),
        }
        let stream = transport.clients.now().streams.to(&addr).expect("it is still open");
        assert_eq!(stream.reads_are_long(), key == "long");
    }
}
