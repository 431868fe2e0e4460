//! Tokens. Input: mode, then
//!
//! * 0: the token itself;
//! * 1 and 2: header (u16 length) and claims, which get a right signature of our key or of the external issuer's;
//! * 3: the same, with the public key as an HMAC secret: the classic forgery;
//! * 4: the same, with no signature.
//!
//! Whatever is accepted is signed with Ed25519 by the issuer that it names, is for us and for our tenant, and is valid now; nobody from
//! outside is root.

use crate::input::Input;
use crate::seeds::token::{AUDIENCE, EXTERNAL, EXTERNAL_SEED, ISSUER, NOW, SEED, TENANT, key_set};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use holdfast_auth::token::{ExternalIssuer, Signer, Verified, Verifier, jwks};
use serde_json::Value;
use std::sync::LazyLock;

struct Keys {
    verifier: Verifier,
    ours: Ed25519KeyPair,
    external: Ed25519KeyPair,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let pair = |seed: &[u8; 32]| Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed");
    let signer = Signer::generate(SEED).expect("a seed");
    let keys = jwks::parse(key_set().as_bytes()).expect("a key set");
    let mut external = ExternalIssuer::new(EXTERNAL, AUDIENCE, keys);
    external.roles_claim = Some("roles".to_owned());
    let verifier = Verifier::new(ISSUER, AUDIENCE, TENANT)
        .with_key(signer.public().expect("a public key"), None)
        .and_then(|verifier| verifier.with_external(external))
        .expect("two issuers");
    Keys {
        verifier,
        ours: pair(&SEED),
        external: pair(&EXTERNAL_SEED),
    }
});

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mode = input.u8() % 5;
    if mode == 0 {
        let token = String::from_utf8_lossy(input.rest());
        let Ok(verified) = KEYS.verifier.verify(&token, NOW) else {
            return false;
        };
        let part = |index| {
            let text = token.split('.').nth(index).expect("three parts");
            URL_SAFE_NO_PAD.decode(text).expect("canonical base64")
        };
        check(&part(0), &part(1), &verified, None);
        return true;
    }
    let (header, claims) = (input.long(), input.rest());
    let message = [header, claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let signature = match mode {
        1 => KEYS.ours.sign(message.as_bytes()).as_ref().to_vec(),
        2 => KEYS.external.sign(message.as_bytes()).as_ref().to_vec(),
        3 => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, KEYS.ours.public_key().as_ref());
            hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
        }
        _ => Vec::new(),
    };
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    let Ok(verified) = KEYS.verifier.verify(&token, NOW) else {
        return false;
    };
    check(header, claims, &verified, Some(mode));
    true
}

/// Checks an accepted token against another reader of its parts. `mode`: who signed it; without, nobody knows.
fn check(header: &[u8], claims: &[u8], verified: &Verified, mode: Option<u8>) {
    let read = |part: &[u8]| serde_json::from_slice::<Value>(part).expect("JSON");
    let (header, claims) = (read(header), read(claims));
    assert_eq!(header["alg"], "EdDSA");
    assert!(header.get("crit").is_none());
    let time = |name: &str| claims[name].as_f64();
    let expires_at = match verified {
        Verified::Ours(ours) => {
            assert!(matches!(mode, None | Some(1)), "signed by another key");
            assert_eq!(claims["iss"], ISSUER);
            assert_eq!(claims["aud"], AUDIENCE);
            assert_eq!(claims["tenant"], TENANT);
            assert_eq!(claims["sub"], ours.user.as_str());
            assert_eq!(claims["uid"], ours.user_id);
            assert_eq!(claims["epoch"], ours.epoch);
            assert_eq!(claims["credential"], ours.credential);
            assert_eq!(ours.tenant, TENANT);
            assert!(ours.issued_at <= NOW + 60);
            assert!(!ours.user.is_empty() && !ours.user.contains(char::is_control));
            ours.expires_at
        }
        Verified::External {
            user,
            roles,
            expires_at,
        } => {
            assert!(matches!(mode, None | Some(2)), "signed by another key");
            assert_eq!(claims["iss"], EXTERNAL);
            let audience = &claims["aud"];
            assert!(
                audience == AUDIENCE
                    || audience
                        .as_array()
                        .is_some_and(|all| all.iter().any(|one| one == AUDIENCE))
            );
            assert_eq!(claims["sub"], user.as_str());
            assert!(user != "root" && !roles.iter().any(|role| role == "root"));
            assert!(!user.is_empty() && !user.contains(char::is_control));
            *expires_at
        }
    };
    assert!(expires_at > NOW, "it has expired");
    assert!(time("exp").is_some_and(|at| at > NOW as f64));
    assert!(time("nbf").is_none_or(|at| at <= (NOW + 60) as f64));
    assert!(time("iat").is_none_or(|at| at <= (NOW + 60) as f64));
}
