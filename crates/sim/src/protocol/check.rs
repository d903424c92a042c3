//! What is checked after every step.
//!
//! Zave's invariants hold as long as no member loses all its successors at once. *At once* means here: within the time in which
//! word of a loss has gone round to all whose lists hold the lost one (`at_once`). A list of r entries is lost if the next r
//! members are, so a member that has no successor left although one of those lives has been served badly by the protocol; where
//! they were all lost, or a node took living ones for dead because their answers were, the run is outside the theorem. It is
//! marked, counted apart, and from then on only what holds without that assumption is checked: lists in order, no second
//! ring, no strangers, no stale answer, and the ideal ring in the end.
//!
//! While the network is cut, each side is looked at by itself. After a cut there may be two rings, until they are one again.

use chordal_protocol::invariant::{self, Member, Snapshot};
use chordal_protocol::{Contact, Id, Membership};

use super::setup::{Aim, ROUND};
use super::trace::About;
use super::world::{MS, World};

/// Something that must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, in simulated milliseconds.
    pub at: u64,
    /// Which invariant was violated.
    pub invariant: &'static str,
    /// How.
    pub text: String,
}

/// What has been seen.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) violation: Option<Violation>,
    pending: Option<(&'static str, String)>,
    /// Why the run is outside the theorem, if it is.
    pub(crate) broken: Option<String>,
    /// Whether the ring may be two rings, because it was cut.
    pub(crate) split: bool,
    dirty: bool,
    changed: Vec<usize>,
    /// How many times the invariants were looked at.
    pub(crate) looks: u64,
}

impl Checker {
    /// What others see of this node is another thing now.
    pub(crate) fn changed(&mut self, host: usize) {
        self.dirty = true;
        if !self.changed.contains(&host) {
            self.changed.push(host);
        }
    }

    /// The network or the world is another one now.
    pub(crate) fn look(&mut self) {
        self.dirty = true;
    }

    /// Notes what must not happen; the first time counts.
    pub(crate) fn violated(&mut self, invariant: &'static str, text: String) {
        self.pending.get_or_insert((invariant, text));
    }
}

