//! A node as one of those who keep content: its [`Replica`], what the ring wants of it, and where the others are.
//!
//! **The ring is a hint, the view is the truth.** A replica knows views and members, and nothing of a ring; [`Chord`](crate::Chord) knows who
//! comes before and after whom, and nothing of content. The keeper stands between them. With each beat it looks whether the
//! views that this node serves are what the ring wants, and proposes a change where they are not (`wishes`). A wish that is
//! wrong, because pointers are stale or two nodes wish differently, costs time and no value.
//!
//! - `message`: what keepers ask of each other, letters of replicas above all
//! - `book`: which data directory a node has now, and where it can be asked
//! - `disks`: how far the disks of others have come, so that an older copy of one is noticed
//! - `circle`: the nodes near this one in their order, as far as it knows
//! - `wishes`: what the ring wants of a view
//! - `pulse`: how long a primary may be silent
//! - `clients`: operations that wait for a write of the same register
//!
//! It has the form of the replica: what comes in is answered by a [`Step`], whose calls and answers may leave once
//! [`Keeper::durable`] and what the step did to the store are on disk, with all steps before it.

mod book;
mod circle;
mod clients;
mod disks;
mod message;
mod pulse;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use disks::{Age, Known};
pub use message::{Reply, Request};

use crate::replica::{
    self, Answer, Change, Event, Letter, Member, Name, NotForced, NotProposed, Operation, Replica, Snapshot, Store,
    Token, View,
};
use crate::{Contact, Id, Interval, Time};
use book::Book;
use clients::Clients;
use disks::{Disks, Heard};
use pulse::Pulse;
use wishes::Wishes;

/// What a keeper is told when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// What its replica is told.
    pub replica: replica::Settings,
    /// How many members a view has, once the ring has as many nodes; the ring's own setting counts where it is known.
    pub replication_factor: usize,
    /// How long the ring must have wanted other members before a view that works is changed, in milliseconds. What somebody
    /// waits for, a join or a leave, is not put off.
    pub repair_delay: u64,
    /// How recently a node must have been heard to be made a member, in milliseconds.
    pub freshness: u64,
    /// How many operations may wait for writes of the same registers.
    pub most_parked: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            replica: replica::Settings::default(),
            replication_factor: 3,
            repair_delay: 1_500,
            freshness: 1_500,
            most_parked: 4_096,
        }
    }
}

/// Who is around a node on its ring, as far as its pointers go: hints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Around {
    /// Whether the node is a member. If not, nothing can be said of the ring.
    pub is_member: bool,
    /// How many nodes shall keep each value, as the ring was created; 0 if that is not known.
    pub replication_factor: usize,
    /// Those before it, the nearest first.
    pub predecessors: Vec<Contact>,
    /// Those after it, the nearest first.
    pub successors: Vec<Contact>,
}

/// What a keeper must find again after a restart, besides content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Durable {
    /// What its replica must find again.
    pub replica: replica::Durable,
    /// Where the members of its views can be asked.
    pub contacts: Vec<Contact>,
    /// How far the disks of others have come.
    pub disks: BTreeMap<Member, Known>,
}

/// A node as one of those who keep content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keeper {
    me: Contact,
    settings: Settings,
    replica: Replica,
    book: Book,
    disks: Disks,
    /// Whether somebody has said that its own disk is an older copy.
    is_restored: bool,
    wishes: Wishes,
    clients: Clients,
    /// Whether it is to get out of all views.
    leaving: bool,
    pulse: Pulse,
}

/// What is to be done after a call of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Step {
    /// [`Keeper::durable`] has changed, and must be on disk before what follows leaves.
    pub persist: bool,
    /// Whom to ask what. An answer goes to [`Keeper::hear`]; a call that is lost is made again by [`Keeper::tick`].
    pub calls: Vec<(Contact, Request)>,
    /// What clients are told.
    pub answers: Vec<(Token, Answer)>,
    /// What happened.
    pub events: Vec<Event>,
}

/// The answer to another keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Served {
    /// What it is told.
    pub reply: Reply,
    /// What else is to be done, and what must be on disk before the reply leaves.
    pub step: Step,
}

impl Keeper {
    /// A node that keeps nothing, with the data directory of this incarnation.
    pub fn new(me: Contact, incarnation: u64, settings: Settings) -> Keeper {
        let member = Member { id: me.id, incarnation };
        let replica = Replica::new(member, settings.replica.clone());
        Keeper::of(me, replica, Book::default(), Disks::default(), settings)
    }

