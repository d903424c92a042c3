//! What the model leaves out: time. Nodes that tick, messages that are lost and late, restarts, all by seeded chance; and
//! afterwards, once messages arrive again, every range must come back and have what was acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chordal_protocol::replica::{
    Answer, Area, Change, Event, FORCED_EPOCH_STEP, Group, Letter, Member, MemoryStore, Name, NotForced, Operation,
    Replica, Reply, Request, Settings, Snapshot, Step, Token, View,
};
use chordal_protocol::{Condition, Content, Id, Interval, RequestId, Time, Version, Write, Written};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

enum Message {
    Request(Letter<Request>),
    Reply(Letter<Reply>),
}

struct Node {
    replica: Replica,
    store: MemoryStore,
    is_up: bool,
}

struct Net {
    chance: Pcg64Mcg,
    now: u64,
    nodes: BTreeMap<u8, Node>,
    open: Vec<(u64, Message)>,
    /// How many of a hundred messages are lost.
    loss: u32,
    answers: BTreeMap<u64, Answer>,
    /// Who takes part in a view when its primary is silent.
    alive: BTreeSet<u8>,
    events: Vec<(u8, Event)>,
    asked: u64,
}

#[expect(clippy::unwrap_used, reason = "two hex digits are a prefix")]
fn id(n: u8) -> Id {
    Id::from_hex_prefix(&format!("{n:02x}")).unwrap()
}

fn member(n: u8) -> Member {
    Member { id: id(n), incarnation: 1 }
}

fn number(member: &Member) -> u8 {
    member.id.as_bytes()[0]
}

fn group(nodes: &[u8]) -> Group {
    Group(nodes.iter().map(|n| member(*n)).collect())
}

/// Beats come by chance here, messages are lost, and a row or two fill a page.
fn patient() -> Settings {
    let mut settings = Settings::default();
    settings.suspicion = 2_000;
    settings.page_bytes = 150;
    settings
}

impl Net {
    fn new(seed: u64, nodes: u8, first: &[u8]) -> Net {
        Net::with(patient(), seed, nodes, first)
    }

    fn with(settings: Settings, seed: u64, nodes: u8, first: &[u8]) -> Net {
        let mut net = Net {
            chance: Pcg64Mcg::seed_from_u64(seed),
            now: 10_000,
            nodes: BTreeMap::new(),
            open: Vec::new(),
            loss: 0,
            answers: BTreeMap::new(),
            alive: (0..nodes).collect(),
            events: Vec::new(),
            asked: 0,
        };
        for n in 0..nodes {
            let mut replica = Replica::new(member(n), settings.clone());
            if first.contains(&n) {
                let members = group(first).0;
                let range = Interval::whole(id(0));
                replica.found(View { range, epoch: 1, primary: members[0], members, deferred: None, forced: false });
            }
            net.nodes.insert(n, Node { replica, store: MemoryStore::default(), is_up: true });
        }
        net
    }

    fn step(&mut self, n: u8, step: Step) {
        for call in step.calls {
            self.send(Message::Request(call));
        }
        for (Token(token), answer) in step.answers {
            self.answers.insert(token, answer);
        }
        for event in step.events {
            match &event {
                Event::Silent(name) => self.take_over(n, *name),
                // As the keeper does.
                Event::Lagging(name, _) => {
                    let replica = &self.nodes[&n].replica;
                    let is_changing = replica.proposing_since(name).is_some();
                    if !is_changing {
                        self.propose(n, *name, &Change::Same);
                    }
                }
                _ => {}
            }
            self.events.push((n, event));
        }
    }

    /// What the ring would do: the first of those who are thought to live keep the range, this one first.
    fn take_over(&mut self, n: u8, name: Name) {
        let others = self.alive.iter().copied().filter(|other| *other != n);
        let members: Vec<u8> = std::iter::once(n).chain(others).take(3).collect();
        self.propose(n, name, &Change::Members(group(&members)));
    }

    fn propose(&mut self, n: u8, name: Name, change: &Change) {
        let now = Time(self.now);
        let Some(node) = self.nodes.get_mut(&n) else { return };
        if let Ok(step) = node.replica.propose(&mut node.store, now, name, change) {
            self.step(n, step);
        }
    }

