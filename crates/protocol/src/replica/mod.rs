//! Content on several nodes: views whose members decide together what follows them.
//!
//! The rules are docs/protocol.md, "Content views", and code that enforces one names its number. A file for each notion:
//! who proposes (`ballot`), [`View`]s and what may follow them (`view`), what they keep (`content`), the messages
//! (`message`); then what a member does with them: promise and vote (`instance`), propose (`change`), put content where it may
//! be needed (`page`, `prefetch`, `stage`), install it (`install`), serve clients (`lead`, `primary`, `read`, `acknowledged`), send again what a
//! member lacks (`catch_up`), keep what the primary serves (`member`), ask again (`tick`), and what a person may force
//! (`recover`).
//!
//! # Request in, reply and requests out
//!
//! ```text
//! (reply, step) = replica.serve(store, now, letter)   // another replica asks
//! step = replica.hear(store, now, letter)             // another replica has answered
//! step = replica.operate(store, now, token, operation)// a client wants something; the answer comes in some step
//! step = replica.propose(store, now, name, change)    // the ring wants a view to change
//! step = replica.tick(store, now)                     // time has passed
//! ```
//!
//! Nothing waits inside. A driver makes the store's changes and, if [`Step::persist`] says so, [`Replica::durable`] durable,
//! all in the order of the steps, **before** the reply, the calls and the answers of that step leave. A step that changed
//! nothing waits for those before it, whose changes it may have read. If that is kept, a crash undoes only steps of which
//! nobody has heard; that is why the model may take a step for one indivisible thing.

mod acknowledged;
mod ballot;
mod catch_up;
mod change;
mod content;
mod install;
mod instance;
mod lead;
mod member;
mod message;
mod page;
mod planted;
mod prefetch;
mod primary;
mod read;
mod recover;
mod stage;
mod tick;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

pub use ballot::{Ballot, Member};
pub use change::NotProposed;
pub use content::{Area, Label, MemoryStore, Outcome, Parcel, Snapshot, Store, minted};
pub use message::{Answer, Letter, Marks, Operation, Refusal, Reply, Request, Upon};
pub use page::{Cursor, Page};
pub use planted::Bug;
pub use recover::{FORCED_EPOCH_STEP, NotForced};
pub use view::{Change, Group, Name, Value, View};

use crate::{Interval, Time};
use change::Proposal;
use lead::Lead;

/// What a replica is told when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// For how long a primary must not have been heard before others promise without it, in milliseconds. The i-th member
    /// waits i times as long before it proposes, and whoever waits for a decision that does not come waits so, too.
    pub suspicion: u64,
    /// How many writes may be under way or not yet at all members in a view.
    pub longest_tail: usize,
    /// How many reads may wait for a confirmation in a view.
    pub most_waiting: usize,
    /// About how many bytes of content travel in one letter.
    pub page_bytes: usize,
    /// How many bytes may be left to send to who was sent the rest ahead, when a view is sealed.
    pub rest_bytes: usize,
    /// The rule that is left out, for tests.
    planted: Option<Bug>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            suspicion: 600,
            longest_tail: 8_192,
            most_waiting: 4096,
            page_bytes: 512 << 10,
            rest_bytes: 64 << 10,
            planted: None,
        }
    }
}

impl Settings {
    /// The settings with a rule left out, for models and simulators only.
    #[must_use]
    pub fn planted(self, bug: Bug) -> Settings {
        Settings { planted: Some(bug), ..self }
    }
}

/// What a member keeps of a view until it knows what follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held {
    /// The view.
    pub view: View,
    /// The decision that made it; none if it was founded.
    pub base: Option<(Name, Ballot)>,
    /// Whether the content is here. Before that this member does not speak for the view (rule 8).
    pub installed: bool,
    /// The highest ballot that was promised. With the first one the view is sealed here.
    pub promised: Option<Ballot>,
    /// The vote at the highest ballot.
    pub accepted: Option<(Ballot, Value)>,
    /// All writes up to here are at all members, and none of them is ever stored again (rule 15).
    pub stable: u64,
    /// As long as it is not installed: up to where its content has been fetched.
    pub fetched: Option<Cursor>,
}

/// Content that is kept for the case that a view will follow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Staged {
    /// The view that may follow.
    pub view: View,
    /// Who decides.
    pub voters: Vec<Member>,
    /// If it is laid upon content that this node has: then only what is later is in the area.
    pub upon: Option<Upon>,
    /// Whether all of it is here.
    pub is_complete: bool,
    /// Up to where it has come, if not.
    pub after: Option<Cursor>,
}

impl Staged {
    /// Whether it was sent ahead, and lacks what was written since: it counts for nothing yet (`prefetch`).
    pub(crate) fn is_ahead(&self, me: &Member) -> bool {
        !self.is_complete && self.upon.is_some() && !self.voters.contains(me)
    }
}

