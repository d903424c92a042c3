//! What can be said of one node without a ring around it. Rings are played by crates/sim.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use chordal_protocol::{
    Chord, Contact, Envelope, Event, Outcome, Procedure, Reply, Request, Ring, RingId, Settings, Time,
};

const RING: Ring = Ring::new(RingId([7; 16]));

fn contact(i: usize) -> Contact {
    Contact::at(format!("node-{i}.example:4000"), format!("node-{i}"))
}

fn created(i: usize, ring: Ring) -> Chord {
    let mut chord = Chord::new(contact(i), Settings::default());
    let _ = chord.begin(Time::ZERO, Procedure::Create { ring });
    chord
}

fn ask(chord: &mut Chord, from: usize, request: Request) -> (Outcome, Vec<Event>) {
    let envelope = Envelope { ring: Some(RING.id), from: contact(from), request };
    let answer = chord.serve(Time::ZERO, envelope);
    (answer.outcome, answer.events)
}

#[test]
fn the_first_node_writes_down_at_once_that_it_is_not_alone() {
    let mut first = created(0, RING);
    let alone = first.revision();
    let _ = ask(&mut first, 1, Request::Notify(Vec::new()));
    assert!(first.revision() > alone, "what it says now rests on somebody being there");
    assert_eq!(first.durable().predecessor, Some(contact(1)));
}

#[test]
fn a_node_that_stands_alone_gives_up_its_ring_when_it_is_invited_to_another() {
    let mut alone = created(9, Ring { id: RingId([9; 16]), ..RING });
    let (outcome, events) = ask(&mut alone, 0, Request::Invite(RING));
    assert_eq!(outcome, Outcome::Reply(Reply::Accepted));
    let joins =
        |event: &Event| matches!(event, Event::Begin(Procedure::Join { contacts }) if *contacts == [contact(0)]);
    assert!(events.iter().any(joins), "{events:?}");
}

#[test]
fn a_member_passes_on_who_is_to_be_invited() {
    let mut member = created(0, RING);
    let (outcome, _) = ask(&mut member, 1, Request::Welcome(contact(9)));
    assert_eq!(outcome, Outcome::Invite(contact(9), RING));
}
