//! All that there is in the model: nodes, messages on their way, clients and what they have heard; and all that can happen.

use chordal_protocol::replica::{
    Answer, Change, Durable, Group, Letter, Member, MemoryStore, Name, Operation, Replica, Reply, Request, Step, Token,
    View,
};
use chordal_protocol::{Condition, Content, Id, Interval, Record, RequestId, Time, Version, Write, Written};

use crate::history::{Ended, Op, Want};
use crate::run::{Done, Hashed, Run, is_silent};
use crate::scenario::{Nodes, Wish};
use crate::table::Hash128;

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) store: MemoryStore,
    /// What is on disk, and what waits for it to be, if the scenario tells memory and disk apart.
    pub(crate) disk: Option<(Durable, MemoryStore)>,
    pub(crate) waits: Vec<Leaving>,
}

/// What leaves a node.
#[expect(clippy::large_enum_variant, reason = "few wait at a time")]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Leaving {
    Message(Message),
    Answer(Token, Answer),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Message {
    Request(Letter<Request>),
    Reply(Letter<Reply>),
}

impl Message {
    pub(crate) fn ends(&self) -> (Member, Member) {
        match self {
            Message::Request(letter) => (letter.from, letter.to),
            Message::Reply(letter) => (letter.from, letter.to),
        }
    }
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Hashed<Node>>,
    pub(crate) messages: Vec<Hashed<Message>>,
    pub(crate) rest: Rest,
}

/// What clients and the scenario have done so far.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rest {
    pub(crate) ops: Vec<Op>,
    clock: u32,
    wished: u32,
    restarted: u32,
    lost: u32,
    purged: bool,
    twice: u8,
    /// An operation was done twice: its versions.
    pub(crate) done_twice: Option<(usize, Version, Version)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Deliver(usize),
    DeliverTwice(usize),
    Operate(usize, usize),
    Wish(usize),
    Restart(usize),
    Sync(usize),
    LoseDisk(usize),
    Purge(usize),
    Forget(usize, Name),
}

pub(crate) fn point(n: u8) -> Id {
    let mut bytes = [0; 32];
    bytes[0] = n;
    Id::from_bytes(bytes)
}

fn member(n: u8) -> Member {
    Member { id: point(n), incarnation: 1 }
}

pub(crate) fn number(member: &Member) -> usize {
    usize::from(member.id.as_bytes()[0])
}

fn group(nodes: Nodes) -> Group {
    Group(nodes.iter().map(|n| member(*n)).collect())
}

impl World {
    /// The state that the run begins with, and how it came about.
    pub(crate) fn start(run: &Run) -> (World, Vec<String>) {
        let mut world = World::at_rest(run);
        let mut lines = Vec::new();
        for wanted in run.first {
            let does = |action: &Action| world.describe(run, *action).contains(wanted);
            let found = world.actions(run).into_iter().find(does);
            let after = found.and_then(|action| Some((world.describe(run, action), world.after(run, action)?)));
            let Some((line, after)) = after else { panic!("{}: {wanted:?} cannot happen", run.name) };
            lines.push(line);
            world = after;
        }
        (world, lines)
    }

    fn at_rest(run: &Run) -> World {
        let node = |n: u8| {
            let mut replica = Replica::new(member(n), run.settings.clone());
            for (lo, hi, members) in run.views.iter().filter(|(_, _, members)| members.contains(&n)) {
                let members = group(members).0;
                let range = Interval::half_open(point(*lo), point(*hi));
                let primary = members[0];
                replica.found(View { range, epoch: 1, members, primary, deferred: None, forced: false });
            }
            let disk = run.disks.then(|| (replica.durable().clone(), MemoryStore::default()));
            Hashed::new(Node { replica, store: MemoryStore::default(), disk, waits: Vec::new() })
        };
        let rest = Rest {
            ops: run.ops.clone(),
            clock: 0,
            wished: 0,
            restarted: 0,
            lost: 0,
            purged: false,
            twice: run.twice,
            done_twice: None,
        };
        World { nodes: (0..run.nodes).map(node).collect(), messages: Vec::new(), rest }
    }

    pub(crate) fn hash(&self) -> u128 {
        let mut all = Hash128::of(&self.rest);
        for node in &self.nodes {
            all = Hash128::of(&(all, node.hash));
        }
        let messages = self.messages.iter().fold(0u128, |sum, message| sum.wrapping_add(message.hash));
        Hash128::of(&(all, messages))
    }

