//! Replicas on simulated disks, judged by the history that their clients saw: what is acknowledged survives crashes of all at
//! once, and a disk or a driver that breaks its promise is found.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use chordal_protocol::replica::{
    Answer, Change, Event, Group, Letter, Member, Operation as Wish, Replica, Reply, Request, Settings, Step, Token,
    View,
};
use chordal_protocol::{Condition, Content, Id, Interval, RequestId, Time, Write, Written};
use chordal_sim::disk::{Counts, Disk, Flaw, Pace, SyncId};
use chordal_sim::history::{Digest, Kind, Operation, Outcome, Summary, summarize};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const NODES: usize = 3;
const KEYS: u64 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// A part of a transaction is there after a crash.
    Torn,
    /// The driver lets outputs leave at once.
    WaitsForNothing,
}

enum Mail {
    Request(Letter<Request>),
    Reply(Letter<Reply>),
}

/// What leaves a node when a step is durable.
#[derive(Default)]
struct Outputs {
    mail: Vec<Mail>,
    answers: Vec<(Token, Answer)>,
}

struct Node {
    replica: Replica,
    disk: Disk,
    held: Vec<(u64, Outputs)>,
    sync: Option<(u64, SyncId)>,
    up_at: u64,
    free_at: u64,
    is_up: bool,
}

struct World {
    chance: Pcg64Mcg,
    planted: Planted,
    now: u64,
    nodes: Vec<Node>,
    mail: Vec<(u64, Mail)>,
    open: BTreeMap<u64, Operation>,
    history: Vec<Operation>,
    asked: u64,
    /// When all crash.
    again_at: u64,
}

fn member(n: usize) -> Member {
    Member { id: Id::from_hex_prefix(&format!("{n}1")).unwrap(), incarnation: 1 }
}

fn key(n: u64) -> Id {
    Id::of(format!("key {n}"))
}

/// Beats come by chance here, and messages are lost.
fn patient() -> Settings {
    let mut settings = Settings::default();
    settings.suspicion = 250;
    settings
}

impl World {
    fn new(seed: u64, planted: Planted) -> World {
        let members: Vec<Member> = (0..NODES).map(member).collect();
        let range = Interval::whole(member(0).id);
        let view = View { range, epoch: 1, primary: member(0), members, deferred: None, forced: false };
        let nodes = (0..NODES).map(|n| {
            let disk = Disk::new(1);
            let disk = if planted == Planted::Torn { disk.planted(Flaw::ShowsTorn) } else { disk };
            let replica = Replica::new(member(n), patient());
            Node { replica, disk, held: Vec::new(), sync: None, up_at: 0, free_at: 0, is_up: true }
        });
        let mut world = World {
            chance: Pcg64Mcg::seed_from_u64(seed),
            planted,
            now: 10_000,
            nodes: nodes.collect(),
            mail: Vec::new(),
            open: BTreeMap::new(),
            history: Vec::new(),
            asked: 0,
            again_at: 0,
        };
        for n in 0..NODES {
            let step = world.nodes[n].replica.found(view.clone());
            world.did(n, None, step);
        }
        world
    }

    /// The driver: what a step has changed is made durable before anything of it leaves.
    fn did(&mut self, n: usize, reply: Option<Letter<Reply>>, step: Step) {
        let node = &mut self.nodes[n];
        let number = node.disk.end_step(step.persist.then(|| node.replica.durable().clone()));
        let mail = step.calls.into_iter().map(Mail::Request).chain(reply.map(Mail::Reply)).collect();
        node.held.push((number, Outputs { mail, answers: step.answers }));
        self.sync(n);
        self.release(n);
        for event in step.events {
            if let Event::Silent(name) = event {
                let others = (0..NODES).filter(|other| *other != n);
                let group = Group(std::iter::once(n).chain(others).map(member).collect());
                let node = &mut self.nodes[n];
                let now = Time(self.now);
                if let Ok(step) = node.replica.propose(&mut node.disk, now, name, &Change::Members(group)) {
                    self.did(n, None, step);
                }
            }
        }
    }

    fn sync(&mut self, n: usize) {
        let pace = Pace { usual: (5, 40), slow: (50, 700), slow_share: 0.02 };
        if let Ok(sync) = self.nodes[n].disk.begin_sync() {
            let ends = self.now + pace.draw(&mut self.chance);
            self.nodes[n].sync = Some((ends, sync));
        }
    }

