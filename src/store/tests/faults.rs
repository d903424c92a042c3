//! Disks that are full, and power that fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chordal_protocol::{Content, Id, Interval};

use super::test_disk::TestDisk;
use super::writing::outcome;
use super::{done, put};
use crate::store::{Change, DiskStore, Store, StoreError, Writer};

/// Batch `n`: three values of 2 KiB.
fn batch(n: u64) -> Vec<Change> {
    (0..3).map(|i| put(Id::of(format!("{n}/{i}")), n, vec![n as u8; 2048])).collect()
}

/// How many of the batch's values are there and right.
fn present(store: &DiskStore, n: u64) -> usize {
    let stored = (0..3).filter_map(|i| store.get(&Id::of(format!("{n}/{i}"))).unwrap());
    stored
        .inspect(|record| match &record.content {
            Content::Value { bytes, .. } => assert_eq!(*bytes, vec![n as u8; 2048]),
            Content::Tombstone => panic!("nobody deleted that"),
        })
        .count()
}

#[test]
fn a_full_disk_acknowledges_nothing_can_be_read_and_is_used_again_once_there_is_room() {
    for blocks in 0..40 {
        let disk = TestDisk::with_store();
        let store = disk.open();
        disk.leave_room(blocks);
        let (mut n, mut failures) = (0, 0);
        // What a failed attempt has written is room for the next, which may succeed.
        while failures < 4 {
            match store.commit(&batch(n)) {
                Ok(_) => n += 1,
                Err(StoreError::Full(_)) => failures += 1,
                Err(other) => panic!("{other}"),
            }
            assert!((0..n).all(|n| present(&store, n) == 3));
            assert_eq!(present(&store, n), 0);
        }
        assert!(disk.refused() >= 4, "the disk was never full");
        disk.leave_room(10_000);
        assert_eq!(store.commit(&batch(n)).unwrap(), [done(n); 3]);
        drop(store);
        let store = disk.open();
        assert!((0..=n).all(|n| present(&store, n) == 3));
    }
}

#[test]
fn reads_go_on_beside_a_writer_that_finds_the_disk_full() {
    let disk = TestDisk::with_store();
    let store = disk.open();
    store.commit(&batch(0)).unwrap();
    disk.leave_room(0);
    let reading = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while reading.load(Ordering::Relaxed) {
                assert!(matches!(store.commit(&batch(1)), Err(StoreError::Full(_))));
                std::thread::yield_now();
            }
        });
        let (mut reads, mut failed) = (0, 0);
        while disk.refused() < 200 {
            reads += 1;
            failed += u32::from(store.get(&Id::of("0/0")).is_err());
        }
        reading.store(false, Ordering::Relaxed);
        // A read gives up when three commits in a row fail under it, and here nothing else happens.
        assert!(failed * 100 < reads, "{failed} of {reads} reads failed");
    });
}

#[test]
fn the_writer_tells_all_that_the_disk_is_full_and_goes_on_by_itself() {
    let disk = TestDisk::with_store();
    let writer = Writer::start(Arc::new(disk.open())).unwrap();
    disk.leave_room(0);
    let pending: Vec<_> = (0..50).map(|n| writer.submit(batch(n)).unwrap()).collect();
    for pending in pending {
        assert!(matches!(outcome(pending), Err(StoreError::Full(_))));
    }
    disk.leave_room(10_000);
    assert_eq!(outcome(writer.submit(batch(1)).unwrap()).unwrap(), [done(1); 3]);
}

/// Cuts the power at every step of a run, each time with other writes lost.
#[test]
fn what_was_acknowledged_survives_a_power_cut_and_no_batch_is_half_there() {
    let (mut lost, mut survived, mut vanished) = (0, 0, 0);
    for steps in 0..150 {
        let disk = TestDisk::with_store();
        let store = disk.open();
        disk.cut_power_after(steps);
        let mut n = 0;
        while store.commit(&batch(n)).is_ok() {
            n += 1;
        }
        drop(store);
        lost += disk.restore_power(steps as u64);
        let store = disk.open();
        assert!((0..n).all(|n| present(&store, n) == 3), "lost after {steps} steps");
        match present(&store, n) {
            3 => survived += 1,
            0 => vanished += 1,
            part => panic!("{part} of 3 after {steps} steps"),
        }
        assert_eq!(store.count(Interval::whole(Id::ZERO)).unwrap() % 3, 0);
        store.commit(&batch(n)).unwrap();
    }
    assert!(lost > 50, "only {lost} writes were lost");
    assert!(survived > 0 && vanished > 0, "{survived} unacknowledged batches survived, {vanished} did not");
}

/// The same as a kill of the process: what was written is with the system, whether synced or not.
#[test]
fn a_copy_of_the_file_in_use_has_all_that_was_acknowledged() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = DiskStore::open(here.path()).unwrap();
    let writer = Writer::start(Arc::new(store)).unwrap();
    let acknowledged: BTreeMap<u64, _> =
        (0..20).map(|n| (n, outcome(writer.submit(batch(n)).unwrap()).unwrap())).collect();
    std::fs::copy(here.path().join("store.redb"), there.path().join("store.redb")).unwrap();
    let store = DiskStore::open(there.path()).unwrap();
    for (n, changed) in acknowledged {
        assert_eq!(changed, [done(n); 3]);
        assert_eq!(present(&store, n), 3);
    }
}
