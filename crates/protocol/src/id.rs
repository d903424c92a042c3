//! Identifiers on the circle of 2^256 points.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The number of bits in an [`Id`]; the circle has `2^BITS` points.
pub const BITS: u16 = 256;

/// A point on the identifier circle: 256 bits, big-endian, so that the derived order is the order of the numbers.
///
/// Source: Stoica et al., "Chord" (SIGCOMM 2001), section 4.2, with SHA-256 in place of SHA-1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id([u8; 32]);

impl Id {
    /// The point zero.
    pub const ZERO: Id = Id([0; 32]);
    /// The last point, `2^256 - 1`.
    pub const MAX: Id = Id([0xff; 32]);

    /// The id of a key or of an address: SHA-256 of its bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Id {
        Id(Sha256::digest(bytes.as_ref()).into())
    }

    /// The id whose big-endian bytes these are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Id {
        Id(bytes)
    }

    /// The big-endian bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// An id that begins with these hex digits (at most 64) and goes on with zeros: how a lesson places a node.
    pub fn from_hex_prefix(prefix: &str) -> Result<Id, ParseIdError> {
        if prefix.is_empty() || prefix.len() > 64 {
            return Err(ParseIdError::Length(prefix.len()));
        }
        format!("{prefix:0<64}").parse()
    }

    /// How far one walks clockwise from here to `other`: `(other - self) mod 2^256`.
    pub fn distance(&self, other: &Id) -> Id {
        let ((from_high, from_low), (to_high, to_low)) = (self.halves(), other.halves());
        let (low, borrow) = to_low.overflowing_sub(from_low);
        Id::of_halves(to_high.wrapping_sub(from_high).wrapping_sub(u128::from(borrow)), low)
    }

    /// `(self + other) mod 2^256`.
    pub fn wrapping_add(&self, other: &Id) -> Id {
        let ((high, low), (other_high, other_low)) = (self.halves(), other.halves());
        let (low, carry) = low.overflowing_add(other_low);
        Id::of_halves(high.wrapping_add(other_high).wrapping_add(u128::from(carry)), low)
    }

    /// The first and the last 128 bits.
    fn halves(&self) -> (u128, u128) {
        let half = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&self.0[at..at + 16]);
            u128::from_be_bytes(bytes)
        };
        (half(0), half(16))
    }

    fn of_halves(high: u128, low: u128) -> Id {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&high.to_be_bytes());
        bytes[16..].copy_from_slice(&low.to_be_bytes());
        Id(bytes)
    }

    /// `2^exponent`.
    ///
    /// # Panics
    /// If `exponent` is not below [`BITS`].
    pub fn power_of_two(exponent: u16) -> Id {
        assert!(exponent < BITS, "2^{exponent} is not on a circle of 2^{BITS} points");
        let mut bytes = [0; 32];
        bytes[31 - usize::from(exponent / 8)] = 1 << (exponent % 8);
        Id(bytes)
    }

    /// Where finger `i` of the node at this id begins: `self + 2^i` (Chord, table 1, with `i` counted from 0).
    pub fn finger_start(&self, i: u16) -> Id {
        self.wrapping_add(&Id::power_of_two(i))
    }

    /// The number of bits needed to write this number, 0 for zero: `floor(log2) + 1`.
    pub fn bit_length(&self) -> u16 {
        match self.0.iter().position(|byte| *byte != 0) {
            None => 0,
            Some(i) => BITS - 8 * i as u16 - self.0[i].leading_zeros() as u16,
        }
    }

    /// The first eight hex digits, enough for a person to tell nodes apart.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }

    /// This number as a fraction of the whole circle, in `[0, 1)`: for drawing and for shares of the ring.
    pub fn as_fraction(&self) -> f64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0[..8]);
        (u64::from_be_bytes(head) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Why a text is not an [`Id`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text has the wrong number of characters.
    #[error("an id is 64 hex digits, this has {0} characters")]
    Length(usize),
    /// The text has a character that is not a hex digit.
    #[error("an id is 64 hex digits, this has a character that is not one of 0-9, a-f")]
    Digit,
}

impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Id, ParseIdError> {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) => Ok(Id(bytes)),
            Err(hex::FromHexError::InvalidHexCharacter { .. }) => Err(ParseIdError::Digit),
            Err(_) => Err(ParseIdError::Length(text.chars().count())),
        }
    }
}

/// 64 hex digits in formats for people, 32 bytes in binary ones.
impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Id)
        }
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    fn big(id: &Id) -> BigUint {
        BigUint::from_bytes_be(id.as_bytes())
    }

    fn circle() -> BigUint {
        BigUint::from(1u8) << 256
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_big_integers_modulo_2_to_256(a: [u8; 32], b: [u8; 32]) {
            let (a, b) = (Id::from_bytes(a), Id::from_bytes(b));
            prop_assert_eq!(big(&a.wrapping_add(&b)), (big(&a) + big(&b)) % circle());
            prop_assert_eq!(big(&a.distance(&b)), (circle() + big(&b) - big(&a)) % circle());
            prop_assert_eq!(a.cmp(&b), big(&a).cmp(&big(&b)));
            prop_assert_eq!(u64::from(a.bit_length()), big(&a).bits());
        }

        #[test]
        fn finger_starts_are_powers_of_two_away(a: [u8; 32], i in 0..BITS) {
            let a = Id::from_bytes(a);
            prop_assert_eq!(big(&a.finger_start(i)), (big(&a) + (BigUint::from(1u8) << i)) % circle());
        }

        #[test]
        fn hex_goes_there_and_back(a: [u8; 32]) {
            let a = Id::from_bytes(a);
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }
    }

    #[test]
    fn ids_are_sha_256() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Id::of("abc").to_string(), expected);
    }

    #[test]
    fn a_prefix_is_filled_with_zeros() {
        assert_eq!(Id::from_hex_prefix("80"), Ok(Id::power_of_two(255)));
        assert_eq!(Id::from_hex_prefix(""), Err(ParseIdError::Length(0)));
        assert_eq!(Id::from_hex_prefix("xyz"), Err(ParseIdError::Digit));
        assert_eq!(Id::from_hex_prefix(&"0".repeat(65)), Err(ParseIdError::Length(65)));
    }

    #[test]
    fn a_text_that_is_no_id_is_refused() {
        assert_eq!("ab".parse::<Id>(), Err(ParseIdError::Length(2)));
        assert_eq!("g".repeat(64).parse::<Id>(), Err(ParseIdError::Digit));
    }

    #[test]
    fn fractions_go_once_round_the_circle() {
        assert_eq!(Id::ZERO.as_fraction(), 0.0);
        assert_eq!(Id::power_of_two(255).as_fraction(), 0.5);
        assert!(Id::MAX.as_fraction() < 1.0);
    }
}
