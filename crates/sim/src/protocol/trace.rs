//! What happened, for people.

use std::fmt;

use chordal_protocol::keeper;
use chordal_protocol::replica::{self, Operation};
use chordal_protocol::{Contact, Content, Interval, NextHop, Reply, Request, Written};

/// What a line of a trace is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Something was done to the ring.
    Fault,
    /// A message, sent, lost, arrived or answered.
    Message,
    /// What a client of a scenario wants.
    Client,
    /// What a node did by itself.
    Node,
    /// What must not happen.
    Violation,
}

/// One line of a trace, with what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, in simulated microseconds.
    pub at: u64,
    /// What it is about.
    pub about: About,
    /// What happened.
    pub text: String,
    /// What that changed, a line each.
    pub changes: Vec<String>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} s  {}", self.at as f64 / 1e6, self.text)?;
        for change in &self.changes {
            write!(f, "\n{:>14}    {change}", "")?;
        }
        Ok(())
    }
}

/// Takes the lines of a trace.
pub type Sink<'a> = &'a mut dyn FnMut(&Entry);

/// A node's name, or its address.
pub(crate) fn name(contact: &Contact) -> &str {
    if contact.name.is_empty() { &contact.addr } else { &contact.name }
}

/// Names in a row.
pub(crate) fn names(contacts: &[Contact]) -> String {
    if contacts.is_empty() {
        return "nobody".to_owned();
    }
    contacts.iter().map(name).collect::<Vec<_>>().join(" ")
}

pub(crate) fn name_or_nobody(contact: Option<&Contact>) -> &str {
    contact.map_or("nobody", name)
}

fn range(range: &Interval) -> String {
    if range.is_whole() { "all".to_owned() } else { format!("[{}, {})", range.lo.short(), range.hi.short()) }
}

/// A question in words.
pub(crate) fn question(request: &Request) -> String {
    match request {
        Request::Hello => "who are you?".to_owned(),
        Request::Neighbours => "your neighbours?".to_owned(),
        Request::Notify(_) => "I am before you".to_owned(),
        Request::Route { key, .. } => format!("the way to {}?", key.short()),
        Request::Departing { .. } => "I have left".to_owned(),
        Request::Welcome(joiner) => format!("welcome {}", name(joiner)),
        Request::Invite(_) => "join my ring".to_owned(),
        Request::Operate(Operation::Get(id)) => format!("what is {}?", id.short()),
        Request::Operate(Operation::Write(write)) => format!("write {}", write.id.short()),
        Request::Keep(keeper::Request::Introduce(_)) => "which incarnation are you?".to_owned(),
        Request::Keep(keeper::Request::Release(_)) => "I leave: let me out of your views".to_owned(),
        Request::Keep(keeper::Request::Letters { letters, .. }) => {
            let words: Vec<String> = letters.iter().map(|it| letter(&it.body)).collect();
            words.join("; ")
        }
    }
}

fn letter(request: &replica::Request) -> String {
    use replica::Request as Asked;
    match request {
        Asked::Prepare { name, ballot, .. } => format!("prepare {} under {}", called(name), ballot.round),
        Asked::Stage { view, .. } => format!("stage {}", called(&view.name())),
        Asked::Proceeding { name, ballot } => format!("still at what follows {} under {}", called(name), ballot.round),
        Asked::Accept { name, ballot, .. } => format!("accept what follows {} under {}", called(name), ballot.round),
        Asked::Decide { value } => {
            let next: Vec<String> = value.successors.iter().map(|view| called(&view.name())).collect();
            format!("{} is followed by {}", called(&value.by), next.join(" and "))
        }
        Asked::Fetch { name, .. } => format!("the content of {}?", called(name)),
        Asked::Store { record, .. } => format!("keep version {} of {}", record.version, record.id.short()),
        Asked::Confirm { name, round, .. } => format!("does {} stand? ({round})", called(name)),
        Asked::Inquire { name } => format!("what follows {}?", called(name)),
        Asked::Forget { name } => format!("all know what follows {}", called(name)),
        Asked::Prefetch { view, page, is_last, .. } => {
            let what = if *is_last { "the last" } else { "some" };
            format!("ahead of {}, {what}: {} records", called(&view.name()), page.parcel.records.len())
        }
        Asked::Proposing { name, .. } => format!("are you still changing {}?", called(name)),
    }
}

