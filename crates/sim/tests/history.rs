//! What the checker says of histories, case by case; its files, its figures, and its speed.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use chordal_protocol::{Id, RequestId, Version};
use chordal_sim::history::{
    Checked, Digest, Kind, Operation, Order, Outcome, Rule, Survival, check, search, summarize, survives,
};

fn version(sequence: u64) -> Version {
    Version { epoch: 1, sequence }
}

fn operation(kind: Kind, invoked: u64, returned: u64, outcome: Outcome) -> Operation {
    let request = RequestId(kind.value().map_or(u128::from(invoked) << 64, |value| value.0.into()));
    Operation { client: 1, key: Id::of("key"), kind, request, invoked, returned: Some(returned), outcome }
}

fn put(value: u64, invoked: u64, returned: u64) -> Operation {
    operation(Kind::Put(Digest(value)), invoked, returned, Outcome::Done(version(value)))
}

fn lost(value: u64, invoked: u64) -> Operation {
    operation(Kind::Put(Digest(value)), invoked, invoked, Outcome::Unknown)
}

/// A get that was told of the value of this put.
fn get(value: u64, invoked: u64, returned: u64) -> Operation {
    operation(Kind::Get, invoked, returned, Outcome::Read(Some((version(value), Digest(value)))))
}

fn nothing(invoked: u64, returned: u64) -> Operation {
    operation(Kind::Get, invoked, returned, Outcome::Read(None))
}

fn delete(sequence: u64, invoked: u64, returned: u64) -> Operation {
    operation(Kind::Delete, invoked, returned, Outcome::Done(version(sequence)))
}

fn lost_delete(invoked: u64) -> Operation {
    operation(Kind::Delete, invoked, invoked, Outcome::Unknown)
}

fn swap(expected: Option<u64>, value: u64, invoked: u64, returned: u64, done: bool) -> Operation {
    let kind = Kind::Cas { expected: expected.map(version), value: Digest(value) };
    let outcome = if done { Outcome::Done(version(value)) } else { Outcome::Unknown };
    operation(kind, invoked, returned, outcome)
}

fn fails(expected: Option<u64>, value: u64, invoked: u64, returned: u64, found: Option<u64>) -> Operation {
    let found = Outcome::ConditionFailed(found.map(version));
    Operation { outcome: found, ..swap(expected, value, invoked, returned, true) }
}

fn again(first: Operation, invoked: u64, returned: u64, outcome: Outcome) -> Operation {
    Operation { invoked, returned: Some(returned), outcome, ..first }
}

#[track_caller]
fn fine(history: &[Operation]) {
    assert_eq!(check(history).map(|checked| checked.lenient), Ok(0));
    assert!(search(history, Order::ByVersion) && search(history, Order::Any));
}

/// Refused for this reason, and by a search that goes by versions, too.
#[track_caller]
fn broken(rule: Rule, history: &[Operation]) {
    let violation = check(history).expect_err("nothing was found");
    assert_eq!(violation.rule, rule, "{violation}");
    assert!(!search(history, Order::ByVersion));
}

/// Refused, and no order of the writes would mend it.
#[track_caller]
fn lies(rule: Rule, history: &[Operation]) {
    broken(rule, history);
    assert!(!search(history, Order::Any));
}

#[test]
fn reads_see_the_last_write_that_ended_before_them_or_one_beside_them() {
    fine(&[put(1, 0, 1), get(1, 2, 3), put(2, 4, 9), get(1, 5, 6), get(2, 6, 7), get(2, 10, 11)]);
    lies(Rule::NoStaleRead, &[put(1, 0, 1), put(2, 2, 3), get(1, 4, 5)]);
    lies(Rule::NoStaleRead, &[put(1, 0, 1), put(2, 2, 9), get(2, 3, 4), get(1, 5, 6)]);
    lies(Rule::NotBeforeItsWrite, &[get(1, 0, 1), put(1, 2, 3)]);
    lies(Rule::ReadWhatWasWritten, &[put(1, 0, 1), get(2, 2, 3)]);
}

