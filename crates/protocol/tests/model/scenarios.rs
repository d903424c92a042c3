//! What is explored.

use chordal_protocol::replica::Settings;

use crate::history::{Op, Want};
use crate::scenario::{Scenario, Wish};
use crate::world::point;

/// An operation of the register at `id`, sent once.
pub(crate) fn op(want: Want, id: u8) -> Op {
    Op { want, id: point(id), attempts: 1, after: None, begun: None, ended: None, at: None }
}

/// One that begins when another has ended.
pub(crate) fn then(want: Want, id: u8, after: usize) -> Op {
    Op { after: Some(after), ..op(want, id) }
}

/// There is no time in the model: anybody may suspect the primary at any moment.
pub(crate) fn unsuspecting() -> Settings {
    let mut settings = Settings::default();
    settings.suspicion = 0;
    settings
}

/// Three nodes keep one range, and nothing happens.
pub(crate) fn quiet(name: &'static str) -> Scenario {
    Scenario {
        name,
        nodes: 3,
        views: vec![(0, 0, &[0, 1, 2])],
        ops: Vec::new(),
        clients_at: &[0, 1, 2],
        wishes: Vec::new(),
        restarts: &[],
        losses: &[],
        keeps_incarnation: false,
        disks: false,
        hasty: false,
        purge: None,
        forgets: false,
        first: &[],
        cut: &[],
        twice: 0,
        settings: unsuspecting(),
    }
}

/// An operation that is sent again, under the same request id, when its outcome is unknown.
fn again(op: Op) -> Op {
    Op { attempts: 2, ..op }
}

/// The key of most runs.
const K: u8 = 9;

fn three_ballots() -> Scenario {
    Scenario { wishes: vec![(0, K, Wish::Same), (1, K, Wish::Same), (2, K, Wish::Same)], ..quiet("three ballots") }
}

fn two_proposers() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K)],
        wishes: vec![(1, K, Wish::Same), (2, K, Wish::Same)],
        ..quiet("put, two proposers")
    }
}

pub(crate) fn one_change() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), op(Want::Get, K)],
        wishes: vec![(1, K, Wish::Same)],
        ..quiet("put, get, one change")
    }
}

fn restart() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Get, K, 0)],
        wishes: vec![(0, K, Wish::Same)],
        restarts: &[0],
        ..quiet("restart")
    }
}

fn member_restarts() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Get, K, 0)],
        wishes: vec![(1, K, Wish::Same)],
        restarts: &[1],
        ..quiet("proposer restarts")
    }
}

fn swaps() -> Scenario {
    Scenario {
        ops: vec![op(Want::PutIfAbsent, K), then(Want::Swap(0), K, 0), then(Want::Swap(0), K, 0)],
        wishes: vec![(1, K, Wish::Same)],
        cut: &[(0, 2)],
        ..quiet("compare and swap")
    }
}

fn join() -> Scenario {
    Scenario {
        views: vec![(0, 0, &[0, 1])],
        ops: vec![op(Want::Put, K), op(Want::Put, 150), then(Want::Get, 150, 1)],
        wishes: vec![(0, K, Wish::Split(100, &[0, 1, 2], &[2, 0, 1]))],
        ..quiet("join")
    }
}

fn join_with_crash() -> Scenario {
    Scenario {
        nodes: 4,
        ops: vec![op(Want::Put, 150), then(Want::Get, 150, 0)],
        wishes: vec![(0, 150, Wish::Split(100, &[0, 1, 2], &[3, 0, 1])), (1, 150, Wish::Members(&[1, 2]))],
        cut: &[(2, 3), (0, 2)],
        ..quiet("join, and the owner crashes")
    }
}

pub(crate) fn takeover() -> Scenario {
    Scenario {
        nodes: 4,
        ops: vec![op(Want::Put, K), then(Want::Get, K, 0)],
        wishes: vec![(1, K, Wish::Members(&[1, 2, 3]))],
        ..quiet("takeover")
    }
}