    fn release(&mut self, n: usize) {
        let waits = self.planted != Planted::WaitsForNothing;
        let node = &mut self.nodes[n];
        let ready = node.held.partition_point(|(number, _)| !waits || node.disk.is_durable(*number));
        let ready: Vec<(u64, Outputs)> = node.held.drain(..ready).collect();
        for (_, outputs) in ready {
            for mail in outputs.mail {
                if self.chance.random_range(0..100) >= 3 {
                    self.mail.push((self.now + self.chance.random_range(1..30), mail));
                }
            }
            outputs.answers.into_iter().for_each(|(token, answer)| self.answered(token, answer));
        }
    }

    fn answered(&mut self, Token(token): Token, answer: Answer) {
        let Some(mut operation) = self.open.remove(&token) else { return };
        operation.returned = Some(self.now);
        operation.outcome = match answer {
            Answer::Read(record) => Outcome::Read(record.map(|record| {
                let Content::Value { bytes, .. } = &record.content else { panic!("a tombstone is told as nothing") };
                (record.version, Digest(u64::from_be_bytes(bytes.as_slice().try_into().unwrap())))
            })),
            Answer::Written(Written::Done(version)) => Outcome::Done(version),
            Answer::Written(Written::Refused(found)) => Outcome::ConditionFailed(found),
            Answer::Refused(_) => Outcome::Refused,
            Answer::Unknown => Outcome::Unknown,
        };
        self.history.push(operation);
    }

    /// A client asks somebody who serves. What is not answered within a while is given up.
    fn ask(&mut self, kind: Option<Kind>, key: Id) {
        let serves = |node: &Node| node.is_up && node.replica.leads().next().is_some();
        let serving: Vec<usize> = (0..NODES).filter(|n| serves(&self.nodes[*n])).collect();
        if serving.is_empty() {
            return;
        }
        let n = serving[self.chance.random_range(0..serving.len())];
        self.asked += 1;
        let value = Digest(self.asked);
        let seen = self.history.iter().rev().find_map(|operation| match operation.outcome {
            Outcome::Done(version) if operation.key == key => Some(version),
            _ => None,
        });
        let kind = kind.unwrap_or_else(|| match self.chance.random_range(0..10) {
            0..=3 => Kind::Get,
            4..=6 => Kind::Put(value),
            7 => Kind::Delete,
            _ => Kind::Cas { expected: seen, value },
        });
        let request = RequestId(u128::from(self.asked) << 64);
        let (invoked, outcome) = (self.now, Outcome::Unknown);
        let asked = Operation { client: self.asked, key, kind, request, invoked, returned: None, outcome };
        self.open.insert(self.asked, asked);
        let bytes = value.0.to_be_bytes().to_vec();
        let value = Content::Value { bytes, content_type: String::new() };
        let write = |content, condition| Wish::Write(Write { id: key, key: None, content, condition, request });
        let wish = match kind {
            Kind::Get => Wish::Get(key),
            Kind::Put(_) => write(value, Condition::Always),
            Kind::Delete => write(Content::Tombstone, Condition::Exists),
            Kind::Cas { expected: None, .. } => write(value, Condition::Absent),
            Kind::Cas { expected: Some(version), .. } => write(value, Condition::Is(version)),
        };
        let (node, token, now) = (&mut self.nodes[n], Token(self.asked), Time(self.now));
        let step = node.replica.operate(&mut node.disk, now, token, wish);
        self.did(n, None, step);
    }

    fn deliver(&mut self, mail: Mail) {
        let to = match &mail {
            Mail::Request(letter) => letter.to,
            Mail::Reply(letter) => letter.to,
        };
        let n = (0..NODES).find(|n| member(*n).id == to.id).unwrap();
        let (node, now) = (&mut self.nodes[n], Time(self.now));
        if !node.is_up {
            return;
        }
        let (reply, step) = match mail {
            Mail::Request(letter) => {
                let (reply, step) = node.replica.serve(&mut node.disk, now, letter);
                (Some(reply), step)
            }
            Mail::Reply(letter) => (None, node.replica.hear(&mut node.disk, now, letter)),
        };
        self.did(n, reply, step);
    }

    fn crash(&mut self, n: usize, down: u64) {
        let node = &mut self.nodes[n];
        node.disk.crash(&mut self.chance);
        (node.is_up, node.up_at) = (false, self.now + down);
        (node.sync, node.held) = (None, Vec::new());
    }

    /// What a node finds on its disk is all that it knows; that it has started is the first thing that it makes durable.
    fn start(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.is_up = true;
        node.replica = match node.disk.durable() {
            Some(durable) => Replica::restored(durable.clone(), patient()),
            None => Replica::new(member(n), patient()),
        };
        self.did(n, None, Step { persist: true, ..Step::default() });
    }