#[test]
fn writes_go_by_their_versions() {
    fine(&[put(2, 0, 5), put(1, 0, 5), get(2, 6, 7)]);
    broken(Rule::WritesInOrder, &[put(2, 0, 1), put(1, 2, 3)]);
    assert!(search(&[put(2, 0, 1), put(1, 2, 3)], Order::Any), "the values alone are in order");
    let same = Operation { outcome: Outcome::Done(version(1)), ..put(2, 2, 3) };
    broken(Rule::OneWriteOfAVersion, &[put(1, 0, 1), same]);
    broken(Rule::OneWriteOfAVersion, &[put(1, 0, 1), delete(1, 2, 3)]);
    let greatest = Version { epoch: 1, sequence: u64::MAX };
    let at_the_end = Operation { outcome: Outcome::Done(greatest), ..put(1, 0, 1) };
    let next = Operation { outcome: Outcome::Done(Version { epoch: 2, sequence: 0 }), ..swap(None, 2, 2, 3, true) };
    broken(Rule::ConditionHeld, &[at_the_end, lost_delete(1), nothing(2, 3), next]);
}

#[test]
fn a_write_happens_once_however_often_it_is_asked_for() {
    let first = lost(1, 0);
    fine(&[first, again(first, 5, 6, Outcome::Done(version(1))), put(2, 7, 8), get(2, 9, 10)]);
    fine(&[first, get(1, 2, 3), again(first, 5, 6, Outcome::Done(version(1)))]);
    fine(&[put(1, 0, 1), put(2, 2, 3), again(put(1, 0, 1), 4, 5, Outcome::Done(version(1))), get(2, 6, 7)]);
    let echo = operation(Kind::Get, 6, 7, Outcome::Read(Some((version(3), Digest(1)))));
    lies(Rule::OneVersionOfAWrite, &[put(1, 0, 1), put(2, 2, 3), get(2, 4, 5), echo]);
    broken(Rule::OneVersionOfAWrite, &[put(1, 0, 1), again(put(1, 0, 1), 4, 5, Outcome::Done(version(3)))]);
    // The second attempt did it, so it is not before that.
    lies(
        Rule::NotBeforeItsWrite,
        &[again(first, 0, 1, Outcome::Refused), get(1, 2, 3), again(first, 5, 6, Outcome::Done(version(1)))],
    );
}

#[test]
fn an_unknown_write_happens_once_at_any_time_or_never() {
    fine(&[put(1, 0, 1), lost(2, 2), get(1, 3, 4), get(2, 50, 51), get(2, 60, 61)]);
    fine(&[put(1, 0, 1), lost(2, 2), put(3, 5, 6), get(3, 7, 8)]);
    lies(Rule::NoStaleRead, &[put(1, 0, 1), lost(2, 2), get(2, 3, 4), get(1, 5, 6)]);
    lies(Rule::NotBeforeItsWrite, &[put(1, 0, 1), get(2, 2, 3), lost(2, 4)]);
    lies(Rule::RefusedHasNoEffect, &[again(put(1, 0, 1), 0, 1, Outcome::Refused), get(1, 3, 4)]);
    lies(Rule::RefusedHasNoEffect, &[put(1, 0, 1), fails(None, 2, 2, 3, Some(1)), get(2, 4, 5)]);
    // An attempt that was not answered may still arrive, whatever another one was told.
    let arrives =
        [put(1, 0, 1), swap(None, 3, 2, 2, false), fails(None, 3, 3, 4, Some(1)), delete(2, 5, 6), get(3, 7, 8)];
    fine(&arrives);
}

#[test]
fn nothing_is_seen_before_the_first_write_and_after_deletes() {
    fine(&[nothing(0, 1), put(1, 0, 3), delete(2, 4, 5), nothing(6, 7), put(3, 8, 9), get(3, 10, 11)]);
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), nothing(2, 3)]);
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), delete(2, 2, 3), put(3, 4, 5), nothing(6, 7)]);
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 9), get(1, 1, 2), nothing(3, 4)]);
    // A deleted value stays deleted.
    lies(Rule::NoStaleRead, &[put(1, 0, 1), delete(2, 2, 3), get(1, 4, 5)]);
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), nothing(3, 4), delete(2, 5, 6)]);
    fine(&[put(1, 0, 1), nothing(3, 4), delete(2, 4, 6)]);
}

