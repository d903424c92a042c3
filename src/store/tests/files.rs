//! Data directories that can't be used, and what people are told about them.

use std::fs;
use std::ops::Bound;
use std::path::Path;

use chordal_protocol::Id;
use redb::{Database, TableDefinition};

use super::{area, record, write};
use crate::store::{DiskStore, Store, StoreError};

/// Why this directory is refused.
fn refusal(directory: &Path) -> String {
    match DiskStore::open(directory) {
        Err(StoreError::Unusable(reason)) => reason,
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("{} was opened", directory.display()),
    }
}

/// With more than the log takes at once, so that it is in the database.
fn filled(directory: &Path) -> Vec<u8> {
    let store = DiskStore::open(directory).unwrap();
    let records: Vec<_> = (0..1_000).map(|n| record(Id::of(n.to_string()), n, vec![7; 300])).collect();
    write(&store, &area(1), &records).unwrap();
    drop(store);
    fs::read(directory.join("store.redb")).unwrap()
}

fn set_format(directory: &Path, format: u64) {
    let database = Database::open(directory.join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let about: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
    transaction.open_table(about).unwrap().insert("format", format).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_directory_is_one_nodes_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = DiskStore::open(directory.path().join("new/node")).unwrap();
    assert!(refusal(&directory.path().join("new/node")).contains("in use by another node"));
    drop(store);
    DiskStore::open(directory.path().join("new/node")).unwrap();
}

#[test]
fn a_newer_file_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    drop(DiskStore::open(directory.path()).unwrap());
    set_format(directory.path(), 5);
    for _ in 0..2 {
        let reason = refusal(directory.path());
        assert!(reason.contains("newer version") && reason.contains("store.redb"), "{reason}");
    }
    set_format(directory.path(), 4);
    DiskStore::open(directory.path()).unwrap();
}

#[test]
fn files_of_earlier_formats_are_refused_and_told_what_they_were() {
    let directory = tempfile::tempdir().unwrap();
    drop(DiskStore::open(directory.path()).unwrap());
    for format in [1, 2] {
        set_format(directory.path(), format);
        for _ in 0..2 {
            let reason = refusal(directory.path());
            assert!(
                reason.contains(&format!("(format {format}; ")) && reason.contains("new data directory"),
                "{reason}"
            );
        }
    }
}

#[test]
fn what_is_no_store_is_refused_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    let whole = filled(directory.path());
    let half = &whole[..whole.len() / 2];
    for bytes in [&b""[..], b"x", b"redb", &[0; 4096], &[0xff; 100_000], &whole[..9], &whole[..700], half] {
        fs::write(&file, bytes).unwrap();
        let reason = refusal(directory.path());
        assert!(reason.contains("store.redb") && reason.contains("damaged"), "{} bytes: {reason}", bytes.len());
        assert_eq!(fs::read(&file).unwrap().len(), bytes.len(), "the evidence was touched");
    }
    fs::remove_file(&file).unwrap();
    drop(Database::create(&file).unwrap());
    assert!(refusal(directory.path()).contains("not the store of a node"));
}

#[test]
fn a_store_that_was_being_created_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("store.redb.new"), [0; 5000]).unwrap();
    DiskStore::open(directory.path()).unwrap();
    assert!(!directory.path().join("store.redb.new").exists());
}

/// Damage in the middle of a file is not always found (values carry no checksum of their own), but it is never a panic.
#[test]
fn damage_anywhere_ends_in_an_error_or_is_not_seen() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    let whole = filled(directory.path());
    let (mut refused, mut failed) = (0, 0);
    for seed in 0..100 {
        let mut bytes = whole.clone();
        for number in 0..4 {
            let dice = u64::from_be_bytes(Id::of(format!("{seed}/{number}")).as_bytes()[..8].try_into().unwrap());
            // Half of the damage in the first pages, where the structure is.
            let end = if number % 2 == 0 { 2 * 4096 } else { bytes.len() };
            bytes[dice as usize % end] ^= (dice >> 56) as u8 | 1;
        }
        fs::write(&file, bytes).unwrap();
        match DiskStore::open(directory.path()) {
            Err(StoreError::Unusable(_)) => refused += 1,
            Err(other) => panic!("{seed}: {other:?}"),
            Ok(store) => {
                let scanned = store.page(&area(1), Bound::Unbounded, usize::MAX, usize::MAX);
                let written = write(&store, &area(1), &[record(Id::of("new"), 1, "new")]);
                failed += usize::from(scanned.is_err() || written.is_err());
            }
        }
    }
    assert!(refused > 0 && failed + refused < 100, "{refused} refused, {failed} failed");
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    assert!(refusal(&directory.path().join("file/data")).contains("file/data cannot be used"));
    if cfg!(target_os = "linux") {
        assert!(refusal(Path::new("/proc/chordal")).contains("/proc/chordal cannot be used"));
    }
    let mut permissions = fs::metadata(directory.path()).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(directory.path(), permissions).unwrap();
    // Permissions mean nothing to root.
    if fs::write(directory.path().join("probe"), "").is_err() {
        assert!(refusal(directory.path()).contains("cannot be used"));
    }
}
