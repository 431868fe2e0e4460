//! Tokens made by hand, well and badly.

use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use holdfast_tests::{PATIENCE, Raw, bad_token, eventually, wire::get};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// An Ed25519 key that the test holds both halves of.
pub(crate) struct TokenKey(Ed25519KeyPair);

impl TokenKey {
    pub(crate) fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    /// The private half in PEM (PKCS #8).
    pub(crate) fn private_pem(&self) -> String {
        pem("PRIVATE KEY", self.0.to_pkcs8v1().unwrap().as_ref())
    }

    /// The public half in PEM (SubjectPublicKeyInfo, RFC 8410).
    pub(crate) fn public_pem(&self) -> String {
        let mut der = vec![
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        der.extend_from_slice(self.public());
        pem("PUBLIC KEY", &der)
    }

    /// The 32 bytes of the public half.
    pub(crate) fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// The public half as a member of a key set (RFC 8037).
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.public());
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x })
    }

    /// Writes both halves; gives the value of `--auth-token` that uses them.
    pub(crate) fn flag(&self, folder: &Path) -> String {
        let private = write_private(folder, "jwt.key", &self.private_pem());
        let public = write_private(folder, "jwt.pub", &self.public_pem());
        format!(
            "--auth-token=jwt,sign-method=EdDSA,pub-key={},priv-key={},ttl=10m",
            public.display(),
            private.display()
        )
    }

    /// A token that says this, rightly signed.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.0.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// A token that says this, signed with HMAC-SHA256 (`HS256`).
pub(crate) fn sign_hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// Header and claims with a dot between them: what is signed.
pub(crate) fn message(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

/// Header and claims of a token.
pub(crate) fn take_apart(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| {
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap_or_default()
    });
    (parts.next().unwrap(), parts.next().unwrap())
}

/// `value` with some members replaced; `null` takes one out.
pub(crate) fn with(value: &Value, members: Value) -> Value {
    let mut changed = value.clone();
    let object = changed.as_object_mut().unwrap();
    for (name, member) in members.as_object().unwrap() {
        if member.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), member.clone());
        }
    }
    changed
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Waits until the token that `raw` carries is refused there.
pub(crate) async fn dies(raw: &Raw, what: &str) {
    let refused = || async { raw.range(get("a")).await.err() };
    let status = eventually(PATIENCE, what, refused).await;
    bad_token::<()>(Err(status));
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
