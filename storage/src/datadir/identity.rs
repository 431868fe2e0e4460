//! The file that says which member of which cluster a data directory belongs to.

use super::DataDirError;
use std::{
    fmt::Write,
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

const FIRST_LINE: &str = "holdfast-identity 2";
/// Of a directory whose member was made before there were instances.
const OLD_FIRST_LINE: &str = "holdfast-identity 1";

/// The rule set that a cluster was bootstrapped with. It is kept for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Password length, lease ownership and the like are enforced.
    Strict,
    /// Those rules are as in etcd.
    Etcd,
}

impl Profile {
    /// Its name in flags, files and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Profile::Strict => "strict",
            Profile::Etcd => "etcd",
        }
    }
}

/// A profile of an unknown name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown profile {0:?}; known are strict and etcd")]
pub struct UnknownProfile(String);

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Profile, UnknownProfile> {
        match name {
            "strict" => Ok(Profile::Strict),
            "etcd" => Ok(Profile::Etcd),
            _ => Err(UnknownProfile(name.to_owned())),
        }
    }
}

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
    /// The member's name; no line breaks.
    pub name: String,
    /// The cluster's profile.
    pub profile: Profile,
    /// A number that was drawn when the directory was made, so that another directory of the same member is told from this one. 0 in a
    /// directory from before there were instances.
    pub instance: u64,
}

/// Why an identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(DataDirError),
    /// The file is damaged.
    #[error("{} is damaged: {reason}; a member must not guess who it is", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The name has a line break.
    #[error("a member's name must not contain line breaks")]
    BadName,
}

impl Identity {
    pub(super) fn encode(&self) -> Result<String, IdentityError> {
        if self.name.contains(['\n', '\r']) {
            return Err(IdentityError::BadName);
        }
        let mut text = format!(
            "{FIRST_LINE}\ncluster-id {:016x}\nmember-id {:016x}\nname {}\nprofile {}\ninstance {:016x}\n",
            self.cluster_id,
            self.member_id,
            self.name,
            self.profile.as_str(),
            self.instance,
        );
        let crc = crc32c::crc32c(text.as_bytes());
        // Writing to a String does not fail.
        let _ = writeln!(text, "crc32c {crc:08x}");
        Ok(text)
    }

    pub(super) fn read(path: &Path) -> Result<Option<Identity>, IdentityError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(IdentityError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Identity::decode(&bytes)
            .map(Some)
            .map_err(|reason| IdentityError::Damaged {
                path: path.to_owned(),
                reason,
            })
    }

    fn decode(bytes: &[u8]) -> Result<Identity, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let at = text.rfind("crc32c ").ok_or("its checksum is missing")?;
        let (body, crc) = text.split_at(at);
        let expected = format!("crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
        if crc != expected {
            return Err("its checksum does not match");
        }
        let mut lines = body.lines();
        let has_instance = match lines.next() {
            Some(FIRST_LINE) => true,
            Some(OLD_FIRST_LINE) => false,
            _ => return Err("its version is unknown"),
        };
        let mut field = |name: &str| {
            lines
                .next()
                .and_then(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .ok_or("a field is missing")
        };
        let id = |text| u64::from_str_radix(text, 16).map_err(|_| "an id is no number");
        Ok(Identity {
            cluster_id: id(field("cluster-id")?)?,
            member_id: id(field("member-id")?)?,
            name: field("name")?.to_owned(),
            profile: field("profile")?
                .parse()
                .map_err(|_| "its profile is unknown")?,
            instance: if has_instance {
                id(field("instance")?)?
            } else {
                0
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_and_no_damage_passes() {
        let identity = Identity {
            cluster_id: 0xcdf8_181e_3275_8ad8,
            member_id: 1,
            name: "crc32c node é".to_owned(),
            profile: Profile::Strict,
            instance: 7,
        };
        let text = identity.encode().unwrap();
        assert_eq!(Identity::decode(text.as_bytes()).unwrap(), identity);
        for at in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(Identity::decode(&bytes).is_err(), "at {at}");
            assert!(Identity::decode(&text.as_bytes()[..at]).is_err());
        }
        let broken = Identity {
            name: "a\nb".to_owned(),
            ..identity
        };
        assert!(matches!(broken.encode(), Err(IdentityError::BadName)));
    }
}
