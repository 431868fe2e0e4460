//! How much of anything another member can make this one hold or wait for.

use std::time::Duration;

/// A frame of gRPC on a stream of messages, decoded; a batch is 1 MiB or one message, and a message of raft has 1 MiB of entries, of
/// which one may be as large as `--max-request-bytes` permits.
pub(super) const FRAME_BYTES_MAX: usize = 16 << 20;
/// Messages in one batch.
pub(super) const BATCH_MESSAGES_MAX: usize = 4_096;
/// A batch is closed when it has as much, bytes.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// A Hello with what is around it; so is an ack, of which the first has one.
pub(super) const HELLO_BYTES_MAX: usize = 4 << 10;
/// A request that is not a stream: a Hello and a command.
pub(super) const REQUEST_BYTES_MAX: usize = COMMAND_BYTES_MAX + HELLO_BYTES_MAX;
/// An answer that is not a stream. Lists of members are the longest, with kilobytes for each.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Messages that wait for one member whose stream is up: in number …
pub(super) const QUEUE_MESSAGES_MAX: usize = 4_096;
/// … and in bytes. What raft has on its way to a follower is less.
pub(super) const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Messages that wait for one whose stream is not up. Old ones are of no use when it comes back, so these are the newest.
pub(super) const QUEUE_MESSAGES_DOWN: usize = 64;

/// A piece of a snapshot, bytes.
pub(super) const PIECE_BYTES_MAX: usize = 256 << 10;
/// The message that a snapshot belongs to: configuration and position.
pub(super) const SNAPSHOT_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Pieces between the thread that reads a snapshot and the connection, at either end.
pub(super) const PIECES_AHEAD: usize = 4;
/// Snapshots that are sent at one time.
pub(super) const SNAPSHOTS_SENT: usize = 2;
/// Nothing moves for so long: a snapshot's transfer is given up.
pub(super) const SNAPSHOT_STALL: Duration = Duration::from_secs(60);
/// From the last piece to the answer, while the receiver checks and syncs.
pub(super) const SNAPSHOT_RESULT: Duration = Duration::from_secs(600);

/// Members of a cluster.
pub(super) const MEMBERS_MAX: usize = 64;
/// URLs of one kind of a member.
pub(super) const URLS_MAX: usize = 32;
/// One URL.
pub(super) const URL_BYTES_MAX: usize = 2_048;
/// A member's name.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// A release.
pub(super) const VERSION_BYTES_MAX: usize = 64;
/// Leases in one call.
pub(super) const LEASES_MAX: usize = 1_024;
/// An encoded caller, or a command with one.
pub(super) const COMMAND_BYTES_MAX: usize = 1 << 20;

/// Connections that have not introduced themselves. Beyond it the oldest gives way: a member does so within milliseconds.
pub(super) const STRANGERS_MAX: usize = 32;
/// Calls at one time on a connection that has not introduced itself. A member waits for its first to be answered.
pub(super) const STRANGERS_CALLS: usize = 4;
/// Connections of one member: messages and calls, a snapshot, and as many that it has lost but this one not yet. Beyond it the oldest
/// gives way.
pub(super) const CONNECTIONS_PER_MEMBER: usize = 4;
/// From accepting a connection to a good introduction on it.
pub(super) const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// To make a connection, handshake included.
pub(super) const DIAL_DEADLINE: Duration = Duration::from_secs(3);
/// Pause before a member is dialled again: first, …
pub(super) const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// … and at most. In between it doubles.
pub(super) const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// How often round trips are measured, certificates looked at and stalls noticed.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Bytes of one stream on their way unread: several batches of messages, and all that a snapshot is read ahead of its receiver.
pub(super) const STREAM_WINDOW: u32 = 4 << 20;
/// Bytes of one connection on their way unread: calls come through beside a stream that is full. As much can each stranger make this
/// member hold.
pub(super) const CONNECTION_WINDOW: u32 = 5 << 20;
/// One frame of HTTP/2: with less, a batch comes in many pieces, which must be put together again.
pub(super) const HTTP_FRAME: u32 = 2 << 20;
/// Bytes of headers.
pub(super) const HEADER_LIST_BYTES: u32 = 16 << 10;
/// Streams of one connection: one of messages, and calls.
pub(super) const STREAMS_MAX: u32 = 256;
/// Streams that were reset before they were looked at (rapid reset, CVE-2023-44487).
pub(super) const PENDING_RESETS: usize = 32;
