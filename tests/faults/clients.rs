//! Clients that look values up while a ring is hurt, and judge every answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{addr_of, escape, send, try_exchange};

/// How often each value is overwritten before a ring is hurt, so that there are older ones that must not come back.
const ROUNDS: usize = 3;

/// Within this a node must answer, whatever happens to the ring: its own deadline, and something for the way.
const ANSWER: Duration = Duration::from_secs(14);

/// Within this a ring that is whole again must give every value.
const WHOLE: Duration = Duration::from_secs(60);

/// A value that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) value: String,
    /// The address of its only keeper.
    pub(crate) owner: String,
}

/// Stores so many values through these nodes, each several times; what counts is the last. The values say when it was.
pub(crate) fn fill(through: &[String], values: usize, called: &str, when: &str) -> Vec<Stored> {
    let store = |number: usize, round: usize| {
        let (key, value) = (format!("{called} {number}"), format!("{called} {number}, {when}, round {round}"));
        let body = json!({ "key": key, "value": value });
        let stored = send("POST", &through[(number + round) % through.len()], "/dht/store", &body).expect(200);
        Stored { key, value, owner: addr_of(&stored["owner"]) }
    };
    (1..ROUNDS).for_each(|round| (0..values).for_each(|number| drop(store(number, round))));
    (0..values).map(|number| store(number, ROUNDS)).collect()
}

/// What came of all lookups.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) right: usize,
    /// Not found, and its only keeper was one of those that were hurt.
    pub(crate) absent: usize,
    /// An answer that says so.
    pub(crate) unavailable: usize,
    /// Everything else: nobody may see that.
    wrong: Vec<String>,
    longest: Duration,
}

/// Clients under way.
pub(crate) struct Clients {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Clients {
    /// Clients that look these values up through these nodes, none of which is hurt. Those whose keeper is among `hurt` may
    /// be not found; they have clients of their own, because an answer may take long.
    pub(crate) fn start(stored: &[Stored], through: &[String], hurt: &[String]) -> Clients {
        let over = Arc::new(AtomicBool::new(false));
        let hurt: BTreeSet<String> = hurt.iter().cloned().collect();
        let (of_hurt, of_others): (Vec<_>, Vec<_>) = stored.iter().cloned().partition(|it| hurt.contains(&it.owner));
        let mut clients = Vec::new();
        for (client, stored) in [&of_hurt, &of_hurt, &of_hurt, &of_others, &of_others].into_iter().enumerate() {
            let (stored, through, hurt, over) = (stored.clone(), through.to_vec(), hurt.clone(), Arc::clone(&over));
            clients.push(std::thread::spawn(move || {
                let mut tally = Tally::default();
                let numbers = (client..).step_by(7).take_while(|_| !over.load(Ordering::Relaxed) && !stored.is_empty());
                for number in numbers {
                    tally.look_up(&stored[number % stored.len()], &through[number % through.len()], &hurt);
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
            all.absent += its.absent;
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
    fn look_up(&mut self, stored: &Stored, through: &str, hurt: &BTreeSet<String>) {
        let asked = Instant::now();
        let answer = try_exchange("GET", through, &format!("/dht/lookup?key={}", escape(&stored.key)), None);
        let took = asked.elapsed();
        self.longest = self.longest.max(took);
        if took > ANSWER {
            self.wrong.push(format!("{} through {through} took {took:?}", stored.key));
        }
        match answer {
            Ok(answer) if answer.status == 200 && answer.json()["value"] == *stored.value => self.right += 1,
            Ok(answer) if answer.status == 404 && hurt.contains(&stored.owner) => self.absent += 1,
            Ok(answer) if matches!(answer.status, 503 | 504) => self.unavailable += 1,
            other => self.wrong.push(format!("{stored:?} through {through} after {took:?}: {other:?}")),
        }
    }
}

/// Waits until each value is found through one of these nodes. No lookup may bring anything else than that value, or that
/// it cannot be had now.
#[track_caller]
pub(crate) fn all_come_back(stored: &[Stored], through: &[String]) {
    let began = Instant::now();
    for (number, it) in stored.iter().enumerate() {
        let node = &through[number % through.len()];
        loop {
            let answer = try_exchange("GET", node, &format!("/dht/lookup?key={}", escape(&it.key)), None).unwrap();
            match answer.status {
                200 => {
                    assert_eq!(answer.json()["value"], *it.value, "{it:?} through {node}");
                    break;
                }
                404 | 503 | 504 if began.elapsed() < WHOLE => std::thread::sleep(Duration::from_millis(10)),
                _ => panic!("{it:?} (number {number}) through {node} after {:?}: {answer:?}", began.elapsed()),
            }
        }
    }
}
