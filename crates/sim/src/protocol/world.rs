//! The event loop: whole rings in simulated time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use chordal_protocol::{Chord, Contact, Envelope, Id, Membership, Procedure, Reply, Ring, RingId, Unreachable};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::check::Checker;
use super::faults::{FaultCounts, Kind};
use super::host::{Host, State};
use super::network::Network;
use super::service::Service;
use super::setup::{ROUND, Setup};
use super::trace::{About, Entry, Sink};
use crate::disk::SyncId;

/// Simulated microseconds in a millisecond.
pub(crate) const MS: u64 = 1_000;

/// How often nodes see to their views, at most.
pub(crate) const KEEP: u64 = 150 * MS;

/// How much content travels in a letter in the runs of every other seed, in bytes: so little that pages are needed.
const SMALL_PAGE: usize = 300;

/// How often fate is asked what happens to whom.
pub(crate) const FATE: u64 = 100 * MS;

/// To whom an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Back {
    pub(crate) host: usize,
    pub(crate) life: u32,
    pub(crate) run: u64,
    pub(crate) number: u64,
}

/// Something that happens at its time.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A question arrives.
    Arrives { at: usize, envelope: Envelope, back: Back },
    /// An answer, or a refused connection, arrives.
    Answered { back: Back, outcome: Result<Reply, Unreachable> },
    /// An answer has been waited for long enough.
    Expires { back: Back },
    /// A timer of a node has come.
    Timer { host: usize, life: u32, timer: Timer },
    /// A paused node goes on.
    Resumes { host: usize, life: u32 },
    /// A partition ends.
    Heals { number: u64 },
    /// Fate looks round.
    Fate,
    /// What a disk was writing is durable.
    Synced { host: usize, life: u32, sync: SyncId },
    /// A disk that was full has room again.
    HasRoom { host: usize },
    /// It is looked whether ranges are served.
    LookAtService,
    /// A client wants something.
    Client,
    /// A client's wish that was not fulfilled is tried again.
    WishAgain { host: usize, life: u32, number: u64 },
}

/// What a node does at intervals, or after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Stabilize, check the predecessor, now and then look for rings that were split off.
    Round,
    /// See to the views.
    Keep,
    /// Go on with a leave once nothing is kept here any more.
    Released,
    /// Look up a finger, and write the pointers down.
    Beat,
    /// Try to join again.
    Join,
    /// A leave that has not come to its end is given up.
    GiveUpLeave,
}

struct Due {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the greatest, for the heap gives that first.
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// Rings, the network between their nodes, their clients, and what is checked of them.
pub(crate) struct World<'a> {
    pub(crate) setup: Setup,
    pub(crate) chance: Pcg64Mcg,
    /// In simulated microseconds.
    pub(crate) now: u64,
    heap: BinaryHeap<Due>,
    number: u64,
    pub(crate) steps: u64,
    pub(crate) hosts: Vec<Host>,
    places: BTreeMap<String, usize>,
    pub(crate) network: Network,
    pub(crate) counts: FaultCounts,
    /// What clients wanted of replicated registers, and what they were told.
    pub(crate) register: super::wish::Register,
    pub(crate) service: Service,
    pub(crate) hops: Vec<u32>,
    pub(crate) checker: Checker,
    /// How many nodes the ring is to have.
    pub(crate) wanted: usize,
    /// Whether faults happen, and nodes come and go.
    pub(crate) troubled: bool,
    /// Whether all that happens to machines was written down.
    pub(crate) scripted: bool,
    /// Whether faults that break the failure assumption are passed over.
    pub(crate) sparing: bool,
    pub(crate) sink: Option<Sink<'a>>,
    pub(crate) entry: Option<Entry>,
}

