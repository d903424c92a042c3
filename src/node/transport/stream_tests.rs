//! Both ends are in memory: what leaves and what comes is seen byte by byte.

use std::sync::Arc;

use chordal_protocol::Reply;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// A stream that runs, and its other side.
fn running(idle: Duration) -> (Arc<Stream>, DuplexStream, JoinHandle<()>) {
    let (ours, theirs) = duplex(1 << 16);
    let stream = Arc::new(Stream::new());
    let task = Arc::clone(&stream);
    (stream, theirs, tokio::spawn(async move { task.run(ours, idle).await }))
}

fn sent(left: Left) -> Coming {
    match left {
        Left::Sent(coming) => coming,
        Left::Full => panic!("it is full"),
        Left::Over { mute } => panic!("it is over, mute: {mute}"),
    }
}

async fn soon<T>(coming: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), coming).await.expect("it should have happened by now")
}

/// The numbers and messages of what has come by now.
async fn come(there: &mut DuplexStream) -> Vec<(u64, Vec<u8>)> {
    let mut read = vec![0; 1 << 16];
    let length = soon(there.read(&mut read)).await.unwrap();
    let (mut rest, mut calls) = (&read[..length], Vec::new());
    while let Some((frame, after)) = frames::first(rest).unwrap() {
        let call = frames::read_call(frame).unwrap();
        calls.push((call.number, call.message.to_vec()));
        rest = after;
    }
    assert!(rest.is_empty());
    calls
}

fn answer(number: u64, reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    frames::write_answer(&mut out, number, &frames::Answer::Plain(&wire::encode_reply(reply)));
    out
}

#[tokio::test]
async fn what_is_called_at_once_travels_at_once_and_is_answered_in_any_order() {
    let (stream, mut there, _task) = running(LONG);
    let first = sent(stream.call(b"one", None, LONG));
    let second = sent(stream.call(b"two", None, LONG));
    assert_eq!(come(&mut there).await, [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    let both = [answer(2, &Reply::Accepted), answer(1, &Reply::Route(chordal_protocol::NextHop::Via(Vec::new())))];
    // One that nobody waits for, and one in two parts.
    there.write_all(&answer(9, &Reply::Accepted)).await.unwrap();
    let (head, tail) = both[0].split_at(7);
    there.write_all(head).await.unwrap();
    there.write_all(&[tail, &both[1]].concat()).await.unwrap();
    assert!(matches!(soon(second).await, Ok(Ok(Came::Answer(Reply::Accepted, _)))));
    assert!(matches!(soon(first).await, Ok(Ok(Came::Answer(Reply::Route(_), _)))));
}

#[tokio::test]
async fn what_is_answered_otherwise_is_told() {
    let (stream, mut there, _task) = running(LONG);
    let refused = sent(stream.call(b"one", None, LONG));
    let long = sent(stream.call(b"two", None, LONG));
    let babble = sent(stream.call(b"three", None, LONG));
    let mut out = Vec::new();
    frames::write_answer(&mut out, 1, &frames::Answer::Refused(401, "a stranger"));
    frames::write_answer(&mut out, 2, &frames::Answer::TooLong);
    frames::write_answer(&mut out, 3, &frames::Answer::Plain(b"babble"));
    there.write_all(&out).await.unwrap();
    assert_eq!(soon(refused).await.unwrap(), Err(Failure::Unusable("it answered 401: a stranger".to_owned())));
    assert_eq!(soon(long).await.unwrap(), Ok(Came::TooLong));
    assert!(matches!(soon(babble).await.unwrap(), Err(Failure::Unusable(_))));
}

#[tokio::test]
async fn a_connection_that_breaks_breaks_what_is_under_way_and_takes_no_more() {
    for last in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let (stream, mut there, task) = running(LONG);
        let calls = [sent(stream.call(b"one", None, LONG)), sent(stream.call(b"two", None, LONG))];
        there.write_all(last).await.unwrap();
        drop(there);
        for call in calls {
            assert!(matches!(soon(call).await.unwrap(), Err(Failure::Broken(_))));
        }
        soon(task).await.unwrap();
        assert!(matches!(stream.call(b"three", None, LONG), Left::Over { mute: false }));
    }
}

#[tokio::test]
async fn a_task_that_is_ended_leaves_nobody_waiting() {
    let (stream, _there, task) = running(LONG);
    let call = sent(stream.call(b"one", None, LONG));
    // It must have begun, or it has nothing to end.
    tokio::task::yield_now().await;
    task.abort();
    assert!(matches!(soon(call).await.unwrap(), Err(Failure::Broken(_))));
}

#[tokio::test]
async fn each_call_has_its_limit_and_a_mute_connection_takes_no_more() {
    let (stream, _there, task) = running(LONG);
    let call = sent(stream.call(b"one", None, Duration::from_millis(150)));
    assert_eq!(soon(call).await.unwrap(), Err(Failure::Silent));
    let mut under_way = Vec::new();
    soon(async {
        loop {
            match stream.call(b"two", None, Duration::from_secs(2)) {
                Left::Sent(coming) => under_way.push(coming),
                Left::Over { mute } => break assert!(mute),
                Left::Full => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // What is under way is waited for, and then it ends.
    for call in under_way {
        assert_eq!(soon(call).await.unwrap(), Err(Failure::Silent));
    }
    soon(task).await.unwrap();
}

#[tokio::test]
async fn who_answers_something_is_not_mute() {
    let (stream, mut there, _task) = running(LONG);
    let slow = sent(stream.call(b"slow", None, LONG));
    let began = Instant::now();
    while began.elapsed() < MUTE * 3 {
        let quick = sent(stream.call(b"quick", None, LONG));
        let number = loop {
            if let Some((number, _)) = come(&mut there).await.into_iter().find(|(_, message)| message == b"quick") {
                break number;
            }
        };
        there.write_all(&answer(number, &Reply::Accepted)).await.unwrap();
        assert!(matches!(soon(quick).await.unwrap(), Ok(Came::Answer(Reply::Accepted, _))));
    }
    there.write_all(&answer(1, &Reply::Accepted)).await.unwrap();
    assert!(matches!(soon(slow).await.unwrap(), Ok(Came::Answer(_, took)) if took >= MUTE * 3));
}

#[tokio::test]
async fn a_connection_without_calls_ends() {
    let (stream, mut there, task) = running(Duration::ZERO);
    soon(task).await.unwrap();
    assert!(matches!(stream.call(b"one", None, LONG), Left::Over { mute: false }));
    assert_eq!(soon(there.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn calls_and_bytes_that_wait_are_bounded() {
    let (stream, _there, _task) = running(LONG);
    let calls: Vec<_> = (0..frames::UNDER_WAY).map(|_| sent(stream.call(b"x", None, LONG))).collect();
    assert!(matches!(stream.call(b"x", None, LONG), Left::Full));
    drop(calls);
    let stream = Stream::new();
    let large = vec![0; frames::LONGEST];
    let taken = (0..100).filter(|_| matches!(stream.call(&large, None, LONG), Left::Sent(_))).count();
    assert_eq!(taken, WAITING_BYTES / frames::LONGEST - 1);
}
