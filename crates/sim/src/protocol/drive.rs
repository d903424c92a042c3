//! The driver: what src/node/driver.rs is for the daemon, over the event loop.
//!
//! It begins procedures, makes durable what must be before anything leaves the node, sends calls, hands the answers back, and
//! answers others.

use std::collections::VecDeque;

use chordal_protocol::{
    Call, Chord, Contact, Envelope, Event as Told, Outcome, Procedure, Refusal, Reply, Request, Step, Time, Unreachable,
};
use rand::RngExt;

use super::host::{Asking, Run, State, Work};
use super::trace::{About, name, name_or_nobody, names, question};
use super::world::{Back, Event, MS, Timer, World};

/// How often a newcomer tries before its process gives up, as in the daemon.
const JOIN_ATTEMPTS: u32 = 8;

/// How long a refused connection takes to be refused, in microseconds.
const REFUSED: u64 = MS;

impl World<'_> {
    pub(crate) fn time(&self) -> Time {
        Time(self.now / MS)
    }

    /// Puts a procedure in its lane.
    pub(crate) fn begin(&mut self, host: usize, procedure: Procedure) {
        self.hosts[host].lane.put(procedure);
        self.next_in_lane(host);
    }

    fn next_in_lane(&mut self, host: usize) {
        while !self.hosts[host].lane.busy {
            let Some(procedure) = self.hosts[host].lane.waiting.pop_front() else { return };
            self.hosts[host].lane.busy = true;
            self.start(host, procedure, Work::Lane);
        }
    }

    /// Begins a procedure that waits for no other.
    pub(crate) fn begin_alone(&mut self, host: usize, procedure: Procedure) {
        self.start(host, procedure, Work::Alone);
    }

    fn start(&mut self, host: usize, procedure: Procedure, work: Work) {
        let number = self.next_number();
        self.hosts[host].runs.insert(number, Run { work, open: VecDeque::new(), asking: None });
        let now = self.time();
        let step = self.change(host, |chord| chord.begin(now, procedure));
        self.apply(host, number, step);
    }

    /// Changes a node's state, and tells what that changed in the eyes of others.
    pub(crate) fn change<T>(&mut self, host: usize, change: impl FnOnce(&mut Chord) -> T) -> T {
        let machine = &mut self.hosts[host];
        let before = (machine.chord.pointer_revision(), machine.chord.membership());
        let out = change(&mut machine.chord);
        machine.disk.write_state(&machine.chord, false);
        if before != (machine.chord.pointer_revision(), machine.chord.membership()) {
            let old = machine.member.clone();
            machine.look_again(self.now);
            self.checker.changed(host);
            let moved = before.1 != self.hosts[host].chord.membership();
            self.tell_pointers(host, &old, moved);
        }
        out
    }

    fn tell_pointers(&mut self, host: usize, old: &chordal_protocol::invariant::Member, moved: bool) {
        if self.sink.is_none() {
            return;
        }
        let new = self.hosts[host].member.clone();
        let who = self.hosts[host].name().to_owned();
        if moved {
            self.tell_change(|world| format!("{who} is {}", world.hosts[host].chord.membership()));
        }
        if new.predecessor != old.predecessor {
            let (was, is) = (name_or_nobody(old.predecessor.as_ref()), name_or_nobody(new.predecessor.as_ref()));
            self.tell_change(|_| format!("{who}: predecessor {was} => {is}"));
        }
        if new.successors != old.successors {
            self.tell_change(|_| format!("{who}: successors {} => {}", names(&old.successors), names(&new.successors)));
        }
    }

    /// What a step wants done: first what must be durable, then what happened, then the next question.
    fn apply(&mut self, host: usize, run: u64, step: Step) {
        let Step { next, events } = step;
        if let Some(run) = self.hosts[host].runs.get_mut(&run) {
            run.open.extend(next);
        }
        self.happened(host, events);
        self.go_on(host, run);
    }

    fn go_on(&mut self, host: usize, number: u64) {
        let Some(run) = self.hosts[host].runs.get(&number) else { return };
        if run.open.is_empty() { self.ended(host, number) } else { self.asks(host, number) }
    }

    fn ended(&mut self, host: usize, number: u64) {
        if let Some(Run { work: Work::Lane, .. }) = self.hosts[host].runs.remove(&number) {
            self.hosts[host].lane.busy = false;
            self.next_in_lane(host);
        }
    }

    /// Makes the call that stands first.
    fn asks(&mut self, host: usize, number: u64) {
        let Some(run) = self.hosts[host].runs.get_mut(&number) else { return };
        let Some(call) = run.open.pop_front() else { return };
        let (to, request) = (call.to.clone(), call.request.clone());
        self.ask(host, number, to, request, Some(call));
    }

    /// Asks a node, which may be this one.
    pub(crate) fn ask(&mut self, host: usize, number: u64, to: Contact, request: Request, call: Option<Call>) {
        let chord = &self.hosts[host].chord;
        let envelope = Envelope { ring: chord.ring().map(|ring| ring.id), from: chord.me().clone(), request };
        let own = to == *chord.me();
        let asking = Asking { to, call, envelope: envelope.clone(), attempt: 0, number: 0 };
        if let Some(run) = self.hosts[host].runs.get_mut(&number) {
            run.asking = Some(asking);
        }
        if own {
            let back = Back { host, life: self.hosts[host].life, run: number, number: 0 };
            if let Some(reply) = self.serve(host, envelope, back) {
                self.at(0, Event::Answered { back, outcome: Ok(reply) });
            }
        } else {
            self.attempt(host, number);
        }
    }

    fn attempt(&mut self, host: usize, number: u64) {
        let attempt = self.next_number();
        let life = self.hosts[host].life;
        let Some(asking) = self.hosts[host].runs.get_mut(&number).and_then(|run| run.asking.as_mut()) else { return };
        asking.attempt += 1;
        asking.number = attempt;
        let is_again = asking.attempt > 1;
        let (to, envelope) = (asking.to.addr.clone(), asking.envelope.clone());
        let back = Back { host, life, run: number, number: attempt };
        let patience = (self.setup.patience.0 as f64 * MS as f64 * self.hosts[host].pace) as u64;
        self.at(patience, Event::Expires { back });
        if is_again {
            self.asked_again(back);
        }
        match self.place_of(&to) {
            Some(place) => self.send(host, place, envelope, back),
            None => self.at(REFUSED, Event::Answered { back, outcome: Err(Unreachable) }),
        }
    }

    /// A question arrives at a machine.
    pub(crate) fn arrives(&mut self, at: usize, envelope: Envelope, back: Back) {
        match self.hosts[at].state {
            State::Crashed { silent: true } => return,
            State::Crashed { silent: false } | State::Gone => {
                self.send_back(at, back, Err(Unreachable));
                return;
            }
            State::Running | State::Paused => {}
        }
        self.tell(About::Message, |world| {
            format!("{} -> {}  {}", name(&envelope.from), world.hosts[at].name(), question(&envelope.request))
        });
        if let Some(reply) = self.serve(at, envelope, back) {
            self.send_back(at, back, Ok(reply));
        }
    }

    /// Answers a question as the daemon does, at once or later.
    fn serve(&mut self, at: usize, envelope: Envelope, back: Back) -> Option<Reply> {
        let from = envelope.from.clone();
        let now = self.time();
        let answer = self.change(at, |chord| chord.serve(now, envelope));
        let reply = match answer.outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Keep(request) => {
                self.keeper_serves(at, &from, request, back);
                return None;
            }
            Outcome::Operate(operation) => {
                self.operate_at(at, operation, back);
                return None;
            }
            Outcome::Invite(..) => {
                let text = "nobody is invited in a simulation".to_owned();
                Reply::Refused(Refusal::Settled(text))
            }
        };
        self.happened(at, answer.events);
        Some(reply)
    }

    /// An answer has come, for a question that may not wait for it any more.
    pub(crate) fn answered(&mut self, back: Back, outcome: Result<Reply, Unreachable>) {
        if back.run == super::content::LETTERS {
            let from = self.hosts[back.number as usize].chord.me().clone();
            self.tell_answer(back.host, &from, &outcome);
            self.keeper_hears(back, outcome);
            return;
        }
        let Some(run) = self.hosts[back.host].runs.get_mut(&back.run) else { return };
        let Some(asking) = run.asking.take_if(|asking| asking.number == back.number) else { return };
        self.tell_answer(back.host, &asking.to, &outcome);
        self.verdict(back.host, back.run, asking, outcome);
    }

    /// An attempt has taken too long: one more, or the verdict.
    pub(crate) fn expires(&mut self, back: Back) {
        let Some(run) = self.hosts[back.host].runs.get_mut(&back.run) else { return };
        let Some(asking) = run.asking.as_ref().filter(|asking| asking.number == back.number) else { return };
        if asking.attempt < self.setup.patience.1 {
            self.attempt(back.host, back.run);
            return;
        }
        let Some(asking) = run.asking.take() else { return };
        let to = asking.to.clone();
        if self
            .place_of(&to.addr)
            .is_some_and(|place| self.hosts[place].is_live() && self.network.connects(back.host, place))
        {
            self.hosts[back.host].misled_at = Some(self.now);
        }
        self.tell_answer(back.host, &to, &Err(Unreachable));
        self.verdict(back.host, back.run, asking, Err(Unreachable));
    }

    fn verdict(&mut self, host: usize, number: u64, asking: Asking, outcome: Result<Reply, Unreachable>) {
        let now = self.time();
        match asking.call {
            Some(call) => {
                let before = self.hosts[host].chord.successors().to_vec();
                let step = self.change(host, |chord| chord.resume(now, call, outcome));
                if !before.is_empty() {
                    self.look_for_second_ring(host, before);
                }
                self.apply(host, number, step);
            }
            None => self.wish_answered(host, number, &asking.to, outcome),
        }
    }

    fn happened(&mut self, host: usize, events: Vec<Told>) {
        for event in events {
            match event {
                Told::Begin(procedure) => self.begin(host, procedure),
                Told::Joined => {
                    self.hosts[host].attempts = 0;
                    self.start_timers(host);
                }
                Told::JoinFailed { reason, .. } => self.join_failed(host, &reason),
                Told::Left => self.left(host),
                Told::Isolated => self.isolated(host),
                Told::Successor(_) | Told::Predecessor(_) | Told::GaveUpRing => {}
            }
        }
    }

    fn join_failed(&mut self, host: usize, reason: &str) {
        self.tell_change(|world| format!("{} could not join: {reason}", world.hosts[host].name()));
        self.hosts[host].attempts += 1;
        if self.hosts[host].attempts >= JOIN_ATTEMPTS {
            self.gone(host);
        } else {
            let pause = self.chance.random_range(100 * MS..1_000 * MS);
            self.timer_in(host, Timer::Join, pause);
        }
    }

    fn left(&mut self, host: usize) {
        self.tell_change(|world| format!("{} has left", world.hosts[host].name()));
        self.gone(host);
    }

    fn gone(&mut self, host: usize) {
        self.hosts[host].interrupt();
        self.hosts[host].state = State::Gone;
        self.hosts[host].lost_at = Some(self.now);
        self.checker.changed(host);
    }
}
