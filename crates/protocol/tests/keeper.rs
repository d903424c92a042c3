//! A keeper that leaves must not go while somebody counts on it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use chordal_protocol::keeper::{Age, Around, Durable, Keeper, Reply, Request, Settings};
use chordal_protocol::replica::{self, Ballot, Letter, Member, MemoryStore, Name, Page, Parcel, Value, View};
use chordal_protocol::{Contact, Id, Interval, Time};

fn contact(name: &str) -> Contact {
    Contact::at(format!("{name}.example:4000"), name.to_owned())
}

/// Somebody wants the keeper to keep a part of its content, too, and asks it to stage that.
fn stage(asker: &Member, asked: &Keeper) -> Request {
    let name = Name { range: Interval::whole(asker.id), epoch: 1 };
    let range = Interval::half_open(asked.me().id, asker.id);
    let members = vec![asked.me(), *asker];
    let view = View { range, epoch: 2, members, primary: asked.me(), deferred: None, forced: false };
    let origin = Ballot { round: 1, proposer: *asker, boot: 1 };
    let page = Page { after: None, parcel: Parcel::default(), next: None };
    let body = replica::Request::Stage { name, origin, view, voters: vec![*asker], upon: None, page };
    let letters = vec![Letter { from: *asker, boot: 1, to: asked.me(), body }];
    Request::Letters { letters, contacts: vec![contact("asker")], age: Age::default() }
}

fn answer(reply: Reply) -> replica::Reply {
    let Reply::Letters { mut letters, .. } = reply else { panic!("{reply:?}") };
    letters.remove(0).body
}

#[test]
fn who_has_staged_something_is_not_released() {
    let asker = Member { id: contact("asker").id, incarnation: 1 };
    let mut keeper = Keeper::new(contact("leaver"), 2, Settings::default());
    let mut store = MemoryStore::default();
    assert!(keeper.is_released(), "it has nothing yet");
    let request = stage(&asker, &keeper);
    let served = keeper.serve(&mut store, Time(1), &contact("asker"), request);
    assert!(matches!(answer(served.reply), replica::Reply::Staged { .. }));
    keeper.leave();
    assert!(!keeper.is_released(), "the view may have been decided, with it as a member");
}

#[test]
fn who_leaves_stages_nothing_new_until_it_stays_after_all() {
    let asker = Member { id: contact("asker").id, incarnation: 1 };
    let mut keeper = Keeper::new(contact("leaver"), 2, Settings::default());
    let mut store = MemoryStore::default();
    let request = stage(&asker, &keeper);
    keeper.leave();
    let served = keeper.serve(&mut store, Time(1), &contact("asker"), request.clone());
    assert!(matches!(answer(served.reply), replica::Reply::Elsewhere { later: None, .. }));
    assert!(keeper.is_released());
    keeper.stay();
    let served = keeper.serve(&mut store, Time(2), &contact("asker"), request);
    assert!(matches!(answer(served.reply), replica::Reply::Staged { .. }));
}

/// Found by the soak test: those who followed a decision that a leaver remembers were all gone, and nobody of those it knew from its views
/// could say what came after them.
#[test]
fn who_leaves_asks_its_neighbours_what_became_of_those_who_are_gone() {
    let member = |name: &str| Member { id: contact(name).id, incarnation: 1 };
    let view = |epoch: u64, members: &[&str]| {
        let members: Vec<Member> = members.iter().map(|name| member(name)).collect();
        let (range, primary) = (Interval::whole(Id::ZERO), members[0]);
        View { range, epoch, members, primary, deferred: None, forced: false }
    };
    let before = view(1, &["leaver", "gone"]);
    let (by, voters) = (before.name(), before.members.clone());
    let origin = Ballot { round: 1, proposer: member("leaver"), boot: 1 };
    let value = Value { by, successors: vec![view(2, &["gone", "also gone"])], origin, absorbs: None, voters };
    let new = Keeper::new(contact("leaver"), 1, Settings::default()).durable();
    let replica = replica::Durable { decided: BTreeMap::from([(by, value)]), over: vec![by], ..new.replica };
    let mut leaver = Keeper::restored(contact("leaver"), Durable { replica, ..new }, Settings::default());
    let mut there = Keeper::new(contact("there"), 1, Settings::default());
    let _ = there.found_by_force(Interval::whole(Id::ZERO), 5);
    let (mut mine, mut theirs) = (MemoryStore::default(), MemoryStore::default());
    let neighbours = vec![contact("there")];
    let around =
        Around { is_member: true, replication_factor: 3, predecessors: neighbours.clone(), successors: neighbours };
    let mut beats = |leaver: &mut Keeper, from: u64| {
        for now in (from..from + 20_000).step_by(150).map(Time) {
            for (to, request) in leaver.tick(&mut mine, now, &around).calls {
                if to.id == there.me().id {
                    let reply = there.serve(&mut theirs, now, &contact("leaver"), request).reply;
                    let _ = leaver.hear(&mut mine, now, &contact("there"), reply);
                }
            }
        }
    };
    beats(&mut leaver, 0);
    assert!(!leaver.is_released(), "nobody whom it has told is there");
    leaver.leave();
    beats(&mut leaver, 20_000);
    assert!(leaver.is_released());
}
