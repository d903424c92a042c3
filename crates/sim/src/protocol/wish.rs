//! What clients want: of a register that several nodes keep, or, where nodes keep nothing, the way to its owner. They go on, with
//! the same request id, until they have an answer or their time is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chordal_protocol::replica::{Answer, Operation};
use chordal_protocol::{
    Condition, Contact, Content, Id, Lookup, Mode, NextHop, Refusal, Reply, Request, RequestId, Unreachable, Version,
    Write, Written,
};
use rand::RngExt;

use super::host::{Run, Work};
use super::run::go_on_until;
use super::trace::About;
use super::world::{Back, Event, MS, World};
use crate::history::{self, Digest, Kind, Operation as Past, Outcome as Told};

/// For how long a client goes on, in simulated milliseconds.
const DEADLINE: u64 = 6_000;

/// How many changes of views there may be while everything is read in the end, when nothing happens any more.
const AT_REST: u64 = 20;

/// After how long it tries again, in simulated milliseconds.
const AGAIN: std::ops::Range<u64> = 20..200;

/// A wish under way.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    id: Id,
    /// Whether what its client asks and hears is told of in traces.
    is_told: bool,
    begun: u64,
    /// Its place in the history, if it has one.
    place: usize,
    /// Whether an attempt was left without an answer: it may have happened, or may yet.
    in_doubt: bool,
    /// None if only the way is wanted.
    operation: Option<Operation>,
    lookup: Option<Lookup>,
    hops: u32,
    hints: u32,
    /// How many questions to primaries are or were under way, those included that the network has doubled.
    attempts: u32,
}

/// How many hints are followed before a client looks for the owner again.
const HINTS: u32 = 4;

