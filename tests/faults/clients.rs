//! Clients that look values up and write them while a ring is hurt, and judge every answer. Which of them must be served is
//! computed from nothing but who lives: [`is_open`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Model, addr_of, escape, eventually, get_json, send, sha256, try_exchange};

/// How often each value is overwritten before a ring is hurt, so that there are older ones that must not come back.
const ROUNDS: usize = 3;

/// Within this all that can be served must be: on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A value that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) value: String,
    /// What was written later, without a word about whether it was done. It may be, at any time.
    pub(crate) perhaps: Vec<String>,
    /// The address of the node that served the write.
    pub(crate) primary: String,
}

impl Stored {
    /// Whether this may be read.
    fn may_be(&self, value: &serde_json::Value) -> bool {
        *value == *self.value || self.perhaps.iter().any(|perhaps| *value == **perhaps)
    }
}

/// Stores so many values through these nodes, each several times; what counts is the last. The values say when it was.
pub(crate) fn fill(through: &[String], values: usize, called: &str, when: &str) -> Vec<Stored> {
    let store = |number: usize, round: usize| {
        let (key, value) = (format!("{called} {number}"), format!("{called} {number}, {when}, round {round}"));
        let body = json!({ "key": key, "value": value });
        let stored = send("POST", &through[(number + round) % through.len()], "/dht/store", &body).expect(200);
        Stored { key, value, perhaps: Vec::new(), primary: addr_of(&stored["owner"]) }
    };
    (1..ROUNDS).for_each(|round| (0..values).for_each(|number| drop(store(number, round))));
    (0..values).map(|number| store(number, ROUNDS)).collect()
}

/// Who keeps a key: its owner and the two before it, the nearest first.
fn group<'a>(model: &'a Model, key: &str) -> [&'a str; 3] {
    let owner = model.owner(&sha256(key));
    let before = model.before(owner);
    [owner, before, model.before(before)]
}

/// Whether a majority of those who keep a key is not among these.
pub(crate) fn is_open(model: &Model, key: &str, hurt: &[String]) -> bool {
    group(model, key).iter().filter(|addr| !hurt.iter().any(|it| it == *addr)).count() >= 2
}

/// Those that have a majority without these nodes, and the others.
pub(crate) fn parted(model: &Model, stored: &[Stored], hurt: &[String]) -> (Vec<Stored>, Vec<Stored>) {
    stored.iter().cloned().partition(|it| is_open(model, &it.key, hurt))
}

/// Waits until each node serves what it owns, in a view of it and the two before it.
#[track_caller]
pub(crate) fn all_are_in_groups(model: &Model) {
    for (_, addr) in &model.nodes {
        let before = model.before(addr);
        let mut group = vec![addr.clone(), before.to_owned(), model.before(before).to_owned()];
        group.sort();
        eventually(&format!("{addr} serves what it owns with {group:?}"), PATIENCE, || {
            let info = get_json(addr, "/nodeinfo");
            let served = info["views"].as_array()?.iter().filter(|view| view["primary"] == true).collect::<Vec<_>>();
            let [view] = served[..] else { return None };
            let mut members: Vec<String> = view["members"].as_array()?.iter().map(addr_of).collect();
            members.sort();
            (view["range"] == info["range"] && view["status"] == "serving" && members == group).then_some(())
        });
    }
}

/// What came of all lookups.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) right: usize,
    /// An answer that says so.
    pub(crate) unavailable: usize,
    /// Everything else, and that a value is not there: nobody may see that.
    wrong: Vec<String>,
    longest: Duration,
}

/// Clients under way.
pub(crate) struct Clients {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Clients {
    /// Clients that look these values up through these nodes, none of which is hurt. Those in `closed` lack a majority; they
    /// have clients of their own, because an answer takes long.
    pub(crate) fn start(open: &[Stored], closed: &[Stored], through: &[String]) -> Clients {
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for (client, stored) in [open, open, closed, closed].into_iter().enumerate() {
            let (stored, through, over) = (stored.to_vec(), through.to_vec(), Arc::clone(&over));
            clients.push(std::thread::spawn(move || {
                let mut tally = Tally::default();
                let numbers = (client..).step_by(7).take_while(|_| !over.load(Ordering::Relaxed) && !stored.is_empty());
                for number in numbers {
                    tally.look_up(&stored[number % stored.len()], &through[number % through.len()]);
                }
                tally
            }));
        }
        Clients { over, clients }
    }

