//! What is done to the ring, and who comes and goes.

use chordal_protocol::{Chord, Contact, Membership, Procedure};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::faults::Kind;
use super::host::{Disk, Host, State};
use super::network::{Cut, Partition};
use super::trace::About;
use super::world::{Event, FATE, MS, Timer, World};

/// How long pauses and partitions are, in milliseconds.
const PAUSES: std::ops::RangeInclusive<u64> = 200..=6_000;
const PARTITIONS: std::ops::RangeInclusive<u64> = 500..=8_000;

/// After how long a leave is given up, in milliseconds, as in the daemon.
const LEAVE_DEADLINE: u64 = 10_000;

/// How often the disk of a node that comes back is gone.
const DISK_GONE: f64 = 0.05;

impl World<'_> {
    /// Ten times a simulated second fate looks at each node.
    pub(crate) fn fate(&mut self) {
        if !self.troubled {
            return;
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].ring == 0 {
                self.fate_of(host);
            }
        }
        if self.happens_now(self.setup.faults.partition) && self.network.partition.is_none() {
            self.cut_somewhere();
        }
        self.look_whether_whole();
        let coming = self.hosts.iter().filter(|host| host.ring == 0 && self.will_be_back(host.state)).count();
        if coming < self.wanted && self.happens_now(1.0) {
            let host = self.newcomer();
            self.tell(About::Fault, |world| format!("{} wants to join", world.hosts[host].name()));
            self.timer_in(host, Timer::Join, MS);
        }
        self.at(FATE, Event::Fate);
    }

    /// Whether something that happens at this rate per second happens now.
    fn happens_now(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.chance.random_bool((rate * FATE as f64 / 1e6).min(1.0))
    }

    fn will_be_back(&self, state: State) -> bool {
        match state {
            State::Running | State::Paused => true,
            State::Crashed { .. } => self.setup.faults.restart > 0.0,
            State::Gone => false,
        }
    }

    fn fate_of(&mut self, host: usize) {
        let faults = self.setup.faults;
        let state = self.hosts[host].state;
        match state {
            State::Running => {
                if self.happens_now(faults.crash) && self.may_lose(&[host]) {
                    self.crash(host);
                } else if self.happens_now(faults.pause) && self.may_lose(&[host]) {
                    self.pause(host);
                } else if self.happens_now(self.setup.churn) && self.may_lose(&[host]) {
                    self.leave(host);
                } else if self.happens_now(faults.full) && self.may_lose(&[host]) {
                    self.fill_disk(host);
                }
            }
            State::Crashed { .. } if self.happens_now(faults.restart) => {
                if self.chance.random_bool(DISK_GONE) && self.may_wipe(host) {
                    self.wipe(host);
                }
                self.restart(host);
            }
            State::Crashed { .. } | State::Paused | State::Gone => {}
        }
    }

    /// Whether these nodes may be lost: some member remains, and, where the theorem's assumption is kept, no member loses
    /// all its successors at once.
    pub(crate) fn may_lose(&self, lost: &[usize]) -> bool {
        // Who leaves is as good as gone.
        let leaving = |host: &Host| host.is_live() && host.chord.membership() == Membership::Leaving;
        let leavers = (0..self.hosts.len()).filter(|at| leaving(&self.hosts[*at]));
        let lost = &leavers.chain(lost.iter().copied()).collect::<Vec<usize>>()[..];
        let members = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(at, host)| host.ring == 0 && host.is_live() && host.member.joined && !lost.contains(at));
        let remaining: Vec<usize> = members.map(|(at, _)| at).collect();
        if !self.troubled && !self.keeps_majorities(lost) {
            return false;
        }
        if !self.sparing {
            return !remaining.is_empty();
        }
        let spared = remaining.iter().all(|at| !self.loses_all(*at, lost));
        !remaining.is_empty()
            && spared
            && (!self.is_or_was_cut() || self.each_keeps_one(lost, |at| self.network.side(at)))
    }

    fn crash(&mut self, host: usize) {
        let silent = self.chance.random_bool(0.5);
        self.crash_of(host, silent);
    }

    /// A node ends without a word; if its machine goes too, nobody even refuses a connection.
    pub(crate) fn crash_of(&mut self, host: usize, silent: bool) {
        self.counts.note(Kind::Crash);
        self.tell(About::Fault, |world| {
            format!("{} crashes{}", world.hosts[host].name(), if silent { ", and its machine too" } else { "" })
        });
        self.hosts[host].interrupt();
        self.cut_off_power(host);
        self.hosts[host].state = State::Crashed { silent };
        self.lose(host);
    }

    fn lose(&mut self, host: usize) {
        self.hosts[host].lost_at = Some(self.now);
        self.checker.changed(host);
    }

    /// Starts a crashed node again on its disk, which now and then is gone.
    pub(crate) fn restart(&mut self, host: usize) {
        self.counts.note(Kind::Restart);
        let machine = &mut self.hosts[host];
        machine.interrupt();
        machine.state = State::Running;
        machine.disk.reopened();
        let remembered = machine.disk.state.clone().filter(|it| it.membership != Membership::Left);
        let member = remembered.as_ref().is_some_and(|it| it.membership != Membership::Joining);
        let me = machine.chord.me().clone();
        if !member && machine.bootstrap.is_empty() {
            // The first one of a ring has lost its disk, and its operator tells it where the others are.
            let others =
                self.hosts.iter().filter(|other| other.ring == 0 && other.is_live() && other.chord.me().id != me.id);
            let others: Vec<Contact> = others.map(|other| other.chord.me().clone()).collect();
            self.hosts[host].bootstrap = others;
        }
        let machine = &mut self.hosts[host];
        let settings = self.setup.settings.clone();
        machine.chord = match remembered {
            Some(durable) => Chord::restore(durable, settings),
            None => Chord::new(me, settings),
        };
        if let Some(flaw) = self.setup.variant.flaw() {
            machine.chord.plant(flaw);
        }
        machine.look_again(self.now);
        self.checker.changed(host);
        self.reopen_shelf(host);
        self.tell(About::Fault, |world| format!("{} is started again on its disk", world.hosts[host].name()));
        if member {
            self.start_timers(host);
        } else {
            self.timer_in(host, Timer::Join, MS);
        }
        // It comes back with what it knew before it went, and may have been forgotten meanwhile.
        self.hosts[host].lost_at = Some(self.now);
    }

    pub(crate) fn pause(&mut self, host: usize) {
        let long = self.chance.random_range(PAUSES) * MS;
        self.pause_for(host, long);
    }

    pub(crate) fn pause_for(&mut self, host: usize, long: u64) {
        self.counts.note(Kind::Pause);
        self.tell(About::Fault, |world| format!("{} stands still for {} ms", world.hosts[host].name(), long / MS));
        self.hosts[host].state = State::Paused;
        self.lose(host);
        let life = self.hosts[host].life;
        self.at(long, Event::Resumes { host, life });
    }

    pub(crate) fn resumes(&mut self, host: usize, life: u32) {
        if self.hosts[host].life != life || self.hosts[host].state != State::Paused {
            return;
        }
        self.tell(About::Fault, |world| format!("{} goes on", world.hosts[host].name()));
        self.hosts[host].state = State::Running;
        self.hosts[host].lost_at = Some(self.now);
        self.checker.changed(host);
        // What came meanwhile is all there at once, in any order.
        let mut inbox = std::mem::take(&mut self.hosts[host].inbox);
        inbox.shuffle(&mut self.chance);
        for event in inbox {
            self.at(0, event);
        }
    }

    /// A node that leaves in order.
    pub(crate) fn leave(&mut self, host: usize) {
        if self.hosts[host].chord.membership() != Membership::Joined {
            return;
        }
        self.tell(About::Fault, |world| format!("{} is asked to leave", world.hosts[host].name()));
        if let Some(shelf) = &mut self.hosts[host].shelf {
            shelf.keeper.leave();
            self.timer_in(host, Timer::Released, MS);
        } else {
            self.begin_alone(host, Procedure::Leave);
        }
        self.timer_in(host, Timer::GiveUpLeave, LEAVE_DEADLINE * MS);
    }

    fn cut_somewhere(&mut self) {
        // A few tries to find a cut that leaves each member a successor on its own side.
        for _ in 0..8 {
            let side: Vec<bool> = self.hosts.iter().map(|_| self.chance.random_bool(0.5)).collect();
            let cut = [Cut::Both, Cut::Both, Cut::Outward, Cut::Inward][self.chance.random_range(0..4)];
            let splits = |part: bool| (0..side.len()).any(|at| self.hosts[at].is_live() && side[at] == part);
            if splits(true) && splits(false) && (!self.sparing || self.each_keeps_one(&[], |at| side[at])) {
                let long = self.chance.random_range(PARTITIONS) * MS;
                self.cut(side, cut, long);
                return;
            }
        }
    }

    /// Whether each member keeps a successor on its own side when these are lost.
    fn each_keeps_one(&self, lost: &[usize], side: impl Fn(usize) -> bool) -> bool {
        let live = |at: usize| {
            let host = &self.hosts[at];
            host.ring == 0 && host.is_live() && host.member.joined && !lost.contains(&at)
        };
        (0..self.hosts.len()).filter(|at| live(*at)).all(|at| {
            let keeps = |entry: &str| self.place_of(entry).is_some_and(|other| live(other) && side(other) == side(at));
            self.hosts[at].member.successors.iter().any(|entry| keeps(&entry.addr))
        })
    }

    pub(crate) fn cut(&mut self, side: Vec<bool>, cut: Cut, long: u64) {
        self.counts.note(Kind::Partition);
        let number = self.next_number();
        self.tell(About::Fault, |world| {
            let names: Vec<&str> = (0..side.len())
                .filter(|at| side[*at] && world.hosts[*at].is_up())
                .map(|at| world.hosts[at].name())
                .collect();
            let way = match cut {
                Cut::Both => "cut off from the rest",
                Cut::Outward => "cut off one way: nothing gets out",
                Cut::Inward => "cut off one way: nothing gets in",
            };
            format!("{} {way}, for {} ms", names.join(" "), long / MS)
        });
        self.network.partition = Some(Partition { number, side, cut });
        self.checker.split = true;
        self.checker.look();
        self.at(long, Event::Heals { number });
    }

    pub(crate) fn heals(&mut self, number: u64) {
        if self.network.partition.as_ref().is_some_and(|it| it.number == number) {
            self.tell(About::Fault, |_| "the network is whole again".to_owned());
            self.network.partition = None;
            self.network.healed_at = Some(self.now);
            self.checker.look();
        }
    }

    /// The faults stop: what was cut is whole, what stood still goes on. Some of the nodes are lost for good in that moment;
    /// the others are the core.
    pub(crate) fn calm(&mut self) {
        self.tell(About::Fault, |_| "the faults stop".to_owned());
        self.troubled = false;
        if let Some(number) = self.network.partition.as_ref().map(|it| it.number) {
            self.heals(number);
        }
        for host in 0..self.hosts.len() {
            let life = self.hosts[host].life;
            self.resumes(host, life);
            self.has_room(host);
        }
        if self.setup.content.is_some() && !self.scripted {
            // A minority of each view may be gone for good, but no more.
            for host in 0..self.hosts.len() {
                if matches!(self.hosts[host].state, State::Crashed { .. }) {
                    self.restart(host);
                }
            }
        }
        match self.setup.lose {
            Some(share) => self.lose_some(share),
            None if self.setup.faults.crash > 0.0 && self.chance.random_bool(0.5) => self.lose_some(0.25),
            None => {}
        }
    }

    /// A share of the members crashes at once and for good, or as many as may be lost.
    fn lose_some(&mut self, share: f64) {
        let mut members: Vec<usize> = (0..self.hosts.len())
            .filter(|at| self.hosts[*at].ring == 0 && self.hosts[*at].is_live() && self.hosts[*at].member.joined)
            .collect();
        members.shuffle(&mut self.chance);
        members.truncate((members.len() as f64 * share) as usize);
        while !members.is_empty() && !self.may_lose(&members) {
            members.pop();
        }
        for host in members {
            self.crash(host);
        }
    }

    /// A machine whose disk is new.
    pub(crate) fn wipe(&mut self, host: usize) {
        self.hosts[host].disk = Disk::default();
        self.wipe_shelf(host);
    }
}
