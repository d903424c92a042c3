//! What a node tells about itself.

use std::ops::Bound;

use chordal_protocol::replica::{Area, Member};
use chordal_protocol::{Id, Interval, Record};

use super::keeping::{Seen, SeenView};
use super::routing::in_id_order;
use super::{Node, NodeError};
use crate::api::{FingerInfo, HandoverInfo, NodeInfo, NodeRef, RangeInfo, ViewInfo};
use crate::store::StoreError;

/// How many bytes of content are read for one page at the most.
const PAGE_BYTES: usize = 4 << 20;

/// How many records are read at a time: what is written waits for it.
const ROWS: usize = 128;

impl Node {
    /// Everything `GET /nodeinfo` tells.
    pub async fn info(&self) -> Result<NodeInfo, NodeError> {
        let driver = &self.inner.driver;
        let seen = driver.keeping.seen();
        let mut views = Vec::with_capacity(seen.views.len());
        for seen_view in &seen.views {
            views.push(self.view_info(&seen, seen_view)?);
        }
        let handovers = driver.happenings.handovers();
        let ready = self.not_ready().is_none();
        let core = driver.lock();
        let chord = &core.chord;
        let me = chord.me();
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
            keys: views.iter().filter(|view| view.primary).map(|view| view.keys).sum(),
            views,
            routing: self.inner.config.routing.to_string(),
            membership: chord.membership().to_string(),
            ready,
            ring: chord.ring().map(|ring| ring.id.to_string()),
            lab: chord.ring().is_some_and(|ring| ring.lab),
            replication_factor: chord.ring().map(|ring| ring.replication_factor),
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

    fn view_info(&self, seen: &Seen, it: &SeenView) -> Result<ViewInfo, NodeError> {
        let SeenView { view, installed, sealed, leads, lag } = it;
        let status = match (installed, sealed.is_some(), leads) {
            (false, ..) => "fetching",
            (true, true, _) => "sealed",
            (true, false, true) => "serving",
            (true, false, false) if view.deferred.is_some() => "frozen",
            (true, false, false) if Some(view.primary) == seen.me => "restarting",
            (true, false, false) => "keeping",
        };
        let me = NodeRef::from(&self.contact());
        let known = |member: &Member| match seen.contacts.get(&member.id) {
            Some(contact) => NodeRef::from(contact),
            None if member.id == me.id => me.clone(),
            None => NodeRef { name: "unknown".to_owned(), id: member.id, host: String::new(), port: 0 },
        };
        Ok(ViewInfo {
            range: range_info(&view.range),
            epoch: view.epoch,
            members: view.members.iter().map(known).collect(),
            primary: Some(view.primary) == seen.me,
            primary_node: known(&view.primary),
            lag: *lag as u64,
            sealed_s: sealed.map(|since| since.elapsed().as_secs_f64()),
            forced: view.forced,
            status: status.to_owned(),
            keys: self.inner.driver.store.count(&view.name().area())?,
        })
    }

    /// Live records that this node is the primary of, in id order (from zero upwards), strictly after `after`: at most `limit`, and fewer
    /// where they are large. Only a page without any is the end.
    pub async fn page(&self, after: Option<Id>, limit: usize) -> Result<Vec<Record>, NodeError> {
        let driver = &self.inner.driver;
        let seen = driver.keeping.seen();
        let led: Vec<(Interval, Area)> = seen
            .views
            .iter()
            .filter(|it| it.installed && Some(it.view.primary) == seen.me)
            .flat_map(|seen| in_id_order([seen.view.range]).into_iter().map(|part| (part, seen.view.name().area())))
            .collect();
        let page = driver.ask_store(move |store| {
            let mut parts = led;
            parts.sort_unstable_by_key(|(part, _)| part.lo);
            let mut page: Vec<Record> = Vec::new();
            for (part, area) in parts {
                let before = |id: &Id| part.hi == Id::ZERO || *id < part.hi;
                let mut from = match after {
                    Some(after) if !before(&after) => continue,
                    Some(after) if part.lo <= after => Bound::Excluded(after),
                    _ => Bound::Included(part.lo),
                };
                while page.len() < limit {
                    let records = store.page(&area, from, (limit - page.len()).min(ROWS), PAGE_BYTES)?;
                    let Some(last) = records.last() else { break };
                    from = Bound::Excluded(last.id);
                    let is_end = !before(&last.id);
                    page.extend(records.into_iter().filter(|record| record.is_live() && before(&record.id)));
                    let bytes: usize = page.iter().map(Record::weight).sum();
                    if bytes > PAGE_BYTES {
                        return Ok(page);
                    }
                    if is_end {
                        break;
                    }
                }
            }
            Ok::<_, StoreError>(page)
        });
        Ok(page.await?)
    }
}

pub(super) fn range_info(range: &Interval) -> RangeInfo {
    RangeInfo { lo: range.lo, hi: range.hi, share: range.share() }
}

fn finger_info(finger: &chordal_protocol::Finger) -> FingerInfo {
    FingerInfo { first: finger.first, last: finger.last, node: NodeRef::from(&finger.contact) }
}
