//! Tokens of any content, signed by whatever key: what an attacker, or a careless issuer, could send.

use aws_lc_rs::{hmac, signature::Ed25519KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use holdfast_auth::token::{Claims, Signer, TokenError, Verified, Verifier};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "holdfast/00112233445566ff";
pub(crate) const AUDIENCE: &str = "holdfast:00112233445566ff";
pub(crate) const TENANT: &str = "default";
pub(crate) const SEED: [u8; 32] = [42; 32];

pub(crate) fn signer() -> Signer {
    Signer::generate(SEED).unwrap()
}

pub(crate) fn empty_verifier() -> Verifier {
    Verifier::new(ISSUER, AUDIENCE, TENANT)
}

/// A verifier that accepts [`signer`]'s tokens.
pub(crate) fn verifier() -> Verifier {
    empty_verifier()
        .with_key(signer().public().unwrap(), None)
        .unwrap()
}

pub(crate) fn claims() -> Claims {
    Claims {
        user: "alice".into(),
        user_id: 7,
        tenant: TENANT.into(),
        epoch: 9,
        credential: 8,
        issued_at: NOW,
        expires_at: NOW + 300,
    }
}

/// The claims as they stand in a token.
pub(crate) fn claims_json() -> String {
    format!(
        r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"alice","username":"alice","tenant":"{TENANT}","uid":7,"epoch":9,"credential":8,"iat":{NOW},"exp":{}}}"#,
        NOW + 300
    )
}

pub(crate) fn header_json() -> String {
    format!(
        r#"{{"alg":"EdDSA","kid":"{}","typ":"JWT"}}"#,
        signer().kid()
    )
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with a right signature of [`signer`]'s key over any content.
pub(crate) fn sign(header: &str, claims: &str) -> String {
    sign_with(&SEED, header, claims)
}

pub(crate) fn sign_with(seed: &[u8; 32], header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
    format!("{message}.{}", encode(key.sign(message.as_bytes())))
}

pub(crate) fn sign_hmac(
    algorithm: hmac::Algorithm,
    secret: &[u8],
    header: &str,
    claims: &str,
) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes());
    format!("{message}.{}", encode(signature))
}

/// [`claims_json`] with a member's value replaced, or the member taken out.
pub(crate) fn with_claim(name: &str, value: Option<&str>) -> String {
    let mut all: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&claims_json()).unwrap();
    all.remove(name).unwrap();
    let mut members: Vec<String> = all
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    members.extend(value.map(|value| format!("\"{name}\":{value}")));
    format!("{{{}}}", members.join(","))
}

pub(crate) fn verify(token: &str) -> Result<Verified, TokenError> {
    verifier().verify(token, NOW)
}

#[track_caller]
pub(crate) fn refused(token: &str, because: TokenError) {
    assert_eq!(verify(token), Err(because), "{token}");
}
