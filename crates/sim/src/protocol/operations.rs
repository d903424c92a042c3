//! Clients' reads and writes, each through some node: it routes to the owner and asks that.

use std::collections::VecDeque;

use chordal_protocol::{
    Condition, Contact, Lookup, Mode, NextHop, Refusal, Reply, Request, RequestId, Unreachable, Write, Written,
};
use rand::RngExt;

use super::client::{KEYS, Operation, Oracle, Stage};
use super::host::{Run, Work};
use super::world::{Event, World};

/// How often an operation goes elsewhere before it says that the value is unavailable.
const TRIES: u32 = 6;

impl World<'_> {
    /// A client wants something from some node, and the next one comes after a while.
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
        if self.setup.content.is_some() {
            self.wish(host);
            return;
        }
        let key = self.chance.random_range(0..KEYS);
        let writes = self.chance.random_bool(0.5);
        let request = RequestId(self.chance.random());
        let value = writes.then(|| self.chance.random());
        if let Some(value) = value {
            self.oracle.begins(value);
        }
        let mode = [Mode::Linear, Mode::Fingers, Mode::Cached][self.chance.random_range(0..3)];
        self.operation(host, Operation { key, value, request, stage: Stage::AtOwner, hops: 0, left: TRIES }, mode);
    }

    fn operation(&mut self, host: usize, mut operation: Operation, mode: Mode) {
        let number = self.next_number();
        let to = match self.hosts[host].chord.lookup(Oracle::id(operation.key), mode) {
            Some(mut lookup) => match lookup.next_hop() {
                Ok(hop) => {
                    operation.stage = Stage::Routing(lookup);
                    hop.contact
                }
                Err(_) => {
                    self.oracle.unavailable += 1;
                    return;
                }
            },
            None => self.hosts[host].chord.me().clone(),
        };
        self.put_question(host, number, operation, to);
    }

    fn put_question(&mut self, host: usize, number: u64, mut operation: Operation, to: Contact) {
        let id = Oracle::id(operation.key);
        let request = match &operation.stage {
            Stage::Routing(lookup) => {
                operation.hops += 1;
                Request::Route { key: id, mode: lookup.mode(), excluding: None }
            }
            Stage::AtOwner => match operation.value {
                None => Request::Read(id),
                Some(value) => Request::Write(Write {
                    id,
                    key: Some(format!("key {}", operation.key).into()),
                    content: Oracle::content(value),
                    condition: Condition::Always,
                    request: operation.request,
                }),
            },
        };
        let run = Run { work: Work::Operation(operation), open: VecDeque::new(), asking: None };
        self.hosts[host].runs.insert(number, run);
        self.ask(host, number, to, request, None);
    }

    /// A node has answered a client's question, or not.
    pub(crate) fn operation_answered(
        &mut self,
        host: usize,
        number: u64,
        by: &Contact,
        outcome: Result<Reply, Unreachable>,
    ) {
        let Some(Run { work: Work::Operation(operation), .. }) = self.hosts[host].runs.remove(&number) else { return };
        match (operation.stage.clone(), outcome) {
            (Stage::Routing(lookup), outcome) => self.led_on(host, number, operation, lookup, by, outcome),
            (Stage::AtOwner, Ok(Reply::Written(Written::Done(version)))) => {
                self.oracle.acknowledged(operation.key, version);
            }
            (Stage::AtOwner, Ok(Reply::Read(_))) => self.oracle.done += 1,
            (Stage::AtOwner, Ok(Reply::Refused(Refusal::NotMine(Some(hint))))) if operation.left > 0 => {
                let left = operation.left - 1;
                self.put_question(host, number, Operation { left, ..operation }, hint);
            }
            (Stage::AtOwner, _) => self.oracle.unavailable += 1,
        }
    }

    fn led_on(
        &mut self,
        host: usize,
        number: u64,
        mut operation: Operation,
        mut lookup: Lookup,
        by: &Contact,
        outcome: Result<Reply, Unreachable>,
    ) {
        match outcome {
            Ok(Reply::Route(NextHop::Owner { range, .. })) => {
                self.hops.push(operation.hops);
                self.change(host, |chord| chord.learn_owner(range, by));
                operation.stage = Stage::AtOwner;
                self.put_question(host, number, operation, by.clone());
                return;
            }
            Ok(Reply::Route(NextHop::Via(hops))) => lookup.led_on(by, hops),
            Ok(_) => {}
            Err(Unreachable) => self.change(host, |chord| chord.forget_node(by)),
        }
        match lookup.next_hop() {
            Ok(hop) => {
                operation.stage = Stage::Routing(lookup);
                self.put_question(host, number, operation, hop.contact);
            }
            Err(_) => self.oracle.unavailable += 1,
        }
    }
}
