//! A keeper with its disk: nothing of a step leaves before the disk has it.
//!
//! All that a step wants to send waits until what the step has written, and what it may have read, is durable, but for writes
//! that members are to keep, too: the replica's contract with its driver. One sync at a time writes all that is pending (group commit), and takes its time.

use std::collections::{BTreeMap, VecDeque};

use chordal_protocol::replica::{Snapshot, Token};
use chordal_protocol::{Contact, Envelope, Id, Interval, Reply, Request, keeper};
use keeper::Keeper;
use rand::RngExt;

use super::content::LETTERS;
use super::faults::Kind;
use super::setup::Negligence;
use super::trace::About;
use super::world::{Back, Event, MS, World};
use crate::disk::{Crash, Disk, NotSynced, SyncId};

/// For how long a disk stays full, in simulated microseconds.
const FULL_FOR: std::ops::RangeInclusive<u64> = 500 * MS..=8_000 * MS;

/// What a machine keeps.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) keeper: Keeper,
    pub(crate) disk: Disk,
    /// How many steps the disk had when this life began.
    began: u64,
    /// Who waits for which operation.
    pub(crate) waiting: BTreeMap<Token, (Id, Back)>,
    /// What waits for the disk, each with the step that it waits for.
    leaving: VecDeque<(u64, Parting)>,
    /// The last step that changed more than records.
    changed: u64,
}

/// Something that leaves a machine.
#[derive(Debug, Clone)]
pub(crate) enum Parting {
    /// A question to another keeper.
    Question(usize, keeper::Request),
    /// An answer to whoever has asked.
    Answer(Back, Reply),
}

impl Shelf {
    fn new(me: Contact, mut disk: Disk, incarnation: u64, settings: keeper::Settings) -> Shelf {
        let keeper = match disk.durable().cloned() {
            None => Keeper::new(me, incarnation, settings),
            Some(replica) => {
                let (contacts, disks) = (Vec::new(), BTreeMap::new());
                Keeper::restored(me, keeper::Durable { replica, contacts, disks }, settings)
            }
        };
        let began = disk.steps();
        let changed = disk.end_step(Some(keeper.replica().durable().clone()));
        Shelf { keeper, disk, began, waiting: BTreeMap::new(), leaving: VecDeque::new(), changed }
    }

    /// What this machine was in the middle of is void.
    pub(crate) fn interrupt(&mut self) {
        self.waiting.clear();
        self.leaving.clear();
    }

    /// The version that this keeper has of an id, in the view that it is asked for.
    pub(crate) fn version(&self, view: &chordal_protocol::replica::View, id: &Id) -> Option<chordal_protocol::Version> {
        self.disk.record(&view.name().area(), id).map(|record| record.version)
    }
}

