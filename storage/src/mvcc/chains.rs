//! The superseded versions of all keys while an index is rebuilt: one log of links, each of which knows where the one before it
//! of the same key is. It takes no allocation per key, and a key's links, followed backwards, are its chain.

use super::entries::CHAIN_MAX;
use super::history::{CHUNK_MAX, History, Run};
use super::packed::{Chain, LINK_MAX, Scratch, number};
use super::version::Version;
use std::num::NonZeroUsize;

/// Longest chain of what becomes one [`Run`].
const RUN_MAX: usize = CHUNK_MAX - LINK_MAX;

#[derive(Default)]
pub(super) struct Chains {
    /// Per link how far back the one before it starts, as a LEB128, 0 for none; then the link.
    log: Vec<u8>,
    /// The chain that was taken last.
    chain: Vec<u8>,
}

/// One more than where a link starts in the log.
pub(super) type Place = NonZeroUsize;

impl Chains {
    /// Adds the link from `newer` to `older`, in front of the chain whose newest link is at `newest`. Gives its place.
    pub(super) fn push(
        &mut self,
        newer: &Version,
        older: &Version,
        newest: Option<Place>,
    ) -> Option<Place> {
        let place = self.log.len() + 1;
        let mut link = Scratch::new();
        link.number(newest.map_or(0, |newest| place - newest.get()) as u64);
        link.link(newer, older);
        self.log.extend_from_slice(link.as_slice());
        NonZeroUsize::new(place)
    }

    /// The chain behind `current` whose newest link is at `newest`: as much of it as stands in a leaf, and the rest.
    pub(super) fn take(
        &mut self,
        current: Version,
        newest: Option<Place>,
    ) -> (&[u8], Option<History>) {
        self.chain.clear();
        let mut runs: Vec<(Version, Vec<u8>)> = Vec::new();
        let (mut newer, mut next) = (current, newest);
        while let Some(place) = next {
            let mut rest = &self.log[place.get() - 1..];
            let Some(back) = number(&mut rest) else {
                break;
            };
            let mut chain = Chain::new(newer, rest);
            let Some(version) = chain.next() else {
                break;
            };
            let link = &rest[..rest.len() - chain.rest().len()];
            match runs.last_mut() {
                None if self.chain.len() + link.len() <= CHAIN_MAX => {
                    self.chain.extend_from_slice(link);
                }
                Some((_, older)) if older.len() + link.len() <= RUN_MAX => {
                    older.extend_from_slice(link);
                }
                _ => runs.push((version, Vec::new())),
            }
            newer = version;
            next = match back {
                0 => None,
                back => NonZeroUsize::new(place.get().saturating_sub(back as usize)),
            };
        }
        let mut history: Option<History> = None;
        for (newest, older) in runs.into_iter().rev() {
            let run = Run {
                newest,
                older: &older,
            };
            match &mut history {
                Some(history) => history.push(run),
                None => history = Some(History::of(run)),
            }
        }
        (&self.chain, history)
    }
}