/// All that was wanted, and what clients were told.
#[derive(Debug, Default)]
pub(crate) struct Register {
    /// Operations on registers, and from which on they are the reads of the end.
    pub(crate) history: Vec<Past>,
    pub(crate) end: Option<usize>,
    /// The newest version that anybody was told of each key.
    told: BTreeMap<Id, Version>,
    /// Keys beside those that clients choose from.
    named: BTreeSet<Id>,
    /// How many wishes were fulfilled, and how many never.
    pub(crate) done: u64,
    pub(crate) given_up: u64,
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
        let id = id_of(self.chance.random_range(0..self.setup.keys));
        let operation = self.setup.content.is_some().then(|| self.some_operation(id));
        self.want(host, id, operation, false);
    }

    /// A client of a scenario reads a key, or writes a value there.
    pub(crate) fn want_by_name(&mut self, host: usize, key: &str, value: Option<&str>) {
        let id = Id::of(key);
        self.register.named.insert(id);
        let operation = match value {
            None => Operation::Get(id),
            Some(value) => {
                let content = Content::Value { bytes: value.into(), content_type: "text/plain".to_owned() };
                let (condition, request) = (Condition::Always, self.new_request());
                Operation::Write(Write { id, key: Some(key.into()), content, condition, request })
            }
        };
        self.tell(About::Client, |world| {
            let what = value.map_or(format!("get {key}"), |value| format!("put {key} = {value}"));
            format!("a client asks {}: {what}  ({})", world.hosts[host].name(), id.short())
        });
        self.want(host, id, Some(operation), true);
    }

    /// All keys that somebody may have written.
    pub(crate) fn keys(&self) -> Vec<Id> {
        (0..self.setup.keys).map(id_of).chain(self.register.named.iter().copied()).collect()
    }

    fn new_request(&mut self) -> RequestId {
        RequestId((u128::from(self.now / MS + 1) << 64) | u128::from(self.chance.random::<u64>()))
    }

    fn some_operation(&mut self, id: Id) -> Operation {
        let request = self.new_request();
        let told = self.register.told.get(&id).copied();
        let condition = match (self.chance.random_range(0..4), told) {
            (0, Some(version)) => Condition::Is(version),
            (1, None) => Condition::Absent,
            _ => Condition::Always,
        };
        let what = self.chance.random_range(0..8);
        if what < 4 {
            return Operation::Get(id);
        }
        if what == 4 {
            let (content, condition) = (Content::Tombstone, Condition::Exists);
            return Operation::Write(Write { id, key: None, content, condition, request });
        }
        let bytes = self.chance.random::<u64>().to_be_bytes().to_vec();
        let content = Content::Value { bytes, content_type: "application/octet-stream".to_owned() };
        Operation::Write(Write { id, key: None, content, condition, request })
    }

    fn want(&mut self, host: usize, id: Id, operation: Option<Operation>, is_told: bool) {
        let place = self.register.history.len();
        if let Some(operation) = &operation {
            let (kind, request) = kind_of(operation);
            let (client, invoked, outcome) = (host as u64, self.now, Told::Unknown);
            self.register.history.push(Past { client, key: id, kind, request, invoked, returned: None, outcome });
        }
        let number = self.next_number();
        let begun = self.now;
        let wish = Wish {
            id,
            is_told,
            begun,
            place,
            in_doubt: false,
            operation,
            lookup: None,
            hops: 0,
            hints: HINTS,
            attempts: 0,
        };
        self.find_primary(host, number, wish);
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
            self.register.done += 1;
            return;
        };
        wish.in_doubt = true;
        wish.attempts += 1;
        let request = Request::Operate(operation);
        self.put(host, number, wish, to, request);
    }

    /// A question is under way once more: the client has sent it again, or the network has doubled it.
    pub(crate) fn asked_again(&mut self, back: Back) {
        if let Some(Run { work: Work::Wish(wish), .. }) = self.hosts[back.host].runs.get_mut(&back.run)
            && wish.lookup.is_none()
        {
            wish.attempts += 1;
        }
    }

    fn put(&mut self, host: usize, number: u64, wish: Wish, to: Contact, request: Request) {
        self.hosts[host].runs.insert(number, Run { work: Work::Wish(wish), open: VecDeque::new(), asking: None });
        self.ask(host, number, to, request, None);
    }

    /// Nobody could say yet: again after a while, unless the client's time is over.
    fn later(&mut self, host: usize, number: u64, wish: Wish) {
        if self.now >= wish.begun + DEADLINE * MS {
            self.register.given_up += 1;
            if wish.operation.is_some() {
                let outcome = if wish.in_doubt { Told::Unknown } else { Told::Refused };
                self.record(&wish, outcome);
            }
            return;
        }
        let life = self.hosts[host].life;
        self.hosts[host].runs.insert(number, Run { work: Work::Wish(wish), open: VecDeque::new(), asking: None });
        let pause = self.chance.random_range(AGAIN) * MS;
        self.at(pause, Event::WishAgain { host, life, number });
    }

    pub(crate) fn wish_again(&mut self, host: usize, number: u64) {
        if let Some(Run { work: Work::Wish(wish), .. }) = self.hosts[host].runs.remove(&number) {
            if wish.is_told {
                self.tell(About::Client, |_| "the client asks again, with the same request id".to_owned());
            }
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
            (None, Ok(Reply::Answered(answer))) => {
                self.fulfilled(&wish, &answer);
            }
            (None, _) => {
                self.change(host, |chord| chord.forget_owner(&wish.id));
                self.later(host, number, wish);
            }
        }
    }

    fn fulfilled(&mut self, wish: &Wish, answer: &Answer) {
        self.register.done += 1;
        if wish.is_told {
            self.tell_change(|_| format!("the client is told: {}", super::trace::told(answer)));
        }
        let outcome = match answer {
            Answer::Read(record) => Told::Read(record.as_ref().and_then(|record| {
                let Content::Value { bytes, .. } = &record.content else { return None };
                Some((record.version, Digest::of(bytes)))
            })),
            Answer::Written(Written::Done(version)) => Told::Done(*version),
            // Another attempt, which was not answered, may still arrive.
            Answer::Written(Written::Refused(_)) if wish.attempts > 1 => Told::Unknown,
            Answer::Written(Written::Refused(version)) => Told::ConditionFailed(*version),
            Answer::Refused(_) | Answer::Unknown => Told::Unknown,
        };
        self.record(wish, outcome);
        if let Some(version) = answer.version() {
            let told = self.register.told.entry(wish.id).or_default();
            *told = version.max(*told);
        }
    }

    fn record(&mut self, wish: &Wish, outcome: Told) {
        if let Some(past) = self.register.history.get_mut(wish.place) {
            past.returned = Some(self.now);
            past.outcome = outcome;
        }
    }

    /// When all is quiet, every register is read once more.
    pub(crate) fn read_all(&mut self) {
        if self.setup.content.is_none() {
            return;
        }
        // What was asked before must be over: what is written later would not be there yet.
        let (patience, attempts) = self.setup.patience;
        let verdict = patience * u64::from(attempts) * MS;
        let quiet = self.now + DEADLINE * MS + 2 * verdict;
        go_on_until(self, quiet);
        let latest = self.now + u64::from(self.setup.settings.hop_budget) * verdict;
        while self.checker.violation.is_none() && self.now < latest && self.is_anything_wanted() {
            let next = self.now + DEADLINE * MS;
            go_on_until(self, next);
        }
        let changes = self.service.changes();
        self.register.end = Some(self.register.history.len());
        let live: Vec<usize> =
            (0..self.hosts.len()).filter(|at| self.hosts[*at].ring == 0 && self.hosts[*at].is_live()).collect();
        for id in self.keys() {
            let host = live[self.chance.random_range(0..live.len())];
            self.want(host, id, Some(Operation::Get(id)), false);
        }
        let end = self.now + 2 * DEADLINE * MS;
        go_on_until(self, end);
        let from = self.register.end.unwrap_or_default();
        if let Some(past) = self.register.history[from..].iter().find(|past| past.outcome == Told::Unknown) {
            let text = format!("nobody could say what key {} holds", past.key.short());
            self.checker.violated("served_in_the_end", text);
        }
        if self.service.changes() > changes + AT_REST {
            let text = format!("views were changed {} times in the last seconds", self.service.changes() - changes);
            self.checker.violated("views_come_to_rest", text);
        }
        self.look_at_decisions();
    }

    fn is_anything_wanted(&self) -> bool {
        self.hosts.iter().any(|host| host.runs.values().any(|run| matches!(run.work, Work::Wish(_))))
    }

    /// Judges what clients were told.
    pub(crate) fn judge(&mut self) -> history::Summary {
        let Register { history, end, .. } = &self.register;
        let (past, last) = history.split_at(end.unwrap_or(history.len()));
        let summary = history::summarize(past, last);
        if let Some(violation) = &summary.violation {
            self.checker.violated("linearizable", violation.to_string());
        } else if summary.writes_lost > 0 {
            self.checker.violated("acknowledged_writes_survive", format!("{} are gone", summary.writes_lost));
        }
        self.check();
        summary
    }
}

fn kind_of(operation: &Operation) -> (Kind, RequestId) {
    let Operation::Write(Write { content, condition, request, .. }) = operation else {
        return (Kind::Get, RequestId(0));
    };
    let kind = match (content, condition) {
        (Content::Tombstone, _) => Kind::Delete,
        (Content::Value { bytes, .. }, Condition::Is(version)) => {
            Kind::Cas { expected: Some(*version), value: Digest::of(bytes) }
        }
        (Content::Value { bytes, .. }, Condition::Absent) => Kind::Cas { expected: None, value: Digest::of(bytes) },
        (Content::Value { bytes, .. }, _) => Kind::Put(Digest::of(bytes)),
    };
    (kind, *request)
}

/// Where a key of the clients is.
pub(crate) fn id_of(key: usize) -> Id {
    Id::of(format!("key {key}"))
}
