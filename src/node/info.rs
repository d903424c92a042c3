//! What a node tells about itself.

use std::sync::atomic::Ordering;

use chordal_protocol::{Id, Interval, Record, Standing};

use super::routing::in_id_order;
use super::{Node, NodeError};
use crate::api::{FingerInfo, HandoverInfo, NodeInfo, NodeRef, RangeInfo, ViewInfo};
use crate::store::StoreError;

/// How many bytes of content are read for one page at the most.
const PAGE_BYTES: usize = 4 << 20;

/// How many values the ranges held, when the content had changed so many times.
#[derive(Debug, Default)]
pub(super) struct Counted {
    changes: u64,
    counts: Vec<(Interval, u64)>,
}

impl Node {
    /// Everything `GET /nodeinfo` tells.
    pub async fn info(&self) -> Result<NodeInfo, NodeError> {
        let driver = &self.inner.driver;
        let ranges: Vec<Interval> = driver.lock().chord.views().held().iter().map(|held| held.view.range).collect();
        let counts = self.counts(ranges).await?;
        let count = |range: &Interval| counts.iter().find(|(of, _)| of == range).map_or(0, |(_, count)| *count);

        let handovers = driver.happenings.handovers();
        let core = driver.lock();
        let chord = &core.chord;
        let me = chord.me();
        let views: Vec<ViewInfo> = chord
            .views()
            .held()
            .iter()
            .map(|held| {
                let sealed = chord.views().sealing().is_some_and(|it| it.range.overlaps(&held.view.range));
                let status = match held.standing {
                    Standing::Unconfirmed => "unconfirmed",
                    Standing::Serving if sealed => "sealed",
                    Standing::Serving => "serving",
                };
                ViewInfo {
                    range: range_info(&held.view.range),
                    epoch: held.view.epoch,
                    members: held.view.members.iter().map(NodeRef::from).collect(),
                    status: status.to_owned(),
                    keys: count(&held.view.range),
                }
            })
            .collect();
        Ok(NodeInfo {
            name: me.name.clone(),
            id: me.id,
            host: me.host().to_owned(),
            port: me.port(),
            pred: chord.predecessor().map(NodeRef::from),
            succ: chord.successors().first().map(NodeRef::from),
            successors: chord.successors().iter().map(NodeRef::from).collect(),
            fingers: chord.fingers().iter().map(finger_info).collect(),
            range: range_info(&chord.due()),
            keys: views.iter().map(|view| view.keys).sum(),
            views,
            routing: self.inner.config.routing.to_string(),
            membership: chord.membership().to_string(),
            ready: chord.not_ready().is_none(),
            ring: chord.ring().map(|ring| ring.id.to_string()),
            lab: chord.ring().is_some_and(|ring| ring.lab),
            uptime_s: driver.uptime().as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wire: chordal_protocol::WIRE_VERSION,
            pid: std::process::id(),
            handovers: handovers
                .iter()
                .map(|it| HandoverInfo {
                    kind: it.kind.to_owned(),
                    range: range_info(&it.range),
                    peer: NodeRef::from(&it.peer),
                    records: it.records,
                    ago_s: it.at.elapsed().as_secs_f64(),
                })
                .collect(),
        })
    }

    /// Live records that this node holds, in id order (from zero upwards), strictly after `after`: at most `limit`, and fewer
    /// where they are large. Only a page without any is the end.
    pub async fn page(&self, after: Option<Id>, limit: usize) -> Result<Vec<Record>, NodeError> {
        let driver = &self.inner.driver;
        let ranges: Vec<Interval> = driver.lock().chord.views().held().iter().map(|held| held.view.range).collect();
        let page = driver.ask_store(move |store| {
            let mut page: Vec<Record> = Vec::new();
            for part in in_id_order(ranges) {
                let mut from = after.filter(|after| part.contains(after));
                let behind = after.is_some_and(|after| from.is_none() && part.lo <= after);
                while !behind && page.len() < limit {
                    let records = store.scan(part, from, limit - page.len(), PAGE_BYTES)?;
                    let Some(last) = records.last() else { break };
                    from = Some(last.id);
                    page.extend(records.into_iter().filter(Record::is_live));
                    let bytes: usize = page.iter().filter_map(|record| record.key_bytes()).map(<[u8]>::len).sum();
                    if bytes > PAGE_BYTES {
                        return Ok(page);
                    }
                }
            }
            Ok::<_, StoreError>(page)
        });
        Ok(page.await?)
    }

    /// How many values each range holds, counted anew only if something has changed.
    async fn counts(&self, ranges: Vec<Interval>) -> Result<Vec<(Interval, u64)>, NodeError> {
        let driver = &self.inner.driver;
        let changes = driver.content_changes.load(Ordering::Relaxed);
        {
            let counted = self.inner.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let known = |range: &Interval| counted.counts.iter().any(|(of, _)| of == range);
            if counted.changes == changes && ranges.iter().all(known) {
                return Ok(counted.counts.clone());
            }
        }
        let counts = driver
            .ask_store(move |store| {
                ranges.into_iter().map(|range| Ok((range, store.count(range)?))).collect::<Result<Vec<_>, StoreError>>()
            })
            .await?;
        let mut counted = self.inner.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *counted = Counted { changes, counts: counts.clone() };
        Ok(counts)
    }
}

fn range_info(range: &Interval) -> RangeInfo {
    RangeInfo { lo: range.lo, hi: range.hi, share: range.share() }
}

fn finger_info(finger: &chordal_protocol::Finger) -> FingerInfo {
    FingerInfo { first: finger.first, last: finger.last, node: NodeRef::from(&finger.contact) }
}