impl World<'_> {
    /// Looks whether everything holds that must.
    pub(crate) fn check(&mut self) {
        if std::mem::take(&mut self.checker.dirty) {
            self.checker.looks += 1;
            self.check_lists();
            for side in [false, true] {
                if !side || self.network.partition.is_some() {
                    self.check_side(side);
                }
            }
            self.checker.changed.clear();
        }
        if let Some((invariant, text)) = self.checker.pending.take()
            && self.checker.violation.is_none()
        {
            self.tell(About::Violation, |_| format!("VIOLATION of {invariant}: {text}"));
            self.checker.violation = Some(Violation { at: self.now / MS, invariant, text });
        }
    }

    /// What must hold of each node by itself, whatever happens.
    fn check_lists(&mut self) {
        for host in self.checker.changed.clone() {
            let host = &self.hosts[host];
            if !host.is_live() || !host.member.joined {
                continue;
            }
            let alone = Snapshot::of([&host.member]);
            if let Err(text) = invariant::ordered_successor_lists(&alone, self.setup.settings.successors) {
                self.checker.violated("ordered_successor_lists", text);
            }
            let strange = host
                .member
                .successors
                .iter()
                .chain(&host.member.predecessor)
                .find(|entry| self.place_of(&entry.addr).is_some_and(|place| self.hosts[place].ring != host.ring));
            if let Some(strange) = strange.cloned() {
                let text = format!("{} points to {strange}, which is of another ring", host.member.contact);
                self.checker.violated("one_ring_id", text);
            }
        }
    }

    /// What must hold of all who can reach each other.
    fn check_side(&mut self, side: bool) {
        if self.checker.broken.is_some() {
            return;
        }
        let seen = |(place, host): &(usize, &super::host::Host)| {
            host.ring == 0 && host.is_live() && self.network.side(*place) == side
        };
        let members: Vec<&Member> = self.hosts.iter().enumerate().filter(seen).map(|(_, host)| &host.member).collect();
        let snapshot = Snapshot::of(members);
        if let Err(text) = invariant::live_successor(&snapshot, self.setup.settings.successors) {
            match self.excuse(side) {
                Some(reason) => self.outside(reason),
                None => self.checker.violated("live_successor", text),
            }
            return;
        }
        let always = invariant::ALWAYS.iter().filter(|it| it.name != "live_successor");
        for invariant in always {
            if self.checker.split && matches!(invariant.name, "at_most_one_ring" | "ordered_ring") {
                continue;
            }
            if let Err(text) = (invariant.holds)(&snapshot, self.setup.settings.successors) {
                match invariant.name {
                    "at_most_one_ring" | "ordered_ring" if self.misled_on_both_sides(side) => {
                        self.outside("living nodes were taken for dead on both sides of a split".to_owned());
                    }
                    name => self.checker.violated(name, text),
                }
                return;
            }
        }
    }

    /// The run is outside the theorem from here on.
    pub(crate) fn outside(&mut self, reason: String) {
        if self.checker.broken.is_none() {
            self.tell(About::Fault, |_| format!("outside the theorem from here on: {reason}"));
            self.checker.broken = Some(reason);
        }
    }

    /// Whether at least two members took living nodes for dead of late, for their answers were lost or late: a ring that they
    /// stand on may close on either side of that.
    fn misled_on_both_sides(&self, side: bool) -> bool {
        let of_late = |at: u64| self.now - at <= self.at_once();
        let misled = self.hosts.iter().enumerate().filter(|(place, host)| {
            host.ring == 0 && self.network.side(*place) == side && host.misled_at.is_some_and(of_late)
        });
        misled.count() >= 2
    }

    /// Why each member that has no live successor is no fault of the protocol.
    fn excuse(&self, side: bool) -> Option<String> {
        let mut reason = None;
        for (place, host) in self.hosts.iter().enumerate() {
            let looked_at = host.ring == 0 && host.is_live() && host.member.joined && self.network.side(place) == side;
            let listed = &host.member.successors;
            if looked_at && !listed.is_empty() && !listed.iter().any(|entry| self.answers(place, entry)) {
                reason = Some(self.excuse_of(place)?);
            }
        }
        reason
    }

    /// Why it is no fault of the protocol that a node has no successor that answers, if that is so.
    fn excuse_of(&self, place: usize) -> Option<String> {
        let host = &self.hosts[place];
        let recently = |at: Option<u64>| at.is_some_and(|at| self.now - at <= self.at_once());
        if recently(host.misled_at) {
            return Some(format!("{} took living nodes for dead, for their answers were lost or late", host.name()));
        }
        if self.loses_all(place, &[]) || recently(host.lost_at) || self.is_or_was_cut() {
            return Some(format!("{} has lost all its successors at once", host.name()));
        }
        None
    }

    /// Whether a node loses all its successors at once when these are lost, too: of the members that follow it, as far as its
    /// list reaches, each was lost of late or says goodbye. Who has only just joined may not be known to it yet and does not count.
    pub(crate) fn loses_all(&self, place: usize, also: &[usize]) -> bool {
        let of_late = |at: u64| self.now - at <= self.at_once();
        let me = self.hosts[place].chord.me().id;
        let mut following: Vec<(Id, bool)> = Vec::new();
        for (at, host) in self.hosts.iter().enumerate().filter(|(at, host)| host.ring == 0 && *at != place) {
            let Some(joined) = host.joined_at else { continue };
            let goes = host.is_live() && host.chord.is_departing();
            let lost = goes || also.contains(&at) || host.lost_at.is_some_and(of_late);
            let settled = host.is_live() && host.member.joined && !of_late(joined);
            if lost || settled {
                following.push((me.distance(&host.chord.me().id), lost));
            }
        }
        following.sort_unstable();
        following.iter().take(self.setup.settings.successors).all(|(_, lost)| *lost)
    }

    /// Whether the network is cut, or was a moment ago: those on the other side were all lost at once.
    pub(crate) fn is_or_was_cut(&self) -> bool {
        self.network.partition.is_some() || self.network.healed_at.is_some_and(|at| self.now - at <= self.at_once())
    }

    /// Losses that are no farther apart come at once, in microseconds. A list is copied from one node to the one before it in
    /// each round, in which the successor is asked and told, so the lost one may stand in lists, and a newcomer may not, for
    /// r rounds after the first has noticed.
    pub(crate) fn at_once(&self) -> u64 {
        let (patience, attempts) = self.setup.patience;
        let verdict = patience * u64::from(attempts);
        let slowest = self.setup.faults.delay.map_or(0, |delay| delay.to);
        let round = ROUND * 3 / 2 + 4 * slowest;
        (2 * verdict + (self.setup.settings.successors as u64 + 1) * round) * MS
    }

    /// Whether a node would answer another one as a member now.
    pub(crate) fn answers(&self, from: usize, to: &Contact) -> bool {
        self.place_of(&to.addr).is_some_and(|place| {
            self.hosts[place].is_live() && self.hosts[place].member.joined && self.network.connects(from, place)
        })
    }

    /// A node says that it has lost its ring. If one of those that it knew would have answered, the protocol is wrong.
    pub(crate) fn isolated(&mut self, host: usize) {
        if self.hosts[host].ring != 0 {
            return;
        }
        let had = self.hosts[host].last_list.clone();
        match self.excuse_of(host) {
            Some(reason) => self.outside(reason),
            None if self.checker.broken.is_none() && had.iter().any(|entry| self.answers(host, entry)) => {
                let text = format!("{} gave up its ring though a successor lived", self.hosts[host].name());
                self.checker.violated("isolated_for_a_reason", text);
            }
            None => self.outside(format!("{} has lost all its successors", self.hosts[host].name())),
        }
    }

    /// A node that has lost its successors must not go on alone: that would be a second ring. One that leaves goes all the
    /// same, with its hands full.
    pub(crate) fn look_for_second_ring(&mut self, host: usize, before: Vec<Contact>) {
        self.hosts[host].last_list = before;
        let chord = &self.hosts[host].chord;
        match chord.membership() {
            Membership::Joined if chord.successors().is_empty() => {
                let text = format!("{} goes on as a ring of one", self.hosts[host].name());
                self.checker.violated("no_second_ring", text);
            }
            Membership::Leaving if chord.successors().is_empty() => self.isolated(host),
            _ => {}
        }
    }

    /// Why the ring is not what it should be in the end: ideal, everybody ready, and every key served by one node that has
    /// its newest value.
    pub(crate) fn unfinished(&mut self) -> Result<(), String> {
        self.not_ideal()?;
        for host in self.hosts.iter().filter(|host| host.ring == 0 && host.is_live()) {
            if let Some(why) = host.chord.not_ready() {
                return Err(format!("{}: {why}", host.name()));
            }
            if let Some(shelf) = &host.shelf
                && !shelf.keeper.serves(&host.chord.due())
            {
                return Err(format!("{} does not serve all that it owns", host.name()));
            }
        }
        Ok(())
    }

    /// A ring that was cut is one again when it has been ideal.
    pub(crate) fn look_whether_whole(&mut self) {
        if self.checker.split && self.network.partition.is_none() && self.not_ideal().is_ok() {
            self.checker.split = false;
        }
    }

    /// Why the ring of those who live is not ideal.
    pub(crate) fn not_ideal(&self) -> Result<(), String> {
        let members = self.hosts.iter().filter(|host| host.ring == 0 && host.is_live()).map(|host| &host.member);
        (invariant::IDEAL.holds)(&Snapshot::of(members), self.setup.settings.successors)
    }

    /// Whether somebody has lost the ring and remembers nobody who lives: nobody can find it then, and it must not begin a
    /// ring by itself. This happens only outside the theorem.
    pub(crate) fn is_stranded(&self) -> bool {
        let lives = |contact: &Contact| self.place_of(&contact.addr).is_some_and(|at| self.hosts[at].is_live());
        self.checker.broken.is_some()
            && self.hosts.iter().any(|host| {
                host.is_live() && host.chord.membership() == Membership::Isolated && !host.chord.contacts().any(lives)
            })
    }

    /// Whether the runs are to become ideal in the end.
    pub(crate) fn wants_liveness(&self) -> bool {
        self.setup.aim == Aim::Liveness
    }
}