    /// A node that has restarted. [`Keeper::durable`] must be on disk before anything leaves: it counts the boot.
    pub fn restored(me: Contact, durable: Durable, settings: Settings) -> Keeper {
        let (book, disks) = (Book::of(durable.contacts), Disks::of(durable.disks));
        let replica = Replica::restored(durable.replica, settings.replica.clone());
        Keeper::of(me, replica, book, disks, settings)
    }

    fn of(me: Contact, replica: Replica, book: Book, disks: Disks, settings: Settings) -> Keeper {
        let (wishes, clients, pulse) = (Wishes::default(), Clients::default(), Pulse::default());
        Keeper { me, settings, replica, book, disks, is_restored: false, wishes, clients, leaving: false, pulse }
    }

    // ---- what it knows ----

    /// Who this is.
    pub fn me(&self) -> Member {
        self.replica.me()
    }

    /// What must be on disk.
    pub fn durable(&self) -> Durable {
        let replica = self.replica.durable().clone();
        let contacts = self.book.contacts_of(&replica::members_of(&replica));
        Durable { replica, contacts, disks: self.disks.known().clone() }
    }

    /// Whether somebody has said that its own disk is an older copy: nothing that it says is heeded any more.
    pub fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// The replica, to be looked at.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The views that this node serves now.
    pub fn leads(&self) -> impl Iterator<Item = &View> {
        self.replica.leads()
    }

    /// Whether this node serves all of this range now.
    pub fn serves(&self, range: &Interval) -> bool {
        let mut rest = vec![*range];
        for view in self.leads() {
            rest = rest.iter().flat_map(|part| part.minus(&view.range)).collect();
        }
        rest.is_empty()
    }

    /// Where a member can be asked, if that is known.
    pub fn contact(&self, member: &Member) -> Option<&Contact> {
        if *member == self.me() { Some(&self.me) } else { self.book.contact(&member.id) }
    }

    /// Who may serve an id that this node does not, by the views that it knows of.
    pub fn hint(&self, id: &Id) -> Option<&Contact> {
        let view = self.replica.latest(id)?;
        let is_other = view.primary != self.me();
        self.contact(&view.primary).filter(|_| is_other)
    }

    /// Whether it keeps nothing for anybody, and whoever has followed it knows: it may go.
    ///
    /// What it has staged may have been decided already without its having heard of it, and counts on it.
    pub fn is_released(&self) -> bool {
        let durable = self.replica.durable();
        durable.held.is_empty() && durable.staged.is_empty() && self.replica.has_told_all()
    }

    // ---- what it does ----

    /// Founds the first view of a ring, or of a stretch of it that nobody has ever held. Whoever calls this answers for that.
    pub fn found(&mut self, range: Interval) -> Step {
        let me = self.me();
        let view = View { range, epoch: 1, members: vec![me], primary: me, deferred: None, forced: false };
        let step = self.replica.found(view);
        let mut all = Step::default();
        self.take(step, &mut all);
        all
    }

    /// Founds a view of a stretch whose members have all lost what they had: empty, by force, and with an epoch of which the caller
    /// says that none of the stretch's former views can have reached it. Those that come back are fenced.
    pub fn found_by_force(&mut self, range: Interval, epoch: u64) -> Step {
        let me = self.me();
        let step =
            self.replica.found(View { range, epoch, members: vec![me], primary: me, deferred: None, forced: true });
        let mut all = Step::default();
        self.take(step, &mut all);
        all
    }

    /// Gives up all that it keeps, as another incarnation: its ring was given up, and nobody else was on it.
    pub fn begin_anew<S: Store>(&mut self, store: &mut S, incarnation: u64) {
        let durable = self.replica.durable();
        for name in durable.held.keys() {
            store.discard(&name.area());
        }
        for label in durable.staged.keys() {
            store.discard(&replica::Area::Staged(*label));
        }
        *self = Keeper::new(self.me.clone(), incarnation, self.settings.clone());
    }

