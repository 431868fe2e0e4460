//! Tokens: this member's key that signs them, the cluster's keys that verify them, and those of an external issuer.
//!
//! The private key stays in a file of this member, which nobody else may read; only its public half goes through the log. So a snapshot, a
//! copy of the store or another member's disk lets nobody make tokens.

use crate::grpc::TENANT;
use crate::node::Identity;
use holdfast_auth::token::{
    Claims, ExternalIssuer, FlagError, KeyError, PublicKey, Signer, TokenError, TokenOptions,
    Verified, Verifier, jwks, parse_auth_token_flag,
};
use holdfast_config::{Config, ExternalIssuerConfig, parse_duration};
use holdfast_tenant::{Tenants, TokenKeyRecord};
use parking_lot::{Mutex, RwLock};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Beside the data, for this member alone.
const KEY_FILE: &str = "token-key";
/// The file's first line; the second is the seed of an Ed25519 key in hexadecimal.
const KEY_FILE_HEADER: &str = "holdfast-token-key 1";
/// Longest file that is read: a set of keys, or a PEM file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why tokens cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    #[error("--auth-token: {0}")]
    Flag(#[from] FlagError),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Key { path: PathBuf, source: KeyError },
    #[error("{}: {source}", path.display())]
    Jwks {
        path: PathBuf,
        source: jwks::JwksError,
    },
    #[error("{} is not a token key of a version that is known here", path.display())]
    NotAKey { path: PathBuf },
    #[error("{} can be read by others, so its key is no secret: remove it, and a new one is made", path.display())]
    NoSecret { path: PathBuf },
    #[error("the keys of tokens do not fit together: {0}")]
    Keys(#[from] KeyError),
}

/// Who signs here.
enum Signing {
    /// This member's own key. Rotation replaces it.
    Own(RwLock<Arc<Signer>>),
    /// The operator's, the same on all members.
    Configured(Option<Box<Signer>>),
}

/// See the module's text.
pub(crate) struct Tokens {
    signing: Signing,
    /// The operator's key that verifies, if there is one.
    configured: Option<PublicKey>,
    issuer: String,
    audience: String,
    ttl: Duration,
    member: u64,
    key_file: PathBuf,
    tenants: Arc<Tenants>,
    external: Option<ExternalIssuerConfig>,
    current: RwLock<Current>,
    /// Counts reloads of the external issuer's keys.
    reloads: AtomicU64,
    /// A key that signs as soon as the log has its record.
    next: Mutex<Option<Signer>>,
    /// Held over a rotation: one at a time.
    rotation: tokio::sync::Mutex<()>,
}

/// The verifier, and what it was made of.
struct Current {
    verifier: Arc<Verifier>,
    keys: Arc<Vec<TokenKeyRecord>>,
    external: Option<ExternalIssuer>,
}

/// The keys that verify, at one moment.
pub(crate) struct Keys {
    records: Arc<Vec<TokenKeyRecord>>,
    reloads: u64,
    /// When the first of them retires, seconds since 1970.
    next_retirement: Option<u64>,
}

impl Tokens {
    /// Reads or makes the keys that the configuration asks for.
    ///
    /// # Errors
    /// [`TokensError`] for an option, a file or a key that cannot be used.
    pub(crate) fn open(
        config: &Config,
        identity: &Identity,
        tenants: Arc<Tenants>,
    ) -> Result<Tokens, TokensError> {
        let options = parse_auth_token_flag(&config.auth_token, |text| parse_duration(text).ok())?;
        let key_file = config.data_dir.join(KEY_FILE);
        let (signing, configured, ttl) = match options {
            TokenOptions::None => (Signing::Configured(None), None, config.auth_token_ttl),
            TokenOptions::Simple => {
                let signer = load_or_make(&key_file)?;
                let own = Signing::Own(RwLock::new(Arc::new(signer)));
                (own, None, config.auth_token_ttl)
            }
            TokenOptions::Jwt {
                sign_method,
                pub_key,
                priv_key,
                ttl,
            } => {
                let fault = |path: &Path| {
                    let path = path.to_owned();
                    move |source| TokensError::Key { path, source }
                };
                let signer = match &priv_key {
                    Some(path) => Some(Box::new(
                        Signer::from_pem(sign_method, &read(path)?).map_err(fault(path))?,
                    )),
                    None => None,
                };
                let public = match &pub_key {
                    Some(path) => {
                        let public =
                            PublicKey::from_pem(sign_method, &read(path)?).map_err(fault(path))?;
                        if let Some(signer) = &signer
                            && signer.kid() != public.kid()
                        {
                            return Err(fault(path)(KeyError::Invalid(sign_method)));
                        }
                        Some(public)
                    }
                    None => None,
                };
                (Signing::Configured(signer), public, ttl)
            }
        };
        let external = external(config.external_issuer.as_ref())?;
        let cluster = identity.cluster;
        let tokens = Tokens {
            signing,
            configured,
            issuer: format!("holdfast/{cluster:x}"),
            audience: format!("holdfast:{cluster:x}"),
            ttl,
            member: identity.member,
            key_file,
            current: RwLock::new(Current {
                verifier: Arc::new(Verifier::new("", "", "")),
                keys: Arc::default(),
                external,
            }),
            external: config.external_issuer.clone(),
            reloads: AtomicU64::new(0),
            tenants,
            next: Mutex::default(),
            rotation: tokio::sync::Mutex::new(()),
        };
        tokens.rebuild(&mut tokens.current.write(), tokens.tenants.token_keys())?;
        Ok(tokens)
    }

    /// How long a token lives.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A token that says `claims`; `None` if this node signs none.
    ///
    /// # Errors
    /// When the key does not sign, or cannot be replaced by the next one.
    pub(crate) fn mint(&self, claims: &Claims) -> Result<Option<String>, TokensError> {
        self.take_next()?;
        let mint = |signer: &Signer| {
            let token = signer.mint(claims, &self.issuer, &self.audience)?;
            Ok(Some(token))
        };
        match &self.signing {
            Signing::Own(signer) => {
                let signer = signer.read().clone();
                mint(&signer)
            }
            Signing::Configured(Some(signer)) => mint(signer),
            Signing::Configured(None) => Ok(None),
        }
    }

    /// Verifies a token at `now`, seconds since 1970.
    ///
    /// # Errors
    /// [`TokenError`]
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Verified, TokenError> {
        let keys = self.tenants.token_keys();
        let known = {
            let current = self.current.read();
            Arc::ptr_eq(&current.keys, &keys).then(|| current.verifier.clone())
        };
        let verifier = match known {
            Some(verifier) => verifier,
            None => {
                let mut current = self.current.write();
                if let Err(error) = self.rebuild(&mut current, keys) {
                    tracing::error!(%error, "cannot take new token keys");
                }
                current.verifier.clone()
            }
        };
        verifier.verify(token, now)
    }

    /// The keys as they are at `now`, seconds since 1970: what was verified with them need not be verified again while they are current.
    pub(crate) fn keys(&self, now: u64) -> Keys {
        let records = self.tenants.token_keys();
        let next_retirement = records
            .iter()
            .filter_map(|key| key.retires_at)
            .filter(|at| *at > now)
            .min();
        Keys {
            next_retirement,
            records,
            reloads: self.reloads.load(Ordering::Acquire),
        }
    }

    /// Whether the keys are still the same, and none has retired since.
    pub(crate) fn are_current(&self, keys: &Keys, now: u64) -> bool {
        keys.reloads == self.reloads.load(Ordering::Acquire)
            && keys.next_retirement.is_none_or(|at| now < at)
            && Arc::ptr_eq(&keys.records, &self.tenants.token_keys())
    }

    fn rebuild(
        &self,
        current: &mut Current,
        keys: Arc<Vec<TokenKeyRecord>>,
    ) -> Result<(), TokensError> {
        let mut verifier = Verifier::new(&self.issuer, &self.audience, TENANT);
        match (&self.signing, &self.configured) {
            (Signing::Own(_), _) => {
                for key in keys.iter() {
                    let public = PublicKey::ed25519(key.public_key)?;
                    verifier = verifier.with_key(&public, key.retires_at)?;
                }
            }
            (Signing::Configured(_), Some(public)) => {
                verifier = verifier.with_key(public, None)?;
            }
            (Signing::Configured(Some(signer)), None) => {
                verifier = verifier.with_signer(signer)?;
            }
            (Signing::Configured(None), None) => {}
        }
        if let Some(external) = &current.external {
            verifier = verifier.with_external(external.clone())?;
        }
        current.verifier = Arc::new(verifier);
        current.keys = keys;
        Ok(())
    }

    /// Reads the external issuer's keys again.
    ///
    /// # Errors
    /// [`TokensError`]; the keys in use stay.
    pub(crate) fn reload(&self) -> Result<(), TokensError> {
        let external = external(self.external.as_ref())?;
        let mut current = self.current.write();
        current.external = external;
        let keys = self.tenants.token_keys();
        self.rebuild(&mut current, keys)?;
        self.reloads.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The record of this member's key, if the log does not have it yet. A key that was retired is replaced first.
    ///
    /// # Errors
    /// When a new key cannot be kept.
    pub(crate) fn unpublished(&self, now: u64) -> Result<Option<TokenKeyRecord>, TokensError> {
        let Signing::Own(own) = &self.signing else {
            return Ok(None);
        };
        let keys = self.tenants.token_keys();
        let mut signer = own.read().clone();
        match keys.iter().find(|key| key.kid == signer.kid()) {
            Some(key) if key.retires_at.is_none() => return Ok(None),
            // A rotation was cut short: what it retired must not sign again.
            Some(_) => {
                signer = Arc::new(make(&self.key_file)?);
                *own.write() = signer.clone();
            }
            None => {}
        }
        Ok(self.record(&signer, now))
    }

    /// The turn of a rotation.
    pub(crate) async fn rotation(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.rotation.lock().await
    }

    /// Makes a new key and keeps it beside the one in use; `None` if the operator's key signs. It signs once its record, which whoever calls
    /// this puts into the log, is there.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(crate) fn make_next(&self, now: u64) -> Result<Option<TokenKeyRecord>, TokensError> {
        if !matches!(self.signing, Signing::Own(_)) {
            return Ok(None);
        }
        let mut next = self.next.lock();
        let signer = keep_new(&self.next_file())?;
        let record = self.record(&signer, now);
        *next = Some(signer);
        Ok(record)
    }

    /// Signs with the next key from now on if its record is in the log: the key before it has a date to retire then. Asked before each
    /// signature, so that it does not matter whether anybody waited for the log.
    ///
    /// # Errors
    /// When the file cannot take the place of the one before. A restart makes another key then.
    pub(crate) fn take_next(&self) -> Result<(), TokensError> {
        let Signing::Own(own) = &self.signing else {
            return Ok(());
        };
        let mut next = self.next.lock();
        let keys = self.tenants.token_keys();
        if let Some(signer) = next.take_if(|next| keys.iter().any(|key| key.kid == next.kid())) {
            *own.write() = Arc::new(signer);
            replace(&self.next_file(), &self.key_file)?;
        }
        Ok(())
    }

    fn next_file(&self) -> PathBuf {
        self.key_file.with_extension("next")
    }

    fn record(&self, signer: &Signer, now: u64) -> Option<TokenKeyRecord> {
        Some(TokenKeyRecord {
            kid: signer.kid().into(),
            public_key: signer.public()?.ed25519_bytes()?,
            member: self.member,
            made_at: now,
            retires_at: None,
        })
    }
}

fn external(config: Option<&ExternalIssuerConfig>) -> Result<Option<ExternalIssuer>, TokensError> {
    let Some(config) = config else {
        return Ok(None);
    };
    let path = &config.jwks_file;
    let keys = jwks::parse(&read(path)?).map_err(|source| TokensError::Jwks {
        path: path.clone(),
        source,
    })?;
    for ignored in keys.ignored() {
        tracing::warn!(file = %path.display(), ?ignored, "a key of the external issuer is not used");
    }
    let mut issuer = ExternalIssuer::new(&config.issuer, &config.audience, keys);
    issuer.user_claim.clone_from(&config.user_claim);
    issuer.roles_claim.clone_from(&config.roles_claim);
    Ok(Some(issuer))
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> TokensError {
    move |source| TokensError::File {
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokensError> {
    use std::io::Read;
    let fault = file_error(path);
    let file = std::fs::File::open(path).map_err(&fault)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(&fault)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault(io::Error::other("the file is too long")));
    }
    Ok(bytes)
}

fn load_or_make(path: &Path) -> Result<Signer, TokensError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(path),
        Err(error) => return Err(file_error(path)(error)),
    };
    let not_a_key = || TokensError::NotAKey {
        path: path.to_owned(),
    };
    if !metadata.is_file() {
        return Err(not_a_key());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(TokensError::NoSecret {
            path: path.to_owned(),
        });
    }
    let bytes = zeroize::Zeroizing::new(read(path)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| not_a_key())?;
    let seed = text
        .strip_prefix(KEY_FILE_HEADER)
        .and_then(|rest| rest.strip_prefix('\n')?.strip_suffix('\n'))
        .and_then(seed_of)
        .ok_or_else(not_a_key)?;
    Ok(Signer::generate(seed)?)
}