    /// All that can happen next.
    pub(crate) fn actions(&self, run: &Run) -> Vec<Action> {
        let mut actions: Vec<Action> = (0..self.messages.len()).map(Action::Deliver).collect();
        if self.rest.twice > 0 {
            actions.extend((0..self.messages.len()).map(Action::DeliverTwice));
        }
        for i in (0..self.rest.ops.len()).filter(|i| self.may_send(*i)) {
            let there = run.clients_at.iter().map(|n| usize::from(*n)).filter(|n| *n < self.nodes.len());
            actions.extend(there.map(|n| Action::Operate(i, n)));
        }
        let free = |done: u32, i: usize| done & (1 << i) == 0;
        actions.extend((0..run.wishes.len()).filter(|i| free(self.rest.wished, *i)).map(Action::Wish));
        actions.extend((0..run.restarts.len()).filter(|i| free(self.rest.restarted, *i)).map(Action::Restart));
        actions.extend((0..run.losses.len()).filter(|i| free(self.rest.lost, *i)).map(Action::LoseDisk));
        if run.disks {
            actions.extend((0..self.nodes.len()).filter(|n| self.is_unsynced(*n)).map(Action::Sync));
        }
        if let Some(op) = run.purge.filter(|op| !self.rest.purged && self.rest.ops[*op].begun.is_some()) {
            actions.push(Action::Purge(op));
        }
        if run.forgets {
            for (n, node) in self.nodes.iter().enumerate() {
                let known = node.replica.durable().decided.keys();
                actions.extend(known.filter(|name| self.all_know(name)).map(|name| Action::Forget(n, *name)));
            }
        }
        actions
    }

    fn all_know(&self, name: &Name) -> bool {
        self.nodes.iter().all(|node| {
            let durable = node.replica.durable();
            durable.decided.contains_key(name) || durable.over.iter().any(|over| name.is_over_with(over))
        })
    }

    fn may_send(&self, i: usize) -> bool {
        let op = &self.rest.ops[i];
        let has_ended = |of: usize| self.rest.ops[of].ended.is_some();
        let is_given_up = op.at.is_none_or(|(n, boot)| {
            let replica = &self.nodes[n].replica;
            replica.durable().boot != boot || !replica.leads().any(|view| view.range.contains(&op.id))
        });
        op.ended.is_none() && op.attempts > 0 && is_given_up && op.after.is_none_or(has_ended)
    }

    fn is_unsynced(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let is_behind =
            |(durable, store): &(Durable, MemoryStore)| durable != node.replica.durable() || *store != node.store;
        !node.waits.is_empty() || node.disk.as_ref().is_some_and(is_behind)
    }

    /// What is so after this has happened, if it can happen and changes something.
    pub(crate) fn after(&self, run: &Run, action: Action) -> Option<World> {
        let mut next = self.clone();
        match action {
            Action::Deliver(i) => {
                let message = next.messages.remove(i);
                next.deliver(run, &message);
            }
            Action::DeliverTwice(i) => {
                next.rest.twice -= 1;
                let message = next.messages[i].clone();
                next.deliver(run, &message);
            }
            Action::Operate(i, n) => next.operate(run, i, n)?,
            Action::Wish(i) => next.wish(run, i)?,
            Action::Restart(i) => {
                next.rest.restarted |= 1 << i;
                next.restart(run, usize::from(run.restarts[i]));
            }
            Action::LoseDisk(i) => {
                next.rest.lost |= 1 << i;
                next.lose_disk(run, run.losses[i]);
            }
            Action::Sync(n) => next.sync(run, n),
            Action::Forget(n, name) => next.forget(run, n, name),
            Action::Purge(op) => {
                next.rest.purged = true;
                next.purge(run, op)?;
            }
        }
        Some(next)
    }

    fn deliver(&mut self, run: &Run, message: &Hashed<Message>) {
        let n = number(&message.ends().1);
        let done = run.delivered(&self.nodes[n], message);
        self.becomes(run, n, &done);
    }

    /// A node has done something, and this has come of it.
    fn becomes(&mut self, run: &Run, n: usize, done: &Done) {
        self.nodes[n] = done.node.clone();
        self.leave(run, &done.leaving);
        self.drop_useless(run, n);
    }

