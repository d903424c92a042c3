//! Clients that read and write a few keys through any node, and write down what they were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chordal::api::{BulkAnswer, BulkRecord, ETag};
use chordal::node::mint;
use chordal_protocol::{Id, RequestId, Version};
use chordal_sim::history::{Digest, Kind, Outcome};
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use reqwest::Method;

use crate::asking::{Answer, Asker, Meaning, Question, Silence, of_read, of_write, type_of, value_of};
use crate::common::namespaces::Side;
use crate::history::{Asked, History};

/// How many keys there are. Those with an even number are never deleted.
pub(crate) const KEYS: usize = 12;

/// How long a client waits for an answer, in milliseconds. Who waits for long blocks nobody but himself; a node gives up after 10 s.
const PATIENCE: [u64; 6] = [300, 1000, 3000, 12_000, 12_000, 12_000];

/// The longest pause of a client that gets no answers, in milliseconds: nodes go on with requests that nobody waits for, and
/// must not drown in them.
const LONGEST_PAUSE: u64 = 2000;

/// That of a client that gets answers, so that the load is that of some clients and not all that the machine can do.
const SHORTEST_PAUSE: u64 = 30;

/// How often a write of unknown outcome is sent again at most, and how often a delete is asked for its version.
const AGAIN: u32 = 4;
const VERSION_TRIES: u32 = 30;

/// Where nodes are, dead ones too, and on which side of the wire.
pub(crate) type Nodes = Arc<Mutex<Vec<(Side, String)>>>;

/// One client. It asks one thing at a time.
#[derive(Debug)]
pub(crate) struct Client {
    number: u64,
    chance: Pcg64Mcg,
    asker: Asker,
    side: Side,
    nodes: Nodes,
    history: Arc<History>,
    /// The version of each key that it was told last: what it expects when it compares.
    told: [Option<Version>; KEYS],
    writes: u64,
    /// How long it pauses, in milliseconds. More, if it gets no answers.
    pause: u64,
}

/// Something to be written. Sent again, it is the same wish.
#[derive(Debug, Clone)]
struct Wish {
    form: &'static str,
    key: usize,
    kind: Kind,
    /// Of the value, if there is one.
    name: String,
    request: RequestId,
}

pub(crate) fn key(number: usize) -> String {
    format!("soaked {number}")
}

fn path(number: usize) -> String {
    format!("/kv/soaked%20{number}")
}

impl Client {
    /// A client on this side of the wire; it is to be used there.
    pub(crate) fn new(number: u64, seed: u64, side: Side, nodes: Nodes, history: Arc<History>) -> Client {
        let chance = Pcg64Mcg::seed_from_u64(seed.wrapping_add(number));
        let told = [None; KEYS];
        Client { number, chance, asker: Asker::new(), side, nodes, history, told, writes: 0, pause: SHORTEST_PAUSE }
    }