/// The seed in 64 hexadecimal digits.
fn seed_of(hex: &str) -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in seed.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(seed)
}

/// Makes a key and keeps it in the file, whole or not at all.
fn make(path: &Path) -> Result<Signer, TokensError> {
    let beside = path.with_extension("new");
    let signer = keep_new(&beside)?;
    replace(&beside, path)?;
    Ok(signer)
}

/// Makes a key and keeps it in a new file; one that an earlier attempt left there is removed.
fn keep_new(path: &Path) -> Result<Signer, TokensError> {
    let seed: zeroize::Zeroizing<[u8; 32]> = zeroize::Zeroizing::new(rand::random());
    let signer = Signer::generate(*seed)?;
    let mut text = zeroize::Zeroizing::new(format!("{KEY_FILE_HEADER}\n"));
    for byte in seed.iter() {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    let fault = file_error(path);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(&fault)?;
    file.write_all(text.as_bytes()).map_err(&fault)?;
    file.sync_all().map_err(&fault)?;
    Ok(signer)
}

/// Puts a file in another's place, durably.
fn replace(from: &Path, to: &Path) -> Result<(), TokensError> {
    let fault = file_error(to);
    std::fs::rename(from, to).map_err(&fault)?;
    if let Some(folder) = to.parent() {
        let folder = std::fs::File::open(folder).map_err(&fault)?;
        folder.sync_all().map_err(&fault)?;
    }
    Ok(())
}
