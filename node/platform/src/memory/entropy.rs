//! [`MemoryEntropy`]: chance that a seed repeats.

use parking_lot::Mutex;

use super::Random;
use crate::Entropy;

/// Random bytes from a seed.
#[derive(Debug)]
pub struct MemoryEntropy(Mutex<Random>);

impl MemoryEntropy {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> MemoryEntropy {
        MemoryEntropy(Mutex::new(Random::keyed(seed, b"entropy", 0)))
    }
}

impl Entropy for MemoryEntropy {
    fn fill(&self, buf: &mut [u8]) {
        let mut random = self.0.lock();
        for part in buf.chunks_mut(8) {
            part.copy_from_slice(&random.draw().to_le_bytes()[..part.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_ids() {
        let ids = |seed| {
            let entropy = MemoryEntropy::new(seed);
            [entropy.id(), entropy.id()]
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
        crate::conformance::entropy(&MemoryEntropy::new(1));
    }
}
