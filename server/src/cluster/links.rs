//! What the raft driver sends, on its way to the other members.

use crate::peer::{PeerNet, SnapshotPieces};
use bytes::Bytes;
use holdfast_consensus::{Outgoing, Peers};
use holdfast_storage::backend::StoreView;
use holdfast_storage::snapshot::{SnapshotReader, SnapshotScope};
use std::io;

/// See the module's text.
pub(crate) struct Links {
    net: PeerNet,
    cluster: u64,
}

impl Links {
    pub(crate) fn new(net: PeerNet, cluster: u64) -> Links {
        Links { net, cluster }
    }
}

impl Peers<StoreView> for Links {
    fn send(&self, outgoing: &mut Vec<Outgoing<StoreView>>) {
        let mut snapshots = Vec::new();
        let messages = outgoing.drain(..).filter_map(|out| match out {
            Outgoing::Message { to, bytes } => Some((to, bytes)),
            Outgoing::Snapshot {
                to, message, view, ..
            } => {
                snapshots.push((to, message, view));
                None
            }
        });
        self.net.send(messages.collect::<Vec<_>>());
        for (to, message, view) in snapshots {
            tracing::info!(member = format!("{to:x}"), "sending a snapshot");
            let pieces: SnapshotPieces = Box::new(Pieces::Begin(Some(view), self.cluster));
            self.net.send_snapshot(to, message, pieces);
        }
    }
}

/// A snapshot's pieces. The first look at the store happens with the first piece, on the thread that reads the others.
enum Pieces {
    Begin(Option<StoreView>, u64),
    Reading(Box<SnapshotReader>),
    Ended,
}

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        if let Pieces::Begin(view, cluster) = self {
            let reader = SnapshotReader::new(view.take()?, *cluster, &SnapshotScope::All);
            *self = match reader {
                Ok(reader) => Pieces::Reading(Box::new(reader)),
                Err(error) => {
                    *self = Pieces::Ended;
                    return Some(Err(io::Error::other(error)));
                }
            };
        }
        match self {
            Pieces::Reading(reader) => reader.next().map(|piece| piece.map_err(io::Error::other)),
            Pieces::Begin(..) | Pieces::Ended => None,
        }
    }
}
