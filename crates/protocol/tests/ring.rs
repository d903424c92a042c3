//! Whole rings in one loop: calls are delivered in random order, and in the end the ring must be ideal and every value
//! where it belongs. A seed that fails is printed, and repeats.

use std::collections::{BTreeMap, BTreeSet};

use chordal_protocol::invariant::{self, Member};
use chordal_protocol::{
    Call, Chord, Contact, Content, Envelope, Event, Id, Interval, Outcome, Procedure, Record, Refusal, Reply, Request,
    RequestId, Ring, RingId, Settings, Step, Time, Unreachable, Version,
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const RING: Ring = Ring { id: RingId([7; 16]), lab: false };

/// A node with what it has on its disk.
struct Node {
    chord: Chord,
    disk: BTreeMap<Id, Record>,
}

/// Nodes, and calls under way: when they arrive, who asked, and what.
struct Net {
    seed: u64,
    chance: Pcg64Mcg,
    now: Time,
    nodes: BTreeMap<String, Node>,
    /// Those that stopped with something in their hands.
    stopped: Vec<Node>,
    open: Vec<(Time, String, Flight)>,
}

/// A question on its way, or its answer on the way back: much can happen between the two.
enum Flight {
    Ask(Call),
    Answer(Call, Result<Reply, Unreachable>),
}

/// What a node runs at intervals it runs every so many milliseconds.
const ROUND: u64 = 500;

impl Net {
    fn new(seed: u64) -> Net {
        let chance = Pcg64Mcg::seed_from_u64(seed);
        Net { seed, chance, now: Time::ZERO, nodes: BTreeMap::new(), stopped: Vec::new(), open: Vec::new() }
    }

    fn contact(i: usize) -> Contact {
        Contact::at(format!("node-{i}.example:4000"), format!("node-{i}"))
    }

    fn create(&mut self, i: usize) {
        self.add(i);
        let id = if i == 0 { RING.id } else { RingId([i as u8; 16]) };
        self.begin(i, Procedure::Create { ring: Ring { id, ..RING } });
    }

    fn join(&mut self, i: usize, through: usize) {
        self.add(i);
        self.begin(i, Procedure::Join { contacts: vec![Net::contact(through)] });
    }

    fn add(&mut self, i: usize) {
        let chord = Chord::new(Net::contact(i), Settings::default());
        self.nodes.insert(Net::contact(i).addr, Node { chord, disk: BTreeMap::new() });
    }

    fn kill(&mut self, i: usize) -> Node {
        self.nodes.remove(&Net::contact(i).addr).expect("it lives")
    }

    fn restart(&mut self, i: usize, dead: Node) {
        let chord = Chord::restore(dead.chord.durable(), Settings::default());
        self.nodes.insert(Net::contact(i).addr, Node { chord, disk: dead.disk });
    }

    fn begin(&mut self, i: usize, procedure: Procedure) {
        self.begin_at(&Net::contact(i).addr, procedure);
    }

    fn begin_at(&mut self, addr: &str, procedure: Procedure) {
        if let Some(node) = self.nodes.get_mut(addr) {
            let step = node.chord.begin(self.now, procedure);
            self.apply(addr, step);
        }
    }

    fn apply(&mut self, addr: &str, step: Step) {
        let node = self.nodes.get_mut(addr).expect("it lives");
        for record in step.merge {
            let newer = node.disk.get(&record.id).is_none_or(|old| old.version < record.version);
            if newer {
                node.disk.insert(record.id, record);
            }
        }
        drop_ranges(&mut node.disk, &step.drop);
        for call in step.next {
            let arrives = Time(self.now.0 + call.delay + self.chance.random_range(0..4));
            self.open.push((arrives, addr.to_owned(), Flight::Ask(call)));
        }
        self.happened(addr, step.events);
    }

    fn happened(&mut self, addr: &str, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Begin(procedure) => self.begin_at(addr, procedure),
                Event::JoinFailed { reason, may_pass } => {
                    assert!(may_pass, "seed {}: {addr}: {reason}", self.seed);
                    let living: Vec<Contact> = self.nodes.values().map(|node| node.chord.me().clone()).collect();
                    let pick = living[self.chance.random_range(0..living.len())].clone();
                    if pick.addr != addr {
                        self.begin_at(addr, Procedure::Join { contacts: vec![pick] });
                    } else {
                        self.happened(addr, vec![Event::JoinFailed { reason, may_pass }]);
                    }
                }
                // Who has nobody to hand over to stops with all that it holds, and may come back with it.
                Event::Left => {
                    let gone = self.nodes.remove(addr).expect("it was there");
                    if !gone.chord.views().held().is_empty() {
                        self.stopped.push(gone);
                    }
                }
                _ => {}
            }
        }
    }

    /// Delivers one of the calls that have arrived by then, picked at random; false if there is none.
    fn deliver(&mut self, until: Time) -> bool {
        let Some(first) = self.open.iter().map(|(arrives, ..)| *arrives).min().filter(|first| *first <= until) else {
            return false;
        };
        self.now = self.now.max(first);
        let arrived: Vec<usize> = (0..self.open.len()).filter(|i| self.open[*i].0 <= self.now).collect();
        let pick = arrived[self.chance.random_range(0..arrived.len())];
        let (_, asker, flight) = self.open.swap_remove(pick);
        let Some(node) = self.nodes.get_mut(&asker) else { return true };
        match flight {
            Flight::Ask(call) => {
                let envelope = Envelope {
                    ring: node.chord.ring().map(|ring| ring.id),
                    from: node.chord.me().clone(),
                    request: call.request.clone(),
                };
                let outcome = self.serve(&call.to.addr, envelope);
                let arrives = Time(self.now.0 + self.chance.random_range(0..4));
                self.open.push((arrives, asker, Flight::Answer(call, outcome)));
            }
            Flight::Answer(call, outcome) => {
                let step = node.chord.resume(self.now, call, outcome);
                self.apply(&asker, step);
            }
        }
        true
    }

    fn serve(&mut self, addr: &str, envelope: Envelope) -> Result<Reply, Unreachable> {
        let node = self.nodes.get_mut(addr).ok_or(Unreachable)?;
        let answer = node.chord.serve(self.now, envelope);
        let reply = match answer.outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Scan(range, after) => {
                let mut found: Vec<Record> =
                    node.disk.values().filter(|record| range.contains(&record.id)).cloned().collect();
                found.sort_by_key(|record| range.lo.distance(&record.id));
                found.retain(|record| {
                    after.is_none_or(|after| range.lo.distance(&after) < range.lo.distance(&record.id))
                });
                let last = found.len() <= 3;
                found.truncate(3);
                Reply::Page { records: found, last }
            }
            Outcome::Invite(joiner, ring) => {
                let from = node.chord.me().clone();
                let envelope = Envelope { ring: Some(ring.id), from, request: Request::Invite(ring) };
                return self.serve(&joiner.addr, envelope);
            }
            Outcome::Read(id) => Reply::Read(node.disk.get(&id).cloned()),
            Outcome::Write(write, version) => {
                let record =
                    Record { id: write.id, key: write.key, content: write.content, version, request: write.request };
                node.disk.insert(record.id, record);
                Reply::Written(chordal_protocol::Written::Done(version))
            }
        };
        drop_ranges(&mut node.disk, &answer.drop);
        self.happened(addr, answer.events);
        Ok(reply)
    }

    /// Lets the time of a round pass.
    fn pass(&mut self) {
        let until = Time(self.now.0 + ROUND);
        let mut steps = 0;
        while self.deliver(until) {
            steps += 1;
            assert!(steps < 500_000, "seed {}: it does not come to rest", self.seed);
        }
        self.now = until;
    }

    /// Every node runs what it runs at intervals, all at once.
    fn round(&mut self) {
        let addrs: Vec<String> = self.nodes.keys().cloned().collect();
        for addr in addrs {
            let Some(node) = self.nodes.get(&addr) else { continue };
            let known: Vec<Contact> = node.chord.contacts().cloned().collect();
            let contact = (!known.is_empty()).then(|| known[self.chance.random_range(0..known.len())].clone());
            self.begin_at(&addr, Procedure::Stabilize);
            self.begin_at(&addr, Procedure::CheckPredecessor { candidate: None });
            self.begin_at(&addr, Procedure::Settle);
            self.begin_at(&addr, Procedure::FixFingers { all: false });
            if let Some(contact) = contact {
                self.begin_at(&addr, Procedure::Reunite { contact });
            }
        }
        self.pass();
    }

    fn members(&self) -> Vec<Member> {
        let member = |node: &Node| Member {
            contact: node.chord.me().clone(),
            predecessor: node.chord.predecessor().cloned(),
            successors: node.chord.successors().to_vec(),
            joined: node.chord.membership().is_member(),
        };
        self.nodes.values().map(member).collect()
    }

    fn is_ready(&self) -> Result<(), String> {
        for check in invariant::check_all(&self.members(), Settings::default().successors) {
            check.verdict.map_err(|why| format!("{}: {why}", check.name))?;
        }
        for node in self.nodes.values() {
            if let Some(why) = node.chord.not_ready() {
                return Err(format!("{}: {why}", node.chord.me()));
            }
        }
        Ok(())
    }

    /// Rounds until the ring is ideal and everybody serves what it owns.
    fn settle(&mut self, rounds: usize) {
        for _ in 0..rounds {
            if self.is_ready().is_ok() {
                return;
            }
            self.round();
        }
        if let Err(why) = self.is_ready() {
            panic!("seed {}: after {rounds} rounds: {why}", self.seed);
        }
    }

    /// Writes through the node that serves the id, as clients do.
    fn put(&mut self, key: &str, content: Content) {
        let id = Id::of(key);
        let write = chordal_protocol::Write {
            id,
            key: Some(key.into()),
            content,
            condition: chordal_protocol::Condition::Always,
            request: RequestId(self.chance.random()),
        };
        let addrs: Vec<String> = self.nodes.keys().cloned().collect();
        let done = addrs.iter().any(|addr| {
            let from = Net::contact(usize::MAX);
            let envelope = Envelope { ring: Some(RING.id), from, request: Request::Write(write.clone()) };
            matches!(self.serve(addr, envelope), Ok(Reply::Written(_)))
        });
        assert!(done, "seed {}: nobody takes {key}", self.seed);
    }

    /// What the one node that serves the id has.
    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let id = Id::of(key);
        let addrs: Vec<String> = self.nodes.keys().cloned().collect();
        let mut answers = Vec::new();
        for addr in addrs {
            let from = Net::contact(usize::MAX);
            let envelope = Envelope { ring: Some(RING.id), from, request: Request::Read(id) };
            match self.serve(&addr, envelope) {
                Ok(Reply::Read(record)) => answers.push(record),
                Ok(Reply::Refused(Refusal::NotMine(_))) => {}
                other => panic!("seed {}: {other:?}", self.seed),
            }
        }
        assert_eq!(answers.len(), 1, "seed {}: {key} must be served by exactly one node", self.seed);
        match answers.remove(0)?.content {
            Content::Value { bytes, .. } => Some(bytes),
            Content::Tombstone => None,
        }
    }
}

