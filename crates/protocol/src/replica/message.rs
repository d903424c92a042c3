//! What replicas ask of each other. Everything that an answer is about stands in it, so that answers which come late, twice
//! or in any order do no harm.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Ballot, Cursor, Member, Name, Page, Parcel, Value, View};
use crate::{Content, Id, Record, Version, Write, Written};

/// What goes from one replica to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Letter<T> {
    /// Who sends it.
    pub from: Member,
    /// In which of its lives (rule 16).
    pub boot: u64,
    /// To whom: another incarnation of the same node must not answer in its place.
    pub to: Member,
    /// What it says.
    pub body: T,
}

/// How far the primary of a view has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Marks {
    /// All writes up to this number are durable at all members (rule 15).
    pub stable: u64,
    /// Outcomes of requests minted up to here are forgotten (rule 13).
    pub purged: u64,
}

/// The content that is to be staged is what the receiver has itself, under what the letters carry (rule 14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upon {
    /// What the content of the deciding view was installed from, at the sender: it must be the same at the receiver.
    pub base: Option<(Name, Ballot)>,
    /// All writes of the deciding view up to this number are at all its members. What the receiver has of later ones counts
    /// for nothing: the letters carry those that stand.
    pub since: u64,
    /// The frozen view whose content belongs to it, too.
    pub absorbed: Option<Name>,
}

/// What one replica asks of another.
#[expect(clippy::large_enum_variant, reason = "a page outweighs its letter")]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Request {
    /// Seal the view, and promise to take part in nothing below this ballot.
    Prepare {
        /// The view.
        name: Name,
        /// The ballot.
        ballot: Ballot,
        /// The asker has all writes up to this number (rule 14).
        since: u64,
        /// What another view has decided, if this one is frozen until that is known.
        shown: Option<Value>,
    },
    /// Keep this for the case that the view will follow (rule 5).
    Stage {
        /// The view that decides.
        name: Name,
        /// The ballot whose promises were merged.
        origin: Ballot,
        /// The view that may follow.
        view: View,
        /// Who decides.
        voters: Vec<Member>,
        /// If the pages are only what is laid upon the receiver's own content.
        upon: Option<Upon>,
        /// A part of its content.
        page: Page,
    },
    /// I am still at what I have asked the promise for: much has to be staged.
    Proceeding {
        /// The view.
        name: Name,
        /// The ballot.
        ballot: Ballot,
    },
    /// Vote for this.
    Accept {
        /// The view that decides.
        name: Name,
        /// The ballot.
        ballot: Ballot,
        /// What shall follow.
        value: Value,
    },
    /// This is what was decided (rule 9).
    Decide {
        /// What follows which view.
        value: Value,
    },
    /// The content of a view that I am to install and have nothing staged for (rule 7).
    Fetch {
        /// The view to install.
        name: Name,
        /// Up to where it has come.
        after: Option<Cursor>,
        /// The decision, as long as it is remembered: whoever has something staged for it can install that.
        value: Option<Value>,
    },
    /// Keep this write.
    Store {
        /// The view that it was taken in.
        name: Name,
        /// The write.
        record: Arc<Record>,
        /// How far the primary is.
        marks: Marks,
    },
    /// Does the view still stand? (Rule 11.)
    Confirm {
        /// The view.
        name: Name,
        /// Which life of the primary asks.
        boot: u64,
        /// The number of the question in that life.
        round: u64,
        /// How far the primary is.
        marks: Marks,
    },
    /// What has this view decided?
    Inquire {
        /// The view.
        name: Name,
    },
    /// All who must know what this view decided know it.
    Forget {
        /// The view.
        name: Name,
    },
    /// Keep this, for I am going to propose a view with you: what the view holds that still serves, or what is to be laid upon
    /// that once it is sealed.
    Prefetch {
        /// The view that will decide.
        name: Name,
        /// The ballot of the proposal.
        origin: Ballot,
        /// The view that may follow.
        view: View,
        /// Who decides.
        voters: Vec<Member>,
        /// The number of this letter; the first one is 0.
        number: u64,
        /// Whether the view is sealed, and nothing is lacking up to the place of the page any more.
        is_last: bool,
        /// A part of its content, with what was written since the last one.
        page: Page,
    },
    /// Are you still at the proposal of this ballot?
    Proposing {
        /// The view.
        name: Name,
        /// The ballot.
        origin: Ballot,
    },
}

