//! Clients that read and write, and what they must never be told.
//!
//! A node keeps one copy of each value here, as long as ranges have one member. What must hold of it: whoever serves a key
//! has the newest value that anybody was ever told of. Where a node took a range by force, because its holder was dead, that
//! promise is off for the keys in it; they are counted.

use std::collections::{BTreeMap, BTreeSet};

use chordal_protocol::{Content, Id, Interval, Lookup, Record, RequestId, Version};

/// How many keys clients use.
pub(crate) const KEYS: usize = 24;

/// A read or a write under way.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) key: usize,
    /// What is written; none for a read.
    pub(crate) value: Option<u64>,
    pub(crate) request: RequestId,
    pub(crate) stage: Stage,
    /// How many nodes were asked for the way.
    pub(crate) hops: u32,
    /// How often it may still go elsewhere.
    pub(crate) left: u32,
}

/// How far it has come.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// It looks for the owner.
    Routing(Lookup),
    /// It asks whom it takes for the owner.
    AtOwner,
}

/// What is known of a key.
#[derive(Debug, Clone, Default)]
struct Register {
    /// The newest version that anybody was told of.
    told: Option<Version>,
    /// Whether its range was taken by force: it may be lost, or there may be two of it.
    forked: bool,
}

/// What is known of all keys.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    registers: BTreeMap<Id, Register>,
    written: BTreeSet<u64>,
    /// How many operations have ended as they should.
    pub(crate) done: u64,
    /// How many ended without an answer.
    pub(crate) unavailable: u64,
}

impl Oracle {
    pub(crate) fn id(key: usize) -> Id {
        Id::of(format!("key {key}"))
    }

    pub(crate) fn content(value: u64) -> Content {
        Content::Value { bytes: value.to_be_bytes().to_vec(), content_type: "application/octet-stream".to_owned() }
    }

    /// Somebody wants to write this value.
    pub(crate) fn begins(&mut self, value: u64) {
        self.written.insert(value);
    }

    /// A client was told that its write happened.
    pub(crate) fn acknowledged(&mut self, key: usize, version: Version) {
        let register = self.registers.entry(Oracle::id(key)).or_default();
        register.told = register.told.max(Some(version));
        self.done += 1;
    }

    /// A node took this range from a dead one.
    pub(crate) fn taken(&mut self, range: &Interval) {
        for key in 0..KEYS {
            let id = Oracle::id(key);
            if range.contains(&id) {
                self.registers.entry(id).or_default().forked = true;
            }
        }
    }

    pub(crate) fn forked(&self) -> usize {
        self.registers.values().filter(|register| register.forked).count()
    }

    /// A node is about to answer a read with this; why it must not, if so.
    pub(crate) fn reads(&mut self, id: &Id, record: Option<&Record>) -> Result<(), String> {
        if let Some(Record { content: Content::Value { bytes, .. }, .. }) = record {
            let value = bytes.as_slice().try_into().map(u64::from_be_bytes);
            if !value.is_ok_and(|value| self.written.contains(&value)) {
                return Err("a value that nobody has written".to_owned());
            }
        }
        let register = self.registers.entry(*id).or_default();
        if register.forked {
            return Ok(());
        }
        let version = record.map(|record| record.version);
        if version < register.told {
            let show = |version: Option<Version>| version.map_or("nothing".to_owned(), |it| format!("version {it}"));
            return Err(format!("{}, but somebody was told of {}", show(version), show(register.told)));
        }
        register.told = version;
        Ok(())
    }
}