fn drop_ranges(disk: &mut BTreeMap<Id, Record>, ranges: &[Interval]) {
    disk.retain(|id, _| !ranges.iter().any(|range| range.contains(id)));
}

fn value(text: &str) -> Content {
    Content::Value { bytes: text.into(), content_type: "text/plain".into() }
}

/// A settled ring of `n` with forty values.
fn ring(seed: u64, n: usize) -> Net {
    let mut net = Net::new(seed);
    net.create(0);
    net.pass();
    for i in 1..n {
        let through = net.chance.random_range(0..i);
        net.join(i, through);
    }
    net.pass();
    net.settle(60);
    for i in 0..40 {
        net.put(&format!("key {i}"), value(&format!("value {i}")));
    }
    net
}

fn assert_all_values(net: &mut Net) {
    for i in 0..40 {
        let key = format!("key {i}");
        assert_eq!(net.get(&key), Some(format!("value {i}").into_bytes()), "seed {}: {key}", net.seed);
    }
}

#[test]
fn a_hundred_nodes_that_join_at_once_become_an_ideal_ring() {
    for seed in 0..3 {
        let mut net = ring(seed, 100);
        assert_all_values(&mut net);
    }
}

#[test]
fn the_first_node_writes_down_at_once_that_it_is_not_alone() {
    let mut first = Chord::new(Net::contact(0), Settings::default());
    let _ = first.begin(Time::ZERO, Procedure::Create { ring: RING });
    let alone = first.revision();
    let notify = Envelope { ring: Some(RING.id), from: Net::contact(1), request: Request::Notify { views: Vec::new(), before: Vec::new() } };
    let _ = first.serve(Time::ZERO, notify);
    assert!(first.revision() > alone, "what it says now rests on somebody being there");
    assert_eq!(first.durable().predecessor, Some(Net::contact(1)));
}

