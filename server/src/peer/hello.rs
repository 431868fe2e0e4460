//! Who speaks to whom: the first thing on every stream and in every call, checked before anything else is looked at.

use super::bounds::{NAME_BYTES_MAX, VERSION_BYTES_MAX};
use holdfast_proto::peer as pb;
use std::fmt;
use tonic::{Code, Status};

/// The version of the peer protocol. It rises when members of different releases could not understand each other.
pub(crate) const PROTOCOL_VERSION: u32 = 1;

/// The trailer with the reason of a refusal, as one word.
const REFUSAL: &str = "holdfast-refusal";

/// What a member can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerVersion {
    /// Rises with what all members must know before it is used.
    pub(crate) level: u32,
    /// The release, for people: at most 64 bytes.
    pub(crate) text: String,
}

/// Who this member says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Me {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    /// `--name`: at most 255 bytes.
    pub(crate) name: String,
    /// Which data directory this is; not 0.
    pub(crate) instance: u64,
    pub(crate) version: PeerVersion,
}

/// What a member says of itself, with every bound checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) cluster: u64,
    /// Who speaks; neither 0 nor this member.
    pub(crate) from: u64,
    /// Its name; empty if it has none yet.
    pub(crate) name: String,
    /// Which data directory it runs on; not 0.
    pub(crate) instance: u64,
    /// To whom: this member.
    pub(crate) to: u64,
    pub(crate) version: PeerVersion,
}

/// What the member table says of one who introduced itself, for the check of its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The name of that member id; `None` if the id is unknown or has published nothing yet.
    pub(crate) name: Option<String>,
    /// Whether another member has the name that it gives.
    pub(crate) named_elsewhere: bool,
}

/// Why a member is not spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// The Hello is missing or makes no sense.
    Malformed,
    /// Another version of the protocol.
    Protocol,
    /// It belongs to another cluster.
    OtherCluster,
    /// It wants to speak to another member: the address is not, or no longer, that member's.
    OtherMember,
    /// No such member is known here.
    UnknownMember,
    /// The member was removed from the cluster.
    Removed,
    /// The member's id comes with another data directory than the member has: what it had promised is lost.
    Wiped,
    /// The certificate does not name the member, or there is none.
    Certificate,
}

impl Refusal {
    const ALL: [Refusal; 8] = [
        Self::Malformed,
        Self::Protocol,
        Self::OtherCluster,
        Self::OtherMember,
        Self::UnknownMember,
        Self::Removed,
        Self::Wiped,
        Self::Certificate,
    ];

    /// One word, for metrics and for the wire.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Protocol => "protocol",
            Self::OtherCluster => "other_cluster",
            Self::OtherMember => "other_member",
            Self::UnknownMember => "unknown_member",
            Self::Removed => "removed",
            Self::Wiped => "wiped",
            Self::Certificate => "certificate",
        }
    }

    /// As the answer to a call. `detail` tells more, in few words.
    pub(super) fn status(self, detail: &str) -> Status {
        let text = if detail.is_empty() {
            self.to_string()
        } else {
            format!("{self}: {detail}")
        };
        let mut status = Status::new(Code::FailedPrecondition, text);
        let word = tonic::metadata::MetadataValue::from_static(self.label());
        status.metadata_mut().insert(REFUSAL, word);
        status
    }

    /// The refusal in an answer, if it is one.
    pub(super) fn of(status: &Status) -> Option<Refusal> {
        let word = status.metadata().get(REFUSAL)?;
        let word = word.to_str().ok()?;
        Self::ALL.into_iter().find(|one| one.label() == word)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the introduction is missing or makes no sense",
            Self::Protocol => "it speaks another version of the peer protocol",
            Self::OtherCluster => "it belongs to another cluster",
            Self::OtherMember => "another member answers at this address",
            Self::UnknownMember => "no such member is known",
            Self::Removed => "the member was removed from the cluster",
            Self::Wiped => {
                "the member has lost its data directory: remove it and add it again under a new id"
            }
            Self::Certificate => "the certificate does not name the member",
        })
    }
}

impl Me {
    /// The Hello to one member.
    pub(super) fn hello(&self, to: u64) -> pb::Hello {
        pb::Hello {
            protocol: PROTOCOL_VERSION,
            cluster_id: self.cluster,
            from_member: self.member,
            from_name: self.name.clone(),
            from_instance: self.instance,
            to_member: to,
            version: Some(self.version.to_wire()),
        }
    }

