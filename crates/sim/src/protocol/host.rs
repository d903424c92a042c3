//! A simulated machine: a node, its disk, and the procedures that it is in the middle of.

use std::collections::{BTreeMap, VecDeque};

use chordal_protocol::invariant::Member;
use chordal_protocol::{Call, Chord, Contact, Durable, Envelope, Membership, Procedure};

use super::shelf::Shelf;
use super::wish::Wish;
use super::world::Event;

/// How many procedures may wait in a lane, as in the daemon.
const LANE: usize = 64;

/// Whether a machine takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs.
    Running,
    /// It stands still, and goes on where it was.
    Paused,
    /// It has ended without a word and may come back. If the machine is gone too, nobody even refuses a connection.
    Crashed { silent: bool },
    /// It has left, or given up, and does not come back.
    Gone,
}

/// What outlives a crash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) state: Option<Durable>,
    revision: u64,
    pointers: u64,
}

impl Disk {
    /// Writes the protocol's state if what others may build on has changed; pointers alone are written at the beat.
    pub(crate) fn write_state(&mut self, chord: &Chord, pointers_too: bool) {
        let pointers = pointers_too && chord.pointer_revision() > self.pointers;
        if chord.revision() > self.revision || pointers {
            self.state = Some(chord.durable());
            self.revision = chord.revision();
            self.pointers = chord.pointer_revision();
        }
    }

    /// A new life begins: its revisions count from the start.
    pub(crate) fn reopened(&mut self) {
        (self.revision, self.pointers) = (0, 0);
    }
}

/// A procedure, or a client's wish, in the middle of which a node is.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) work: Work,
    pub(crate) open: VecDeque<Call>,
    pub(crate) asking: Option<Asking>,
}

/// What a run is.
#[expect(clippy::large_enum_variant, reason = "a few at a time, and moved seldom")]
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// A procedure that waited in the lane.
    Lane,
    /// A procedure that waits for no other.
    Alone,
    /// What a client of this node wants.
    Wish(Wish),
}

/// A question that waits for its answer.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) to: Contact,
    /// The protocol's call; none if a client's wish asks.
    pub(crate) call: Option<Call>,
    pub(crate) envelope: Envelope,
    pub(crate) attempt: u32,
    /// Which attempt an answer must be for; those of earlier ones come to nothing, as on a closed connection.
    pub(crate) number: u64,
}

/// Procedures run one after the other, as in the daemon.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lane {
    pub(crate) waiting: VecDeque<Procedure>,
    pub(crate) busy: bool,
}

impl Lane {
    /// Puts a procedure in line. One that waits already is as good; one that does not fit comes again.
    pub(crate) fn put(&mut self, procedure: Procedure) {
        if self.waiting.len() < LANE && !self.waiting.contains(&procedure) {
            self.waiting.push_back(procedure);
        }
    }
}

/// A simulated machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) chord: Chord,
    pub(crate) disk: Disk,
    pub(crate) state: State,
    /// Grows with each crash and start: what was meant for an earlier life is void.
    pub(crate) life: u32,
    /// Whom it joins through.
    pub(crate) bootstrap: Vec<Contact>,
    /// Of which ring it is: 0, or 1 for strangers.
    pub(crate) ring: usize,
    /// How its timers run: 1 is right.
    pub(crate) pace: f64,
    pub(crate) attempts: u32,
    pub(crate) beats: u64,
    pub(crate) runs: BTreeMap<u64, Run>,
    pub(crate) lane: Lane,
    /// What came while it was paused.
    pub(crate) inbox: Vec<Event>,
    /// Whether its timers run.
    pub(crate) timers: bool,
    /// What others see of it, made anew whenever that changes.
    pub(crate) member: Member,
    /// When it last became a member.
    pub(crate) joined_at: Option<u64>,
    /// When it was last lost, or came back with what it knew before.
    pub(crate) lost_at: Option<u64>,
    /// The successors that it had before its last step.
    pub(crate) last_list: Vec<Contact>,
    /// When it last took a living node for dead.
    pub(crate) misled_at: Option<u64>,
    /// What it keeps for clients, if nodes keep something.
    pub(crate) shelf: Option<Shelf>,
}

impl Host {
    pub(crate) fn new(chord: Chord, ring: usize, bootstrap: Vec<Contact>) -> Host {
        let member = member(&chord);
        Host {
            chord,
            disk: Disk::default(),
            state: State::Running,
            life: 0,
            bootstrap,
            ring,
            pace: 1.0,
            attempts: 0,
            beats: 0,
            runs: BTreeMap::new(),
            lane: Lane::default(),
            inbox: Vec::new(),
            timers: false,
            member,
            joined_at: None,
            lost_at: None,
            last_list: Vec::new(),
            misled_at: None,
            shelf: None,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state == State::Running
    }

    /// Whether it would go on if nothing more was done to it.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }

    pub(crate) fn name(&self) -> &str {
        &self.chord.me().name
    }

    /// Forgets what it was in the middle of.
    pub(crate) fn interrupt(&mut self) {
        self.life += 1;
        self.runs.clear();
        self.lane = Lane::default();
        self.inbox.clear();
        self.timers = false;
        if let Some(shelf) = &mut self.shelf {
            shelf.interrupt();
        }
    }

    /// Looks again what others see of it.
    pub(crate) fn look_again(&mut self, now: u64) {
        let was_member = self.member.joined;
        self.member = member(&self.chord);
        if self.member.joined && !was_member {
            self.joined_at = Some(now);
        }
    }
}

fn member(chord: &Chord) -> Member {
    Member {
        contact: chord.me().clone(),
        predecessor: chord.predecessor().cloned(),
        successors: chord.successors().to_vec(),
        joined: matches!(chord.membership(), Membership::Joined | Membership::Leaving),
    }
}