#[test]
fn small_rings_become_ideal_too() {
    for seed in 0..20 {
        for n in 1..=9 {
            let mut net = ring(seed, n);
            assert_all_values(&mut net);
        }
    }
}

#[test]
fn content_follows_those_who_join_and_leave_at_once() {
    for seed in 0..40 {
        let mut net = ring(seed, 8);
        for i in 8..14 {
            let through = net.chance.random_range(0..8);
            net.join(i, through);
        }
        let leavers: BTreeSet<usize> = (0..4).map(|_| net.chance.random_range(0..8)).collect();
        for i in &leavers {
            net.begin(*i, Procedure::Leave);
        }
        for _ in 0..40 {
            net.round();
        }
        assert_eq!(net.nodes.len(), 14 - leavers.len(), "seed {seed}: all leavers have gone");
        net.settle(20);
        assert_all_values(&mut net);
    }
}

#[test]
fn a_leaver_loses_nothing_that_is_just_coming_to_it() {
    // 2378: the word that a range had arrived came late, when it was on its way back, and dropped what had come.
    for seed in (0..200).chain([2378]) {
        let mut net = ring(seed, 5);
        net.join(5, 0);
        net.join(6, 1);
        // One after the other, a few deliveries apart: a node leaves while it takes over what its successor, which leaves
        // too, or its predecessor, which it has just joined, hands to it.
        let leavers: BTreeSet<usize> = (0..4).map(|_| net.chance.random_range(1..7)).collect();
        for i in &leavers {
            for _ in 0..net.chance.random_range(0..40) {
                let soon = Time(net.now.0 + 100);
                net.deliver(soon);
            }
            net.begin(*i, Procedure::Leave);
        }
        for _ in 0..40 {
            net.round();
        }
        assert_eq!(net.nodes.len(), 7 - leavers.len(), "seed {seed}: all leavers have gone");
        net.settle(20);
        assert_all_values(&mut net);
    }
}

