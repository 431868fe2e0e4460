//! Tokens and key sets, and the fixed keys behind them. Everybody knows these keys: nothing but the targets trusts them.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use holdfast_auth::token::{Claims, Signer};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "holdfast/1";
pub(crate) const AUDIENCE: &str = "holdfast:1";
pub(crate) const TENANT: &str = "default";
pub(crate) const EXTERNAL: &str = "https://idp.example";
pub(crate) const SEED: [u8; 32] = [42; 32];
pub(crate) const EXTERNAL_SEED: [u8; 32] = [43; 32];

/// Modulus of an RSA key and a point of P-256, made once and forgotten.
const RSA_N: &str = "uTSa9NO61XGrJclz4vec0qqkKOODv-VQkYyGoEaRsK_COO55-9P3Ol7ygs_w-e2i1c_H_xYTEAiyqw7GLzMpG3hidWnQK4sNi1PUIBweoX8TMywJu-wDZLhXY5e7gZ8dviBZNpLP1LArVUJvagDttVVNj6KOmm3ClrTtRB7kI1n6lBViaHWsobJCN3TUz38-b4XwmkWFj1h_FZdBQJhj2MIWsbz8pQQqzzkS2xVuQoZYILAsxrY1EXNCKMDEh3382EZ7XQOzkC9qYheDWEKybr2AaYoAHXrd5Pv29S74h2Wdq64lV1_IModmgkTiXFHrhRaKsjfE_Ccki1FVAoo_uw";
const EC_X: &str = "olUYHTMyi1JwD6BYdmqyqkG2Cep5CN62aC3BFTbUyp0";
const EC_Y: &str = "aGzELf7ZmzBR5ZQqs5gTAbkyAUygAMIZsx_BusP-9JM";

/// The keys of the external issuer: one that signs in the targets, and two that only verify.
pub(crate) fn key_set() -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&EXTERNAL_SEED).expect("a seed");
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let ed = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"ed"}}"#);
    format!(r#"{{"keys":[{ed},{},{}]}}"#, rsa(""), ec(""))
}

fn rsa(more: &str) -> String {
    format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":"AQAB","kid":"rsa"{more}}}"#)
}

fn ec(more: &str) -> String {
    format!(r#"{{"kty":"EC","crv":"P-256","x":"{EC_X}","y":"{EC_Y}","kid":"ec"{more}}}"#)
}

pub(super) fn key_sets() -> Vec<(&'static str, Vec<u8>)> {
    let set = |keys: &str| format!(r#"{{"keys":[{keys}]}}"#).into_bytes();
    vec![
        ("all_kinds", key_set().into_bytes()),
        ("rsa", set(&rsa(r#","alg":"PS256","use":"sig""#))),
        ("ec", set(&ec(r#","alg":"ES256","key_ops":["verify"]"#))),
        ("wrong_alg", set(&ec(r#","alg":"RS256""#))),
        ("private", set(&ec(r#","d":"AAAA""#))),
        (
            "symmetric",
            set(r#"{"kty":"oct","k":"c2VjcmV0","kid":"s","alg":"HS256"}"#),
        ),
        (
            "passed_over",
            set(&format!(
                r#"{},{{"kty":"OKP","crv":"X25519","x":"AA","use":"enc"}}"#,
                ec("")
            )),
        ),
        ("empty", set("")),
    ]
}

pub(super) fn tokens() -> Vec<(&'static str, Vec<u8>)> {
    let signer = Signer::generate(SEED).expect("a seed");
    let expires_at = NOW + 300;
    let claims = Claims {
        user: "alice".to_owned(),
        user_id: 7,
        tenant: TENANT.to_owned(),
        epoch: 9,
        credential: 8,
        issued_at: NOW,
        expires_at,
    };
    let whole = signer.mint(&claims, ISSUER, AUDIENCE).expect("a token");
    let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"JWT"}}"#, signer.kid());
    let ours = format!(
        r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"alice","username":"alice","tenant":"{TENANT}","uid":7,"epoch":9,"credential":8,"iat":{NOW},"exp":{expires_at}}}"#
    );
    let theirs = format!(
        r#"{{"iss":"{EXTERNAL}","aud":["x","{AUDIENCE}"],"sub":"bob","roles":["r","root"],"nbf":{NOW},"exp":{expires_at}}}"#
    );
    let parts = |mode: u8, header: &str, claims: &str| {
        [vec![mode], super::long(header.as_bytes()), claims.into()].concat()
    };
    let with = |alg: &str, kid: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
    vec![
        ("whole", [vec![0], whole.into_bytes()].concat()),
        ("ours", parts(1, &header, &ours)),
        ("theirs", parts(2, &with("EdDSA", "ed"), &theirs)),
        ("theirs_by_ours", parts(1, &with("EdDSA", "ed"), &theirs)),
        ("ours_by_theirs", parts(2, &header, &ours)),
        (
            "public_key_as_secret",
            parts(3, &with("HS256", signer.kid()), &ours),
        ),
        ("none", parts(4, &with("none", signer.kid()), &ours)),
        ("rsa", parts(2, &with("RS256", "rsa"), &theirs)),
        (
            "expired",
            parts(1, &header, &ours.replace("1800000300", "1800000000")),
        ),
        (
            "doubled",
            parts(1, &header, &ours.replacen('{', r#"{"uid":1,"#, 1)),
        ),
        (
            "critical",
            parts(1, &header.replacen('{', r#"{"crit":["b64"],"#, 1), &ours),
        ),
    ]
}
