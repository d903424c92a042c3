//! The network between the machines.

use chordal_protocol::{Envelope, Reply, Unreachable};
use rand::RngExt;

use super::faults::{Delay, Kind};
use super::trace::{About, answer, name, question};
use super::world::{Back, Event, MS, World};

/// How long messages are under way on a good network, in milliseconds.
const USUAL: Delay = Delay { from: 1, to: 5 };

/// Which way a partition lets nothing through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Neither way.
    Both,
    /// Nothing gets out of the side, but into it.
    Outward,
    /// Nothing gets into the side, but out of it.
    Inward,
}

/// Some nodes that cannot reach the others. Who comes later is on the other side.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub(crate) number: u64,
    pub(crate) side: Vec<bool>,
    pub(crate) cut: Cut,
}

/// The network between the machines.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) partition: Option<Partition>,
    /// When the last one ended.
    pub(crate) healed_at: Option<u64>,
}

impl Network {
    /// On which side of the partition a node is.
    pub(crate) fn side(&self, host: usize) -> bool {
        self.partition.as_ref().is_some_and(|it| it.side.get(host).copied().unwrap_or(false))
    }

    fn passes(&self, from: usize, to: usize) -> bool {
        let Some(partition) = &self.partition else { return true };
        match (self.side(from), self.side(to)) {
            (true, false) => partition.cut == Cut::Inward,
            (false, true) => partition.cut == Cut::Outward,
            _ => true,
        }
    }

    /// Whether questions can be answered between the two.
    pub(crate) fn connects(&self, one: usize, other: usize) -> bool {
        self.side(one) == self.side(other)
    }
}

impl World<'_> {
    /// Sends a question on its way.
    pub(crate) fn send(&mut self, from: usize, to: usize, envelope: Envelope, back: Back) {
        let lost = self.fate_of_message(from, to);
        if lost.is_empty() {
            self.tell(About::Message, |world| {
                format!(
                    "{} -> {}  {}  (lost)",
                    world.hosts[from].name(),
                    world.hosts[to].name(),
                    question(&envelope.request)
                )
            });
        }
        if lost.len() > 1 {
            self.asked_again(back);
        }
        for delay in lost {
            self.at(delay, Event::Arrives { at: to, envelope: envelope.clone(), back });
        }
    }

    /// Sends an answer back.
    pub(crate) fn send_back(&mut self, from: usize, back: Back, outcome: Result<Reply, Unreachable>) {
        let copies = self.fate_of_message(from, back.host);
        if copies.is_empty() {
            self.tell_change(|world| format!("the answer to {} is lost", world.hosts[back.host].name()));
        }
        for delay in copies {
            self.at(delay, Event::Answered { back, outcome: outcome.clone() });
        }
    }

    /// After how many microseconds a message arrives: never, once, or twice.
    fn fate_of_message(&mut self, from: usize, to: usize) -> Vec<u64> {
        if !self.network.passes(from, to) {
            return Vec::new();
        }
        let faults = self.setup.faults;
        if self.troubled && faults.loss > 0.0 && self.chance.random_bool(faults.loss) {
            self.counts.note(Kind::Loss);
            return Vec::new();
        }
        let mut delays = vec![self.delay()];
        if self.troubled && faults.duplicate > 0.0 && self.chance.random_bool(faults.duplicate) {
            self.counts.note(Kind::Duplicate);
            delays.push(self.delay());
        }
        delays
    }

    fn delay(&mut self) -> u64 {
        let asked = self.setup.faults.delay.filter(|_| self.troubled);
        if asked.is_some() {
            self.counts.note(Kind::Delay);
        }
        let Delay { from, to } = asked.unwrap_or(USUAL);
        self.chance.random_range(from * MS..=to * MS)
    }

    /// A word about an answer that has come.
    pub(crate) fn tell_answer(
        &mut self,
        host: usize,
        from: &chordal_protocol::Contact,
        outcome: &Result<Reply, Unreachable>,
    ) {
        self.tell(About::Message, |world| {
            let text = match outcome {
                Ok(reply) => answer(reply),
                Err(Unreachable) => "no answer".to_owned(),
            };
            format!("{} <- {}  {text}", world.hosts[host].name(), name(from))
        });
    }
}