#[test]
fn a_ring_shrinks_to_one_node_with_everything() {
    for seed in 0..10 {
        let mut net = ring(seed, 6);
        for i in 1..6 {
            net.begin(i, Procedure::Leave);
            for _ in 0..4 {
                net.round();
            }
            assert_eq!(net.nodes.len(), 6 - i, "seed {seed}");
            net.settle(20);
        }
        assert_all_values(&mut net);
    }
}

#[test]
fn the_ring_closes_over_the_dead_and_serves_their_ranges() {
    for seed in 0..20 {
        let mut net = ring(seed, 16);
        for i in [3, 7, 8, 12] {
            net.kill(i);
        }
        net.settle(60);
        for i in 0..40 {
            let key = format!("key {i}");
            // What died with its only copy is gone; the rest is right.
            let got = net.get(&key);
            assert!(got.is_none() || got == Some(format!("value {i}").into_bytes()));
            net.put(&key, value(&format!("value {i}")));
        }
        assert_all_values(&mut net);
    }
}

#[test]
fn a_node_that_comes_back_brings_its_content_and_the_newer_one_stands() {
    for seed in 0..20 {
        let mut net = ring(seed, 8);
        let dead = net.kill(5);
        net.settle(60);
        for i in 0..40 {
            if net.get(&format!("key {i}")).is_none() {
                assert!(dead.disk.contains_key(&Id::of(format!("key {i}"))), "seed {seed}: key {i}");
            }
        }
        net.put("key 0", value("newer"));
        net.restart(5, dead);
        net.settle(60);
        assert_eq!(net.get("key 0"), Some(b"newer".to_vec()), "seed {seed}");
        net.put("key 0", value("value 0"));
        assert_all_values(&mut net);
    }
}

#[test]
fn a_ring_that_was_stopped_whole_comes_back_with_everything() {
    for seed in 0..20 {
        for n in [1, 2, 5, 12] {
            let mut net = ring(seed, n);
            let dead: Vec<(usize, Node)> = (0..n).map(|i| (i, net.kill(i))).collect();
            net.open.clear();
            for (i, node) in dead {
                net.restart(i, node);
            }
            net.settle(60);
            assert_all_values(&mut net);
        }
    }
}

#[test]
fn a_ring_heals_after_it_was_rewired_by_hand() {
    use chordal_protocol::Side;
    for seed in 0..30 {
        let mut net = ring(seed, 10);
        for _ in 0..12 {
            let (i, to) = (net.chance.random_range(0..10), net.chance.random_range(0..10));
            let side = if net.chance.random() { Side::Predecessor } else { Side::Successor };
            net.begin(i, Procedure::Rewire { side, to: Net::contact(to) });
        }
        net.pass();
        net.settle(60);
        assert_all_values(&mut net);
    }
}