/// What a replica must find again after a restart, besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Durable {
    /// Who it is.
    pub me: Member,
    /// How often it has started.
    pub boot: u64,
    /// The views that it is a member of, as far as it knows.
    pub held: BTreeMap<Name, Held>,
    /// What views have decided, as long as somebody may not know.
    pub decided: BTreeMap<Name, Value>,
    /// Views that have decided, each until a later one that covers it has, too. Nothing brings them back: not a message that
    /// comes late, when the decision has been forgotten.
    pub over: Vec<Name>,
    /// What is staged.
    pub staged: BTreeMap<Label, Staged>,
    /// How often others have started (rule 16).
    pub boots: BTreeMap<Member, u64>,
}

/// All whom this names as members of something.
pub(crate) fn members_of(durable: &Durable) -> BTreeSet<Member> {
    let held = durable.held.values().flat_map(|held| &held.view.members).copied();
    let staged = durable.staged.values().flat_map(|staged| staged.view.members.iter().chain(&staged.voters)).copied();
    let decided = durable.decided.values().flat_map(Value::names);
    held.chain(staged).chain(decided).collect()
}

/// One of those who keep content: the whole state of a node in this, but for the records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replica {
    settings: Settings,
    durable: Durable,
    /// The views that this node serves as primary. Only what was installed in this life is here (rule 10).
    leads: BTreeMap<Name, Lead>,
    proposals: BTreeMap<Name, Proposal>,
    /// Which others have acknowledged a decision, and which have forgotten it since.
    told: BTreeMap<Name, BTreeSet<Member>>,
    forgotten: BTreeMap<Name, BTreeSet<Member>>,
    /// When the primary of a view was last heard.
    heard: BTreeMap<Name, Time>,
    /// Since when this node waits for somebody to change a view.
    waits: BTreeMap<Name, Time>,
    /// When a part of a view that is not installed was last fetched.
    fetches: BTreeMap<Name, Time>,
    /// The highest round under which content was sent ahead in this life: no ballot is used twice (rule 2).
    rounds: BTreeMap<Name, u64>,
    /// Whether it stages nothing for views that it would only come to be a member of.
    takes_no_more: bool,
}

/// Names a client's operation to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What is worth telling the driver.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// This view was installed here.
    Installed(View),
    /// This view is over here; these follow, if that is known.
    Followed(Name, Vec<View>),
    /// The primary of this view has not been heard for so long that it is this member's turn to propose without it.
    Silent(Name),
    /// These members of a view that is served here have missed so many writes that soon no more are taken: the view wants others.
    Lagging(Name, Vec<Member>),
    /// What this view holds has been sent ahead to these while it served; now it is sealed, and what follows is decided.
    SentAhead(Name, Vec<Member>),
    /// A forced view has pushed this one aside. Its content stays in its area until the driver has saved and discarded it.
    Fenced(Name),
    /// A recovery is under way, and a majority answers: nothing needs to be forced.
    MajorityAnswers(Name),
    /// Somebody says that this node is older than itself, or another: its directory is a restored copy (rule 16).
    Unacceptable,
    /// The directory of this member is an older copy of the one that it had: what it says is not heeded (rule 16).
    Restored(Member),
    /// Somebody says that of this node.
    IsRestored,
}

/// What is to be done after a call of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// [`Replica::durable`] has changed, and must be on disk before what follows leaves.
    pub persist: bool,
    /// Whom to ask what. An answer goes to [`Replica::hear`]; a call that is lost is made again by [`Replica::tick`].
    pub calls: Vec<Letter<Request>>,
    /// What clients are told.
    pub answers: Vec<(Token, Answer)>,
    /// What happened.
    pub events: Vec<Event>,
}

impl Replica {
    /// A node that holds nothing.
    pub fn new(me: Member, settings: Settings) -> Replica {
        let durable = Durable {
            me,
            boot: 1,
            held: BTreeMap::new(),
            decided: BTreeMap::new(),
            over: Vec::new(),
            staged: BTreeMap::new(),
            boots: BTreeMap::new(),
        };
        Replica::on(durable, settings)
    }

    /// A node that has restarted. The new boot count must be durable before anything leaves (rule 2).
    pub fn restored(mut durable: Durable, settings: Settings) -> Replica {
        durable.boot += 1;
        let mut replica = Replica::on(durable, settings);
        if replica.settings.planted == Some(Bug::RestartedPrimaryServes) {
            let led =
                |held: &&Held| held.installed && held.promised.is_none() && held.view.primary == replica.durable.me;
            replica.leads =
                replica.durable.held.values().filter(led).map(|held| (held.view.name(), Lead::default())).collect();
        }
        replica
    }