    fn leave(&mut self, run: &Run, leaving: &[Leaving]) {
        for leaves in leaving {
            match leaves {
                Leaving::Message(message) => self.send(run, message),
                Leaving::Answer(token, answer) => self.answered(*token, answer),
            }
        }
    }

    fn send(&mut self, run: &Run, message: &Message) {
        let (from, to) = message.ends();
        let ends = (number(&from), number(&to));
        let is_cut = run.cut.iter().any(|(a, b)| {
            let cut = (usize::from(*a), usize::from(*b));
            cut == ends || (cut.1, cut.0) == ends
        });
        if is_cut || matches!(message, Message::Reply(letter) if is_silent(&letter.body)) {
            return;
        }
        let message = run.memo.borrow_mut().message(message);
        if let Err(place) = self.messages.binary_search_by_key(&message.hash, |message| message.hash) {
            self.messages.insert(place, message);
        }
    }

    /// Messages that change nothing, now or ever, are as good as lost. Only those that this node sends or is sent can have
    /// become so, for only this node has changed.
    fn drop_useless(&mut self, run: &Run, changed: usize) {
        let nodes = &self.nodes;
        self.messages.retain(|message| {
            let (from, to) = message.ends();
            if number(&from) != changed && number(&to) != changed {
                return true;
            }
            run.is_of_use(nodes, message)
        });
    }

    fn operate(&mut self, run: &Run, i: usize, n: usize) -> Option<()> {
        let op = &self.rest.ops[i];
        let operation = self.operation(i)?;
        if !self.nodes[n].replica.leads().any(|view| view.range.contains(&op.id)) {
            return None;
        }
        let done = run.done(&self.nodes[n], &("operate", i, &operation), |node| {
            Some(node.replica.operate(&mut node.store, Time::ZERO, Token(i as u64), operation.clone()))
        })?;
        if done.leaving.iter().any(|leaves| matches!(leaves, Leaving::Answer(_, Answer::Refused(_)))) {
            return None;
        }
        let boot = self.nodes[n].replica.durable().boot;
        let clock = self.rest.clock;
        let op = &mut self.rest.ops[i];
        op.attempts -= 1;
        op.at = Some((n, boot));
        if op.begun.is_none() {
            op.begun = Some(clock);
            self.rest.clock += 1;
        }
        self.becomes(run, n, &done);
        Some(())
    }

    fn operation(&self, i: usize) -> Option<Operation> {
        let Op { want, id, .. } = self.rest.ops[i];
        let condition = match want {
            Want::Get => return Some(Operation::Get(id)),
            Want::Put => Condition::Always,
            Want::PutIfAbsent => Condition::Absent,
            Want::Delete => Condition::Exists,
            Want::Swap(of) => match self.rest.ops[of].ended {
                Some((_, Ended::Done(version))) => Condition::Is(version),
                _ => return None,
            },
        };
        let value = Content::Value { bytes: vec![i as u8], content_type: String::new() };
        let content = if want == Want::Delete { Content::Tombstone } else { value };
        Some(Operation::Write(Write { id, key: None, content, condition, request: request_of(i) }))
    }

    fn answered(&mut self, token: Token, answer: &Answer) {
        let i = token.0 as usize;
        let ended = match answer {
            Answer::Read(record) => Ended::Read(record.as_ref().and_then(written_by)),
            Answer::Written(Written::Done(version)) => Ended::Done(*version),
            Answer::Written(Written::Refused(_)) => Ended::Refused,
            Answer::Refused(_) | Answer::Unknown => {
                self.rest.ops[i].at = None;
                return;
            }
        };
        let clock = self.rest.clock;
        let op = &mut self.rest.ops[i];
        op.at = None;
        match (op.ended, ended) {
            (None, ended) => {
                op.ended = Some((clock, ended));
                self.rest.clock += 1;
            }
            (Some((_, Ended::Done(first))), Ended::Done(second)) if first != second => {
                self.rest.done_twice = Some((i, first, second));
            }
            _ => {}
        }
    }