#[test]
fn two_halves_that_were_wired_into_rings_of_their_own_find_each_other() {
    use chordal_protocol::Side;
    for seed in 0..20 {
        let mut net = ring(seed, 8);
        let mut order: Vec<usize> = (0..8).collect();
        order.sort_by_key(|i| Net::contact(*i).id);
        for half in [[0, 2, 4, 6], [1, 3, 5, 7]] {
            for at in 0..4 {
                let (i, next) = (order[half[at]], order[half[(at + 1) % 4]]);
                net.begin(i, Procedure::Rewire { side: Side::Successor, to: Net::contact(next) });
                net.begin(next, Procedure::Rewire { side: Side::Predecessor, to: Net::contact(i) });
            }
        }
        net.pass();
        net.settle(80);
        assert_all_values(&mut net);
    }
}

#[test]
fn a_lone_survivor_is_isolated_and_comes_back_when_the_others_do() {
    for seed in 0..10 {
        let mut net = ring(seed, 2);
        let dead = net.kill(1);
        net.round();
        net.round();
        assert_eq!(net.nodes.values().next().unwrap().chord.membership(), chordal_protocol::Membership::Isolated);
        net.restart(1, dead);
        net.settle(60);
        assert_all_values(&mut net);
    }
}

#[test]
fn versions_grow_through_every_handover() {
    for seed in 0..10 {
        let mut net = ring(seed, 3);
        let mut last = Version::default();
        for i in 3..12 {
            net.put("key 0", value("value 0"));
            let now = net.nodes.values().filter_map(|node| node.disk.get(&Id::of("key 0"))).map(|it| it.version).max();
            assert!(now > Some(last), "seed {seed}");
            last = now.unwrap();
            net.join(i, i - 3);
            net.pass();
            net.settle(20);
            net.begin(i - 3, Procedure::Leave);
            net.pass();
            net.settle(20);
        }
    }
}

#[test]
fn a_node_that_lost_its_disk_takes_its_range_again() {
    for seed in 0..10 {
        let mut net = ring(seed, 6);
        let dead = net.kill(3);
        net.join(3, 0);
        net.settle(60);
        for i in 0..40 {
            let key = format!("key {i}");
            let expected = (!dead.disk.contains_key(&Id::of(&key))).then(|| format!("value {i}").into_bytes());
            assert_eq!(net.get(&key), expected, "seed {seed}: {key}");
        }
    }
}

#[test]
fn a_node_that_stands_alone_gives_up_its_ring_when_it_is_welcomed_to_another() {
    let mut net = ring(1, 4);
    net.create(9);
    net.pass();
    let from = Net::contact(0);
    let envelope = Envelope { ring: Some(RING.id), from, request: Request::Welcome(Net::contact(9)) };
    assert_eq!(net.serve(&Net::contact(1).addr, envelope.clone()), Ok(Reply::Accepted));
    net.settle(20);
    assert_eq!(net.nodes.len(), 5);
    assert_all_values(&mut net);
    assert_eq!(net.serve(&Net::contact(1).addr, envelope), Ok(Reply::Accepted), "asking again changes nothing");
    net.settle(1);
}

#[test]
fn when_all_leave_at_once_those_who_remain_have_everything() {
    for seed in 0..200 {
        let n = 2 + seed as usize % 6;
        let mut net = ring(seed, n);
        for i in 0..n {
            for _ in 0..net.chance.random_range(0..30) {
                let soon = Time(net.now.0 + 50);
                net.deliver(soon);
            }
            net.begin(i, Procedure::Leave);
        }
        for _ in 0..20 {
            net.round();
        }
        // Whoever could not leave in time stops as it is, and is started again.
        net.open.clear();
        let stopped = std::mem::take(&mut net.stopped);
        let rest = std::mem::take(&mut net.nodes).into_values();
        for node in rest.chain(stopped) {
            let chord = Chord::restore(node.chord.durable(), Settings::default());
            net.nodes.insert(chord.me().addr.clone(), Node { chord, disk: node.disk });
        }
        assert!(!net.nodes.is_empty(), "seed {seed}: the last one keeps what it has");
        net.settle(60);
        assert_all_values(&mut net);
    }
}
