//! Keys and values of a load, the same for the same seed.

use super::Settings;
use bytes::{BufMut, Bytes, BytesMut};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{sync::LazyLock, time::Instant};

/// Stamps in watched values count from here, so that writer and watchers of this process share one clock.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Digits of a key's number, zero-padded so that the order of numbers is the order of keys.
const DIGITS: usize = 10;

/// `prefix` + room + zero-padded number.
#[derive(Clone)]
pub(super) struct Keyspace {
    prefix: Bytes,
    pub(super) keys: u64,
}

impl Keyspace {
    /// Loads with different `room`s do not see each other's keys.
    pub(super) fn new(settings: &Settings, room: &str, keys: u64) -> Self {
        Self {
            prefix: Bytes::from(format!("{}{room}/", settings.prefix)),
            keys: keys.max(1),
        }
    }

    pub(super) fn key(&self, number: u64) -> Bytes {
        let mut digits = [b'0'; DIGITS];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        let mut key = BytesMut::with_capacity(self.prefix.len() + DIGITS);
        key.put_slice(&self.prefix);
        key.put_slice(&digits);
        key.freeze()
    }

    pub(super) fn prefix(&self) -> Bytes {
        self.prefix.clone()
    }

    /// The `range_end` that makes a range of the prefix: `/` is its last byte, and `0` the byte that follows.
    pub(super) fn end(&self) -> Bytes {
        let mut end = BytesMut::from(self.prefix.as_ref());
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        end.freeze()
    }
}

/// Random choices of one worker.
pub(super) struct Dice(StdRng);

impl Dice {
    pub(super) fn new(settings: &Settings, worker: usize) -> Self {
        let worker = u64::try_from(worker).unwrap_or(u64::MAX);
        Self(StdRng::seed_from_u64(
            settings.seed ^ worker.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        ))
    }

    /// Uniform over `0..bound`; the bias of the remainder is below 2^-40 for every bound used here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }
}

/// A few random values, made before the run: random, so that no compression on the server's side is flattered.
pub(super) struct Values(Vec<Bytes>);

impl Values {
    pub(super) fn new(settings: &Settings, dice: &mut Dice) -> Self {
        Self(
            (0..16)
                .map(|_| {
                    let mut value = vec![0; settings.value_bytes];
                    dice.0.fill_bytes(&mut value);
                    Bytes::from(value)
                })
                .collect(),
        )
    }

    pub(super) fn pick(&self, dice: &mut Dice) -> Bytes {
        let index = dice.below(self.0.len() as u64);
        usize::try_from(index)
            .ok()
            .and_then(|index| self.0.get(index))
            .cloned()
            .unwrap_or_default()
    }

    /// A value that begins with the time of its making, for watchers to subtract.
    pub(super) fn stamped(&self, dice: &mut Dice) -> Bytes {
        let value = self.pick(dice);
        let mut stamped = BytesMut::with_capacity(value.len().max(8));
        stamped.put_u64(now_nanoseconds());
        stamped.put_slice(value.get(8..).unwrap_or_default());
        stamped.freeze()
    }
}

/// Nanoseconds since the epoch of the stamps.
pub(super) fn now_nanoseconds() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_numbers_and_lie_in_the_range() {
        let space = Keyspace {
            prefix: Bytes::from_static(b"/b/k/"),
            keys: 1000,
        };
        assert_eq!(space.key(7).as_ref(), b"/b/k/0000000007");
        assert!(space.key(9) < space.key(10));
        assert!(space.prefix() <= space.key(0) && space.key(999) < space.end());
    }
}
