//! All chance of a run: one generator from one seed.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// A seeded source of choices. The algorithm is named, so that a seed means the same run in every build.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    source: Xoshiro256PlusPlus,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance {
            source: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.source.next_u64()
    }

    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(n)) >> 64) as u64
    }

    /// A number from `low` through `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn permille(&mut self, permille: u64) -> bool {
        permille != 0 && self.below(1000) < permille
    }

    /// One of `items`, which is not empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// A time around `mean`, mostly shorter and now and then several times as long.
    pub(crate) fn around(&mut self, mean: u64) -> u64 {
        let (a, b) = (self.below(2000), self.below(2000));
        1 + mean * a / 1000 * b / 1000
    }
}