#[test]
fn an_unknown_delete_explains_one_absence_if_it_came_in_time_and_a_version_is_free() {
    fine(&[put(1, 0, 1), lost_delete(2), get(1, 3, 4), nothing(5, 6), nothing(7, 8), put(3, 9, 10)]);
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), nothing(2, 3), lost_delete(4)]);
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), lost_delete(2), nothing(3, 4), get(1, 5, 6)]);
    broken(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), lost_delete(2), nothing(3, 4), put(2, 5, 6)]);
    let twice = [put(1, 0, 1), lost_delete(2), nothing(3, 4), put(3, 5, 6), nothing(7, 8), put(5, 9, 10)];
    lies(Rule::AbsentOnlyWhereAbsent, &twice);
    fine(&[&twice[..], &[lost_delete(6)]].concat());
    lies(Rule::AbsentOnlyWhereAbsent, &[&twice[..], &[lost_delete(9)]].concat());
    // What saw nothing later binds the delete that something earlier asks for: it had been invoked by then.
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), nothing(2, 5), swap(None, 3, 3, 9, true), lost_delete(6)]);
}

#[test]
fn conditional_writes_directly_follow_what_they_expected() {
    fine(&[put(1, 0, 1), swap(Some(1), 2, 2, 3, true), get(2, 4, 5)]);
    fine(&[swap(None, 1, 0, 1, true), delete(2, 2, 3), swap(None, 3, 4, 5, true)]);
    lies(Rule::ConditionHeld, &[put(1, 0, 1), swap(Some(1), 2, 2, 6, true), swap(Some(1), 3, 2, 6, true)]);
    lies(Rule::ConditionHeld, &[put(1, 0, 1), put(2, 2, 3), swap(Some(1), 3, 4, 5, true)]);
    lies(Rule::ConditionHeld, &[put(1, 0, 1), delete(2, 2, 3), swap(Some(1), 3, 4, 5, true)]);
    broken(Rule::ConditionHeld, &[put(1, 0, 1), swap(None, 2, 2, 3, true)]);
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), swap(None, 3, 2, 3, true)]);
    fine(&[put(1, 0, 1), lost_delete(1), swap(None, 3, 2, 3, true)]);
    // One that was told nothing and has been read is bound as well.
    lies(Rule::ConditionHeld, &[put(1, 0, 1), put(2, 2, 3), swap(Some(1), 3, 2, 2, false), get(3, 8, 9)]);
    // Nothing was between, so nothing was absent there.
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), lost_delete(2), nothing(3, 4), swap(Some(1), 3, 5, 6, true)]);
}

#[test]
fn a_condition_that_fails_tells_what_there_is() {
    fine(&[put(1, 0, 1), fails(None, 9, 2, 3, Some(1)), delete(2, 4, 5), fails(Some(1), 8, 6, 7, None)]);
    lies(Rule::ConditionDidNotHold, &[put(1, 0, 1), fails(Some(1), 9, 2, 3, Some(1))]);
    lies(Rule::ConditionDidNotHold, &[fails(None, 9, 2, 3, None)]);
    lies(Rule::NoStaleRead, &[put(1, 0, 1), put(2, 2, 3), fails(None, 9, 4, 5, Some(1))]);
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), fails(Some(7), 9, 4, 5, None)]);
    lies(Rule::ReadWhatWasWritten, &[put(1, 0, 1), delete(2, 2, 3), fails(None, 9, 4, 5, Some(2))]);
}

#[test]
fn what_is_deleted_was_there() {
    let misses = operation(Kind::Delete, 0, 1, Outcome::ConditionFailed(None));
    fine(&[misses, put(1, 2, 3), delete(2, 4, 5)]);
    lies(Rule::DeletesSomething, &[put(1, 0, 1), delete(2, 2, 9), delete(3, 3, 9)]);
    lies(Rule::DeletesSomething, &[delete(2, 0, 1)]);
    fine(&[put(1, 0, 1), delete(2, 2, 3), lost(3, 4), delete(4, 5, 6)]);
    fine(&[swap(None, 1, 0, 0, false), delete(2, 5, 6)]);
    lies(Rule::DeletesSomething, &[put(1, 0, 1), delete(2, 2, 3), delete(4, 5, 6), lost(3, 7)]);
    broken(Rule::DeletesSomething, &[put(1, 0, 1), delete(2, 2, 3), lost(9, 4), delete(3, 5, 6)]);
    // The put that is supposed is before what follows the delete.
    broken(Rule::DeletesSomething, &[delete(2, 0, 9), lost(1, 5), put(7, 0, 4)]);
    lies(Rule::AbsentOnlyWhereAbsent, &[put(1, 0, 1), operation(Kind::Delete, 2, 3, Outcome::ConditionFailed(None))]);
}

