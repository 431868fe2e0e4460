//! The node's audit key: it signs checkpoints, and a secret derived from it hashes keys.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use aws_lc_rs::{
    digest, hmac,
    signature::{self, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

use crate::{hex, sink::private_file};

/// The node's audit key. `Debug` shows its id and nothing else.
#[derive(Clone)]
pub struct NodeKey(Arc<Pair>);

struct Pair {
    signing: Ed25519KeyPair,
    hashing: hmac::Key,
    public: PublicKey,
}

impl NodeKey {
    /// The key of that seed, which is a secret.
    ///
    /// # Errors
    ///
    /// The library refuses the seed, which it does for no seed of that length.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, KeyError> {
        let signing = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Unusable)?;
        let public: [u8; 32] = signing
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Unusable)?;
        // A secret of its own, so that no use of one says anything about the other.
        let seed_key = hmac::Key::new(hmac::HMAC_SHA256, &seed);
        let secret = hmac::sign(&seed_key, b"holdfast audit: hashed keys");
        Ok(Self(Arc::new(Pair {
            signing,
            hashing: hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()),
            public: PublicKey(public),
        })))
    }

    /// The public half, for [`crate::read::VerifyOptions::trusted`].
    pub fn public(&self) -> PublicKey {
        self.0.public
    }

    pub(crate) fn hashing(&self) -> &hmac::Key {
        &self.0.hashing
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.signing.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.0.public.kid())
    }
}

/// The public half of a node's audit key (Ed25519). Text is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub(crate) [u8; 32]);

impl PublicKey {
    /// Id of the key: the first eight bytes of its SHA-256.
    pub fn kid(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.0);
        hex::text(&digest.as_ref()[..8])
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&signature::ED25519, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        hex::parse(text).map(Self).ok_or(KeyError::PublicKey)
    }
}

/// Reads the node's key from `path`; if there is none, makes a file (mode 0600) with `seed`, which must be random.
///
/// # Errors
///
/// The file cannot be read or made, is not a plain file of this user that is closed to all others, or holds no key.
pub fn load_or_create(path: &Path, seed: [u8; 32]) -> Result<NodeKey, KeyError> {
    let failed = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    match private_file::open(path, OpenOptions::new().read(true)) {
        Ok(file) => {
            let mode = private_file::mode(&file).map_err(failed)?;
            if mode & 0o077 != 0 {
                let path = path.to_owned();
                return Err(KeyError::Permissions { path, mode });
            }
            NodeKey::from_seed(read(file).map_err(failed)?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path, &seed).map_err(failed)?;
            NodeKey::from_seed(seed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// 64 hexadecimal digits and a line's end.
fn read(file: File) -> io::Result<[u8; 32]> {
    let mut text = String::new();
    file.take(100).read_to_string(&mut text)?;
    let digits = text.strip_suffix('\n').unwrap_or(&text);
    hex::parse(digits).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "expected 64 hexadecimal digits and nothing else",
        )
    })
}

/// Makes the file whole or not at all: half a key after a crash would stop the node.
fn create(path: &Path, seed: &[u8; 32]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(format!("{}\n", hex::text(seed)).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    private_file::sync_folder(path)
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("audit key {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// Others could read the key.
    #[error("audit key {} is open to others (mode {mode:03o}, expected 600)", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The seed makes no key.
    #[error("the audit key's seed cannot be used")]
    Unusable,
    /// The text is no public key.
    #[error("a public audit key is 64 lower-case hexadecimal digits")]
    PublicKey,
}