    /// Asks one thing after the other until it is over.
    pub(crate) fn run(mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let (addr, patience) = (self.any_node(), self.patience());
            let key = self.chance.random_range(0..KEYS);
            match self.chance.random_range(0..100) {
                0..35 => drop(self.read(key, &addr, patience)),
                35..43 => self.head(key, &addr, patience),
                43..88 => {
                    // Half of those who compare and set have looked just before.
                    if self.chance.random() {
                        self.read(key, &addr, patience);
                    }
                    let wish = self.wish(key);
                    self.write(&wish);
                }
                88..93 => self.read_many(&addr, patience),
                _ => self.write_many(&addr, patience),
            }
            std::thread::sleep(Duration::from_millis(self.chance.random_range(0..self.pause)));
        }
    }

    /// Reads; whether the ring has told what there is.
    pub(crate) fn read(&mut self, key: usize, addr: &str, patience: Duration) -> bool {
        let asked = self.asks_for("get", key);
        let answer = self.exchange(Method::GET, addr, path(key), Vec::new(), None, patience);
        let returned = self.history.now();
        let meaning = match answer {
            Ok(answer) => of_read(answer.status, answer.version(), answer.header("content-type"), Some(&answer.body)),
            Err(silence) => Meaning::Outcome(silence.outcome()),
        };
        matches!(self.hears(asked, returned, key, Kind::Get, meaning, addr), Outcome::Read(_))
    }

    fn head(&mut self, key: usize, addr: &str, patience: Duration) {
        let asked = self.asks_for("head", key);
        let answer = self.exchange(Method::HEAD, addr, path(key), Vec::new(), None, patience);
        let returned = self.history.now();
        let meaning = match answer {
            Ok(answer) => of_read(answer.status, answer.version(), answer.header("content-type"), None),
            Err(silence) => Meaning::Outcome(silence.outcome()),
        };
        self.hears(asked, returned, key, Kind::Get, meaning, addr);
    }

    /// Puts a new value with one request; whether it was acknowledged.
    pub(crate) fn put(&mut self, key: usize, addr: &str, patience: Duration) -> bool {
        let wish = self.put_of(key);
        matches!(self.attempt(&wish, addr, patience), Outcome::Done(_))
    }

    fn read_many(&mut self, addr: &str, patience: Duration) {
        let keys = self.some_keys();
        let asked: Vec<Asked> = keys.iter().map(|key| self.asks_for("get in bulk", *key)).collect();
        let records: Vec<BulkRecord> = keys.iter().map(|at| BulkRecord::get(key(*at).as_bytes())).collect();
        let answers = self.bulk(&records, addr, patience);
        let returned = self.history.now();
        for (at, (key, asked)) in keys.into_iter().zip(asked).enumerate() {
            let meaning = match &answers {
                Ok(answers) => {
                    let BulkAnswer { status, etag, content_type, .. } = &answers[at];
                    let (version, bytes) = (etag.map(|tag| tag.0), answers[at].bytes().ok().flatten());
                    of_read(*status, version, content_type.as_deref().unwrap_or_default(), bytes.as_deref())
                }
                Err(outcome) => Meaning::Outcome(*outcome),
            };
            self.hears(asked, returned, key, Kind::Get, meaning, addr);
        }
    }

    fn write_many(&mut self, addr: &str, patience: Duration) {
        let keys = self.some_keys();
        let wishes: Vec<Wish> = keys.iter().map(|key| self.wish(*key)).collect();
        let asked: Vec<Asked> = wishes.iter().map(|wish| self.asks(&wish.in_bulk())).collect();
        let records: Vec<BulkRecord> = wishes.iter().map(Wish::record).collect();
        let answers = self.bulk(&records, addr, patience);
        let returned = self.history.now();
        for (at, (wish, asked)) in wishes.iter().zip(asked).enumerate() {
            let meaning = match &answers {
                Ok(answers) => of_write(wish.kind, answers[at].status, answers[at].etag.map(|tag| tag.0)),
                Err(outcome) => Meaning::Outcome(*outcome),
            };
            let meaning = self.with_version(wish, meaning);
            self.hears(asked, returned, wish.key, wish.kind, meaning, addr);
        }
    }

    /// The answers, one for each record, or what it means that there are none.
    fn bulk(&self, records: &[BulkRecord], addr: &str, patience: Duration) -> Result<Vec<BulkAnswer>, Outcome> {
        let lines = records.iter().map(|record| serde_json::to_string(record).expect("a record is JSON") + "\n");
        let body = lines.collect::<String>().into_bytes();
        let headers = vec![("content-type", "application/x-ndjson".to_owned())];
        let answer = self.exchange(Method::POST, addr, "/kv".to_owned(), headers, Some(body), patience);
        let answer = answer.map_err(|silence| silence.outcome())?;
        let answers = serde_json::Deserializer::from_slice(&answer.body).into_iter().collect::<Result<Vec<_>, _>>();
        match answers {
            Ok(answers) if answer.status == 200 && answers.len() == records.len() => Ok(answers),
            // A node that stops refuses the request as a whole.
            _ if answer.status == 503 => Err(Outcome::Refused),
            _ => {
                self.history.wrong(format!("{addr}: {records:?} were answered with {answer:?}"));
                Err(Outcome::Unknown)
            }
        }
    }

    /// Writes, and if the outcome is unknown perhaps again: that is an attempt of the same wish.
    fn write(&mut self, wish: &Wish) {
        for _ in 0..=AGAIN {
            let (addr, patience) = (self.any_node(), self.patience());
            if self.attempt(wish, &addr, patience) != Outcome::Unknown || self.chance.random_bool(0.4) {
                return;
            }
            std::thread::sleep(Duration::from_millis(self.chance.random_range(0..self.pause)));
        }
    }

    fn attempt(&mut self, wish: &Wish, addr: &str, patience: Duration) -> Outcome {
        let asked = self.asks(wish);
        let mut headers = vec![("request-id", wish.request.to_string())];
        match wish.kind {
            Kind::Cas { expected: None, .. } => headers.push(("if-none-match", "*".to_owned())),
            Kind::Cas { expected: Some(version), .. } => headers.push(("if-match", ETag(version).to_string())),
            _ => {}
        }
        let (method, body) = match wish.kind {
            Kind::Delete => (Method::DELETE, None),
            _ => {
                headers.push(("content-type", type_of(&wish.name)));
                (Method::PUT, Some(value_of(&wish.name)))
            }
        };
        let answer = self.exchange(method, addr, path(wish.key), headers, body, patience);
        let returned = self.history.now();
        let meaning = match answer {
            Ok(answer) => of_write(wish.kind, answer.status, answer.version()),
            Err(silence) => Meaning::Outcome(silence.outcome()),
        };
        let meaning = self.with_version(wish, meaning);
        self.hears(asked, returned, wish.key, wish.kind, meaning, addr)
    }

    /// The answer to a delete has no tag. The labs' form of it tells the version, and sent with the same request id it does
    /// nothing more than that.
    fn with_version(&mut self, wish: &Wish, meaning: Meaning) -> Meaning {
        if meaning != Meaning::Deleted {
            return meaning;
        }
        for _ in 0..VERSION_TRIES {
            let addr = self.any_node();
            let path = format!("/dht/delete?key=soaked%20{}", wish.key);
            let headers = vec![("request-id", wish.request.to_string())];
            match self.exchange(Method::DELETE, &addr, path, headers, None, Duration::from_secs(3)) {
                Ok(answer) if answer.status == 200 => {
                    let text = answer.json()["version"].as_str().unwrap_or_default().replacen('.', "-", 1);
                    return match format!("\"{text}\"").parse() {
                        Ok(ETag(version)) => Meaning::Outcome(Outcome::Done(version)),
                        Err(_) => Meaning::Wrong(format!("a delete tells no version: {answer:?}")),
                    };
                }
                Ok(answer) if matches!(answer.status, 404 | 409 | 412) => {
                    return Meaning::Wrong(format!("{wish:?} was acknowledged, and then {addr} says {answer:?}"));
                }
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        // It has happened, and nobody says when: it counts as if that were not known.
        Meaning::Outcome(Outcome::Unknown)
    }

    fn exchange(
        &self,
        method: Method,
        addr: &str,
        path: String,
        headers: Vec<(&'static str, String)>,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Answer, Silence> {
        self.asker.ask(Question { method, addr, path, headers, body, patience })
    }

    fn asks(&self, wish: &Wish) -> Asked {
        self.history.ask(wish.form, self.number, Id::of(key(wish.key)), wish.kind, wish.request)
    }

    fn asks_for(&self, form: &'static str, at: usize) -> Asked {
        self.history.ask(form, self.number, Id::of(key(at)), Kind::Get, RequestId(0))
    }

    /// Writes down what it was told.
    fn hears(&mut self, asked: Asked, returned: u64, at: usize, kind: Kind, meaning: Meaning, addr: &str) -> Outcome {
        let outcome = match meaning {
            Meaning::Outcome(outcome) => outcome,
            Meaning::Deleted => Outcome::Unknown,
            Meaning::Wrong(what) => {
                self.history.wrong(format!("{} through {addr}: {what}", key(at)));
                Outcome::Unknown
            }
        };
        match (kind, outcome) {
            (Kind::Delete, Outcome::Done(_)) => self.told[at] = None,
            (_, Outcome::Read(read)) => self.told[at] = read.map(|(version, _)| version),
            (_, Outcome::Done(version)) => self.told[at] = Some(version),
            (_, Outcome::ConditionFailed(found)) => self.told[at] = found,
            (_, Outcome::Refused | Outcome::Unknown) => {}
        }
        let is_answer = !matches!(outcome, Outcome::Refused | Outcome::Unknown);
        self.pause = if is_answer { SHORTEST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
        self.history.end(asked, returned, outcome);
        outcome
    }

    /// Something to write: a put, a compare-and-set of what it was told last, or a delete where there are some.
    fn wish(&mut self, key: usize) -> Wish {
        let mut wish = self.put_of(key);
        let value = Digest::of(&wish.name);
        (wish.form, wish.kind) = match self.chance.random_range(0..10) {
            0..5 => return wish,
            5..8 => match self.told[key] {
                None => ("create", Kind::Cas { expected: None, value }),
                expected => ("cas", Kind::Cas { expected, value }),
            },
            8 if !is_deleted(key) => ("create", Kind::Cas { expected: None, value }),
            _ if !is_deleted(key) => return wish,
            _ => ("delete", Kind::Delete),
        };
        wish
    }

    fn put_of(&mut self, key: usize) -> Wish {
        self.writes += 1;
        let name = format!("{}-{}", self.number, self.writes);
        Wish { form: "put", key, kind: Kind::Put(Digest::of(&name)), name, request: mint() }
    }

    fn some_keys(&mut self) -> Vec<usize> {
        let count = self.chance.random_range(2..=5);
        let keys: Vec<usize> = (0..KEYS).collect();
        keys.sample(&mut self.chance, count).copied().collect()
    }

    /// Any node, and more often one that can be reached while the wire is cut.
    fn any_node(&mut self) -> String {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let near: Vec<_> = nodes.iter().filter(|(side, _)| *side == self.side).collect();
        let near = if self.chance.random_bool(0.6) { near.choose(&mut self.chance).copied() } else { None };
        near.or(nodes.choose(&mut self.chance)).expect("there are nodes").1.clone()
    }

    fn patience(&mut self) -> Duration {
        Duration::from_millis(*PATIENCE.choose(&mut self.chance).expect("there are some"))
    }
}

/// Whether this key is one that may be deleted.
fn is_deleted(key: usize) -> bool {
    key % 2 == 1
}

impl Wish {
    fn in_bulk(&self) -> Wish {
        let form = match self.form {
            "put" => "put in bulk",
            "cas" => "cas in bulk",
            "create" => "create in bulk",
            _ => "delete in bulk",
        };
        Wish { form, ..self.clone() }
    }

    fn record(&self) -> BulkRecord {
        let key = key(self.key);
        let record = match self.kind {
            Kind::Delete => BulkRecord::delete(key.as_bytes()),
            _ => BulkRecord {
                content_type: Some(type_of(&self.name)),
                ..BulkRecord::put(key.as_bytes(), &value_of(&self.name))
            },
        };
        let (if_match, if_none_match) = match self.kind {
            Kind::Cas { expected: None, .. } => (None, Some("*".to_owned())),
            Kind::Cas { expected: Some(version), .. } => (Some(ETag(version).to_string()), None),
            _ => (None, None),
        };
        BulkRecord { if_match, if_none_match, request_id: Some(self.request.to_string()), ..record }
    }
}