#[test]
fn a_version_that_only_conditions_saw_belongs_to_somebody() {
    let lenient = |history: &[Operation]| {
        assert_eq!(check(history).map(|checked| checked.lenient), Ok(1));
        assert!(search(history, Order::ByVersion));
    };
    lenient(&[lost(9, 0), fails(None, 8, 2, 3, Some(4))]);
    lenient(&[lost(9, 0), swap(Some(4), 5, 2, 3, true)]);
    lenient(&[put(1, 0, 1), swap(Some(1), 9, 2, 2, false), fails(None, 8, 5, 6, Some(4))]);
    lenient(&[swap(None, 9, 0, 0, false), lost(7, 0), fails(None, 8, 2, 3, Some(4)), fails(None, 6, 4, 5, Some(5))]);
    let unseen = Rule::SeenVersionWasWritten;
    lies(unseen, &[fails(None, 8, 2, 3, Some(4))]);
    lies(unseen, &[lost(9, 4), fails(None, 8, 2, 3, Some(4))]);
    lies(unseen, &[lost_delete(0), swap(Some(4), 5, 2, 3, true)]);
    lies(unseen, &[put(1, 0, 1), swap(Some(7), 9, 2, 2, false), fails(None, 8, 5, 6, Some(4))]);
    lies(unseen, &[lost(9, 0), fails(None, 8, 2, 3, Some(4)), fails(None, 6, 4, 5, Some(5))]);
    broken(unseen, &[put(3, 0, 1), lost_delete(2), swap(None, 9, 2, 2, false), fails(None, 8, 5, 6, Some(4))]);
}

#[test]
fn a_history_that_is_none_is_not_judged() {
    let bad = |history: &[Operation]| assert_eq!(check(history).unwrap_err().rule, Rule::WellFormed);
    bad(&[put(1, 3, 2)]);
    bad(&[Operation { returned: None, ..put(1, 3, 4) }]);
    bad(&[Operation { outcome: Outcome::Read(None), ..put(1, 3, 4) }]);
    bad(&[Operation { outcome: Outcome::ConditionFailed(None), ..put(1, 3, 4) }]);
    bad(&[Operation { outcome: Outcome::Done(version(1)), ..nothing(3, 4) }]);
    bad(&[Operation { outcome: Outcome::ConditionFailed(Some(version(1))), ..delete(2, 3, 4) }]);
    bad(&[put(1, 0, 1), Operation { request: RequestId(99), ..put(1, 3, 4) }]);
    bad(&[put(1, 0, 1), Operation { kind: Kind::Delete, ..put(1, 3, 4) }]);
}

#[test]
fn keys_are_judged_each_by_itself_and_a_violation_can_be_read() {
    let elsewhere = |operation: Operation| Operation { key: Id::of("other"), ..operation };
    let history = [elsewhere(put(7, 0, 1)), elsewhere(lost(8, 1)), put(1, 0, 1), put(2, 2, 3), nothing(0, 4)];
    assert_eq!(check(&history), Ok(Checked { operations: 5, unknown: 1, keys: 2, lenient: 0 }));
    let violation = check(&[&history[..], &[get(1, 14, 15)]].concat()).unwrap_err();
    assert_eq!(
        violation.to_string(),
        format!(
            "key {}: stale read: something newer had been told before this was asked\n  \
             client 1, 2 to 3: put 2 -> done, version 1.2\n  \
             client 1, 14 to 15: get -> 1, version 1.1",
            Id::of("key")
        )
    );
}

#[test]
fn a_history_is_saved_and_read_line_by_line() {
    let unanswered = Operation { returned: None, ..lost(2, 2) };
    let request = RequestId(u128::MAX - 5);
    let history = [
        Operation { request, kind: Kind::Put(Digest(u64::MAX)), ..put(1, 0, 1) },
        unanswered,
        fails(Some(3), 9, 4, 5, None),
        fails(None, 8, 4, 5, Some(3)),
        delete(4, 6, 7),
        get(1, 8, 9),
        nothing(8, 9),
        again(put(5, 1, 1), 5, 6, Outcome::Refused),
    ];
    let lines: Vec<String> = history.iter().map(|operation| serde_json::to_string(operation).unwrap()).collect();
    assert!(lines.iter().all(|line| !line.contains('\n')));
    let read: Vec<Operation> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, history);
    let key = Id::of("key");
    let expected = format!(
        r#"{{"client":1,"key":"{key}","kind":{{"put":"ffffffffffffffff"}},"request":"fffffffffffffffffffffffffffffffa","invoked":0,"returned":1,"outcome":{{"done":{{"epoch":1,"sequence":1}}}}}}"#
    );
    assert_eq!(lines[0], expected);
    assert!(serde_json::from_str::<Operation>(&lines[0].replace("\"put\":\"ff", "\"put\":\"xy")).is_err());
}

