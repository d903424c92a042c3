//! What clients want: of a register that several nodes keep, or, where nodes keep nothing, the way to its owner. They go on, with
//! the same request id, until they have an answer or their time is over.

use std::collections::{BTreeMap, VecDeque};

use chordal_protocol::replica::{Answer, Operation};
use chordal_protocol::{
    Condition, Contact, Content, Id, Lookup, Mode, NextHop, Refusal, Reply, Request, RequestId, Unreachable, Version,
    Write, Written,
};
use rand::RngExt;

use super::host::{Run, Work};
use super::run::go_on_until;
use super::world::{Event, MS, World};

/// How many keys clients use.
const KEYS: usize = 24;

/// For how long a client goes on, in simulated milliseconds.
const DEADLINE: u64 = 6_000;

/// After how long it tries again, in simulated milliseconds.
const AGAIN: std::ops::Range<u64> = 20..200;

/// A wish under way.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// Its place in the register.
    place: usize,
    id: Id,
    /// None if only the way is wanted.
    operation: Option<Operation>,
    lookup: Option<Lookup>,
    hops: u32,
    hints: u32,
}

/// How many hints are followed before a client looks for the owner again.
const HINTS: u32 = 4;

/// What was wanted, and what the client was told.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    pub(crate) key: usize,
    pub(crate) operation: Option<Operation>,
    pub(crate) invoked: u64,
    pub(crate) returned: Option<(u64, Option<Answer>)>,
    /// The newest version that anybody had been told of when it began.
    floor: Option<Version>,
    /// Whether somebody may have done it.
    may_have_happened: bool,
}

/// All that was wanted.
#[derive(Debug, Default)]
pub(crate) struct Register {
    pub(crate) past: Vec<Past>,
    told: BTreeMap<usize, (Version, Option<Content>)>,
    pub(crate) done: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
}