    fn tick(&mut self) {
        self.now += 1;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mail).into_iter().partition(|(at, _)| *at <= self.now);
        self.mail = later;
        due.into_iter().for_each(|(_, mail)| self.deliver(mail));
        for n in 0..NODES {
            let node = &mut self.nodes[n];
            if !node.is_up && node.up_at <= self.now {
                self.start(n);
            } else if node.is_up && self.chance.random_range(0..100) == 0 {
                let step = node.replica.tick(&mut node.disk, Time(self.now));
                self.did(n, None, step);
            }
            let node = &mut self.nodes[n];
            if node.free_at == self.now {
                node.disk.free();
                self.sync(n);
            }
            let node = &mut self.nodes[n];
            if let Some((_, sync)) = node.sync.take_if(|(ends, _)| *ends <= self.now) {
                let _ = node.disk.end_sync(sync);
                self.sync(n);
                self.release(n);
            }
        }
        let waited = self.now.saturating_sub(3_000);
        let given_up = self.open.extract_if(.., |_, operation| operation.invoked < waited);
        self.history.extend(given_up.map(|(_, operation)| operation));
    }

    fn play(mut self) -> (Summary, Counts) {
        for _ in 0..20_000 {
            self.tick();
            if self.chance.random_range(0..8) == 0 {
                let key = key(self.chance.random_range(0..KEYS));
                self.ask(None, key);
            }
            // Who starts again changes the view: that is when to crash once more.
            if self.again_at == self.now {
                (0..NODES).for_each(|n| self.crash(n, 1));
                if self.chance.random_range(0..4) > 0 {
                    self.again_at += self.chance.random_range(30..300);
                }
            }
            match self.chance.random_range(0..6_000) {
                0..=2 => {
                    let n = self.chance.random_range(0..NODES);
                    let down = self.chance.random_range(1..3_000);
                    self.crash(n, down);
                }
                3..=8 => self.again_at = self.now + 1,
                9..=10 => {
                    let n = self.chance.random_range(0..NODES);
                    self.nodes[n].disk.fill();
                    self.nodes[n].free_at = self.now + self.chance.random_range(1..2_000);
                }
                _ => {}
            }
        }
        for n in 0..NODES {
            self.nodes[n].disk.free();
            self.sync(n);
        }
        (0..20_000).for_each(|_| self.tick());
        let before = self.history.len();
        for k in 0..KEYS {
            for _ in 0..20 {
                self.ask(Some(Kind::Get), key(k));
                (0..200).for_each(|_| self.tick());
            }
        }
        let (history, reads) = self.history.split_at(before);
        let mut counts = Counts::default();
        for node in &self.nodes {
            counts += node.disk.counts();
        }
        let final_reads = reads.iter().filter(|read| matches!(read.outcome, Outcome::Read(_))).count();
        assert!(self.planted != Planted::Nothing || final_reads as u64 >= KEYS, "nothing is served in the end");
        (summarize(history, reads), counts)
    }
}

fn play_all(planted: Planted, seeds: u64) -> (u64, Vec<Summary>, Counts) {
    let (mut found, mut summaries, mut sum) = (0, Vec::new(), Counts::default());
    for seed in 0..seeds {
        let (summary, counts) = World::new(seed, planted).play();
        found += u64::from(!summary.is_clean());
        if planted == Planted::Nothing {
            let text = summary.violation.as_ref().map(ToString::to_string);
            assert!(summary.is_clean(), "seed {seed}: {} {summary:?}", text.unwrap_or_default());
        }
        summaries.push(summary);
        sum += counts;
    }
    (found, summaries, sum)
}

#[test]
fn what_is_acknowledged_survives_crashes_and_full_disks() {
    let (_, summaries, counts) = play_all(Planted::Nothing, 12);
    let operations: u64 = summaries.iter().map(|summary| summary.operations).sum();
    let unknown: u64 = summaries.iter().map(|summary| summary.unknown).sum();
    assert!(operations > 3_000 && unknown > 50, "{operations} operations, {unknown} unknown");
    assert!(counts.landed > 20 && counts.lost_steps > 100 && counts.full > 20, "{counts:?}");
    assert!(counts.synced_steps > counts.syncs * 21 / 20, "steps share syncs: {counts:?}");
}

#[test]
fn a_disk_or_a_driver_that_breaks_its_promise_is_found() {
    for (planted, seeds, least) in [(Planted::Torn, 60, 2), (Planted::WaitsForNothing, 20, 5)] {
        let (found, summaries, counts) = play_all(planted, seeds);
        let lost: u64 = summaries.iter().map(|summary| summary.writes_lost).sum();
        let stale: u64 = summaries.iter().map(|summary| summary.stale_reads).sum();
        assert!(lost + stale > 0, "no figure tells of it: {summaries:?}");
        assert!(found >= least, "found in {found} of {seeds} seeds only: {counts:?}");
    }
}
