//! Many records at once: in bulk requests through random nodes, sent again where trouble may pass.

use std::time::Duration;

use anyhow::Result;
use chordal::api::{BULK_BODY, BulkAnswer, BulkOp, BulkRecord};
use chordal::client::NodeClient;
use chordal::node::mint;

use crate::context::ask;
use crate::network_state::NodeEntry;

/// How many records a request has at most.
pub(crate) const RECORDS: usize = 200;

/// How many bytes of JSON, if it has more than one record.
pub(crate) const BYTES: usize = 2 << 20;

/// How many requests are under way at the same time.
pub(crate) const AT_ONCE: usize = 4;

/// How often in a row records are sent again none of which ended.
const TRIES: u32 = 5;

/// The first pause before that; each next one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest line that still fits into a request.
pub(crate) const LONGEST_LINE: usize = BULK_BODY - 1024;

/// Sends records, each under a name of its own, and returns how each ended. Those that ended with a trouble that may pass
/// are sent again, through other nodes; no two records may have the same key, for their order could change by that.
pub(crate) async fn send(
    client: &NodeClient,
    nodes: &[NodeEntry],
    mut records: Vec<BulkRecord>,
) -> Result<Vec<BulkAnswer>> {
    for record in records.iter_mut().filter(|record| record.op != BulkOp::Get && record.request_id.is_none()) {
        record.request_id = Some(mint().to_string());
    }
    let mut answers: Vec<Option<BulkAnswer>> = records.iter().map(|_| None).collect();
    let mut open: Vec<usize> = (0..records.len()).collect();
    let mut in_vain = 0;
    while !open.is_empty() {
        let asked: Vec<BulkRecord> = open.iter().map(|place| records[*place].clone()).collect();
        let asked = &asked;
        let ends = match ask(nodes, |addr| async move { client.kv(&addr).bulk(asked).await }).await {
            Ok((ends, _)) => ends,
            Err(error) if open.len() == records.len() => return Err(error),
            // What ended before counts; the rest has answers that say why it did not.
            Err(_) => break,
        };
        let before = open.len();
        let mut left = Vec::new();
        for (place, end) in open.into_iter().zip(ends) {
            if may_pass(end.status) {
                left.push(place);
            }
            answers[place] = Some(end);
        }
        open = left;
        in_vain = if open.len() < before { 0 } else { in_vain + 1 };
        if in_vain == TRIES {
            break;
        }
        if !open.is_empty() {
            tokio::time::sleep(PAUSE * 2_u32.pow(in_vain)).await;
        }
    }
    Ok(answers.into_iter().map(|end| end.unwrap_or_else(|| BulkAnswer::of(500))).collect())
}

/// Whether the same record may well be done a moment later, or through another node.
pub(crate) fn may_pass(status: u16) -> bool {
    matches!(status, 421 | 429 | 502..=504)
}

/// What an answer says of itself.
pub(crate) fn told(answer: &BulkAnswer) -> String {
    answer.problem.as_ref().map_or_else(|| format!("status {}", answer.status), |problem| problem.detail.clone())
}