    /// Reads another member's Hello: all that can be judged without the member table.
    ///
    /// # Errors
    /// Why it is refused, with detail for people.
    pub(super) fn read(&self, wire: Option<pb::Hello>) -> Result<Hello, (Refusal, String)> {
        let refuse = |refusal, detail: String| Err((refusal, detail));
        let Some(wire) = wire else {
            return refuse(Refusal::Malformed, String::new());
        };
        // First of all: what the other fields mean depends on it.
        if wire.protocol != PROTOCOL_VERSION {
            let detail = format!("{}, this member {PROTOCOL_VERSION}", wire.protocol);
            return refuse(Refusal::Protocol, detail);
        }
        if wire.cluster_id != self.cluster {
            let detail = format!("{:x}, this member to {:x}", wire.cluster_id, self.cluster);
            return refuse(Refusal::OtherCluster, detail);
        }
        if wire.to_member != self.member {
            let detail = format!("{:x}, not {:x}", self.member, wire.to_member);
            return refuse(Refusal::OtherMember, detail);
        }
        let Some(version) = PeerVersion::from_wire(wire.version) else {
            return refuse(Refusal::Malformed, "its version is too long".to_owned());
        };
        if wire.from_member == 0 || wire.from_member == self.member || wire.from_instance == 0 {
            return refuse(Refusal::Malformed, "its id or instance".to_owned());
        }
        if !is_name(&wire.from_name) {
            return refuse(Refusal::Malformed, "its name".to_owned());
        }
        Ok(Hello {
            cluster: wire.cluster_id,
            from: wire.from_member,
            name: wire.from_name,
            instance: wire.from_instance,
            to: wire.to_member,
            version,
        })
    }
}

/// Names end up in log lines: bounded, and without line breaks.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

impl PeerVersion {
    pub(super) fn to_wire(&self) -> pb::Version {
        pb::Version {
            level: self.level,
            text: self.text.clone(),
        }
    }

    /// `None` for a text that is too long or hides something.
    pub(super) fn from_wire(wire: Option<pb::Version>) -> Option<PeerVersion> {
        let wire = wire.unwrap_or_default();
        let good = wire.text.len() <= VERSION_BYTES_MAX && !wire.text.chars().any(char::is_control);
        good.then_some(PeerVersion {
            level: wire.level,
            text: wire.text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Me {
        Me {
            cluster: 7,
            member: 1,
            name: "one".to_owned(),
            instance: 11,
            version: PeerVersion::default(),
        }
    }

    fn other() -> pb::Hello {
        let other = Me {
            member: 2,
            instance: 22,
            ..me()
        };
        other.hello(1)
    }

    #[test]
    fn each_field_is_checked() {
        let read = |change: fn(&mut pb::Hello)| {
            let mut hello = other();
            change(&mut hello);
            me().read(Some(hello)).map(drop).map_err(|(why, _)| why)
        };
        assert_eq!(read(|_| {}), Ok(()));
        type Case = (fn(&mut pb::Hello), Refusal);
        let refused: [Case; 10] = [
            (|h| h.protocol = 2, Refusal::Protocol),
            (|h| h.protocol = 0, Refusal::Protocol),
            (|h| h.cluster_id = 8, Refusal::OtherCluster),
            (|h| h.to_member = 3, Refusal::OtherMember),
            (|h| h.from_member = 0, Refusal::Malformed),
            (|h| h.from_member = 1, Refusal::Malformed),
            (|h| h.from_instance = 0, Refusal::Malformed),
            (|h| h.from_name = "n".repeat(256), Refusal::Malformed),
            (|h| h.from_name = "a\nb".to_owned(), Refusal::Malformed),
            (
                |h| {
                    h.version = Some(pb::Version {
                        level: 0,
                        text: "v".repeat(65),
                    });
                },
                Refusal::Malformed,
            ),
        ];
        for (change, expected) in refused {
            assert_eq!(read(change), Err(expected));
        }
        let nothing = me().read(None).map_err(|(why, _)| why);
        assert_eq!(nothing, Err(Refusal::Malformed));
    }

    #[test]
    fn a_refusal_is_recognised_in_a_status() {
        for refusal in Refusal::ALL {
            let status = refusal.status("1 and 2");
            assert_eq!(Refusal::of(&status), Some(refusal));
            // As it comes over the wire.
            let headers = status.into_http::<String>();
            let read = Status::from_header_map(headers.headers()).expect("a status");
            assert_eq!(Refusal::of(&read), Some(refusal));
        }
        assert_eq!(Refusal::of(&Status::failed_precondition("removed")), None);
    }
}
