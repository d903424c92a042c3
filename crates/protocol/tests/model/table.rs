//! The states that have been seen, by their 128-bit hashes.

use std::hash::Hasher;

/// A hash of 128 bits in two lanes, each a multiply and a fold of every word. Among a hundred million states the chance that
/// two share one is below 10^-22, if the lanes mix well; it is a model checker's hash, not a cryptographer's.
#[derive(Clone)]
pub(crate) struct Hash128(u64, u64);

impl Hash128 {
    pub(crate) fn of(value: &impl std::hash::Hash) -> u128 {
        let mut hasher = Hash128(0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f);
        value.hash(&mut hasher);
        hasher.word(0x2545_f491_4f6c_dd1d);
        (u128::from(hasher.0) << 64) | u128::from(hasher.1)
    }

    fn word(&mut self, word: u64) {
        let fold = |a: u64, b: u64| {
            let wide = u128::from(a) * u128::from(b);
            (wide as u64) ^ ((wide >> 64) as u64)
        };
        let (a, b) = (self.0, self.1);
        self.0 = fold(a ^ word, 0xa076_1d64_78bd_642f).wrapping_add(b.rotate_left(23));
        self.1 = fold(b ^ word.rotate_left(32), 0xe703_7ed1_a0b4_28db).wrapping_add(a.rotate_left(41));
    }
}

impl Hasher for Hash128 {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 56));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.word(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.1
    }
}

/// A set of hashes in one block of memory: open addressing, at most seven tenths full.
pub(crate) struct Seen {
    slots: Vec<u128>,
    count: usize,
}

impl Seen {
    pub(crate) fn new() -> Seen {
        Seen { slots: vec![0; 1 << 12], count: 0 }
    }

    /// Whether it is new.
    pub(crate) fn insert(&mut self, hash: u128) -> bool {
        if (self.count + 1) * 10 > self.slots.len() * 7 {
            let doubled = vec![0; self.slots.len() * 2];
            let old = std::mem::replace(&mut self.slots, doubled);
            for hash in old.into_iter().filter(|hash| *hash != 0) {
                let slot = self.slot(hash);
                self.slots[slot] = hash;
            }
        }
        let hash = hash.max(1);
        let slot = self.slot(hash);
        let is_new = self.slots[slot] == 0;
        self.slots[slot] = hash;
        self.count += usize::from(is_new);
        is_new
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    fn slot(&self, hash: u128) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != 0 && self.slots[slot] != hash {
            slot = (slot + 1) & mask;
        }
        slot
    }
}
