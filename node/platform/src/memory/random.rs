//! [`Random`]: numbers from a seed and a place.
//!
//! Every draw has a stream of its own, keyed by seed, name and number of the operation it is about:
//! taking one event out of a plan leaves all the others as they were, so a plan can be shrunk.

/// SplitMix64 (Steele, Lea, Flood 2014). Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The stream of `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The stream of one place: what it is about, and the how-manieth time.
    #[must_use]
    pub fn keyed(seed: u64, name: &[u8], number: u64) -> Random {
        // FNV-1a over the name: no more is asked of it than to tell names apart.
        let name = name.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut random = Random(seed);
        for part in [name, number] {
            random = Random(random.draw() ^ part);
        }
        random
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for 0. (The bias of the remainder does not matter here.)
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// Yes or no.
    pub fn coin(&mut self) -> bool {
        self.draw() & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_its_own_stream_and_the_same_each_time() {
        let first = |seed, name: &str, number| Random::keyed(seed, name.as_bytes(), number).draw();
        assert_eq!(first(1, "a", 1), first(1, "a", 1));
        let all = [
            first(1, "a", 1),
            first(2, "a", 1),
            first(1, "b", 1),
            first(1, "a", 2),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[n + 1..].contains(one), "streams {all:x?} repeat");
        }
    }
}
