//! Hashes: where nodes and keys stand, and how far apart.

use std::fmt;

use chordal_protocol::Id;

/// The number of bits in a [`Hash`](struct@Hash).
pub const BITS: u32 = 256;

/// A 256-bit number, most significant word first, so that the derived order is the order of the numbers.
///
/// The same point as the protocol's [`Id`], in words instead of bytes: distances of millions of pairs are compared here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Hash([u64; 4]);

impl Hash {
    /// Zero.
    pub const ZERO: Hash = Hash([0; 4]);
    /// The greatest one.
    pub const MAX: Hash = Hash([u64::MAX; 4]);

    /// SHA-256 of these bytes: the same on every run and machine.
    pub fn of(bytes: impl AsRef<[u8]>) -> Hash {
        Hash::from(Id::of(bytes))
    }

    /// The hash that has these words, most significant first.
    pub const fn from_words(words: [u64; 4]) -> Hash {
        Hash(words)
    }

    /// Its words, most significant first.
    pub const fn words(&self) -> &[u64; 4] {
        &self.0
    }

    /// The XOR metric (Maymounkov and Mazières 2002, section 2.1).
    pub fn xor_distance(&self, other: &Hash) -> Hash {
        Hash(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }

    /// How many of the first bits are the same, 0 to 256: the number of the k-bucket.
    pub fn shared_prefix(&self, other: &Hash) -> u32 {
        let differing = (0..4).find(|i| self.0[*i] != other.0[*i]);
        differing.map_or(BITS, |i| 64 * i as u32 + (self.0[i] ^ other.0[i]).leading_zeros())
    }

    /// Bit `i`, counted from the most significant one.
    ///
    /// # Panics
    /// If `i` is not below [`BITS`].
    pub fn bit(&self, i: u32) -> bool {
        self.0[(i / 64) as usize] >> (63 - i % 64) & 1 == 1
    }

    /// The first `bits` bits as a number; at most 63 of them.
    pub(crate) fn prefix(&self, bits: u32) -> usize {
        debug_assert!(bits < 64);
        (self.0[0] >> 1 >> (63 - bits)) as usize
    }

    /// The first word of the XOR distance, which nearly always decides which of two nodes is the nearer.
    pub(crate) fn xor_head(&self, other: &Hash) -> u64 {
        self.0[0] ^ other.0[0]
    }

    /// How far one walks clockwise to `other`: `(other - self) mod 2^256` (Stoica et al. 2003, section IV).
    pub fn clockwise_distance(&self, other: &Hash) -> Hash {
        let mut words = [0; 4];
        let mut borrow = false;
        for i in (0..4).rev() {
            let (difference, one) = other.0[i].overflowing_sub(self.0[i]);
            let (difference, two) = difference.overflowing_sub(u64::from(borrow));
            words[i] = difference;
            borrow = one || two;
        }
        Hash(words)
    }

    /// `(self + 2^exponent) mod 2^256`: where a finger begins (Stoica et al. 2003, table I).
    ///
    /// # Panics
    /// If `exponent` is not below [`BITS`].
    pub fn plus_power_of_two(&self, exponent: u32) -> Hash {
        let mut words = self.0;
        let first = 3 - (exponent / 64) as usize;
        let mut carry;
        (words[first], carry) = words[first].overflowing_add(1 << (exponent % 64));
        for word in words[..first].iter_mut().rev() {
            (*word, carry) = word.overflowing_add(u64::from(carry));
        }
        Hash(words)
    }

    /// The number of bits needed to write this number, 0 for zero.
    pub fn bit_length(&self) -> u32 {
        BITS - self.shared_prefix(&Hash::ZERO)
    }

    /// As a fraction of the whole circle, in `[0, 1)`.
    pub fn as_fraction(&self) -> f64 {
        Id::from(*self).as_fraction()
    }
}

impl From<Id> for Hash {
    fn from(id: Id) -> Hash {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(id.as_bytes().chunks_exact(8)) {
            *word = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        Hash(words)
    }
}

impl From<Hash> for Id {
    fn from(hash: Hash) -> Id {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(hash.0) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        Id::from_bytes(bytes)
    }
}

/// 64 hex digits.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, "{word:016x}"))
    }
}

/// All 256 bits, most significant first.
impl fmt::Binary for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, "{word:064b}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0[0] >> 32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arithmetic_is_that_of_the_protocols_ids(a: [u8; 32], b: [u8; 32], i in 0..BITS) {
            let (a, b) = (Id::from_bytes(a), Id::from_bytes(b));
            let (x, y) = (Hash::from(a), Hash::from(b));
            prop_assert_eq!(Id::from(x), a);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(Id::from(x.clockwise_distance(&y)), a.distance(&b));
            prop_assert_eq!(Id::from(x.plus_power_of_two(i)), a.finger_start(i as u16));
            prop_assert_eq!(x.bit_length(), u32::from(a.bit_length()));
            prop_assert_eq!(x.to_string(), a.to_string());
        }

        #[test]
        fn bits_and_prefixes_are_those_of_the_binary_text(a: [u64; 4], flip in 0..BITS) {
            let a = Hash::from_words(a);
            let text = format!("{a:b}");
            let bits: String = (0..BITS).map(|i| if a.bit(i) { '1' } else { '0' }).collect();
            prop_assert_eq!(&bits, &text);
            let mut words = *a.words();
            words[(flip / 64) as usize] ^= 1 << (63 - flip % 64);
            let b = Hash::from_words(words);
            prop_assert_eq!(a.shared_prefix(&b), flip);
            prop_assert_eq!(a.xor_distance(&b).bit_length(), BITS - flip);
            prop_assert_eq!(a.shared_prefix(&a), BITS);
            prop_assert_eq!(a.prefix(20), usize::from_str_radix(&text[..20], 2).unwrap());
            prop_assert_eq!(a.prefix(0), 0);
        }
    }
}