/// What a replica answers.
#[expect(clippy::large_enum_variant, reason = "promises are few, and no reply is kept")]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// The promise, and the state that it was given in (rule 3).
    Promised {
        /// The view.
        name: Name,
        /// The ballot.
        ballot: Ballot,
        /// What the member has accepted, if anything.
        accepted: Option<(Ballot, Value)>,
        /// What the member's content of the view was installed from: the same at all members (rule 14).
        base: Option<(Name, Ballot)>,
        /// What it was given in this view since the number that was asked for.
        tail: Parcel,
    },
    /// A higher ballot has been promised.
    Overtaken {
        /// The view.
        name: Name,
        /// The ballot that came too late.
        ballot: Ballot,
        /// The one that was promised.
        promised: Ballot,
    },
    /// I hear the primary, and do not seal.
    Declined {
        /// The view.
        name: Name,
        /// The ballot.
        ballot: Ballot,
    },
    /// It is durable.
    Staged {
        /// The view that decides.
        name: Name,
        /// The ballot that was named.
        origin: Ballot,
        /// The view that may follow.
        view: Name,
    },
    /// So far it has come; send what follows.
    Staging {
        /// The view that decides.
        name: Name,
        /// The ballot that was named.
        origin: Ballot,
        /// The view that may follow.
        view: Name,
        /// Whether all of the content is needed, and not only what is laid upon the receiver's own.
        whole: bool,
        /// Up to where it is durable here.
        after: Option<Cursor>,
    },
    /// The vote is durable.
    Accepted {
        /// The view.
        name: Name,
        /// The ballot.
        ballot: Ballot,
    },
    /// I know the decision.
    Told {
        /// The view that decided.
        name: Name,
    },
    /// I know the decision no more, or never did.
    Forgotten {
        /// The view that decided.
        name: Name,
    },
    /// A part of the content of a view.
    Content {
        /// The view.
        name: Name,
        /// The part.
        page: Page,
    },
    /// The write is durable.
    Stored {
        /// The view.
        name: Name,
        /// The number of the write.
        sequence: u64,
    },
    /// The view stood when this was answered.
    Confirmed {
        /// The view.
        name: Name,
        /// Which life of the primary asked.
        boot: u64,
        /// The number of the question.
        round: u64,
    },
    /// The view has been sealed here.
    Sealed {
        /// The view.
        name: Name,
    },
    /// I do not speak for this view yet (rule 8).
    NotInstalled {
        /// The view.
        name: Name,
    },
    /// I have nothing of this view.
    Elsewhere {
        /// The view.
        name: Name,
        /// A later view of some of its range: proof that it has decided.
        later: Option<Name>,
    },
    /// It has been decided what follows this view (rule 9).
    Decided {
        /// What follows.
        value: Value,
    },
    /// You are older than yourself: your disk is a restored copy (rule 16). Or: I am not who you think.
    Unacceptable,
    /// It is durable: all that this letter carries.
    Prefetched {
        /// The view that will decide.
        name: Name,
        /// The ballot of the proposal.
        origin: Ballot,
        /// The view that may follow.
        view: Name,
        /// The number of the letter.
        number: u64,
        /// Up to where the content has come.
        after: Cursor,
    },
    /// Whether I am still at this proposal. If not, I never come back to it.
    Proposing {
        /// The view.
        name: Name,
        /// The ballot.
        origin: Ballot,
        /// Whether I am.
        stands: bool,
    },
    /// The write is durable, but I do not speak for the view yet (rule 8): I am still being sent its content.
    Kept {
        /// The view.
        name: Name,
        /// The number of the write.
        sequence: u64,
    },
}

