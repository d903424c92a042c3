//! Randomness: a stream of its own for each thing that is drawn for.

use rand_pcg::Pcg64Mcg;

/// The generator that is used throughout: small, fast, and the same numbers in every version.
pub(crate) type Rng = Pcg64Mcg;

/// What a stream is drawn for, so that no two uses of a seed share numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    /// One lookup of a workload.
    Lookup = 1,
    /// Who begins lookups.
    Initiators,
    /// Who dies at once.
    Deaths,
    /// What clients draw when they are driven by hand.
    Clients,
    /// Sessions, joins and leaves.
    Churn,
    /// What is withheld, who samples, and what.
    Availability,
    /// Providing one segment of a block.
    Seeding,
    /// Drawing one sample.
    Sampling,
}

/// The stream of the `index`-th thing. It depends on nothing else, so it doesn't matter which thread draws from it.
pub(crate) fn stream(seed: u64, what: Use, index: u64) -> Rng {
    let mut state = seed ^ (what as u64).rotate_left(56);
    let head = mix(&mut state);
    state ^= index.wrapping_mul(0xd6e8_feb8_6659_fd93);
    let tail = mix(&mut state);
    Rng::new(u128::from(head ^ index) << 64 | u128::from(tail))
}

/// One step of SplitMix64 (Steele, Lea and Flood 2014): neighbouring seeds become unlike states.
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let first = |seed, what, index| stream(seed, what, index).random::<u64>();
        assert_eq!(first(7, Use::Lookup, 3), first(7, Use::Lookup, 3));
        let many: BTreeSet<u64> = (0..50)
            .flat_map(|seed| (0..50).flat_map(move |i| [first(seed, Use::Lookup, i), first(seed, Use::Churn, i)]))
            .collect();
        assert_eq!(many.len(), 5000);
        let mean = (0..10_000).map(|i| stream(1, Use::Deaths, i).random::<f64>()).sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "first draws of neighbouring streams are spread evenly: {mean}");
    }
}
