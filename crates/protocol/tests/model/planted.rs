//! The bugs that must be found.

use chordal_protocol::replica::Bug;

use crate::scenario::Scenario;
use crate::scenarios::{
    deleted_on_the_way, different_merges, disks, lacking, late_store, late_votes, lost_disk, merge, moving, one_change,
    own_records, purge, restart_and_write, retry, sent_ahead, sent_ahead_by_one_that_restarts, sent_ahead_with_rest,
    takeover, tombstones, two_reads, unknown_write, unsuspecting,
};

/// A planted bug, where it must be found, and after how many steps.
pub(crate) struct Planted {
    pub(crate) name: &'static str,
    pub(crate) scenario: Scenario,
    pub(crate) steps: usize,
}

/// Every planted bug. The steps of a scripted beginning count.
pub(crate) fn planted() -> Vec<Planted> {
    let planted = |name, scenario, steps| Planted { name, scenario, steps };
    let bug = |bug: Bug, name, scenario: Scenario, steps| {
        planted(name, Scenario { settings: unsuspecting().planted(bug), ..scenario }, steps)
    };
    let ahead = |bug: Bug, name, scenario: Scenario, steps| {
        let settings = scenario.settings.clone().planted(bug);
        planted(name, Scenario { settings, ..scenario }, steps)
    };
    vec![
        bug(Bug::MergeAgain, "members install different merges of one decision", different_merges(), 31),
        bug(Bug::AcceptBeforeStage, "votes are asked for before anything is staged", takeover(), 5),
        bug(Bug::AcceptWithoutSealing, "a vote does not raise the promise", late_votes(), 17),
        bug(Bug::KeepOwnRecords, "install keeps a member's own newer record", own_records(), 25),
        bug(Bug::LayUponAnything, "what stands is laid upon anything", lacking(), 23),
        bug(Bug::SpeakBeforeInstall, "members keep and vote before they have installed", deleted_on_the_way(), 29),
        bug(Bug::RestartedPrimaryServes, "a restarted primary goes on in its epoch", restart_and_write(), 10),
        bug(Bug::OldConfirmation, "a read counts a confirmation asked for before it came", two_reads(), 15),
        bug(Bug::UnconfirmedRead, "a read without a confirmation", one_change(), 12),
        bug(Bug::ConfirmWhenSealed, "a confirmation when sealed", takeover(), 14),
        bug(Bug::StoreWhenSealed, "a write acknowledged in a sealed epoch", one_change(), 11),
        bug(Bug::ReadPending, "a pending write is read", unknown_write(), 15),
        bug(Bug::OutcomesStayBehind, "outcomes of requests are not staged", retry(), 12),
        bug(Bug::PurgeWithoutMark, "outcomes are forgotten without a mark", purge(), 13),
        bug(Bug::CollectAtMajority, "tombstones are collected at a majority", tombstones(), 14),
        bug(Bug::NoFloor, "tombstones are collected at all members, without a floor", late_store(), 21),
        bug(Bug::ThawFreely, "a merge that thaws freely", merge(), 22),
        bug(Bug::ForgetWithoutTrace, "a forgotten decision is revived", moving(), 11),
        bug(Bug::AcknowledgeByMinority, "a write is acknowledged by a minority", one_change(), 9),
        bug(Bug::PrepareByMinority, "a view is prepared by a minority", one_change(), 11),
        ahead(Bug::MarkNotHeld, "the stable mark goes on while content is sent ahead", sent_ahead(), 20),
        ahead(
            Bug::CopyOfAnyBallot,
            "what was sent ahead serves another proposal",
            sent_ahead_by_one_that_restarts(),
            23,
        ),
        ahead(Bug::CopyWithoutTail, "what was sent ahead counts without the tail", sent_ahead_with_rest(), 20),
        planted("a lost disk keeps its vote", Scenario { keeps_incarnation: true, ..lost_disk() }, 8),
        planted("acknowledged before it is durable", Scenario { hasty: true, ..disks() }, 8),
    ]
}
