//! What a crash leaves.

use rand::{Rng, RngExt};

use super::Disk;
use super::undo::Undo;

/// What is wrong with a disk, so that a simulator can show that it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flaw {
    /// Of a transaction that a crash has interrupted, a part stays in sight, if one of its steps has parts: whole steps, and
    /// then one of which only the first changes are there, with the state that belongs to it or without.
    ShowsTorn,
}

/// What a crash has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// The last step that is there as a whole.
    pub kept: u64,
    /// How many steps are lost, a torn one among them.
    pub lost: u64,
    /// Whether the transaction that was under way is there, although nobody was told.
    pub landed: bool,
    /// Whether a part of a step is in sight ([`Flaw::ShowsTorn`]).
    pub torn: bool,
}

impl Disk {
    /// The machine stops, without warning. What is left is what the node finds when it starts; nothing is pending any more.
    /// Chance decides about the transaction that is under way.
    pub fn crash(&mut self, chance: &mut impl Rng) -> Crash {
        let before = self.last_step() + u64::from(self.open > 0);
        let mut crash = Crash { kept: self.durable, lost: 0, landed: false, torn: false };
        if let Some(under_way) = self.under_way.take().filter(|under_way| !under_way.fails) {
            crash.landed = chance.random_bool(0.5);
            if crash.landed {
                crash.kept = under_way.up_to;
            } else if self.flaw == Some(Flaw::ShowsTorn) {
                let carried = self.pending.iter().zip(self.durable..under_way.up_to);
                let with_parts: Vec<u64> = carried.filter(|(changes, _)| **changes > 1).map(|(_, kept)| kept).collect();
                crash.torn = !with_parts.is_empty();
                crash.kept = if crash.torn { with_parts[chance.random_range(0..with_parts.len())] } else { crash.kept };
            }
        }
        self.settle(crash.kept);
        if crash.torn {
            self.tear(chance);
        }
        self.undo_all();
        crash.lost = before - crash.kept;
        self.forget_pending();
        self.counts.crashes += 1;
        self.counts.lost_steps += crash.lost;
        self.counts.landed += u64::from(crash.landed);
        self.counts.torn += u64::from(crash.torn);
        crash
    }

    fn undo_all(&mut self) {
        while let Some(undo) = self.log.pop_back() {
            self.newest.undo(undo);
        }
        self.newest.tidy();
    }

    /// Leaves a part of the first pending step in sight.
    fn tear(&mut self, chance: &mut impl Rng) {
        let changes = self.pending.front().copied().unwrap_or_default();
        let has_state = matches!(self.log.get(changes - 1), Some(Undo::Durable(_)));
        let keeps_state = has_state && chance.random_bool(0.5);
        let left = if keeps_state { chance.random_range(0..changes - 1) } else { chance.random_range(1..changes) };
        while self.log.len() > left {
            let is_kept = keeps_state && self.log.len() == changes;
            let undo = self.log.pop_back().filter(|_| !is_kept);
            undo.into_iter().for_each(|undo| self.newest.undo(undo));
        }
        self.log.clear();
    }
}