fn growth() -> Scenario {
    Scenario {
        views: vec![(0, 0, &[0])],
        ops: vec![op(Want::Put, K), then(Want::Get, K, 0)],
        clients_at: &[0, 1],
        wishes: vec![(0, K, Wish::Members(&[0, 1])), (0, K, Wish::Members(&[0, 1, 2])), (0, K, Wish::Members(&[1, 2]))],
        ..quiet("growth and leave")
    }
}

pub(crate) fn merge() -> Scenario {
    Scenario {
        nodes: 2,
        views: vec![(0, 100, &[0, 1]), (100, 0, &[0, 1])],
        ops: vec![op(Want::Put, 150), then(Want::Get, 150, 0)],
        wishes: vec![(0, 150, Wish::Defer(K)), (0, K, Wish::Absorb(150)), (1, 150, Wish::Same), (1, K, Wish::Same)],
        ..quiet("merge")
    }
}

/// Both have content.
fn merge_of_both() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), op(Want::Put, 150)],
        wishes: vec![(0, 150, Wish::Defer(K)), (0, K, Wish::Absorb(150))],
        ..Scenario { name: "merge of two that hold something", ..merge() }
    }
}

pub(crate) fn tombstones() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Delete, K, 0), then(Want::Get, K, 1)],
        clients_at: &[0, 1],
        wishes: vec![(1, K, Wish::Same)],
        ..quiet("tombstones")
    }
}

pub(crate) fn late_store() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Delete, K, 0), then(Want::Get, 10, 1), then(Want::Get, K, 2)],
        clients_at: &[0, 1],
        wishes: vec![(1, K, Wish::Same)],
        cut: &[(1, 2)],
        twice: 1,
        ..quiet("a store that comes late")
    }
}

pub(crate) fn retry() -> Scenario {
    Scenario {
        ops: vec![again(op(Want::PutIfAbsent, K)), then(Want::Get, K, 0)],
        clients_at: &[0, 1],
        wishes: vec![(1, K, Wish::Same)],
        ..quiet("a request sent again")
    }
}

pub(crate) fn purge() -> Scenario {
    Scenario { purge: Some(0), cut: &[(0, 2)], ..Scenario { name: "a purged request sent again", ..retry() } }
}

pub(crate) fn two_reads() -> Scenario {
    Scenario {
        ops: vec![op(Want::Get, 8), op(Want::Put, K), then(Want::Get, K, 1)],
        clients_at: &[0, 1],
        wishes: vec![(1, K, Wish::Same)],
        cut: &[(0, 2)],
        ..quiet("two reads")
    }
}

pub(crate) fn unknown_write() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), op(Want::Get, K), then(Want::Get, K, 1)],
        wishes: vec![(1, K, Wish::Same)],
        ..quiet("an unknown write")
    }
}

fn two_changes() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Get, K, 0)],
        wishes: vec![(1, K, Wish::Same), (2, K, Wish::Same)],
        cut: &[(0, 2)],
        ..quiet("two changes")
    }
}

/// Two proposers of one decision have merged from different promises: one has seen a write that nobody else has.
pub(crate) fn different_merges() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), op(Want::Get, K), then(Want::Get, K, 1)],
        wishes: vec![(1, K, Wish::Same), (2, K, Wish::Same), (2, K, Wish::Same)],
        first: &[
            "operation 0",
            "1 proposes",
            "1 -> 0: Prepare",
            "0 -> 1: Promised",
            "1 -> 0: Stage",
            "0 -> 1: Staged",
            "2 proposes",
            "2 -> 1: Prepare",
            "1 -> 2: Promised",
        ],
        cut: &[(0, 2)],
        ..quiet("different merges")
    }
}

/// The primary has a write that the decision does not know of, and is the primary of the next view, too.
pub(crate) fn own_records() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), op(Want::Get, K), then(Want::Get, K, 1)],
        clients_at: &[0, 1],
        wishes: vec![(1, K, Wish::Members(&[0, 1, 2])), (1, K, Wish::Same)],
        first: &["operation 0", "1 proposes", "1 -> 2: Prepare", "2 -> 1: Promised"],
        cut: &[(0, 2)],
        ..quiet("own records")
    }
}

