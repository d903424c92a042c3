//! Disks that are full, and power that fails.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use chordal_protocol::{Content, Id, Interval, Record, Version};

use super::test_disk::TestDisk;
use super::{all, area, look, record};
use crate::store::{DiskStore, Store, StoreError};

/// Batch `n`: three values of 2 KiB.
fn batch(n: u64) -> Vec<Record> {
    (0..3).map(|i| record(Id::of(format!("{n}/{i}")), 3 * n + i, vec![n as u8; 2048])).collect()
}

/// Batch `n`, a piece of state that says so, and an area of its own, in one transaction.
fn commit(store: &DiskStore, n: u64) -> Result<bool, StoreError> {
    store.transact(&mut |transaction| {
        batch(n).iter().for_each(|record| transaction.put(&area(1), record));
        transaction.put(&area(3), &record(Id::of("staged"), n, n.to_string()));
        transaction.discard(&area(2));
        let whole = Interval::whole(Id::ZERO);
        transaction.derive(&area(3), &area(2), &whole, Version { epoch: u64::MAX, sequence: 0 });
        transaction.put_state("batch", &n.to_le_bytes());
    })
}

/// How many of the batch's values are there and right.
fn present(store: &DiskStore, n: u64) -> usize {
    let stored = (0..3).filter_map(|i| store.get(&area(1), &Id::of(format!("{n}/{i}"))).unwrap());
    stored
        .inspect(|record| match &record.content {
            Content::Value { bytes, .. } => assert_eq!(*bytes, vec![n as u8; 2048]),
            Content::Tombstone => panic!("nobody deleted that"),
        })
        .count()
}

/// Whether the first `n` batches are all that is there, however one looks.
fn holds_just(store: &DiskStore, n: u64) {
    assert!((0..n).all(|n| present(store, n) == 3), "a part of {n} batches is missing");
    assert_eq!(present(store, n), 0, "nothing was said of batch {n}");
    assert_eq!(store.transactions().unwrap(), n);
    assert_eq!(store.count(&area(1)).unwrap(), 3 * n);
    assert_eq!(store.page(&area(1), Bound::Unbounded, usize::MAX, usize::MAX).unwrap().len() as u64, 3 * n);
    let last = n.checked_sub(1);
    assert_eq!(store.state("batch").unwrap(), last.map(|last| last.to_le_bytes().to_vec()));
    assert_eq!(store.count(&area(2)).unwrap(), u64::from(n > 0));
    assert_eq!(store.count(&area(3)).unwrap(), 0);
    let (all, staged) = look(store, |transaction| (all(transaction, &area(1)), all(transaction, &area(2))));
    assert_eq!((all.records.len() as u64, all.outcomes.len() as u64), (3 * n, 3 * n));
    assert_eq!(staged.records.values().map(|record| record.version.sequence).max(), last);
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
            match commit(&store, n) {
                Ok(changed) => {
                    assert!(changed);
                    n += 1;
                }
                Err(StoreError::Full(_)) => failures += 1,
                Err(other) => panic!("{other}"),
            }
            holds_just(&store, n);
        }
        assert!(disk.refused() >= 4, "the disk was never full");
        disk.leave_room(10_000);
        assert!(commit(&store, n).unwrap());
        holds_just(&store, n + 1);
        drop(store);
        holds_just(&disk.open(), n + 1);
    }
}

#[test]
fn reads_go_on_beside_a_writer_that_finds_the_disk_full() {
    let disk = TestDisk::with_store();
    let store = disk.open();
    commit(&store, 0).unwrap();
    disk.leave_room(0);
    // What room the log has is used up first.
    let full = (1..1_000).find(|n| commit(&store, *n).is_err()).expect("a full disk");
    let reading = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while reading.load(Ordering::Relaxed) {
                assert!(matches!(commit(&store, full), Err(StoreError::Full(_))));
                std::thread::yield_now();
            }
        });
        let (mut reads, mut failed) = (0, 0);
        while disk.refused() < 200 {
            reads += 2;
            failed += u32::from(store.get(&area(1), &Id::of("0/0")).is_err());
            let refused = store.get(&area(1), &Id::of(format!("{full}/0")));
            assert!(!matches!(refused, Ok(Some(_))), "what was refused was seen");
            failed += u32::from(store.count(&area(1)).is_err());
        }
        reading.store(false, Ordering::Relaxed);
        // A read gives up when three commits in a row fail under it, and here nothing else happens.
        assert!(failed * 100 < reads, "{failed} of {reads} reads failed");
    });
}

/// Cuts the power at every step of a run, each time with other writes lost.
#[test]
fn what_was_acknowledged_survives_a_power_cut_and_no_transaction_is_half_there() {
    let (mut lost, mut survived, mut vanished) = (0, 0, 0);
    for steps in 0..200 {
        let disk = TestDisk::with_store();
        let store = disk.open();
        disk.cut_power_after(steps);
        let mut n = 0;
        while commit(&store, n).is_ok() {
            n += 1;
        }
        drop(store);
        lost += disk.restore_power(steps as u64);
        let store = disk.open();
        match present(&store, n) {
            3 => {
                survived += 1;
                n += 1;
            }
            0 => vanished += 1,
            part => panic!("{part} of 3 after {steps} steps"),
        }
        holds_just(&store, n);
        commit(&store, n).unwrap();
        holds_just(&store, n + 1);
    }
    assert!(lost > 50, "only {lost} writes were lost");
    assert!(survived > 0 && vanished > 0, "{survived} unacknowledged batches survived, {vanished} did not");
}

/// The power is back before the store is closed: what it remembers must be what is on the disk.
#[test]
fn a_store_that_goes_on_after_a_failed_commit_knows_whether_it_happened() {
    let (mut happened, mut vanished) = (0, 0);
    for steps in 0..150 {
        let disk = TestDisk::with_store();
        let store = disk.open();
        disk.cut_power_after(steps);
        let mut n = 0;
        while commit(&store, n).is_ok() {
            n += 1;
        }
        disk.restore_power(steps as u64);
        let durable = store.transactions().unwrap();
        assert!(durable == n || durable == n + 1, "{durable} of {n}");
        *if durable > n { &mut happened } else { &mut vanished } += 1;
        holds_just(&store, durable);
        commit(&store, durable).unwrap();
        holds_just(&store, durable + 1);
    }
    assert!(happened > 0 && vanished > 0, "{happened} happened, {vanished} did not");
}

/// The same as a kill of the process: what was written is with the system, whether synced or not.
#[test]
fn a_copy_of_the_files_in_use_has_all_that_was_acknowledged() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = DiskStore::open(here.path()).unwrap();
    for n in 0..20 {
        commit(&store, n).unwrap();
    }
    for file in ["store.redb", "store.log"] {
        std::fs::copy(here.path().join(file), there.path().join(file)).unwrap();
    }
    holds_just(&DiskStore::open(there.path()).unwrap(), 20);
}