    fn send(&mut self, message: Message) {
        if self.chance.random_range(0..100) >= self.loss {
            let delay = self.chance.random_range(1..60);
            self.open.push((self.now + delay, message));
        }
    }

    fn deliver(&mut self, message: Message) {
        let to = match &message {
            Message::Request(letter) => number(&letter.to),
            Message::Reply(letter) => number(&letter.to),
        };
        let now = Time(self.now);
        let Some(node) = self.nodes.get_mut(&to).filter(|node| node.is_up) else { return };
        let step = match message {
            Message::Request(letter) => {
                let (reply, step) = node.replica.serve(&mut node.store, now, letter);
                self.send(Message::Reply(reply));
                step
            }
            Message::Reply(letter) => node.replica.hear(&mut node.store, now, letter),
        };
        self.step(to, step);
    }

    fn run(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.now += 10;
            let (due, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.open).into_iter().partition(|(at, _)| *at <= self.now);
            self.open = later;
            for (_, message) in due {
                self.deliver(message);
            }
            for n in 0..self.nodes.len() as u8 {
                if self.chance.random_range(0..20) == 0 {
                    self.tick(n);
                }
            }
        }
    }

    fn tick(&mut self, n: u8) {
        let now = Time(self.now);
        let Some(node) = self.nodes.get_mut(&n).filter(|node| node.is_up) else { return };
        let step = node.replica.tick(&mut node.store, now);
        self.step(n, step);
    }

    fn restart(&mut self, n: u8) {
        let Some(node) = self.nodes.get_mut(&n) else { return };
        node.replica = Replica::restored(node.replica.durable().clone(), patient());
        node.is_up = true;
    }

    fn crash(&mut self, n: u8) {
        if let Some(node) = self.nodes.get_mut(&n) {
            node.is_up = false;
        }
        self.alive.remove(&n);
    }

    fn primary_of(&self, key: &Id) -> Option<u8> {
        let serves = |node: &Node| node.is_up && node.replica.leads().any(|view| view.range.contains(key));
        self.nodes
            .iter()
            .filter(|(_, node)| serves(node))
            .max_by_key(|(_, node)| node.replica.leads().find(|view| view.range.contains(key)).map(|view| view.epoch))
            .map(|(n, _)| *n)
    }

    fn view_of(&self, key: &Id) -> Option<View> {
        let n = self.primary_of(key)?;
        self.nodes[&n].replica.leads().find(|view| view.range.contains(key)).cloned()
    }

    /// Asks until there is an answer that says something, or time is up.
    fn ask(&mut self, operation: &Operation, patience: u64) -> Option<Answer> {
        let until = self.now + patience;
        while self.now < until {
            if let Some(n) = self.primary_of(operation.id()) {
                self.asked += 1;
                let token = self.asked;
                let now = Time(self.now);
                if let Some(node) = self.nodes.get_mut(&n) {
                    let step = node.replica.operate(&mut node.store, now, Token(token), operation.clone());
                    self.step(n, step);
                }
                self.run(400);
                match self.answers.get(&token) {
                    None | Some(Answer::Refused(_) | Answer::Unknown) => {}
                    Some(answer) => return Some(answer.clone()),
                }
            }
            self.run(100);
        }
        None
    }

    fn put(&mut self, key: u8, value: u8, request: u64) -> Option<Version> {
        let content = Content::Value { bytes: vec![value], content_type: String::new() };
        let write = Write {
            id: id(key),
            key: None,
            content,
            condition: Condition::Always,
            request: RequestId(u128::from(request + 1) << 64),
        };
        match self.ask(&Operation::Write(write), 60_000)? {
            Answer::Written(Written::Done(version)) => Some(version),
            other => panic!("a put without condition: {other:?}"),
        }
    }

    fn get(&mut self, key: u8) -> Option<Option<u8>> {
        match self.ask(&Operation::Get(id(key)), 60_000)? {
            Answer::Read(Some(record)) => match record.content {
                Content::Value { bytes, .. } => Some(bytes.first().copied()),
                Content::Tombstone => Some(None),
            },
            Answer::Read(None) => Some(None),
            other => panic!("a get: {other:?}"),
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_losses_crashes_and_changes() {
    for seed in 0..400 {
        let mut net = Net::new(seed, 5, &[0, 1, 2]);
        net.loss = 10;
        for round in 0..6u64 {
            let key = (round % 3) as u8 * 0x50 + 1;
            assert!(net.put(key, round as u8, round).is_some(), "seed {seed}: nothing is served in round {round}");
            match (seed + round) % 4 {
                0 => (0..5).for_each(|n| net.restart(n)),
                1 => {
                    let down = (0..40).find_map(|_| {
                        net.run(500);
                        net.primary_of(&id(key))
                    });
                    let down = down.unwrap();
                    net.crash(down);
                    net.run(6_000);
                    net.restart(down);
                    net.alive.insert(down);
                }
                2 => {
                    if let (Some(n), Some(view)) = (net.primary_of(&id(key)), net.view_of(&id(key))) {
                        let at = view.range.lo.wrapping_add(&Id::power_of_two(252));
                        let group = Group(view.members.clone());
                        net.propose(n, view.name(), &Change::Split { at, head: group.clone(), tail: group });
                    }
                }
                _ => {}
            }
            net.run(6_000);
            assert_eq!(net.get(key), Some(Some(round as u8)), "seed {seed}, round {round}");
        }
        net.loss = 0;
        net.run(90_000);
        for (key, value) in [(1, 3), (0x51, 4), (0xa1, 5)] {
            assert_eq!(net.get(key), Some(Some(value)), "seed {seed}: in the end");
        }
        for (n, node) in &net.nodes {
            let durable = node.replica.durable();
            assert!(durable.staged.is_empty(), "seed {seed}: {n} keeps {:?}", durable.staged.keys());
            let unsound = durable.held.values().find(|held| !held.installed || held.promised.is_some());
            assert!(unsound.is_none(), "seed {seed}: {n} holds {unsound:?}");
            assert!(durable.decided.is_empty(), "seed {seed}: {n} remembers {:?}", durable.decided.keys());
        }
    }
}

#[test]
fn a_dead_primary_is_followed_by_another_member_and_a_view_outlives_all_its_first_members() {
    for seed in 0..100 {
        let mut net = Net::new(seed, 6, &[0, 1, 2]);
        for round in 0..3u8 {
            net.put(0x91, round, u64::from(round)).unwrap();
            net.run(500);
            net.crash(net.primary_of(&id(0x91)).unwrap());
            assert_eq!(net.get(0x91), Some(Some(round)), "seed {seed}, round {round}");
            net.run(5_000);
        }
        let view = net.view_of(&id(0x91)).unwrap();
        assert!(view.members.iter().all(|member| net.alive.contains(&number(member))), "seed {seed}: {view:?}");
    }
}

#[test]
fn a_merge_is_finished_or_undone_whoever_drives_it() {
    for seed in 0..100 {
        let mut net = Net::new(seed, 3, &[0, 1, 2]);
        let whole = net.view_of(&id(1)).unwrap();
        let group = Group(whole.members.clone());
        net.propose(0, whole.name(), &Change::Split { at: id(0x80), head: group.clone(), tail: group });
        net.run(3_000);
        assert!(net.put(0x91, 7, 1).is_some());
        let (a, b) = (net.view_of(&id(1)).unwrap(), net.view_of(&id(0x91)).unwrap());
        net.propose(0, b.name(), &Change::Defer { into: a.name() });
        if seed % 2 == 0 {
            net.run(200);
            net.crash(0);
        }
        net.run(20_000);
        assert_eq!(net.get(0x91), Some(Some(7)), "seed {seed}");
        assert!(net.put(0x01, 8, 2).is_some(), "seed {seed}");
    }
}

#[test]
fn a_range_without_a_majority_is_recovered_by_a_person_only() {
    let mut net = Net::new(1, 3, &[0, 1, 2]);
    let before = net.put(0x91, 7, 1).unwrap();
    let name = net.view_of(&id(1)).unwrap().name();
    let survivors: BTreeSet<Member> = [member(2)].into();
    let begin = |net: &mut Net| {
        let now = Time(net.now);
        let node = net.nodes.get_mut(&2).unwrap();
        let step = node.replica.recover(&mut node.store, now, name, survivors.clone()).unwrap();
        net.step(2, step);
        net.run(300);
        let now = Time(net.now);
        let node = net.nodes.get_mut(&2).unwrap();
        node.replica.force(&mut node.store, now, name)
    };
    net.crash(0);
    net.crash(1);
    net.run(20_000);
    assert_eq!(net.primary_of(&id(1)), None, "a minority serves nothing");
    let step = begin(&mut net).unwrap();
    net.step(2, step);
    let view = net.view_of(&id(1)).unwrap();
    assert_eq!((view.forced, view.epoch, view.members.as_slice()), (true, 1 + FORCED_EPOCH_STEP, &[member(2)][..]));
    assert_eq!(net.get(0x91), Some(Some(7)));
    assert!(net.put(0x91, 9, 2).unwrap() > before);
    // The others come back: they are told, give up, and keep what they had for a person.
    net.restart(0);
    net.restart(1);
    net.run(20_000);
    for n in [0, 1] {
        assert!(net.events.contains(&(n, Event::Fenced(name))), "{n} has not been fenced");
        let node = &net.nodes[&n];
        assert!(node.replica.durable().held.is_empty());
        assert!(node.store.record(&Area::View(name), &id(0x91)).is_some(), "its content is kept");
    }
    assert_eq!(net.get(0x91), Some(Some(9)));
}

#[test]
fn nothing_is_forced_while_a_majority_answers() {
    let mut net = Net::new(1, 3, &[0, 1, 2]);
    net.put(0x91, 7, 1).unwrap();
    let name = net.view_of(&id(1)).unwrap().name();
    net.crash(0);
    net.run(2_000);
    let Some(name) = net.view_of(&id(1)).map(|view| view.name()).or(Some(name)) else { return };
    let now = Time(net.now + 60_000);
    let node = net.nodes.get_mut(&2).unwrap();
    let Ok(step) = node.replica.recover(&mut node.store, now, name, [member(2)].into()) else { return };
    net.step(2, step);
    net.now += 60_000;
    net.run(300);
    let now = Time(net.now);
    let node = net.nodes.get_mut(&2).unwrap();
    let outcome = node.replica.force(&mut node.store, now, name).map(|_| ());
    assert!(matches!(outcome, Err(NotForced::Majority | NotForced::NotBegun)), "{outcome:?}");
    net.run(20_000);
    assert_eq!(net.get(0x91), Some(Some(7)));
    assert!(!net.view_of(&id(0x91)).unwrap().forced);
}

#[test]
fn a_member_that_misses_many_writes_is_named() {
    let mut net = Net::new(1, 3, &[0, 1, 2]);
    net.crash(2);
    let name = net.view_of(&id(1)).unwrap().name();
    let node = net.nodes.get_mut(&0).unwrap();
    let most = Settings::default().longest_tail as u64;
    for i in 0..=most {
        let content = Content::Value { bytes: Vec::new(), content_type: String::new() };
        let key = Id::of(i.to_string());
        let request = RequestId(u128::from(i + 1) << 64);
        let write = Write { id: key, key: None, content, condition: Condition::Always, request };
        let step = node.replica.operate(&mut node.store, Time(10_000), Token(i), Operation::Write(write));
        let refused = step.answers.iter().any(|(_, answer)| matches!(answer, Answer::Refused(_)));
        assert_eq!(refused, i == most, "what is under way is bounded");
    }
    let step = node.replica.tick(&mut node.store, Time(10_000));
    assert!(step.events.contains(&Event::Lagging(name, vec![member(1), member(2)])));
}

/// Two nodes keep forty values, and a third one is to take half of the circle, with all of them: a row to a letter.
struct Joining {
    net: Net,
    name: Name,
    written: BTreeMap<u8, Option<u8>>,
    last: u8,
    asked: Vec<u64>,
}

impl Joining {
    fn begin(seed: u64) -> Joining {
        let mut net = Net::new(seed, 3, &[0, 1]);
        for key in 0..40 {
            net.put(0x80 + key, 0, u64::from(key));
        }
        let name = net.view_of(&id(0x80)).expect("a view").name();
        let mut joining = Joining { net, name, written: BTreeMap::new(), last: 0, asked: Vec::new() };
        joining.propose();
        joining
    }

    fn propose(&mut self) {
        let (head, tail) = (group(&[0, 1]), group(&[2, 0, 1]));
        self.net.propose(0, self.name, &Change::Split { at: id(0x80), head, tail });
    }

    /// A client writes over a value, or deletes it, and does not wait for the answer.
    fn write(&mut self) {
        self.last += 1;
        let (key, request) = (0x80 + self.last * 7 % 40, RequestId((u128::from(self.last) + 1_000) << 64));
        let value = Content::Value { bytes: vec![self.last], content_type: String::new() };
        let is_delete = self.last.is_multiple_of(3);
        let content = if is_delete { Content::Tombstone } else { value };
        let write = Write { id: id(key), key: None, content, condition: Condition::Always, request };
        let now = Time(self.net.now);
        self.net.asked += 1;
        let (token, node) = (self.net.asked, self.net.nodes.get_mut(&0).expect("a node"));
        let step = node.replica.operate(&mut node.store, now, Token(token), Operation::Write(write));
        self.net.step(0, step);
        self.written.insert(key, (!is_delete).then_some(self.last));
        self.asked.push(token);
    }

    fn is_served(&self) -> bool {
        self.net.primary_of(&id(0x80)).is_some()
    }

    /// Lets so much time pass, with a write every now and then; how long nobody served, in milliseconds.
    fn run(&mut self, ms: u64, writes: usize) -> u64 {
        let mut without = 0;
        for i in 0..ms / 10 {
            if i % 20 == 0 && i / 20 < writes as u64 && self.net.primary_of(&id(0x80)) == Some(0) {
                self.write();
            }
            self.net.run(10);
            without += if self.is_served() { 0 } else { 10 };
        }
        without
    }

    fn held(&self, n: u8) -> Vec<Name> {
        self.net.nodes[&n].replica.durable().held.keys().copied().collect()
    }

    fn sent_ahead(&self) -> bool {
        self.net.events.contains(&(0, Event::SentAhead(self.name, vec![member(2)])))
    }

    fn must_be_as_written(&mut self, seed: u64) {
        for key in 0..40 {
            let value = self.written.get(&(0x80 + key)).copied().unwrap_or(Some(0));
            assert_eq!(self.net.get(0x80 + key), Some(value), "seed {seed}: {key}");
        }
    }
}

#[test]
fn what_a_joiner_needs_travels_while_the_view_serves() {
    for seed in 0..20 {
        let mut joining = Joining::begin(seed);
        assert_eq!(joining.run(1_500, 8), 0, "seed {seed}: nothing is sealed while content travels");
        assert!(joining.held(2).is_empty() && !joining.sent_ahead(), "seed {seed}: it takes longer than that");
        let without = joining.run(30_000, 20);
        assert!(without < 700, "seed {seed}: sealed for {without} ms, where a few letters and answers are needed");
        assert!(joining.sent_ahead(), "seed {seed}");
        assert_eq!(joining.net.primary_of(&id(0x80)), Some(2), "seed {seed}");
        joining.must_be_as_written(seed);
    }
}

#[test]
fn a_joiner_that_restarts_goes_on_where_it_was() {
    for seed in 0..20 {
        let mut joining = Joining::begin(seed);
        joining.run(1_500, 8);
        let staged = joining.net.nodes[&2].replica.durable().staged.clone();
        joining.net.restart(2);
        joining.run(300, 0);
        let (label, before) = staged.first_key_value().unwrap();
        let after = joining.net.nodes[&2].replica.durable().staged[label].after;
        assert!(after >= before.after && before.after.is_some(), "seed {seed}");
        joining.run(30_000, 8);
        assert!(joining.sent_ahead(), "seed {seed}");
        assert_eq!(joining.net.primary_of(&id(0x80)), Some(2), "seed {seed}");
        joining.must_be_as_written(seed);
    }
}

#[test]
fn a_joiner_that_dies_holds_nobody_up_and_the_mark_goes_on() {
    for seed in 0..20 {
        let mut joining = Joining::begin(seed);
        joining.run(1_000, 5);
        joining.net.crash(2);
        assert_eq!(joining.run(20_000, 10), 0, "seed {seed}: the view serves on");
        let replica = &joining.net.nodes[&0].replica;
        assert_eq!(replica.proposing_since(&joining.name), None, "seed {seed}");
        let stable = replica.durable().held[&joining.name].stable;
        assert_eq!(stable, 40 + u64::from(joining.last), "seed {seed}: what is at both members is stable");
        // It comes back, and hears that what it has is of no use; the next proposal sends all again.
        joining.net.restart(2);
        joining.net.run(1_000);
        assert!(joining.net.nodes[&2].replica.durable().staged.is_empty(), "seed {seed}");
        joining.propose();
        joining.run(30_000, 8);
        assert_eq!(joining.net.primary_of(&id(0x80)), Some(2), "seed {seed}");
        joining.must_be_as_written(seed);
    }
}

#[test]
fn a_primary_that_restarts_while_it_sends_ahead_leaves_nothing_behind() {
    for seed in 0..20 {
        let mut joining = Joining::begin(seed);
        joining.run(1_500, 8);
        joining.net.restart(0);
        joining.run(10_000, 8);
        assert!(joining.net.nodes[&2].replica.durable().staged.is_empty(), "seed {seed}: what it had is of no use");
        joining.must_be_as_written(seed);
        joining.name = joining.net.view_of(&id(0x80)).unwrap().name();
        if let Some(primary) = joining.net.primary_of(&id(0x80)) {
            let (head, tail) = (group(&[primary]), group(&[2, primary]));
            joining.net.propose(primary, joining.name, &Change::Split { at: id(0x80), head, tail });
        }
        joining.run(30_000, 0);
        assert_eq!(joining.net.primary_of(&id(0x80)), Some(2), "seed {seed}");
        joining.must_be_as_written(seed);
    }
}

impl Net {
    /// A client writes, and does not wait for the answer.
    fn write(&mut self, key: u8) {
        let Some(n) = self.primary_of(&id(key)) else { return };
        self.asked += 1;
        let (token, now) = (self.asked, Time(self.now));
        let content = Content::Value { bytes: vec![token as u8], content_type: String::new() };
        let request = RequestId(u128::from(token + 1_000_000) << 64);
        let write = Write { id: id(key), key: None, content, condition: Condition::Always, request };
        let Some(node) = self.nodes.get_mut(&n) else { return };
        let step = node.replica.operate(&mut node.store, now, Token(token), Operation::Write(write));
        self.step(n, step);
    }
}

/// Clients write so fast that a view would have to begin anew several times before a new member has been sent two hundred
/// values, some rows at a time.
#[test]
fn a_member_that_is_sent_much_gets_done_while_clients_write() {
    for seed in 0..10 {
        let mut settings = patient();
        settings.longest_tail = 64;
        settings.page_bytes = 600;
        let mut net = Net::with(settings, seed, 4, &[0, 1, 2]);
        for key in 0..200 {
            net.put(key, 0, u64::from(key));
        }
        let name = net.view_of(&id(0)).unwrap().name();
        net.crash(2);
        net.propose(0, name, &Change::Members(group(&[0, 1, 3])));
        let has_installed = |net: &Net| net.nodes[&3].replica.durable().held.values().any(|held| held.installed);
        let mut written = 0u64;
        while !has_installed(&net) {
            net.write((written % 200) as u8);
            net.run(20);
            written += 1;
            assert!(written < 3_000, "seed {seed}: a minute, and it is not done");
        }
        assert!(written > 150, "seed {seed}: it took too little time for this to show anything");
        let view = net.view_of(&id(0)).unwrap();
        assert!(view.epoch <= name.epoch + 3, "seed {seed}: {view:?} began anew again and again");
        // And all that it keeps is right: it serves alone with one of those who had it.
        net.run(3_000);
        let values: Vec<_> = (0..200).map(|key| net.get(key)).collect();
        net.crash(0);
        net.run(20_000);
        assert_eq!((0..200).map(|key| net.get(key)).collect::<Vec<_>>(), values, "seed {seed}");
    }
}

/// What a dead member lacks is not sent all at once, and one that is back is not made to wait for beats.
#[test]
fn who_lacks_much_is_sent_a_window_and_more_with_each_answer() {
    const LACKING: u64 = 2_000;
    let mut net = Net::new(1, 3, &[0, 1, 2]);
    let mut now = 10_000;
    let stores = |step: &Step, n: u8| {
        let is_store = |call: &&Letter<Request>| matches!(call.body, Request::Store { .. }) && call.to == member(n);
        step.calls.iter().filter(is_store).count()
    };
    for i in 0..LACKING {
        let content = Content::Value { bytes: Vec::new(), content_type: String::new() };
        let request = RequestId(u128::from(i + 1) << 64);
        let write = Write { id: Id::of(i.to_string()), key: None, content, condition: Condition::Always, request };
        let node = net.nodes.get_mut(&0).unwrap();
        let step = node.replica.operate(&mut node.store, Time(now), Token(i), Operation::Write(write));
        for call in step.calls.into_iter().filter(|call| call.to == member(1)) {
            let one = net.nodes.get_mut(&1).unwrap();
            let reply = one.replica.serve(&mut one.store, Time(now), call).0;
            let node = net.nodes.get_mut(&0).unwrap();
            node.replica.hear(&mut node.store, Time(now), reply);
        }
    }
    // Some beats while the other one is dead.
    for _ in 0..20 {
        now += 700;
        let node = net.nodes.get_mut(&0).unwrap();
        let step = node.replica.tick(&mut node.store, Time(now));
        assert_eq!((stores(&step, 1), stores(&step, 2)), (0, 256));
    }
    assert_eq!(net.nodes[&0].replica.unstable(&net.nodes[&0].replica.leads().next().unwrap().name()), LACKING as usize);
    // It is back: one beat, and from there on each answer brings what follows.
    now += 700;
    let node = net.nodes.get_mut(&0).unwrap();
    let mut open: VecDeque<_> = node.replica.tick(&mut node.store, Time(now)).calls.into();
    let (mut sent, mut most) = (0, 0);
    while let Some(call) = open.pop_front() {
        if call.to != member(2) {
            continue;
        }
        sent += u64::from(matches!(call.body, Request::Store { .. }));
        let two = net.nodes.get_mut(&2).unwrap();
        let reply = two.replica.serve(&mut two.store, Time(now), call).0;
        let node = net.nodes.get_mut(&0).unwrap();
        open.extend(node.replica.hear(&mut node.store, Time(now), reply).calls);
        most = most.max(open.len());
    }
    assert_eq!(sent, LACKING, "each is sent once");
    assert!(most <= 300, "{most} were under way at once");
    assert_eq!(net.nodes[&0].replica.unstable(&net.nodes[&0].replica.leads().next().unwrap().name()), 0);
}

#[test]
fn a_copied_disk_and_another_incarnation_have_no_voice() {
    let mut net = Net::new(1, 3, &[0, 1, 2]);
    let name = net.view_of(&id(1)).unwrap().name();
    let mut ask = |from: Member, boot: u64, to: Member| {
        let node = net.nodes.get_mut(&0).unwrap();
        let letter = Letter { from, boot, to, body: Request::Inquire { name } };
        node.replica.serve(&mut node.store, Time(20_000), letter).0.body
    };
    let is_heard = |reply: &Reply| !matches!(reply, Reply::Unacceptable);
    assert!(is_heard(&ask(member(1), 3, member(0))));
    assert!(is_heard(&ask(member(1), 3, member(0))));
    assert!(!is_heard(&ask(member(1), 2, member(0))), "an earlier life: its disk is a copy");
    let renewed = Member { incarnation: 2, ..member(1) };
    assert!(is_heard(&ask(renewed, 1, member(0))), "a new incarnation has its own count");
    assert!(!is_heard(&ask(member(1), 3, Member { incarnation: 2, ..member(0) })), "meant for another incarnation");
}