impl World<'_> {
    /// A machine gets an empty disk for content, if nodes keep something.
    pub(crate) fn put_up_shelf(&mut self, host: usize) {
        let Some(settings) = self.setup.content.clone() else { return };
        let me = self.hosts[host].chord.me().clone();
        let incarnation = self.chance.random::<u64>() >> 8;
        let disk = Disk::new(incarnation);
        self.hosts[host].shelf = Some(Shelf::new(me, disk, incarnation, settings));
    }

    /// The disk of a machine is gone. What comes with the next one is another member.
    pub(crate) fn wipe_shelf(&mut self, host: usize) {
        let Some(settings) = self.setup.content.clone() else { return };
        let me = self.hosts[host].chord.me().clone();
        let Some(mut shelf) = self.hosts[host].shelf.take() else { return };
        shelf.disk.gone();
        let incarnation = shelf.disk.incarnation();
        self.hosts[host].shelf = Some(Shelf::new(me, shelf.disk, incarnation, settings));
    }

    /// A machine stops without warning: what was not on disk is lost.
    pub(crate) fn cut_off_power(&mut self, host: usize) {
        let Some(shelf) = &mut self.hosts[host].shelf else { return };
        let Crash { lost, landed, .. } = shelf.disk.crash(&mut self.chance);
        if lost > 0 {
            self.counts.note(Kind::Unsynced);
            self.tell_change(|_| format!("{lost} steps were not on disk and are lost"));
        }
        if landed {
            self.tell_change(|_| "what it was writing is on disk, and nobody was told".to_owned());
        }
    }

    /// A machine starts again, with what its disk has. Addresses are hints, and it has them as they were; so it has what it was told of
    /// others' disks.
    pub(crate) fn reopen_shelf(&mut self, host: usize) {
        let Some(settings) = self.setup.content.clone() else { return };
        let me = self.hosts[host].chord.me().clone();
        let Some(mut shelf) = self.hosts[host].shelf.take() else { return };
        let keeper::Durable { contacts, disks, .. } = shelf.keeper.durable();
        shelf.began = shelf.disk.steps();
        shelf.keeper = match shelf.disk.durable().cloned() {
            None => Keeper::new(me, shelf.keeper.me().incarnation, settings),
            Some(replica) => Keeper::restored(me, keeper::Durable { replica, contacts, disks }, settings),
        };
        shelf.changed = shelf.disk.end_step(Some(shelf.keeper.replica().durable().clone()));
        shelf.interrupt();
        self.hosts[host].shelf = Some(shelf);
        self.sync(host);
    }

    /// The first node of a ring keeps all of it.
    pub(crate) fn found(&mut self, host: usize) {
        let Some(shelf) = &mut self.hosts[host].shelf else { return };
        let range = Interval::whole(shelf.keeper.me().id);
        let step = shelf.keeper.found(range);
        self.keeper_did(host, step, None);
    }

    /// What a step of a keeper wants done, with the reply to whoever has asked for the step.
    pub(crate) fn keeper_did(&mut self, host: usize, step: keeper::Step, reply: Option<(Back, Reply)>) {
        let keeper::Step { persist, calls, answers, events } = step;
        let mut partings: Vec<Parting> = reply.into_iter().map(|(back, reply)| Parting::Answer(back, reply)).collect();
        for (to, request) in calls {
            partings.extend(self.place_of(&to.addr).map(|place| Parting::Question(place, request)));
        }
        let Some(shelf) = &mut self.hosts[host].shelf else { return };
        for (token, answer) in answers {
            let waited = shelf.waiting.remove(&token);
            partings.extend(waited.map(|(_, back)| Parting::Answer(back, Reply::Answered(answer))));
        }
        let number = shelf.disk.end_step(persist.then(|| shelf.keeper.replica().durable().clone()));
        if persist {
            shelf.changed = number;
        }
        let may_leave =
            self.setup.negligence == Some(Negligence::AnswersBeforeDurable) || shelf.disk.is_durable(number);
        let is_settled = shelf.disk.is_durable(shelf.changed);
        let goes_ahead = |it: &Parting| matches!(it, Parting::Question(_, request) if request.may_go_ahead());
        let (now, later): (Vec<Parting>, Vec<Parting>) =
            partings.into_iter().partition(|parting| may_leave || (is_settled && goes_ahead(parting)));
        shelf.leaving.extend(later.into_iter().map(|parting| (number, parting)));
        now.into_iter().for_each(|parting| self.part(host, parting));
        self.sync(host);
        self.tell_events(host, events);
    }

    fn part(&mut self, host: usize, mut parting: Parting) {
        if let Some(shelf) = &self.hosts[host].shelf {
            let age = keeper::Age { life: self.hosts[host].life, began: shelf.began, durable: shelf.disk.steps() };
            match &mut parting {
                Parting::Question(_, request) => request.leave_at(age),
                Parting::Answer(_, Reply::Kept(reply)) => reply.leave_at(age),
                Parting::Answer(..) => {}
            }
        }
        match parting {
            Parting::Question(place, request) => {
                let (chord, life) = (&self.hosts[host].chord, self.hosts[host].life);
                let (ring, from) = (chord.ring().map(|ring| ring.id), chord.me().clone());
                let envelope = Envelope { ring, from, request: Request::Keep(request) };
                self.send(host, place, envelope, Back { host, life, run: LETTERS, number: place as u64 });
            }
            Parting::Answer(back, reply) if back.host == host => {
                self.at(0, Event::Answered { back, outcome: Ok(reply) });
            }
            Parting::Answer(back, reply) => self.send_back(host, back, Ok(reply)),
        }
    }

    /// Begins to write what is pending, unless that is under way, or there is no room.
    fn sync(&mut self, host: usize) {
        let Some(shelf) = &mut self.hosts[host].shelf else { return };
        let Ok(sync) = shelf.disk.begin_sync() else { return };
        let long = self.setup.pace.draw(&mut self.chance);
        let life = self.hosts[host].life;
        self.at(long, Event::Synced { host, life, sync });
    }

    /// What was pending when the sync began is on disk, and what has waited for it leaves.
    pub(crate) fn synced(&mut self, host: usize, sync: SyncId) {
        let Some(shelf) = &mut self.hosts[host].shelf else { return };
        match shelf.disk.end_sync(sync) {
            Ok(up_to) => {
                let due = shelf.leaving.partition_point(|(number, _)| *number <= up_to);
                let due: Vec<(u64, Parting)> = shelf.leaving.drain(..due).collect();
                due.into_iter().for_each(|(_, parting)| self.part(host, parting));
                self.sync(host);
            }
            Err(NotSynced::Full | NotSynced::Over | NotSynced::Nothing | NotSynced::UnderWay) => {}
        }
    }

    /// The disk of a node is full for a while. What it has still can be read, and nothing that must be durable leaves it.
    pub(crate) fn fill_disk(&mut self, host: usize) {
        let Some(shelf) = self.hosts[host].shelf.as_mut().filter(|shelf| !shelf.disk.is_full()) else { return };
        shelf.disk.fill();
        self.counts.note(Kind::Full);
        let long = self.chance.random_range(FULL_FOR);
        self.tell(About::Fault, |world| {
            format!("the disk of {} is full for {} ms", world.hosts[host].name(), long / MS)
        });
        self.at(long, Event::HasRoom { host });
    }

    /// There is room on the disk of a node again.
    pub(crate) fn has_room(&mut self, host: usize) {
        let Some(shelf) = self.hosts[host].shelf.as_mut().filter(|shelf| shelf.disk.is_full()) else { return };
        shelf.disk.free();
        self.tell(About::Fault, |world| format!("the disk of {} has room again", world.hosts[host].name()));
        self.sync(host);
    }
}