    /// From here on it gets out of all views that it is a member of; [`Keeper::is_released`] tells when that is done.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.replica.take_no_more(true);
    }

    /// Whether it is getting out.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// It stays after all.
    pub fn stay(&mut self) {
        self.leaving = false;
        self.replica.take_no_more(false);
    }

    /// Answers another keeper.
    pub fn serve<S: Store>(&mut self, store: &mut S, now: Time, from: &Contact, request: Request) -> Served {
        let (heard_at, now) = (now, self.pulse.time(now));
        let mut step = Step::default();
        let reply = match request {
            Request::Introduce(member) => {
                self.book.meet(now, from, member);
                Reply::Introduced(self.me())
            }
            Request::Release(member) => {
                self.book.meet(now, from, member);
                self.book.lets_go(now, from);
                Reply::Introduced(self.me())
            }
            Request::Letters { letters, contacts, age } => {
                self.book.learn(contacts);
                let mut replies = Vec::with_capacity(letters.len());
                let mut is_restored = false;
                for letter in letters {
                    if letter.from.id != from.id {
                        continue;
                    }
                    if !self.heeds(letter.from, letter.boot, age, &mut step) {
                        is_restored = true;
                        continue;
                    }
                    if matches!(letter.body, replica::Request::Confirm { .. }) {
                        self.pulse.heard(heard_at, from.id);
                    }
                    self.book.meet(now, from, letter.from);
                    let (reply, more) = self.replica.serve(store, now, letter);
                    replies.push(reply);
                    self.take(more, &mut step);
                }
                let named: Vec<Member> = replies.iter().flat_map(|letter| letter.body.names()).collect();
                let (contacts, age) = (self.addresses(&named), Age::default());
                if is_restored { Reply::Restored } else { Reply::Letters { letters: replies, contacts, age } }
            }
        };
        self.go_on(store, now, &mut step);
        Served { reply, step }
    }

    /// Goes on with an answer.
    pub fn hear<S: Store>(&mut self, store: &mut S, now: Time, from: &Contact, reply: Reply) -> Step {
        let now = self.pulse.time(now);
        let mut step = Step::default();
        match reply {
            Reply::Introduced(member) => self.book.meet(now, from, member),
            Reply::Restored => {
                if !std::mem::replace(&mut self.is_restored, true) {
                    step.events.push(Event::IsRestored);
                }
            }
            Reply::Letters { letters, contacts, age } => {
                self.book.learn(contacts);
                for letter in letters.into_iter().filter(|letter| letter.from.id == from.id) {
                    if !self.heeds(letter.from, letter.boot, age, &mut step) {
                        continue;
                    }
                    self.book.meet(now, from, letter.from);
                    let more = self.replica.hear(store, now, letter);
                    self.take(more, &mut step);
                }
            }
        }
        self.go_on(store, now, &mut step);
        step
    }

    /// A client wants something. The answer comes with this step or a later one.
    pub fn operate<S: Store>(&mut self, store: &mut S, now: Time, token: Token, operation: Operation) -> Step {
        let now = self.pulse.time(now);
        let mut step = Step::default();
        self.try_operation(store, now, token, operation, &mut step);
        self.go_on(store, now, &mut step);
        step
    }

    /// A client wants to see a register: [`Keeper::operate`] for one who only reads. Nothing has to be written for it.
    pub fn read<S: Snapshot>(&mut self, store: &S, now: Time, token: Token, id: &Id) -> Step {
        let now = self.pulse.time(now);
        let mut step = Step::default();
        let more = self.replica.read(store, now, token, id);
        self.began(token, Operation::Get(*id), more, &mut step);
        step
    }

    /// Goes on with an answer for which nothing has to be written: [`Keeper::hear`] for one of which [`Keeper::only_acknowledges`].
    pub fn hear_acknowledgements<S: Snapshot>(&mut self, store: &S, now: Time, from: &Contact, reply: &Reply) -> Step {
        let now = self.pulse.time(now);
        let mut step = Step::default();
        let Reply::Letters { letters, age, .. } = reply else { return step };
        for letter in letters {
            self.disks.hear(letter.from, letter.boot, *age);
            self.book.meet(now, from, letter.from);
            let more = self.replica.hear_acknowledgement(store, now, letter);
            self.take(more, &mut step);
        }
        self.ended(&step);
        step
    }

    /// Whether an answer says no more than that views stand or writes are kept, by members who are known, and nothing waits for a write.
    pub fn only_acknowledges(&self, from: &Contact, reply: &Reply) -> bool {
        let Reply::Letters { letters, contacts, age } = reply else { return false };
        let is_one = |letter: &Letter<replica::Reply>| {
            letter.from.id == from.id
                && self.disks.is_same(&letter.from, letter.boot, *age)
                && self.replica.only_acknowledges(letter)
        };
        contacts.is_empty() && self.none_is_parked() && letters.iter().all(is_one)
    }

    /// Time has passed. To be called at an interval, some of it by chance, well below [`replica::Settings::suspicion`].
    pub fn tick<S: Store>(&mut self, store: &mut S, now: Time, around: &Around) -> Step {
        let mut step = Step::default();
        self.pulse.beats(now);
        let now = self.pulse.time(now);
        let primaries = self.replica.durable().held.values().map(|held| held.view.primary.id);
        let suspicion = self.pulse.suspicion(self.settings.replica.suspicion, primaries.filter(|id| *id != self.me.id));
        self.replica.suspect_after(suspicion);
        if around.replication_factor > 0 {
            self.settings.replication_factor = around.replication_factor;
        }
        let more = self.replica.tick(store, now);
        self.take(more, &mut step);
        let anew: Vec<Name> = step
            .events
            .iter()
            .filter_map(|event| match event {
                // Whoever is nearest and lives goes on with the same members; who else should be one is for later.
                Event::Silent(name) => Some(*name),
                // What is not at all members has to be remembered. What a view has decided on is the base of the next one.
                Event::Lagging(name, _) if self.replica.proposing_since(name).is_none() => Some(*name),
                _ => None,
            })
            .collect();
        for name in anew {
            self.propose(store, now, name, &Change::Same, &mut step);
        }
        self.wish(store, now, around, &mut step);
        if self.leaving {
            self.ask_for_release(now, around, &mut step);
        }
        let members = replica::members_of(self.replica.durable());
        self.book.prune(&members, around);
        self.disks.prune(&members);
        self.go_on(store, now, &mut step);
        step
    }

    /// Serves these views no more in their epochs ([`Replica::step_down`]).
    pub fn step_down<S: Store>(&mut self, store: &mut S, now: Time, names: &BTreeSet<Name>) -> Step {
        let now = self.pulse.time(now);
        let mut step = Step::default();
        for name in names {
            let more = self.replica.step_down(store, now, name);
            self.take(more, &mut step);
        }
        self.go_on(store, now, &mut step);
        step
    }

    /// Forgets what became of requests that were minted up to this mark, in the views that this node serves ([`Replica::purge`]).
    /// The store's changes belong to the step that follows.
    pub fn purge<S: Store>(&mut self, store: &mut S, mark: u64) {
        let served: Vec<Name> = self.leads().map(View::name).collect();
        for name in served {
            self.replica.purge(store, &name, mark);
        }
    }

    /// Begins a recovery by hand, at one of the survivors ([`Replica::recover`]).
    pub fn recover<S: Store>(
        &mut self,
        store: &mut S,
        now: Time,
        name: Name,
        survivors: BTreeSet<Member>,
    ) -> Result<Step, NotProposed> {
        let now = self.pulse.time(now);
        let more = self.replica.recover(store, now, name, survivors)?;
        let mut step = Step::default();
        self.take(more, &mut step);
        self.go_on(store, now, &mut step);
        Ok(step)
    }

    /// Makes the forced view ([`Replica::force`]).
    pub fn force<S: Store>(&mut self, store: &mut S, now: Time, name: Name) -> Result<Step, NotForced> {
        let now = self.pulse.time(now);
        let more = self.replica.force(store, now, name)?;
        let mut step = Step::default();
        self.take(more, &mut step);
        self.go_on(store, now, &mut step);
        Ok(step)
    }

    /// Ends a recovery that is not gone on with ([`Replica::give_up`]).
    pub fn give_up(&mut self, name: &Name) {
        self.replica.give_up(name);
    }

    // ---- within ----

    fn propose<S: Store>(&mut self, store: &mut S, now: Time, name: Name, change: &Change, step: &mut Step) -> bool {
        match self.replica.propose(store, now, name, change) {
            Ok(more) => {
                self.take(more, step);
                true
            }
            Err(_) => false,
        }
    }

    /// What the replica wants done, with addresses.
    fn take(&mut self, from: replica::Step, step: &mut Step) {
        step.persist |= from.persist;
        step.answers.extend(from.answers);
        step.events.extend(from.events);
        let mut waiting: BTreeMap<Id, Vec<Letter<replica::Request>>> = BTreeMap::new();
        for letter in from.calls {
            waiting.entry(letter.to.id).or_default().push(letter);
        }
        for (id, letters) in waiting {
            // Whose address nobody has told cannot be asked; who knows it will tell the decision that made it a member.
            let Some(to) = self.book.contact(&id).cloned() else { continue };
            let named: Vec<Member> = letters.iter().flat_map(|letter| letter.body.names()).collect();
            let contacts = self.addresses(&named);
            step.calls.push((to, Request::Letters { letters, contacts, age: Age::default() }));
        }
    }

    /// Rule 16: whether a letter may be from the disk that its sender is known to have, and not from an older copy of it.
    fn heeds(&mut self, from: Member, boot: u64, age: Age, step: &mut Step) -> bool {
        match self.disks.hear(from, boot, age) {
            Heard::Same => true,
            Heard::Newer => {
                step.persist = true;
                true
            }
            Heard::Older { is_news } => {
                if is_news {
                    step.events.push(Event::Restored(from));
                }
                false
            }
        }
    }

    fn addresses(&self, named: &[Member]) -> Vec<Contact> {
        let mut contacts: Vec<Contact> = Vec::new();
        for member in named {
            if let Some(contact) = self.contact(member)
                && !contacts.contains(contact)
            {
                contacts.push(contact.clone());
            }
        }
        contacts
    }
}
