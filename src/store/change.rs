//! What each [`Change`] means, written once for every store.

use chordal_protocol::{Content, Id, Interval, Record, Version, Write, Written};

use super::{Change, Changed};

/// A value that was its own key and is deleted leaves its bytes as the tombstone's key, unless they are longer than this.
pub(super) const LONGEST_KEPT_KEY: usize = 1024;

/// What [`apply`] needs of a store: reads see what the same transaction wrote.
pub(super) trait Transaction {
    /// How this store fails.
    type Error;

    /// The record of this id.
    fn record(&self, id: &Id) -> Result<Option<Record>, Self::Error>;

    /// Puts the record in place of what was there.
    fn put_record(&mut self, record: &Record) -> Result<(), Self::Error>;

    /// Removes every record in the range.
    fn remove(&mut self, range: Interval) -> Result<(), Self::Error>;

    /// Puts the named piece of state in place of what was there.
    fn put_state(&mut self, name: &'static str, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// Makes the changes in order, each seeing those before it, and tells how each ended. After an error the transaction
/// must be given up as a whole.
pub(super) fn apply<T: Transaction>(changes: &[Change], transaction: &mut T) -> Result<Vec<Changed>, T::Error> {
    changes.iter().map(|change| apply_one(change, transaction)).collect()
}

fn apply_one<T: Transaction>(change: &Change, transaction: &mut T) -> Result<Changed, T::Error> {
    match change {
        Change::Write { write, version } => return Ok(Changed::Write(apply_write(write, *version, transaction)?)),
        Change::Merge(records) => {
            for record in records {
                let now = transaction.record(&record.id)?;
                if now.is_none_or(|now| now.version < record.version) {
                    transaction.put_record(record)?;
                }
            }
        }
        Change::Drop(range) => transaction.remove(*range)?,
        Change::Put { name, bytes } => transaction.put_state(name, bytes)?,
    }
    Ok(Changed::Done)
}

/// The version is the caller's to choose; that it is above those given before for the same id is not looked at here.
fn apply_write<T: Transaction>(write: &Write, version: Version, transaction: &mut T) -> Result<Written, T::Error> {
    let now = transaction.record(&write.id)?;
    if let Some(now) = now.as_ref().filter(|now| now.request == write.request) {
        return Ok(Written::Done(now.version));
    }
    if !write.condition.holds(now.as_ref()) {
        return Ok(Written::Refused(now.filter(Record::is_live).map(|now| now.version)));
    }
    let key = match (&write.key, &write.content) {
        (None, Content::Tombstone) => now.and_then(key_left_behind),
        (key, _) => key.clone(),
    };
    let (id, content, request) = (write.id, write.content.clone(), write.request);
    transaction.put_record(&Record { id, key, content, version, request })?;
    Ok(Written::Done(version))
}

/// The key for the tombstone of this record: without it nobody could tell any more what was deleted.
fn key_left_behind(old: Record) -> Option<Vec<u8>> {
    match (old.key, old.content) {
        (None, Content::Value { bytes, .. }) => Some(bytes).filter(|bytes| bytes.len() <= LONGEST_KEPT_KEY),
        (key, _) => key,
    }
}
