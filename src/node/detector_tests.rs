use chordal_protocol::replica::{self, Letter, Member, Name, Operation};
use chordal_protocol::{Contact, Id, Interval, Mode, keeper};

use super::*;

const PEER: &str = "127.0.0.1:4000";

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A detector and a beginning of time.
fn detector() -> (Detector, Instant) {
    (Detector::new(Patience::default()), Instant::now())
}

#[test]
fn who_was_never_asked_has_the_time_for_that_kind_of_question() {
    let (detector, _) = detector();
    assert_eq!(detector.late_after(PEER, Kind::Route), ms(500));
    assert_eq!(detector.late_after(PEER, Kind::Ring), ms(500));
    assert_eq!(detector.late_after(PEER, Kind::Content), ms(1_000));
    assert_eq!(detector.late_after(PEER, Kind::Page), ms(2_000));
}

#[test]
fn the_estimate_follows_the_rfc() {
    // RFC 6298, (2.2) and (2.3), by hand.
    let first = Estimate::with(None, ms(100));
    assert_eq!(first, Estimate { round_trip: ms(100), deviation: ms(50) });
    assert_eq!(first.late_after(), ms(300));
    let second = Estimate::with(Some(first), ms(180));
    assert_eq!(second, Estimate { round_trip: ms(110), deviation: Duration::from_micros(57_500) });
    assert_eq!(second.late_after(), ms(340));
}

#[test]
fn quick_peers_meet_the_floor_and_slow_ones_the_ceiling() {
    let (mut detector, now) = detector();
    for _ in 0..20 {
        detector.answered(PEER, Kind::Ring, ms(1), now);
    }
    assert_eq!(detector.late_after(PEER, Kind::Ring), ms(300));
    detector.answered(PEER, Kind::Ring, ms(400), now);
    assert!(detector.late_after(PEER, Kind::Ring) > ms(400), "one slow answer makes room for another");
    for _ in 0..20 {
        detector.answered(PEER, Kind::Ring, ms(900_000), now);
    }
    assert_eq!(detector.late_after(PEER, Kind::Ring), ms(1_500));
}

#[test]
fn a_pause_is_forgotten_within_twenty_answers() {
    let (mut detector, now) = detector();
    detector.answered(PEER, Kind::Ring, ms(1), now);
    detector.answered(PEER, Kind::Ring, ms(60_000), now);
    assert_eq!(detector.late_after(PEER, Kind::Ring), ms(1_500));
    for _ in 0..20 {
        detector.answered(PEER, Kind::Ring, ms(1), now);
    }
    assert_eq!(detector.late_after(PEER, Kind::Ring), ms(300));
}

#[test]
fn kinds_are_measured_apart() {
    let (mut detector, now) = detector();
    for _ in 0..20 {
        detector.answered(PEER, Kind::Page, ms(3_000), now);
    }
    assert!(detector.late_after(PEER, Kind::Page) >= ms(3_000));
    assert_eq!(detector.late_after(PEER, Kind::Ring), ms(500), "nothing has been learned of those");
    detector.answered(PEER, Kind::Route, ms(1), now);
    assert_eq!(detector.late_after(PEER, Kind::Ring), ms(300), "a route is answered from memory like a greeting");
}

#[test]
fn one_late_answer_makes_a_suspect_with_more_time_and_a_second_one_condemns() {
    let (mut detector, now) = detector();
    assert_eq!(detector.standing(PEER), Standing::Trusted);
    assert!(!detector.is_passed_over(PEER, now));
    detector.answered(PEER, Kind::Ring, ms(1), now);
    detector.suspect(PEER, now);
    assert_eq!(detector.standing(PEER), Standing::Suspected);
    assert_eq!(detector.late_after(PEER, Kind::Ring), ms(600));
    assert!(detector.is_passed_over(PEER, now));
    detector.condemn(PEER, now);
    assert_eq!(detector.standing(PEER), Standing::Condemned);
    assert_eq!(detector.late_after(PEER, Kind::Ring), ms(300), "it has had its second chance");
    detector.suspect(PEER, now);
    assert_eq!(detector.standing(PEER), Standing::Condemned, "being late again is no step up");
}

#[test]
fn being_passed_over_expires_and_the_verdict_does_not() {
    let (mut detector, now) = detector();
    detector.condemn(PEER, now);
    assert!(detector.is_passed_over(PEER, now + ms(1_999)));
    assert!(!detector.is_passed_over(PEER, now + ms(2_000)));
    assert_eq!(detector.standing(PEER), Standing::Condemned, "it is greeted before it is asked anything");
    detector.suspect(PEER, now + ms(2_500));
    assert!(detector.is_passed_over(PEER, now + ms(4_499)), "it was silent again");
}

#[test]
fn any_sign_of_life_clears() {
    let (mut detector, now) = detector();
    for accuse in [Detector::suspect, Detector::condemn] {
        accuse(&mut detector, PEER, now);
        detector.answered(PEER, Kind::Content, ms(4_000), now);
        assert_eq!((detector.standing(PEER), detector.is_passed_over(PEER, now)), (Standing::Trusted, false));
        accuse(&mut detector, PEER, now);
        detector.heard_of(PEER, now);
        assert_eq!((detector.standing(PEER), detector.is_passed_over(PEER, now)), (Standing::Trusted, false));
    }
}

#[test]
fn what_is_remembered_is_bounded_and_the_longest_unused_goes() {
    let (mut detector, now) = detector();
    for number in 0..PEERS as u64 {
        detector.condemn(&number.to_string(), now + ms(number));
    }
    detector.heard_of("0", now + ms(5_000));
    detector.heard_of("a stranger", now + ms(5_000));
    assert_eq!(detector.peers.len(), PEERS, "strangers who speak are not remembered");
    detector.condemn("one more", now + ms(6_000));
    assert_eq!(detector.peers.len(), PEERS);
    assert!(detector.peers.contains_key("0") && detector.peers.contains_key("one more"));
    assert!(!detector.peers.contains_key("1"), "that was used first of all");
}

#[test]
fn who_stood_still_judges_nobody() {
    assert!(!stood_still(ms(300), ms(310)));
    assert!(stood_still(ms(300), ms(5_000)));
}

#[test]
fn questions_have_their_kinds() {
    let route = Request::Route { key: Id::ZERO, mode: Mode::Linear, excluding: None };
    assert_eq!(Kind::of(&route), Kind::Route);
    assert_eq!(Kind::of(&Request::Neighbours), Kind::Ring);
    assert_eq!(Kind::of(&Request::Welcome(Contact::at(PEER, "joiner"))), Kind::Content);
    assert_eq!(Kind::of(&Request::Operate(Operation::Get(Id::ZERO))), Kind::Page, "it waits for other nodes in turn");
    let letters = |count| {
        let contact = Contact::at(PEER, "member");
        let member = Member { id: contact.id, incarnation: 1 };
        let name = Name { range: Interval::whole(Id::ZERO), epoch: 1 };
        let letter = Letter { from: member, boot: 1, to: member, body: replica::Request::Forget { name } };
        Request::Keep(keeper::Request::Letters {
            letters: vec![letter; count],
            contacts: Vec::new(),
            age: keeper::Age::default(),
        })
    };
    assert_eq!(Kind::of(&letters(1)), Kind::Content);
    assert_eq!(Kind::of(&letters(LARGE / 100)), Kind::Page, "what is large takes long to travel");
}