/// A vote at a higher ballot has been asked for before the votes at the lower one.
pub(crate) fn late_votes() -> Scenario {
    Scenario {
        first: &[
            "1 proposes",
            "1 -> 0: Prepare",
            "0 -> 1: Promised",
            "1 -> 0: Stage",
            "2 proposes",
            "2 -> 0: Prepare",
            "0 -> 2: Promised",
            "2 -> 0: Stage",
            "0 -> 2: Staged",
        ],
        ..Scenario { name: "late votes", ..three_ballots() }
    }
}

/// A restarted primary has numbered a write that nobody else has.
pub(crate) fn restart_and_write() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), op(Want::Put, K), then(Want::Get, K, 1)],
        clients_at: &[0],
        cut: &[(0, 2)],
        ..Scenario { name: "restart and write", ..restart() }
    }
}

pub(crate) fn lost_disk() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Get, K, 0)],
        wishes: vec![(2, K, Wish::Same)],
        losses: &[1],
        ..quiet("a lost disk")
    }
}

pub(crate) fn disks() -> Scenario {
    Scenario {
        nodes: 2,
        views: vec![(0, 0, &[0, 1])],
        ops: vec![op(Want::Put, K), then(Want::Get, K, 0)],
        wishes: vec![(0, K, Wish::Same)],
        restarts: &[0, 1],
        disks: true,
        ..quiet("disks")
    }
}

/// The node whose disk is gone comes back as another member, by a change of the view.
fn renewed_disk() -> Scenario {
    Scenario { wishes: vec![(0, K, Wish::Renew(1))], ..Scenario { name: "a lost disk, and a new one", ..lost_disk() } }
}

fn all_restart() -> Scenario {
    Scenario { restarts: &[0, 1, 2], cut: &[(0, 2)], ..Scenario { name: "all restart", ..restart() } }
}

fn forgetting() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Get, K, 0)],
        clients_at: &[0, 1],
        wishes: vec![(1, K, Wish::Members(&[1, 2])), (2, K, Wish::Same)],
        twice: 1,
        forgets: true,
        cut: &[(0, 2)],
        ..quiet("decisions are forgotten")
    }
}

/// A view of one member, which is a majority by itself, and is followed by one without it.
fn shrinking() -> Scenario {
    Scenario {
        nodes: 2,
        views: vec![(0, 0, &[0, 1])],
        ops: vec![op(Want::Put, K), then(Want::Get, K, 0)],
        wishes: vec![(0, K, Wish::Members(&[1])), (1, K, Wish::Members(&[0]))],
        twice: 2,
        forgets: true,
        ..quiet("shrinking, and late messages")
    }
}

/// A view of one member goes to another one, which has to be sent all of it, and back.
pub(crate) fn moving() -> Scenario {
    Scenario { views: vec![(0, 0, &[0])], ..Scenario { name: "to and fro, and late messages", ..shrinking() } }
}

fn mutual_deferral() -> Scenario {
    Scenario {
        wishes: vec![
            (0, 150, Wish::Defer(K)),
            (1, K, Wish::Defer(150)),
            (0, 150, Wish::Same),
            (1, K, Wish::Same),
            (0, K, Wish::Absorb(150)),
        ],
        ops: vec![op(Want::Put, 150)],
        ..Scenario { name: "mutual deferral", ..merge() }
    }
}

fn merge_of_three() -> Scenario {
    Scenario {
        nodes: 3,
        views: vec![(0, 100, &[0, 1, 2]), (100, 0, &[0, 1, 2])],
        wishes: vec![(0, 150, Wish::Defer(K)), (1, K, Wish::Absorb(150)), (2, 150, Wish::Same), (1, K, Wish::Same)],
        cut: &[(0, 2)],
        ..Scenario { name: "merge of three", ..merge() }
    }
}