    /// Ends them. Fails if any answer was wrong.
    #[track_caller]
    pub(crate) fn end(self) -> Tally {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let its = client.join().expect("a client ends");
            all.right += its.right;
            all.unavailable += its.unavailable;
            all.wrong.extend(its.wrong);
            all.longest = all.longest.max(its.longest);
        }
        assert!(all.wrong.is_empty(), "{} wrong answers: {:#?}", all.wrong.len(), all.wrong);
        println!("{all:?}");
        all
    }
}

impl Tally {
    fn look_up(&mut self, stored: &Stored, through: &str) {
        let asked = Instant::now();
        let answer = try_exchange("GET", through, &format!("/dht/lookup?key={}", escape(&stored.key)), None);
        let took = asked.elapsed();
        self.longest = self.longest.max(took);
        match answer {
            Ok(answer) if answer.status == 200 && stored.may_be(&answer.json()["value"]) => self.right += 1,
            Ok(answer) if matches!(answer.status, 503 | 504) => self.unavailable += 1,
            other => self.wrong.push(format!("{stored:?} through {through} after {took:?}: {other:?}")),
        }
    }
}

/// Waits until each value is found through one of these nodes, and returns what was found. No lookup may bring anything else
/// than that value, or that it cannot be had now.
#[track_caller]
pub(crate) fn all_are_found(stored: &[Stored], through: &[String]) -> Vec<Stored> {
    let began = Instant::now();
    let mut found = stored.to_vec();
    for (number, it) in found.iter_mut().enumerate() {
        let node = &through[number % through.len()];
        loop {
            let answer = try_exchange("GET", node, &format!("/dht/lookup?key={}", escape(&it.key)), None).unwrap();
            match answer.status {
                200 => {
                    let value = &answer.json()["value"];
                    assert!(it.may_be(value), "{it:?} through {node}: {answer:?}");
                    it.value = value.as_str().expect("a text").to_owned();
                    break;
                }
                503 | 504 if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
                _ => panic!("{it:?} (number {number}) through {node} after {:?}: {answer:?}", began.elapsed()),
            }
        }
    }
    found
}

/// One try to write: the node that served it, or whether it may be done all the same.
#[track_caller]
pub(crate) fn try_write(key: &str, value: &str, through: &str) -> Result<String, bool> {
    let answer = send("POST", through, "/dht/store", &json!({ "key": key, "value": value }));
    match answer.status {
        200 => Ok(addr_of(&answer.json()["owner"])),
        503 => Err(false),
        504 => Err(true),
        _ => panic!("{key} through {through}: {answer:?}"),
    }
}

/// Writes these keys anew, which nodes that live must take.
#[track_caller]
pub(crate) fn overwrite(stored: &[Stored], through: &[String], when: &str) -> Vec<Stored> {
    let mut tries = 0;
    let mut anew = |it: &Stored| {
        let value = format!("{}, written {when}", it.key);
        let primary = eventually(&format!("{it:?} is written {when}"), PATIENCE, || {
            tries += 1;
            try_write(&it.key, &value, &through[tries % through.len()]).ok()
        });
        // What was tried again had the same value; what was in doubt before may still be on its way.
        Stored { key: it.key.clone(), value, perhaps: it.perhaps.clone(), primary }
    };
    stored.iter().map(&mut anew).collect()
}

/// What lacks a majority can neither be read nor written: looks at some of these, all at once, and returns all of them, with
/// the writes that may have been done.
#[track_caller]
pub(crate) fn none_is_served(closed: &[Stored], through: &[String], when: &str) -> Vec<Stored> {
    const SOME: usize = 8;
    let mut all = closed.to_vec();
    std::thread::scope(|scope| {
        for (number, it) in all.iter_mut().take(SOME).enumerate() {
            let node = &through[number % through.len()];
            scope.spawn(move || {
                let read = try_exchange("GET", node, &format!("/dht/lookup?key={}", escape(&it.key)), None).unwrap();
                assert!(matches!(read.status, 503 | 504), "{it:?} through {node}: {read:?}");
                let value = format!("{}, tried {when}", it.key);
                match try_write(&it.key, &value, node) {
                    Ok(primary) => panic!("{it:?} was written by {primary} without a majority"),
                    Err(true) => it.perhaps.push(value),
                    Err(false) => {}
                }
            });
        }
    });
    all
}