impl Request {
    /// Those whom this names as members of views: whoever hears it may have to ask them.
    pub(crate) fn names(&self) -> Vec<Member> {
        match self {
            Request::Stage { view, voters, .. } | Request::Prefetch { view, voters, .. } => {
                view.members.iter().chain(voters).copied().collect()
            }
            Request::Accept { value, .. } | Request::Decide { value } => value.names(),
            Request::Prepare { shown: value, .. } | Request::Fetch { value, .. } => {
                value.iter().flat_map(Value::names).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Request {
    /// Whether it may leave before what this very step has written to the store is durable, provided that the durable state is:
    /// view and boot. A member that keeps a write says nothing of anybody else, and the primary counts itself when it has it on
    /// disk. So a primary that crashes in between has sent a write that it does not have, as one that nobody has acknowledged;
    /// it does not number on in this epoch (rule 10), nor does one that takes back what it has not got to its disk
    /// ([`Replica::step_down`](super::Replica::step_down)).
    pub fn may_go_ahead(&self) -> bool {
        matches!(self, Request::Store { .. })
    }

    /// How many bytes of content it carries.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Request::Stage { page, .. } | Request::Prefetch { page, .. } => page.parcel.weight(),
            Request::Store { record, .. } => record.weight(),
            _ => 0,
        }
    }
}

impl Reply {
    /// How many bytes of content it carries.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Reply::Promised { tail, .. } => tail.weight(),
            Reply::Content { page, .. } => page.parcel.weight(),
            _ => 0,
        }
    }

    /// As [`Request::names`].
    pub(crate) fn names(&self) -> Vec<Member> {
        match self {
            Reply::Decided { value } => value.names(),
            Reply::Promised { accepted, .. } => accepted.iter().flat_map(|(_, value)| value.names()).collect(),
            _ => Vec::new(),
        }
    }
}

/// What a client wants of a register.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// Its record.
    Get(Id),
    /// A write, under a condition or not; a delete writes a tombstone.
    Write(Write),
}

impl Operation {
    /// The register.
    pub fn id(&self) -> &Id {
        match self {
            Operation::Get(id) => id,
            Operation::Write(write) => &write.id,
        }
    }
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// What the register holds; a tombstone is told as nothing.
    Read(Option<Record>),
    /// How a write ended.
    Written(Written),
    /// Nothing was said and nothing was done: ask again, perhaps elsewhere.
    Refused(Refusal),
    /// The write may happen or have happened. Only asking again with the same request id tells.
    Unknown,
}

impl Answer {
    pub(crate) fn read(record: Option<Record>) -> Answer {
        Answer::Read(record.filter(Record::is_live))
    }

    /// The version that a read has seen.
    pub fn version(&self) -> Option<Version> {
        match self {
            Answer::Read(record) => record.as_ref().map(|record| record.version),
            Answer::Written(Written::Done(version)) => Some(*version),
            Answer::Written(Written::Refused(version)) => *version,
            Answer::Refused(_) | Answer::Unknown => None,
        }
    }

    /// The value that a read has seen.
    pub fn value(&self) -> Option<&Content> {
        match self {
            Answer::Read(record) => record.as_ref().map(|record| &record.content),
            _ => None,
        }
    }
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// This node is not the primary of a view of this id.
    NotServed,
    /// The view is changing: ask again in a moment.
    Changing,
    /// A write of this register is not known to have happened or not: ask again in a moment (rule 12).
    Pending,
    /// The request id was minted too long ago to tell whether it has been done: it is not done again (rule 13).
    Expired,
    /// Too much is under way: ask again in a moment.
    Busy,
}