fn join_with_two_proposers() -> Scenario {
    Scenario {
        nodes: 4,
        ops: vec![op(Want::Put, 150), then(Want::Get, 150, 0)],
        clients_at: &[0, 1, 3],
        wishes: vec![(0, 150, Wish::Split(100, &[0, 1, 2], &[3, 0, 1])), (1, 150, Wish::Same)],
        cut: &[(2, 3)],
        ..quiet("join, two proposers")
    }
}

fn two_writes_two_proposers() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Put, K, 0), then(Want::Get, K, 1)],
        ..Scenario { name: "two writes, a read, two proposers", ..two_proposers() }
    }
}

fn retry_with_two_proposers() -> Scenario {
    Scenario {
        wishes: vec![(1, K, Wish::Same), (2, K, Wish::Same)],
        restarts: &[1],
        cut: &[(0, 2)],
        ..Scenario { name: "a request sent again, two proposers, a restart", ..retry() }
    }
}

/// A member has a write that nobody has acknowledged, in the place of one that all have had since the view began: it lacks
/// that one when the view changes without it.
pub(crate) fn lacking() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Put, K, 0), then(Want::Get, K, 0)],
        clients_at: &[0, 1],
        wishes: vec![(0, K, Wish::Same), (1, K, Wish::Members(&[0, 1, 2]))],
        first: &[
            "operation 0",
            "0 -> 1: Store",
            "1 -> 0: Stored",
            "0 proposes",
            "0 -> 1: Prepare",
            "1 -> 0: Promised",
            "0 -> 1: Stage",
            "1 -> 0: Staged",
            "0 -> 1: Accept",
            "1 -> 0: Accepted",
            "0 -> 1: Decide",
            "0 -> 2: Decide",
            "2 -> 0: Fetch",
            "0 -> 2: Content",
        ],
        ..quiet("a member that lacks something")
    }
}

/// A value is on its way to a member that has missed the staging, and all members are told to delete it.
pub(crate) fn deleted_on_the_way() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K), then(Want::Delete, K, 0), then(Want::Get, 10, 1), then(Want::Get, K, 2)],
        wishes: vec![(0, K, Wish::Same), (2, K, Wish::Same)],
        first: &[
            "operation 0",
            "0 -> 1: Store",
            "1 -> 0: Stored",
            "0 proposes",
            "0 -> 1: Prepare",
            "1 -> 0: Promised",
            "0 -> 1: Stage",
            "1 -> 0: Staged",
            "0 -> 1: Accept",
            "1 -> 0: Accepted",
            "0 -> 1: Decide",
            "0 -> 2: Decide",
            "2 -> 0: Fetch",
            "operation 1",
        ],
        cut: &[(1, 2)],
        ..quiet("a value that is deleted on its way")
    }
}

/// Every row is a page of its own.
fn in_pages() -> Settings {
    let mut settings = unsuspecting();
    settings.page_bytes = 1;
    settings.rest_bytes = 0;
    settings
}

fn pages() -> Scenario {
    Scenario {
        settings: in_pages(),
        restarts: &[3],
        ..Scenario { name: "pages, and the new member restarts", ..takeover() }
    }
}

fn pages_without_proposer() -> Scenario {
    Scenario {
        ops: vec![op(Want::Put, K)],
        wishes: vec![(1, K, Wish::Members(&[1, 2, 3])), (2, K, Wish::Same)],
        restarts: &[1],
        first: &[
            "operation 0",
            "0 -> 1: Store",
            "1 -> 0: Stored",
            "1 proposes",
            "1 -> 2: Prepare",
            "2 -> 1: Promised",
            "1 -> 3: Stage",
        ],
        cut: &[(0, 2), (0, 3)],
        settings: in_pages(),
        ..Scenario { name: "pages, and the proposer restarts", ..takeover() }
    }
}

/// What is still to be sent of what was sent ahead travels while the view is sealed.
fn in_pages_with_rest() -> Settings {
    let mut settings = in_pages();
    settings.rest_bytes = 1_000;
    settings
}

