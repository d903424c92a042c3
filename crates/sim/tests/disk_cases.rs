//! Simulated disks, case by case.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use chordal_protocol::replica::{Area, Durable, Member, Name, Snapshot, Store};
use chordal_protocol::{Content, Id, Interval, Record, RequestId, Version};
use chordal_sim::disk::{Disk, NotSynced, Pace};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

fn area() -> Area {
    Name { range: Interval::whole(Id::ZERO), epoch: 1 }.area()
}

fn record(n: u8) -> Record {
    let content = Content::Value { bytes: vec![n], content_type: String::new() };
    let version = Version { epoch: 1, sequence: n.into() };
    Record { id: Id::of([n]), key: None, content, version, request: RequestId(u128::from(n) << 64) }
}

fn durable(boot: u64) -> Durable {
    let (held, decided, over) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let (staged, boots) = (BTreeMap::new(), BTreeMap::new());
    let me = Member { id: Id::ZERO, incarnation: 1 };
    Durable { me, boot, held, decided, over, staged, boots }
}

#[test]
fn one_sync_carries_all_steps_that_had_ended_and_a_step_without_changes_waits_for_those_before() {
    let mut disk = Disk::new(7);
    let write = |disk: &mut Disk, n: u8| {
        disk.put(&area(), &record(n));
        disk.end_step(None)
    };
    let first = write(&mut disk, 1);
    let second = write(&mut disk, 2);
    let sync = disk.begin_sync().unwrap();
    let third = write(&mut disk, 3);
    assert_eq!(disk.end_step(None), third, "what was read may be what the third has written");
    assert_eq!(disk.begin_sync(), Err(NotSynced::UnderWay));
    assert!(!disk.is_durable(first));
    assert_eq!(disk.end_sync(sync), Ok(second));
    assert!(disk.is_durable(second) && !disk.is_durable(third));
    assert_eq!(disk.end_sync(sync), Err(NotSynced::Over));
    disk.crash(&mut Pcg64Mcg::seed_from_u64(1));
    assert_eq!(
        [1, 2, 3].map(|n| disk.record(&area(), &Id::of([n])).is_some()),
        [true, true, false],
        "the third was not on its way"
    );
    assert_eq!((disk.counts().syncs, disk.counts().synced_steps, disk.counts().lost_steps), (1, 2, 1));
}

#[test]
fn on_a_full_disk_everything_can_be_read_and_nothing_lasts() {
    let mut disk = Disk::new(1);
    disk.put(&area(), &record(1));
    let first = disk.end_step(Some(durable(1)));
    let sync = disk.begin_sync().unwrap();
    disk.fill();
    disk.free();
    assert_eq!(disk.end_sync(sync), Err(NotSynced::Full), "it had run out of space on the way");
    disk.fill();
    assert_eq!(disk.begin_sync(), Err(NotSynced::Full));
    assert!(disk.record(&area(), &Id::of([1])).is_some() && !disk.is_durable(first));
    disk.free();
    let sync = disk.begin_sync().unwrap();
    assert_eq!(disk.end_sync(sync), Ok(first));
    disk.crash(&mut Pcg64Mcg::seed_from_u64(1));
    assert_eq!(disk.durable(), Some(&durable(1)));
}

#[test]
fn incarnations_do_not_come_twice_but_in_old_copies() {
    let mut disk = Disk::new(4);
    disk.end_step(Some(durable(1)));
    let sync = disk.begin_sync().unwrap();
    disk.end_sync(sync).unwrap();
    disk.end_step(Some(durable(2)));
    let backup = disk.backup();
    disk.gone();
    assert_eq!((disk.incarnation(), disk.durable()), (5, None));
    disk.restore(&backup);
    assert_eq!((disk.incarnation(), disk.durable()), (4, Some(&durable(1))));
    disk.gone();
    assert_eq!(disk.incarnation(), 6);
}

#[test]
fn syncs_are_slow_as_often_as_they_are_said_to_be() {
    let pace = Pace { usual: (1, 9), slow: (100, 900), slow_share: 0.1 };
    let mut chance = Pcg64Mcg::seed_from_u64(1);
    let times: Vec<u64> = (0..10_000).map(|_| pace.draw(&mut chance)).collect();
    assert!(times.iter().all(|time| (1..=9).contains(time) || (100..=900).contains(time)));
    let slow = times.iter().filter(|time| **time >= 100).count();
    assert!((800..1_200).contains(&slow), "{slow} of 10,000");
}