    fn on(durable: Durable, settings: Settings) -> Replica {
        Replica {
            settings,
            durable,
            leads: BTreeMap::new(),
            proposals: BTreeMap::new(),
            told: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            heard: BTreeMap::new(),
            waits: BTreeMap::new(),
            fetches: BTreeMap::new(),
            rounds: BTreeMap::new(),
            takes_no_more: false,
        }
    }

    /// Whether this node is to become a member of nothing more: it is leaving. Whoever wants it as a member finds another one.
    pub fn take_no_more(&mut self, takes_no_more: bool) {
        self.takes_no_more = takes_no_more;
    }

    /// How long a primary must not have been heard from now on, in milliseconds.
    pub fn suspect_after(&mut self, suspicion: u64) {
        self.settings.suspicion = suspicion;
    }

    /// Who this is.
    pub fn me(&self) -> Member {
        self.durable.me
    }

    /// What must be on disk.
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// The views that this node would serve now.
    pub fn leads(&self) -> impl Iterator<Item = &View> {
        self.leads.keys().filter_map(|name| self.durable.held.get(name)).map(|held| &held.view)
    }

    /// How many writes of a view that this node serves are not known to be at all its members.
    pub fn unstable(&self, name: &Name) -> usize {
        self.leads.get(name).map_or(0, Lead::unstable)
    }

    /// The greatest epoch of which this node knows for any id of a range.
    pub fn latest_epoch(&self, range: &Interval) -> u64 {
        let Durable { held, decided, over, .. } = &self.durable;
        let followed = decided.values().flat_map(|value| &value.successors).map(View::name);
        let known = held.keys().chain(decided.keys()).chain(over).copied().chain(followed);
        known.filter(|name| name.range.overlaps(range)).map(|name| name.epoch).max().unwrap_or_default()
    }

    /// The later view of this id that this node knows of: where to ask instead.
    pub fn latest(&self, id: &crate::Id) -> Option<&View> {
        let held = self.durable.held.values().map(|held| &held.view);
        let decided = self.durable.decided.values().flat_map(|value| &value.successors);
        held.chain(decided).filter(|view| view.range.contains(id)).max_by_key(|view| view.epoch)
    }

    /// Founds the first view of a ring, or of a stretch that nobody has ever held. Nobody decides about that: whoever calls
    /// this answers for it.
    pub fn found(&mut self, view: View) -> Step {
        let name = view.name();
        let held = Held { view, base: None, installed: true, promised: None, accepted: None, stable: 0, fetched: None };
        if held.view.primary == self.durable.me {
            self.leads.insert(name, Lead::default());
        }
        let events = vec![Event::Installed(held.view.clone())];
        self.durable.held.insert(name, held);
        Step { persist: true, events, ..Step::default() }
    }

    /// Answers another replica.
    pub fn serve<S: Store>(&mut self, store: &mut S, now: Time, letter: Letter<Request>) -> (Letter<Reply>, Step) {
        let Letter { from, body, .. } = letter;
        let mut turn = Turn::new(self, store, now);
        let reply = if turn.accept_letter(from, letter.boot, letter.to) {
            turn.answer(from, body)
        } else {
            Reply::Unacceptable
        };
        let step = turn.end();
        (Letter { from: self.durable.me, boot: self.durable.boot, to: from, body: reply }, step)
    }

    /// Goes on with an answer.
    pub fn hear<S: Store>(&mut self, store: &mut S, now: Time, letter: Letter<Reply>) -> Step {
        let mut turn = Turn::new(self, store, now);
        if turn.accept_letter(letter.from, letter.boot, letter.to) {
            turn.heard(letter.from, letter.body);
        }
        turn.end()
    }
}

/// One call of the machine: the state with what the call was given and what has come of it so far.
struct Turn<'a, S> {
    replica: &'a mut Replica,
    store: &'a mut S,
    now: Time,
    step: Step,
    /// What this node asks of itself. It needs no letters for that.
    own: VecDeque<Request>,
}

impl<'a, S: Snapshot> Turn<'a, S> {
    fn new(replica: &'a mut Replica, store: &'a mut S, now: Time) -> Turn<'a, S> {
        Turn { replica, store, now, step: Step::default(), own: VecDeque::new() }
    }

    fn me(&self) -> Member {
        self.replica.durable.me
    }

    fn has_bug(&self, bug: Bug) -> bool {
        self.replica.settings.planted == Some(bug)
    }

    fn held(&self, name: &Name) -> Option<&Held> {
        self.replica.durable.held.get(name)
    }

    fn ask(&mut self, to: Member, body: Request) {
        let Durable { me, boot, .. } = self.replica.durable;
        if to == me {
            self.own.push_back(body);
        } else {
            self.step.calls.push(Letter { from: me, boot, to, body });
        }
    }
}