impl World<'_> {
    /// A client wants something through some node, and the next one comes after a while.
    pub(crate) fn client(&mut self) {
        if self.setup.operations <= 0.0 || !self.troubled {
            return;
        }
        let gap = self.chance.random_range(0.0..2.0) / self.setup.operations * 1e6;
        self.at(gap as u64 + 1, Event::Client);
        let live: Vec<usize> = (0..self.hosts.len())
            .filter(|at| self.hosts[*at].ring == 0 && self.hosts[*at].is_live() && self.hosts[*at].member.joined)
            .collect();
        if live.is_empty() {
            return;
        }
        let host = live[self.chance.random_range(0..live.len())];
        let key = self.chance.random_range(0..KEYS);
        let operation = self.setup.content.is_some().then(|| self.some_operation(key));
        self.want(host, key, operation);
    }

    fn some_operation(&mut self, key: usize) -> Operation {
        let id = id_of(key);
        let request = RequestId((u128::from(self.now / MS + 1) << 64) | u128::from(self.chance.random::<u64>()));
        let told = self.register.told.get(&key).map(|(version, _)| *version);
        let condition = match (self.chance.random_range(0..4), told) {
            (0, Some(version)) => Condition::Is(version),
            (1, None) => Condition::Absent,
            _ => Condition::Always,
        };
        if self.chance.random_bool(0.5) {
            return Operation::Get(id);
        }
        let bytes = self.chance.random::<u64>().to_be_bytes().to_vec();
        let content = Content::Value { bytes, content_type: "application/octet-stream".to_owned() };
        Operation::Write(Write { id, key: None, content, condition, request })
    }

    fn want(&mut self, host: usize, key: usize, operation: Option<Operation>) {
        let place = self.register.past.len();
        let floor = self.register.told.get(&key).map(|(version, _)| *version);
        let past = Past {
            key,
            operation: operation.clone(),
            invoked: self.now,
            returned: None,
            floor,
            may_have_happened: false,
        };
        self.register.past.push(past);
        let number = self.next_number();
        let id = id_of(key);
        self.find_primary(host, number, Wish { place, id, operation, lookup: None, hops: 0, hints: HINTS });
    }

    fn find_primary(&mut self, host: usize, number: u64, mut wish: Wish) {
        wish.hints = HINTS;
        let mode = [Mode::Linear, Mode::Fingers, Mode::Cached][self.chance.random_range(0..3)];
        match self.hosts[host].chord.lookup(wish.id, mode) {
            Some(lookup) => self.next_hop_of(host, number, wish, lookup),
            None => {
                let me = self.hosts[host].chord.me().clone();
                self.ask_primary(host, number, wish, me);
            }
        }
    }

    fn next_hop_of(&mut self, host: usize, number: u64, mut wish: Wish, mut lookup: Lookup) {
        match lookup.next_hop() {
            Ok(hop) => {
                wish.hops += 1;
                let request = Request::Route { key: wish.id, mode: lookup.mode(), excluding: None };
                wish.lookup = Some(lookup);
                self.put(host, number, wish, hop.contact, request);
            }
            Err(_) => self.later(host, number, wish),
        }
    }

    fn ask_primary(&mut self, host: usize, number: u64, mut wish: Wish, to: Contact) {
        wish.lookup = None;
        let Some(operation) = wish.operation.clone() else {
            // The way was all that was wanted.
            self.register.past[wish.place].returned = Some((self.now, None));
            self.register.done += 1;
            return;
        };
        self.register.past[wish.place].may_have_happened = true;
        let request = Request::Operate(operation);
        self.put(host, number, wish, to, request);
    }

    fn put(&mut self, host: usize, number: u64, wish: Wish, to: Contact, request: Request) {
        self.hosts[host].runs.insert(number, Run { work: Work::Wish(wish), open: VecDeque::new(), asking: None });
        self.ask(host, number, to, request, None);
    }

    /// Nobody could say yet: again after a while, unless the client's time is over.
    fn later(&mut self, host: usize, number: u64, wish: Wish) {
        if self.now >= self.register.past[wish.place].invoked + DEADLINE * MS {
            let possible = self.register.past[wish.place].may_have_happened;
            *(if possible { &mut self.register.unknown } else { &mut self.register.refused }) += 1;
            return;
        }
        let life = self.hosts[host].life;
        self.hosts[host].runs.insert(number, Run { work: Work::Wish(wish), open: VecDeque::new(), asking: None });
        let pause = self.chance.random_range(AGAIN) * MS;
        self.at(pause, Event::WishAgain { host, life, number });
    }

    pub(crate) fn wish_again(&mut self, host: usize, number: u64) {
        if let Some(Run { work: Work::Wish(wish), .. }) = self.hosts[host].runs.remove(&number) {
            self.find_primary(host, number, wish);
        }
    }

    pub(crate) fn wish_answered(
        &mut self,
        host: usize,
        number: u64,
        by: &Contact,
        outcome: Result<Reply, Unreachable>,
    ) {
        let Some(Run { work: Work::Wish(mut wish), .. }) = self.hosts[host].runs.remove(&number) else { return };
        match (wish.lookup.take(), outcome) {
            (Some(_), Ok(Reply::Route(NextHop::Owner { range, .. }))) => {
                self.hops.push(wish.hops);
                self.change(host, |chord| chord.learn_owner(range, by));
                self.ask_primary(host, number, wish, by.clone());
            }
            (Some(mut lookup), outcome) => {
                match outcome {
                    Ok(Reply::Route(NextHop::Via(hops))) => lookup.led_on(by, hops),
                    Ok(_) => {}
                    Err(Unreachable) => self.change(host, |chord| chord.forget_node(by)),
                }
                self.next_hop_of(host, number, wish, lookup);
            }
            (None, Ok(Reply::Refused(Refusal::NotMine(Some(hint))))) if wish.hints > 0 => {
                wish.hints -= 1;
                self.ask_primary(host, number, wish, hint);
            }
            (None, Ok(Reply::Answered(Answer::Refused(_) | Answer::Unknown))) => self.later(host, number, wish),
            (None, Ok(Reply::Answered(answer))) => self.fulfilled(wish, answer),
            (None, _) => {
                self.change(host, |chord| chord.forget_owner(&wish.id));
                self.later(host, number, wish);
            }
        }
    }

    fn fulfilled(&mut self, wish: Wish, answer: Answer) {
        self.register.done += 1;
        let past = &mut self.register.past[wish.place];
        past.returned = Some((self.now, Some(answer.clone())));
        let (key, floor) = (past.key, past.floor);
        let content = match (&wish.operation, &answer) {
            (Some(Operation::Write(write)), Answer::Written(Written::Done(_))) => Some(write.content.clone()),
            (_, answer) => answer.value().cloned(),
        };
        let version = answer.version();
        if version < floor && !matches!(answer, Answer::Written(Written::Done(_))) {
            let text = format!("key {key}: {version:?} was told, after {floor:?} had been");
            self.checker.violated("stale_read", text);
        }
        let Some(version) = version else { return };
        let told = self.register.told.entry(key).or_insert((version, content.clone()));
        if told.0 == version && told.1.is_some() && content.is_some() && told.1 != content {
            self.checker.violated("one_write_per_version", format!("key {key}: {version} is two values"));
        }
        if told.0 < version {
            *told = (version, content);
        }
    }

    /// When all is quiet, every register is read once more.
    pub(crate) fn read_all(&mut self) {
        if self.setup.content.is_none() {
            return;
        }
        let from = self.register.past.len();
        let live: Vec<usize> =
            (0..self.hosts.len()).filter(|at| self.hosts[*at].ring == 0 && self.hosts[*at].is_live()).collect();
        for key in 0..KEYS {
            let host = live[self.chance.random_range(0..live.len())];
            self.want(host, key, Some(Operation::Get(id_of(key))));
        }
        let end = self.now + 2 * DEADLINE * MS;
        go_on_until(self, end);
        if let Some(past) = self.register.past[from..].iter().find(|past| past.returned.is_none()) {
            self.checker.violated("served_in_the_end", format!("nobody could say what key {} holds", past.key));
        }
    }
}

fn id_of(key: usize) -> Id {
    Id::of(format!("key {key}"))
}
