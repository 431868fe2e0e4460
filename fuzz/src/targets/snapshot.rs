//! Snapshot streams: whole or in pieces, they come to the same records or the same error.
//!
//! Input: mode (bit 0: the rest is a payload, to be put into blocks with right checksums; else it is the stream), size of the pieces,
//! and the rest.

use crate::input::Input;
use holdfast_storage::crc32c;
use holdfast_storage::snapshot::{SnapshotDecoder, SnapshotError, SnapshotInfo, SnapshotItem};

type Decoded = (Result<SnapshotInfo, SnapshotError>, Vec<SnapshotItem>);

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mode = input.u8();
    let piece = usize::from(input.u8()).max(1);
    let stream = if mode & 1 == 0 {
        input.rest().to_vec()
    } else {
        in_blocks(input.rest(), piece)
    };
    let (whole, items) = decode(stream.chunks(stream.len().max(1)));
    let (pieces, same_items) = decode(stream.chunks(piece));
    assert_eq!(whole, pieces);
    let bytes: usize = items.iter().map(kept_bytes).sum();
    assert!(bytes <= stream.len(), "more was read than was there");
    let Ok(info) = whole else { return false };
    assert_eq!(items, same_items);
    assert_eq!(info.meta_records + info.rows, items.len() as u64);
    true
}

/// A stream of blocks with this payload, cut at `block` bytes.
pub(crate) fn in_blocks(payload: &[u8], block: usize) -> Vec<u8> {
    let mut stream = b"HFSNAP\0\x01".to_vec();
    let mut crc = 0;
    for block in payload.chunks(block) {
        let head = (block.len() as u32).to_be_bytes();
        crc = crc32c(crc32c(crc, &head), block);
        stream.extend_from_slice(&head);
        stream.extend_from_slice(&crc.to_be_bytes());
        stream.extend_from_slice(block);
    }
    stream
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = SnapshotDecoder::new();
    let mut items = Vec::new();
    for piece in pieces {
        if let Err(error) = decoder.push(piece, &mut items) {
            assert!(
                decoder.push(b"more", &mut items).is_err(),
                "no way back from an error"
            );
            return (Err(error), items);
        }
    }
    (decoder.finish(), items)
}

fn kept_bytes(item: &SnapshotItem) -> usize {
    match item {
        SnapshotItem::Meta(key, value) => key.len() + value.len(),
        SnapshotItem::Row(_, row) => row.key.len() + row.value.len(),
    }
}