#[test]
fn lost_writes_and_stale_reads_are_counted_apart_and_refused_by_check() {
    let history = [put(1, 0, 1), put(2, 2, 3), put(3, 4, 5), lost(4, 6)];
    let survival = |read: Operation| survives(&history, &[read]);
    let all = Survival { keys: 1, acknowledged: 3, writes_lost: 0 };
    assert_eq!(survival(get(3, 20, 21)), all);
    assert_eq!(survival(get(4, 20, 21)), all);
    for (read, writes_lost) in [(get(2, 20, 21), 1), (get(1, 20, 21), 2), (nothing(20, 21), 3)] {
        assert_eq!(survival(read), Survival { writes_lost, ..all });
        let summary = summarize(&history, &[read]);
        assert_eq!((summary.writes_lost, summary.stale_reads), (writes_lost, 1));
        assert!(summary.violation.is_some() && !summary.is_clean());
    }
    let silent = Operation { outcome: Outcome::Unknown, ..nothing(20, 21) };
    assert_eq!(survival(silent), Survival::default(), "a key that was not read is not judged");
    assert_eq!(survives(&history, &[silent, get(2, 20, 21)]).writes_lost, 1);
    let elsewhere = Operation { key: Id::of("other"), ..nothing(20, 21) };
    assert_eq!(survives(&history, &[elsewhere]), Survival { keys: 1, ..Survival::default() });

    // A stale read on the way loses nothing.
    let stale = [&history[..], &[get(1, 6, 7), get(3, 6, 7), get(2, 6, 7)]].concat();
    let summary = summarize(&stale, &[get(3, 20, 21)]);
    assert_eq!((summary.operations, summary.unknown, summary.histories_checked), (7, 1, 1));
    assert_eq!((summary.writes_lost, summary.stale_reads), (0, 2));
    assert!(!summary.is_clean());
    let failed =
        [&history[..], &[fails(None, 9, 6, 7, Some(3)), fails(None, 8, 6, 7, Some(2)), fails(Some(9), 7, 6, 7, None)]];
    assert_eq!(summarize(&failed.concat(), &[]).stale_reads, 2);
    assert!(summarize(&history, &[get(3, 20, 21)]).is_clean());
}

#[test]
fn deletes_survive_too() {
    let history = [put(1, 0, 1), delete(2, 2, 3)];
    assert_eq!(survives(&history, &[nothing(9, 10)]).writes_lost, 0);
    assert_eq!(survives(&history, &[get(1, 9, 10)]).writes_lost, 1);
    assert_eq!(summarize(&history, &[nothing(9, 10)]).stale_reads, 0);
    let after = [&history[..], &[put(3, 4, 5)]].concat();
    assert_eq!(survives(&after, &[nothing(9, 10)]).writes_lost, 1);
    assert_eq!(summarize(&after, &[nothing(9, 10)]).stale_reads, 1);
    let unknown = [&after[..], &[lost_delete(6)]].concat();
    assert!(summarize(&unknown, &[nothing(9, 10)]).is_clean());
    let too_late = [&after[..], &[nothing(6, 7), lost_delete(8)]].concat();
    assert_eq!(summarize(&too_late, &[]).stale_reads, 1);
}

#[test]
fn a_million_operations_take_seconds() {
    let mut history = Vec::new();
    for n in 1..=200_000u64 {
        let at = n * 10;
        let kind = n % 4;
        history.push(if kind == 0 { delete(n, at, at + 5) } else { put(n, at, at + 5) });
        let read = if kind == 0 { nothing(at + 5, at + 12) } else { get(n, at + 5, at + 6) };
        history.extend([read, Operation { client: 2, ..read }, Operation { client: 3, ..read }]);
        history.push(lost(1_000_000 + n, at));
    }
    assert_eq!(check(&history).map(|checked| checked.operations), Ok(1_000_000));
    history.push(get(199_997, 3_000_000, 3_000_001));
    assert_eq!(check(&history).unwrap_err().rule, Rule::NoStaleRead);
    assert_eq!(summarize(&history, &[]).stale_reads, 1);
}
