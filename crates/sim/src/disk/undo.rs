//! What takes back a change: what was there before.

use std::collections::BTreeMap;

use chordal_protocol::replica::{Area, Durable, Outcome};
use chordal_protocol::{Id, Record, RequestId};

use super::content::Shelf;

/// Takes back one change. Those that came later must have been taken back.
#[derive(Debug, Clone)]
pub(super) enum Undo {
    /// What a write has changed: the register, and what is known of the request, each with what was there.
    Put {
        area: Area,
        record: Option<(Id, Option<Box<Record>>)>,
        outcome: Option<(RequestId, Option<Outcome>)>,
    },
    Purge {
        area: Area,
        forgotten: BTreeMap<RequestId, Outcome>,
        purged: u64,
    },
    Collect {
        area: Area,
        collected: Vec<Record>,
    },
    /// What these areas have held.
    Areas(Vec<(Area, Option<Shelf>)>),
    Durable(Option<Box<Durable>>),
}
