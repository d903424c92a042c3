//! Records in the order of their ids, page by page.

use chordal_protocol::Record;

use super::codec;

/// The first of `records`: at most `limit`, and no more than weigh `bytes` together, but the first in any case.
pub(super) fn page<E>(
    records: impl Iterator<Item = Result<Record, E>>,
    limit: usize,
    bytes: usize,
) -> Result<Vec<Record>, E> {
    let mut page = Vec::new();
    let mut total: usize = 0;
    for record in records.take(limit) {
        let record = record?;
        total = total.saturating_add(codec::size(&record));
        if total > bytes && !page.is_empty() {
            break;
        }
        page.push(record);
    }
    Ok(page)
}
