//! A keeper that leaves must not go while somebody counts on it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use chordal_protocol::keeper::{Age, Keeper, Reply, Request, Settings};
use chordal_protocol::replica::{self, Ballot, Letter, Member, MemoryStore, Name, Page, Parcel, View};
use chordal_protocol::{Contact, Interval, Time};

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