/// A third node joins and takes half: it is sent that while it is served, and what is there is deleted meanwhile.
pub(crate) fn sent_ahead() -> Scenario {
    Scenario {
        views: vec![(0, 0, &[0, 1])],
        ops: vec![op(Want::Put, 150), then(Want::Delete, 150, 0), then(Want::Get, 150, 1)],
        clients_at: &[0, 2],
        wishes: vec![(0, 150, Wish::Split(100, &[0, 1], &[2, 0]))],
        first: &["operation 0", "0 -> 1: Store", "1 -> 0: Stored", "0 proposes"],
        settings: in_pages_with_rest(),
        ..quiet("sent ahead, and deleted meanwhile")
    }
}

/// What is there is written over; the primary proposes twice.
pub(crate) fn sent_ahead_twice() -> Scenario {
    let split = (0, 150, Wish::Split(100, &[0, 1], &[2, 0]));
    Scenario {
        ops: vec![op(Want::Put, 150), then(Want::Put, 150, 0), then(Want::Get, 150, 1)],
        wishes: vec![split, split],
        settings: in_pages(),
        ..Scenario { name: "sent ahead for two proposals", ..sent_ahead() }
    }
}

pub(crate) fn sent_ahead_by_one_that_restarts() -> Scenario {
    Scenario {
        restarts: &[0],
        cut: &[(1, 2)],
        ..Scenario { name: "sent ahead, and the primary restarts", ..sent_ahead_twice() }
    }
}

fn sent_ahead_to_one_that_restarts() -> Scenario {
    Scenario { restarts: &[2], ..Scenario { name: "sent ahead, and the new member restarts", ..sent_ahead() } }
}

fn sent_ahead_and_taken() -> Scenario {
    let split = (0, 150, Wish::Split(100, &[0, 1], &[2, 0]));
    Scenario {
        wishes: vec![split, (1, 150, Wish::Same)],
        ..Scenario { name: "sent ahead, and another proposes", ..sent_ahead() }
    }
}

/// What is there is written over before the view is sealed.
pub(crate) fn sent_ahead_with_rest() -> Scenario {
    Scenario {
        wishes: vec![(0, 150, Wish::Split(100, &[0, 1], &[2, 0]))],
        settings: in_pages_with_rest(),
        ..Scenario { name: "sent ahead, and the rest when sealed", ..sent_ahead_twice() }
    }
}

/// Two are sent the content, and one of them is enough.
fn sent_ahead_to_two() -> Scenario {
    Scenario {
        views: vec![(0, 0, &[0])],
        ops: vec![op(Want::Put, 150), then(Want::Delete, 150, 0), then(Want::Get, 150, 1)],
        clients_at: &[0],
        wishes: vec![(0, 150, Wish::Members(&[0, 1, 2]))],
        first: &["operation 0", "0 proposes"],
        cut: &[(1, 2)],
        ..Scenario { name: "sent ahead to two", ..sent_ahead() }
    }
}

/// Clean, and explored to the end by every `cargo test`.
pub(crate) fn small() -> Vec<Scenario> {
    vec![
        one_change(),
        two_proposers(),
        restart(),
        all_restart(),
        member_restarts(),
        swaps(),
        join(),
        join_with_crash(),
        takeover(),
        pages(),
        pages_without_proposer(),
        lacking(),
        deleted_on_the_way(),
        merge(),
        merge_of_both(),
        mutual_deferral(),
        tombstones(),
        late_store(),
        retry(),
        purge(),
        two_reads(),
        unknown_write(),
        two_changes(),
        different_merges(),
        own_records(),
        late_votes(),
        restart_and_write(),
        lost_disk(),
        renewed_disk(),
        forgetting(),
        shrinking(),
        moving(),
        disks(),
        sent_ahead(),
        sent_ahead_with_rest(),
        sent_ahead_twice(),
        sent_ahead_by_one_that_restarts(),
        sent_ahead_to_one_that_restarts(),
        sent_ahead_and_taken(),
        sent_ahead_to_two(),
    ]
}

/// Clean, and explored by `make model`.
pub(crate) fn large() -> Vec<Scenario> {
    vec![
        growth(),
        merge_of_three(),
        join_with_two_proposers(),
        retry_with_two_proposers(),
        two_writes_two_proposers(),
        three_ballots(),
    ]
}