    fn wish(&mut self, run: &Run, i: usize) -> Option<()> {
        let (n, at, wish) = run.wishes[i];
        let n = usize::from(n);
        let done = run.done(&self.nodes[n], &("wish", i), |node| {
            let held = |at: u8| {
                let of = |held: &&chordal_protocol::replica::Held| held.view.range.contains(&point(at));
                let held = node.replica.durable().held.values().filter(of).map(|held| held.view.name());
                held.max_by_key(|name| name.epoch)
            };
            let name: Name = held(at)?;
            let change = match wish {
                Wish::Same => Change::Same,
                Wish::Members(members) => Change::Members(group(members)),
                Wish::Renew(lost) => {
                    let renewed = |old: &Member| {
                        if *old == member(lost) { Member { incarnation: 2, ..*old } } else { *old }
                    };
                    let members = &node.replica.durable().held.get(&name)?.view.members;
                    Change::Members(Group(members.iter().map(renewed).collect()))
                }
                Wish::Split(at, head, tail) => Change::Split { at: point(at), head: group(head), tail: group(tail) },
                Wish::Defer(into) => Change::Defer { into: held(into)? },
                Wish::Absorb(deferred) => Change::Absorb { deferred: held(deferred)? },
            };
            node.replica.propose(&mut node.store, Time::ZERO, name, &change).ok()
        })?;
        self.rest.wished |= 1 << i;
        self.becomes(run, n, &done);
        Some(())
    }

    /// A node crashes and starts again, with what is on its disk.
    fn restart(&mut self, run: &Run, n: usize) {
        let done = run.done(&self.nodes[n], &"restart", |node| {
            if let Some((durable, store)) = &node.disk {
                node.store = store.clone();
                node.replica = Replica::restored(durable.clone(), run.settings.clone());
                node.disk = Some((node.replica.durable().clone(), node.store.clone()));
            } else {
                node.replica = Replica::restored(node.replica.durable().clone(), run.settings.clone());
            }
            node.waits.clear();
            Some(Step::default())
        });
        if let Some(done) = done {
            self.becomes(run, n, &done);
        }
    }

    fn lose_disk(&mut self, run: &Run, n: u8) {
        let done = run.done(&self.nodes[usize::from(n)], &"lose", |node| {
            node.store = MemoryStore::default();
            node.replica = if run.keeps_incarnation {
                // What it is a member of it is told by the others, as if nothing had happened; its votes and content are gone.
                let mut durable = node.replica.durable().clone();
                for held in durable.held.values_mut() {
                    (held.promised, held.accepted, held.stable) = (None, None, 0);
                }
                durable.decided.clear();
                durable.staged.clear();
                Replica::restored(durable, run.settings.clone())
            } else {
                Replica::new(Member { incarnation: 2, ..member(n) }, run.settings.clone())
            };
            Some(Step::default())
        });
        if let Some(done) = done {
            self.becomes(run, usize::from(n), &done);
        }
    }

    fn sync(&mut self, run: &Run, n: usize) {
        let waits = self.nodes[n].waits.clone();
        let done = run.done(&self.nodes[n], &"sync", |node| {
            node.waits.clear();
            node.disk = Some((node.replica.durable().clone(), node.store.clone()));
            Some(Step::default())
        });
        if let Some(done) = done {
            self.nodes[n] = done.node.clone();
            self.leave(run, &waits);
            self.drop_useless(run, n);
        }
    }

    fn forget(&mut self, run: &Run, n: usize, name: Name) {
        let done = run.done(&self.nodes[n], &("forget", name), |node| {
            let to = node.replica.me();
            let letter = Letter { from: to, boot: node.replica.durable().boot, to, body: Request::Forget { name } };
            Some(node.replica.serve(&mut node.store, Time::ZERO, letter).1)
        });
        if let Some(done) = done {
            self.becomes(run, n, &done);
        }
    }

    fn purge(&mut self, run: &Run, op: usize) -> Option<()> {
        let id = self.rest.ops[op].id;
        let leads = |node: &Hashed<Node>| node.replica.leads().find(|view| view.range.contains(&id)).map(View::name);
        let (n, name) = self.nodes.iter().enumerate().find_map(|(n, node)| Some((n, leads(node)?)))?;
        let done = run.done(&self.nodes[n], &("purge", op, name), |node| {
            node.replica.purge(&mut node.store, &name, op as u64 + 1);
            Some(Step::default())
        })?;
        self.becomes(run, n, &done);
        Some(())
    }
}

fn request_of(op: usize) -> RequestId {
    RequestId(((op as u128) + 1) << 64)
}

fn written_by(record: &Record) -> Option<usize> {
    match &record.content {
        Content::Value { bytes, .. } => bytes.first().map(|n| usize::from(*n)),
        Content::Tombstone => None,
    }
}
