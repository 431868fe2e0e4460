//! Where messages end in a stream of gRPC. Needs nothing of the server, so that the fuzz targets can have this file alone.

use bytes::Buf;

/// Where gRPC's messages end in a stream of bytes: each has a prefix of a flag and four bytes of length.
#[derive(Default)]
pub(crate) struct Messages {
    prefix: [u8; 5],
    prefix_have: usize,
    left: usize,
}

/// Bytes of a message that is not complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// More of the one that was unfinished before.
    Same(usize),
    /// That one is complete; these are of another.
    Other(usize),
}

impl Messages {
    /// Takes the next bytes of the stream.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) -> Unfinished {
        let mut unfinished = 0;
        let mut completed = false;
        while !bytes.is_empty() {
            let take = if self.left > 0 {
                let take = self.left.min(bytes.len());
                self.left -= take;
                take
            } else {
                let take = (self.prefix.len() - self.prefix_have).min(bytes.len());
                self.prefix[self.prefix_have..][..take].copy_from_slice(&bytes[..take]);
                self.prefix_have += take;
                if self.prefix_have == self.prefix.len() {
                    let [_, length @ ..] = self.prefix;
                    self.left = u32::from_be_bytes(length) as usize;
                }
                take
            };
            bytes.advance(take);
            unfinished += take;
            if self.left == 0 && self.prefix_have == self.prefix.len() {
                self.prefix_have = 0;
                unfinished = 0;
                completed = true;
            }
        }
        if completed {
            Unfinished::Other(unfinished)
        } else {
            Unfinished::Same(unfinished)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unfinished_message_counts() {
        let mut messages = Messages::default();
        let mut stream = Vec::new();
        for length in [3u32, 0, 700, 1] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(vec![9; length as usize]);
        }
        assert_eq!(messages.follow(&stream[..4]), Unfinished::Same(4));
        assert_eq!(messages.follow(&stream[4..10]), Unfinished::Other(2));
        // The empty one ends with its prefix.
        assert_eq!(messages.follow(&stream[10..13]), Unfinished::Other(0));
        assert_eq!(messages.follow(&stream[13..113]), Unfinished::Same(100));
        assert_eq!(messages.follow(&stream[113..]), Unfinished::Other(0));
    }
}