fn letter_back(reply: &replica::Reply) -> String {
    use replica::Reply as Told;
    match reply {
        Told::Promised { .. } => "promised".to_owned(),
        Told::Overtaken { promised, .. } => format!("no: round {} was promised", promised.round),
        Told::Declined { .. } => "no: I hear the primary".to_owned(),
        Told::Staged { .. } => "staged".to_owned(),
        Told::Staging { whole: true, after: None, .. } => "all of it is needed".to_owned(),
        Told::Staging { .. } => "staged so far; what follows?".to_owned(),
        Told::Accepted { .. } => "accepted".to_owned(),
        Told::Told { .. } => "I know".to_owned(),
        Told::Forgotten { .. } => "forgotten".to_owned(),
        Told::Content { page, .. } => format!("{} records", page.parcel.records.len()),
        Told::Stored { sequence, .. } => format!("{sequence} is stored"),
        Told::Confirmed { round, .. } => format!("it stands ({round})"),
        Told::Sealed { .. } => "no: it is sealed".to_owned(),
        Told::NotInstalled { .. } => "no: I have not installed it".to_owned(),
        Told::Elsewhere { .. } => "I have nothing of it".to_owned(),
        Told::Decided { value } => {
            let next: Vec<String> = value.successors.iter().map(|view| called(&view.name())).collect();
            format!("it is followed by {}", next.join(" and "))
        }
        Told::Unacceptable => "no: you or I are another member".to_owned(),
        Told::Prefetched { .. } => "I have that; what follows?".to_owned(),
        Told::Kept { sequence, .. } => format!("{sequence} is kept, but I have not installed it"),
        Told::Proposing { stands: true, .. } => "I am".to_owned(),
        Told::Proposing { stands: false, .. } => "no".to_owned(),
    }
}

/// What it means for a member that it has answered so, if it means something.
pub(crate) fn deed(request: &replica::Request, reply: &replica::Reply) -> Option<String> {
    use replica::Reply as Told;
    use replica::Request as Asked;
    Some(match (request, reply) {
        (Asked::Store { record, .. }, Told::Stored { .. }) => {
            format!("keeps version {} of {}", record.version, record.id.short())
        }
        (Asked::Prepare { name, ballot, .. }, Told::Promised { accepted, tail, .. }) => {
            let vote = if accepted.is_some() { "a vote" } else { "no vote" };
            let records = tail.records.len();
            format!(
                "seals {} and promises round {}: it has {vote}, and {records} records that may not be at all members",
                called(name),
                ballot.round
            )
        }
        (Asked::Prepare { name, .. }, Told::Declined { .. }) => {
            format!("does not seal {}: it hears the primary", called(name))
        }
        (Asked::Stage { view, upon, page, .. }, Told::Staged { .. }) => {
            let records = page.parcel.records.len();
            let what = if upon.is_some() { "upon what it has" } else { "the last of all" };
            format!("has staged {} with {records} records, {what}", called(&view.name()))
        }
        (Asked::Accept { name, ballot, .. }, Told::Accepted { .. }) => {
            format!("votes for what follows {} in round {}", called(name), ballot.round)
        }
        _ => return None,
    })
}

/// What a client is told, in words.
pub(crate) fn told(answer: &replica::Answer) -> String {
    use replica::Answer;
    match answer {
        Answer::Read(None) => "nothing is there".to_owned(),
        Answer::Read(Some(record)) => match &record.content {
            Content::Value { bytes, .. } => {
                format!("{}, version {}", String::from_utf8_lossy(bytes), record.version)
            }
            Content::Tombstone => "nothing is there".to_owned(),
        },
        Answer::Written(Written::Done(version)) => format!("done, version {version}"),
        Answer::Written(Written::Refused(_)) => "the condition does not hold".to_owned(),
        Answer::Refused(refusal) => format!("not now: {refusal:?}"),
        Answer::Unknown => "nobody knows".to_owned(),
    }
}

/// A view in a word.
pub(crate) fn called(name: &replica::Name) -> String {
    format!("{} epoch {}", range(&name.range), name.epoch)
}

/// An answer in words.
pub(crate) fn answer(reply: &Reply) -> String {
    match reply {
        Reply::Hello { membership, .. } => membership.to_string(),
        Reply::Neighbours { predecessor, successors, .. } => {
            format!("before me {}, after me {}", name_or_nobody(predecessor.as_ref()), names(successors))
        }
        Reply::Notified(predecessor) => format!("before me is {}", name_or_nobody(predecessor.as_ref())),
        Reply::Route(NextHop::Owner { .. }) => "that is mine".to_owned(),
        Reply::Route(NextHop::Via(hops)) => match hops.first() {
            Some(hop) => format!("ask {} ({})", name(&hop.contact), hop.why),
            None => "I know no way".to_owned(),
        },
        Reply::Accepted => "yes".to_owned(),
        Reply::Answered(replica::Answer::Refused(refusal)) => format!("not now: {refusal:?}"),
        Reply::Answered(answer) => {
            answer.version().map_or("nothing".to_owned(), |version| format!("version {version}"))
        }
        Reply::Kept(keeper::Reply::Introduced(member)) => format!("incarnation {:x}", member.incarnation),
        Reply::Kept(keeper::Reply::Letters { letters, .. }) => {
            let words: Vec<String> = letters.iter().map(|it| letter_back(&it.body)).collect();
            words.join("; ")
        }
        Reply::Kept(keeper::Reply::Restored) => "no: your disk is an older copy".to_owned(),
        Reply::Refused(refusal) => format!("no: {refusal}"),
    }
}