impl<'a> World<'a> {
    /// A world without nodes.
    pub(crate) fn empty(setup: &Setup, seed: u64, sink: Option<Sink<'a>>) -> World<'a> {
        let mut chance = Pcg64Mcg::seed_from_u64(seed);
        let wanted = chance.random_range(setup.nodes.0..=setup.nodes.1);
        // Every fourth seed may do anything; the others keep to what Zave's theorem assumes.
        let by_chance = chance.random_range(0..4) > 0;
        let sparing = setup.sparing.unwrap_or(by_chance);
        let mut setup = setup.clone();
        if let Some(content) = setup.content.as_mut().filter(|_| seed.is_multiple_of(2)) {
            content.replica.page_bytes = SMALL_PAGE;
            content.replica.rest_bytes = if seed.is_multiple_of(4) { 0 } else { SMALL_PAGE };
        }
        World {
            setup,
            chance,
            now: 0,
            heap: BinaryHeap::new(),
            number: 0,
            steps: 0,
            hosts: Vec::new(),
            places: BTreeMap::new(),
            network: Network::default(),
            counts: FaultCounts::default(),
            register: super::wish::Register::default(),
            service: Service::default(),
            hops: Vec::new(),
            checker: Checker::default(),
            wanted,
            troubled: true,
            scripted: false,
            sparing,
            sink,
            entry: None,
        }
    }

    /// A ring that begins, and all who want to join it within its first seconds.
    pub(crate) fn new(setup: &Setup, seed: u64, sink: Option<Sink<'a>>) -> World<'a> {
        let mut world = World::empty(setup, seed, sink);
        let first = world.add("n0", Id::of("n0:1"), 0, Vec::new());
        world.create(first, RingId([7; 16]), false);
        for _ in 1..world.wanted {
            let newcomer = world.newcomer();
            let soon = world.chance.random_range(0..(1 + world.wanted as u64 * 100) * MS);
            world.timer_in(newcomer, Timer::Join, soon);
        }
        world.add_strangers();
        world.at(FATE, Event::Fate);
        world.at(FATE, Event::Client);
        world.watch_service();
        world
    }

    fn create(&mut self, host: usize, id: RingId, lab: bool) {
        let factor = self.setup.content.as_ref().map_or(3, |content| content.replication_factor);
        let replication_factor = factor.clamp(1, usize::from(Ring::MOST_COPIES)) as u8;
        self.begin(host, Procedure::Create { ring: Ring { lab, replication_factor, ..Ring::new(id) } });
        self.found(host);
        self.start_timers(host);
    }

    /// A scenario's first node.
    pub(crate) fn create_for_lessons(&mut self, host: usize) {
        self.create(host, RingId([7; 16]), true);
    }

    /// A machine with a node on it that does nothing yet.
    pub(crate) fn add(&mut self, name: &str, id: Id, ring: usize, bootstrap: Vec<Contact>) -> usize {
        let contact = Contact { id, addr: format!("{name}:1"), name: name.to_owned() };
        let mut chord = Chord::new(contact.clone(), self.setup.settings.clone());
        if let Some(flaw) = self.setup.variant.flaw() {
            chord.plant(flaw);
        }
        let place = self.hosts.len();
        self.places.insert(contact.addr, place);
        let mut host = Host::new(chord, ring, bootstrap);
        if self.setup.faults.drift > 0.0 {
            self.counts.note(Kind::Drift);
            host.pace = 1.0 + self.chance.random_range(-self.setup.faults.drift..=self.setup.faults.drift);
        }
        self.hosts.push(host);
        self.put_up_shelf(place);
        place
    }

    /// A node that wants to join through some of those who are there, members or not.
    pub(crate) fn newcomer(&mut self) -> usize {
        let up = self.hosts.iter().filter(|host| host.ring == 0 && host.is_up());
        let mut known: Vec<Contact> = up.map(|host| host.chord.me().clone()).collect();
        known.shuffle(&mut self.chance);
        known.truncate(3);
        let name = format!("n{}", self.hosts.len());
        self.add(&name, Id::of(format!("{name}:1")), 0, known)
    }

    /// Another ring whose nodes remember ours, and ours theirs: addresses are used again.
    fn add_strangers(&mut self) {
        let mut first: Option<Contact> = None;
        for i in 0..self.setup.strangers {
            let name = format!("stranger{i}");
            let host = self.add(&name, Id::of(format!("{name}:1")), 1, first.iter().cloned().collect());
            let ours = self.hosts[0].chord.me().clone();
            self.hosts[host].chord.remember(&ours);
            let theirs = self.hosts[host].chord.me().clone();
            self.hosts[0].chord.remember(&theirs);
            match &first {
                Some(_) => self.timer_in(host, Timer::Join, MS),
                None => {
                    self.create(host, RingId([9; 16]), false);
                    first = Some(self.hosts[host].chord.me().clone());
                }
            }
        }
    }

    pub(crate) fn place_of(&self, addr: &str) -> Option<usize> {
        self.places.get(addr).copied()
    }

    /// Puts an event on its time, so many microseconds from now.
    pub(crate) fn at(&mut self, delay: u64, event: Event) {
        self.number += 1;
        self.heap.push(Due { at: self.now + delay, number: self.number, event });
    }

    /// A number that was not used before.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(crate) fn timer_in(&mut self, host: usize, timer: Timer, delay: u64) {
        let life = self.hosts[host].life;
        let delay = (delay as f64 * self.hosts[host].pace) as u64;
        self.at(delay, Event::Timer { host, life, timer });
    }

    pub(crate) fn start_timers(&mut self, host: usize) {
        let started = std::mem::replace(&mut self.hosts[host].timers, true);
        if !started {
            let (round, beat) = (self.chance.random_range(0..ROUND * MS), self.chance.random_range(0..1_000 * MS));
            self.timer_in(host, Timer::Round, round);
            self.timer_in(host, Timer::Beat, beat);
            self.timer_in(host, Timer::Keep, beat % KEEP + MS);
        }
    }

    /// Lets the next event happen, if it is due by then; false if none is.
    pub(crate) fn step(&mut self, until: u64) -> bool {
        match self.heap.peek() {
            Some(due) if due.at <= until => {}
            _ => {
                self.now = self.now.max(until);
                return false;
            }
        }
        let Some(Due { at, event, .. }) = self.heap.pop() else { return false };
        self.now = at;
        self.steps += 1;
        self.happens(event);
        self.check();
        self.print();
        true
    }

    fn happens(&mut self, event: Event) {
        let addressee = match &event {
            Event::Arrives { at, .. } => Some((*at, None)),
            Event::Answered { back, .. } | Event::Expires { back } => Some((back.host, Some(back.life))),
            Event::WishAgain { host, life, .. }
            | Event::Timer { host, life, .. }
            | Event::Synced { host, life, .. } => Some((*host, Some(*life))),
            _ => None,
        };
        if let Some((host, life)) = addressee {
            if life.is_some_and(|life| life != self.hosts[host].life) {
                return;
            }
            if self.hosts[host].state == State::Paused {
                self.hosts[host].inbox.push(event);
                return;
            }
        }
        match event {
            Event::Arrives { at, envelope, back } => self.arrives(at, envelope, back),
            Event::Answered { back, outcome } => self.answered(back, outcome),
            Event::Expires { back } => self.expires(back),
            Event::Timer { host, timer, .. } => self.timer(host, timer),
            Event::Resumes { host, life } => self.resumes(host, life),
            Event::Heals { number } => self.heals(number),
            Event::Fate => self.fate(),
            Event::Synced { host, sync, .. } => self.synced(host, sync),
            Event::HasRoom { host } => self.has_room(host),
            Event::LookAtService => self.look_at_service(),
            Event::Client => self.client(),
            Event::WishAgain { host, number, .. } => self.wish_again(host, number),
        }
    }

    fn timer(&mut self, host: usize, timer: Timer) {
        if !self.hosts[host].is_live() {
            return;
        }
        match timer {
            Timer::Round => {
                self.begin(host, Procedure::Stabilize);
                self.begin(host, Procedure::CheckPredecessor { candidate: None });
                self.reunite_now_and_then(host);
                let next = self.chance.random_range(ROUND * MS..ROUND * MS * 6 / 5);
                self.timer_in(host, Timer::Round, next);
            }
            Timer::Keep => self.keep(host),
            Timer::Released => self.released(host),
            Timer::Beat => {
                let beats = self.hosts[host].beats;
                self.hosts[host].beats += 1;
                self.begin_alone(host, Procedure::FixFingers { all: beats < 3 });
                let machine = &mut self.hosts[host];
                machine.disk.write_state(&machine.chord, true);
                self.timer_in(host, Timer::Beat, 1_000 * MS);
            }
            Timer::Join => {
                let contacts = self.hosts[host].bootstrap.clone();
                self.begin_alone(host, Procedure::Join { contacts });
            }
            Timer::GiveUpLeave => {
                if let Some(shelf) = &mut self.hosts[host].shelf {
                    shelf.keeper.stay();
                }
                if self.hosts[host].chord.membership() == Membership::Leaving {
                    if self.hosts[host].chord.is_departing() {
                        // Those who have heard its goodbye have forgotten it.
                        self.hosts[host].lost_at = Some(self.now);
                    }
                    self.change(host, |chord| chord.stay());
                }
            }
        }
    }

    /// Now and then with any contact; in every round, where the ring is lost.
    fn reunite_now_and_then(&mut self, host: usize) {
        let chord = &self.hosts[host].chord;
        let isolated = chord.membership() == Membership::Isolated;
        let known: Vec<Contact> = chord.contacts().cloned().collect();
        if known.is_empty() || !(isolated || self.chance.random_range(0..8) == 0) {
            return;
        }
        let contact = known[self.chance.random_range(0..known.len())].clone();
        self.begin(host, Procedure::Reunite { contact });
    }

    // ---- telling people ----

    /// Notes what happens, if anybody wants to know.
    pub(crate) fn tell(&mut self, about: About, text: impl FnOnce(&Self) -> String) {
        if self.sink.is_some() {
            self.print();
            let text = text(self);
            self.entry = Some(Entry { at: self.now, about, text, changes: Vec::new() });
        }
    }

    /// Notes what that has changed.
    pub(crate) fn tell_change(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.sink.is_some() {
            let text = text(self);
            let at = self.now;
            let nothing = || Entry { at, about: About::Node, text: "later:".to_owned(), changes: Vec::new() };
            self.entry.get_or_insert_with(nothing).changes.push(text);
        }
    }

    /// Tells what was noted last.
    pub(crate) fn print(&mut self) {
        if let (Some(sink), Some(entry)) = (&mut self.sink, self.entry.take()) {
            sink(&entry);
        }
    }
}