impl<S: Store> Turn<'_, S> {
    fn end(mut self) -> Step {
        while let Some(request) = self.own.pop_front() {
            let me = self.me();
            let reply = self.answer(me, request);
            self.heard(me, reply);
        }
        self.step
    }

    /// The durable state, to be changed.
    fn durable(&mut self) -> &mut Durable {
        self.step.persist = true;
        &mut self.replica.durable
    }

    /// Rule 16: a letter counts if it is meant for this very incarnation and comes from no earlier life of its sender.
    fn accept_letter(&mut self, from: Member, boot: u64, to: Member) -> bool {
        if to != self.me() {
            return false;
        }
        let known = self.replica.durable.boots.get(&from).copied().unwrap_or(1);
        if boot > known {
            self.durable().boots.insert(from, boot);
        }
        boot >= known
    }

    fn answer(&mut self, from: Member, request: Request) -> Reply {
        match request {
            Request::Prepare { name, ballot, since, shown } => self.prepare(name, ballot, since, shown),
            Request::Stage { name, origin, view, voters, upon, page } => {
                self.stage(name, origin, view, voters, upon, page)
            }
            Request::Proceeding { name, ballot } => self.proceeding(name, ballot),
            Request::Accept { name, ballot, value } => self.accept(name, ballot, value),
            Request::Decide { value } => {
                let name = value.by;
                self.decided(value);
                Reply::Told { name }
            }
            Request::Fetch { name, after, value } => self.fetch(name, after, value),
            Request::Store { name, record, marks } => self.keep(from, name, &record, marks),
            Request::Confirm { name, boot, round, marks } => self.confirm(from, name, boot, round, marks),
            Request::Inquire { name } => self.inquire(name),
            Request::Forget { name } => self.forget(name),
            Request::Prefetch { name, origin, view, voters, number, is_last, page } => {
                self.prefetch(name, origin, view, voters, number, is_last, page)
            }
            Request::Proposing { name, origin } => self.proposing(name, origin),
        }
    }

    fn heard(&mut self, from: Member, reply: Reply) {
        match reply {
            Reply::Promised { name, ballot, accepted, base, tail } => {
                self.promised(from, name, ballot, accepted, base, tail);
            }
            Reply::Overtaken { name, ballot, promised } => self.overtaken(name, ballot, promised),
            Reply::Staged { name, origin, view } => self.staged(from, name, origin, view),
            Reply::Staging { name, origin, view, whole, after } => {
                self.staging(from, name, origin, view, whole, after);
            }
            Reply::Accepted { name, ballot } => self.accepted(from, name, ballot),
            Reply::Told { name } => self.told(from, name),
            Reply::Forgotten { name } => self.forgotten(from, name),
            Reply::Content { name, page } => self.fetched(from, name, page),
            Reply::Stored { name, sequence } => {
                self.stored(from, name, sequence);
                self.collect(&name);
            }
            Reply::Confirmed { name, boot, round } => self.confirmed(from, name, boot, round),
            Reply::Decided { value } => self.decided(value),
            Reply::Elsewhere { name, later } => self.elsewhere(name, later),
            Reply::Unacceptable => self.step.events.push(Event::Unacceptable),
            Reply::Sealed { name } => self.sealed_elsewhere(name),
            Reply::Declined { name, ballot } => self.declined(from, name, ballot),
            Reply::NotInstalled { .. } => {}
            Reply::Prefetched { name, origin, view, number, after } => {
                self.prefetched(from, name, origin, view, number, after);
            }
            Reply::Kept { name, sequence } => self.kept(from, name, sequence),
            Reply::Proposing { name, origin, stands } => self.proposed(from, name, origin, stands),
        }
    }

    /// Rule 8, and rule 9 where it is known what follows: why this member does not speak for a view, if it does not.
    fn silence(&self, name: Name) -> Option<Reply> {
        let durable = &self.replica.durable;
        if let Some(value) = durable.decided.get(&name) {
            return Some(Reply::Decided { value: value.clone() });
        }
        match durable.held.get(&name) {
            None => Some(Reply::Elsewhere { name, later: self.later_than(&name) }),
            Some(held) if !held.installed && !self.has_bug(Bug::SpeakBeforeInstall) => {
                Some(Reply::NotInstalled { name })
            }
            Some(_) => None,
        }
    }

    /// Proof that the named view has decided: a later one of some of its range that this node is a member of, or one that it
    /// knows to be over and that is no earlier.
    fn later_than(&self, name: &Name) -> Option<Name> {
        let durable = &self.replica.durable;
        let over = durable.over.iter().find(|over| name.is_over_with(over) && !self.has_bug(Bug::ForgetWithoutTrace));
        over.or_else(|| durable.held.keys().find(|held| name.is_before(held))).copied()
    }
}
