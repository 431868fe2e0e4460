//! What runs reached, so that one sees that the interesting states are among them.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often things happened, in one run or in many.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds those of another run.
            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }

            /// Each with its name.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Events of the queue.
    steps,
    /// Virtual time, milliseconds.
    virtual_ms,
    /// Members that began to lead.
    elections,
    /// Entries committed.
    entries,
    /// Entries applied, by all members together.
    applied,
    /// Proposals made on a member that did not lead.
    forwards,
    /// Requests that were answered.
    answered,
    /// Requests whose outcome nobody told.
    unknown,
    /// Requests refused by users and roles where they arrived.
    denied_at_edge,
    /// Commands refused by users and roles where they stood in the log.
    denied_in_log,
    /// Linearizable reads answered.
    linearizable_reads,
    /// Reads of a member's own state.
    serializable_reads,
    /// Reads of an earlier revision.
    old_reads,
    /// Rounds of ReadIndex.
    read_rounds,
    /// Messages that arrived.
    messages,
    /// Messages that were lost.
    lost_messages,
    /// Messages that arrived and were refused.
    refused_messages,
    /// Snapshots sent.
    snapshots_sent,
    /// Snapshots that broke off on their way or arrived damaged.
    snapshots_broken,
    /// Snapshots put in place.
    snapshots_installed,
    /// Cuts of the log.
    log_cuts,
    /// Members added, promoted and removed.
    member_changes,
    /// Power cuts.
    power_cuts,
    /// Processes killed.
    kills,
    /// Processes that ended because their disk failed.
    disk_failures,
    /// Disks that ran full.
    full_disks,
    /// Torn tails cut at a start.
    torn_tails,
    /// Members whose disk was lost for good.
    lost_disks,
    /// Members held up for a while.
    pauses,
    /// Partitions, whole and one-sided.
    partitions,
    /// Connections broken.
    broken_links,
    /// Transfers of leadership asked for.
    transfers,
    /// Changes of users and roles applied.
    auth_changes,
    /// Watches made.
    watches,
    /// Events that watches got.
    watch_events,
    /// Watches resumed on another member.
    watches_resumed,
    /// Watches ended by a compaction.
    watches_compacted,
    /// Watches ended by users and roles.
    watches_revoked,
    /// Compactions applied.
    compactions,
    /// Leases granted.
    leases_granted,
    /// Leases whose time ended.
    leases_expired,
    /// Keep-alives answered.
    keep_alives,
    /// States compared by their hash.
    hashes,
}
