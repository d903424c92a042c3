//! Content that nobody may merge any more goes to a file, for a person: the lines are those of an export, so that what is still
//! wanted of it can be imported again by hand.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use chordal_protocol::replica::Area;
use chordal_protocol::{Content, Record};

use super::{DiskStore, Store, StoreError};
use crate::api::BulkRecord;

/// How many records are read at a time, and how many bytes of them.
const PAGE: (usize, usize) = (256, 4 << 20);

/// Writes the live values of an area to this file: temporary file, fsync, rename.
pub(super) fn put_aside(store: &DiskStore, area: &Area, path: &Path) -> Result<(PathBuf, u64), StoreError> {
    let failed = |error: io::Error| StoreError::Failed(format!("{} cannot be written: {error}", path.display()));
    let temporary = path.with_added_extension("tmp");
    let mut file = BufWriter::new(File::create(&temporary).map_err(failed)?);
    let (mut from, mut count) = (Bound::Unbounded, 0);
    loop {
        let records = store.page(area, from, PAGE.0, PAGE.1)?;
        let Some(last) = records.last() else { break };
        from = Bound::Excluded(last.id);
        for line in records.iter().filter_map(line_of) {
            serde_json::to_writer(&mut file, &line).map_err(io::Error::from).map_err(failed)?;
            file.write_all(b"\n").map_err(failed)?;
            count += 1;
        }
    }
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok((path.to_owned(), count))
}

/// What stores this value again; nothing for a tombstone.
fn line_of(record: &Record) -> Option<BulkRecord> {
    let Content::Value { bytes, content_type } = &record.content else { return None };
    let put = match &record.key {
        Some(key) => BulkRecord::put(key, bytes),
        None => BulkRecord::default().with_value(bytes),
    };
    Some(BulkRecord { content_type: Some(content_type.clone()), ..put })
}
