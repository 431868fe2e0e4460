//! Key sets, and tokens of an external issuer.

use crate::forge::*;
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair, RsaPublicKeyComponents,
    },
};
use holdfast_auth::token::{
    Algorithm, ExternalIssuer, KeyError, Signer, TokenError, Verified, Verifier,
    jwks::{self, Ignored, JwksError},
};

const IDP: &str = "https://idp.example";

/// An Ed25519 key of a seed as a JWK, with further members.
fn jwk(seed: [u8; 32], kid: &str, more: &str) -> String {
    let signer = Signer::generate(seed).unwrap();
    let x = encode(signer.public().unwrap().ed25519_bytes().unwrap());
    format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"{kid}"{more}}}"#)
}

/// The `SubjectPublicKeyInfo` of a seed's key.
fn signer_info(seed: [u8; 32]) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let info: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    encode(info.as_ref())
}

fn set(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

fn parse(keys: &[String]) -> Result<jwks::KeySet, JwksError> {
    jwks::parse(set(keys).as_bytes())
}

fn issuer() -> ExternalIssuer {
    let keys = parse(&[jwk(SEED, "k1", "")]).unwrap();
    ExternalIssuer {
        roles_claim: Some("groups".into()),
        ..ExternalIssuer::new(IDP, "holdfast", keys)
    }
}

/// A verifier that takes our own tokens and those of [`issuer`] – whose key is the same, to make mixing them up easy.
fn both() -> Verifier {
    verifier().with_external(issuer()).unwrap()
}

const HEADER: &str = r#"{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}"#;

fn token(user: &str, aud: &str, more: &str) -> String {
    let exp = NOW + 300;
    let claims =
        format!(r#"{{"iss":"{IDP}","aud":{aud},"sub":{user},"iat":{NOW},"exp":{exp}{more}}}"#);
    sign(HEADER, &claims)
}

fn passes(user: &str, roles: &[&str]) -> Result<Verified, TokenError> {
    Ok(Verified::External {
        user: user.into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        expires_at: NOW + 300,
    })
}

#[track_caller]
fn check(token: &str, expected: Result<Verified, TokenError>) {
    assert_eq!(both().verify(token, NOW), expected, "{token}");
}

#[test]
fn a_token_of_the_issuer_passes() {
    check(&token(r#""bob""#, r#""holdfast""#, ""), passes("bob", &[]));
    check(
        &token(
            r#""bob""#,
            r#"["other","holdfast"]"#,
            r#","groups":["a","b","a"]"#,
        ),
        passes("bob", &["a", "b"]),
    );
    check(
        &token(r#""bob""#, r#""holdfast""#, r#","groups":" a  b a ""#),
        passes("bob", &["a", "b"]),
    );
}

#[test]
fn other_claims_can_name_the_user_and_roles_need_a_claim() {
    let by_mail = ExternalIssuer {
        user_claim: "mail".into(),
        roles_claim: None,
        ..issuer()
    };
    let verifier = empty_verifier().with_external(by_mail).unwrap();
    let text = token(
        r#""bob""#,
        r#""holdfast""#,
        r#","mail":"b@x","groups":["a"]"#,
    );
    assert_eq!(verifier.verify(&text, NOW), passes("b@x", &[]));
    assert!(
        verifier
            .verify(&token(r#""bob""#, r#""holdfast""#, ""), NOW)
            .is_err()
    );
}

#[test]
fn an_external_token_makes_nobody_root() {
    check(
        &token(r#""root""#, r#""holdfast""#, ""),
        Err(TokenError::ExternalRoot),
    );
    for roles in [r#"["root","a","root"]"#, r#""root a root""#] {
        let more = format!(r#","groups":{roles}"#);
        check(
            &token(r#""bob""#, r#""holdfast""#, &more),
            passes("bob", &["a"]),
        );
    }
}

#[test]
fn other_audiences_are_refused() {
    for aud in [
        r#""other""#,
        r#"["other"]"#,
        "[]",
        "null",
        "1",
        r#"["holdfast",1]"#,
        r#"{"holdfast":1}"#,
        r#""holdfast ""#,
        &format!("[{}\"holdfast\"]", "\"x\",".repeat(64)),
    ] {
        check(&token(r#""bob""#, aud, ""), Err(TokenError::Audience));
    }
    // Meant for us as an issuer of our own, not for the name that the provider knows us by.
    check(
        &token(r#""bob""#, &format!("{AUDIENCE:?}"), ""),
        Err(TokenError::Audience),
    );
}

#[test]
fn users_and_roles_are_bounded() {
    for user in [
        r#""""#,
        "null",
        "1",
        r#"["bob"]"#,
        r#""a\u0001b""#,
        &format!("{:?}", "x".repeat(257)),
    ] {
        check(
            &token(user, r#""holdfast""#, ""),
            Err(TokenError::Claim("of the user")),
        );
    }
    let many = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("\"r{n}\"")).collect();
        format!("[{}]", names.join(","))
    };
    let bob = r#""bob""#;
    let with = |roles: &str| token(bob, r#""holdfast""#, &format!(",\"groups\":{roles}"));
    assert!(both().verify(&with(&many(64)), NOW).is_ok());
    // Written out, and not there.
    assert!(both().verify(&with("null"), NOW).is_ok());
    for roles in [
        &many(65),
        "1",
        "{}",
        "[1]",
        r#"[""]"#,
        r#"[["a"]]"#,
        r#"["a\nb"]"#,
        &format!("[{:?}]", "x".repeat(257)),
        &format!("{:?}", "x ".repeat(65)),
    ] {
        check(&with(roles), Err(TokenError::Claim("of the roles")));
    }
}

#[test]
fn times_are_checked_as_with_our_own() {
    let with = |times: &str| {
        let claims = format!(r#"{{"iss":"{IDP}","aud":"holdfast","sub":"bob"{times}}}"#);
        both().verify(&sign(HEADER, &claims), NOW).err()
    };
    assert_eq!(with(&format!(r#","exp":{}"#, NOW + 1)), None);
    assert_eq!(with(&format!(r#","exp":{NOW}"#)), Some(TokenError::Expired));
    assert_eq!(with(""), Some(TokenError::Claim("exp")));
    assert_eq!(with(r#","exp":1e12"#), Some(TokenError::Claim("exp")));
    let late = NOW + 61;
    for name in ["iat", "nbf"] {
        let times = format!(r#","exp":{},"{name}":{late}"#, NOW + 100);
        assert_eq!(with(&times), Some(TokenError::NotYetValid));
    }
}

#[test]
fn issuers_do_not_speak_for_each_other() {
    // One private key behind both: only `iss` and `kid` tell them apart.
    let ours = sign(HEADER, &claims_json());
    check(&ours, Err(TokenError::UnknownKey));
    let theirs = token(r#""bob""#, r#""holdfast""#, "");
    let under_our_kid = sign(
        &header_json(),
        &format!(
            r#"{{"iss":"{IDP}","aud":"holdfast","sub":"bob","exp":{}}}"#,
            NOW + 9
        ),
    );
    check(&under_our_kid, Err(TokenError::UnknownKey));
    assert_eq!(verifier().verify(&theirs, NOW), Err(TokenError::Issuer));
}

#[test]
fn issuers_need_names_of_their_own() {
    let with = |change: &dyn Fn(&mut ExternalIssuer)| {
        let mut external = issuer();
        change(&mut external);
        both().with_external(external).err()
    };
    let taken = Some(KeyError::Issuer);
    assert_eq!(with(&|_| {}), taken);
    assert_eq!(with(&|external| external.issuer = ISSUER.into()), taken);
    assert_eq!(with(&|external| external.issuer.clear()), taken);
    let renamed = |external: &mut ExternalIssuer| external.issuer = "https://b".into();
    assert_eq!(with(&renamed), None);
    for emptied in [
        |external: &mut ExternalIssuer| external.audience.clear(),
        |external: &mut ExternalIssuer| external.user_claim.clear(),
        |external: &mut ExternalIssuer| external.roles_claim = Some(String::new()),
    ] {
        let change = |external: &mut ExternalIssuer| {
            renamed(external);
            emptied(external);
        };
        assert_eq!(with(&change), taken);
    }
}

#[test]
fn keys_of_each_supported_kind_verify() {
    let claims = format!(
        r#"{{"iss":"{IDP}","aud":"holdfast","sub":"bob","exp":{}}}"#,
        NOW + 300
    );
    let message = |alg: &str, kid: &str| {
        let header = format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
        format!("{}.{}", encode(header), encode(&claims))
    };
    let random = SystemRandom::new();

    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = ec.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    let ec_jwk = format!(
        r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","kid":"ec","alg":"ES256","use":"sig"}}"#
    );
    let ec_message = message("ES256", "ec");
    let ec_signature = ec.sign(&random, ec_message.as_bytes()).unwrap();

    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
    let (n, e) = (encode(&public.n), encode(&public.e));
    let rsa_jwk = |alg: &str| format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}","kid":"rsa"{alg}}}"#);
    let rsa_message = message("RS256", "rsa");
    let mut rsa_signature = vec![0; 256];
    rsa.sign(
        &RSA_PKCS1_SHA256,
        &random,
        rsa_message.as_bytes(),
        &mut rsa_signature,
    )
    .unwrap();

    let verifier = |keys: &[String]| {
        let external = ExternalIssuer::new(IDP, "holdfast", parse(keys).unwrap());
        empty_verifier().with_external(external).unwrap()
    };
    let ec_token = format!("{ec_message}.{}", encode(ec_signature));
    let rsa_token = format!("{rsa_message}.{}", encode(&rsa_signature));
    // Without `alg`, an RSA key is for RS256.
    let set = verifier(&[ec_jwk.clone(), rsa_jwk("")]);
    assert_eq!(set.verify(&ec_token, NOW), passes("bob", &[]));
    assert_eq!(set.verify(&rsa_token, NOW), passes("bob", &[]));
    // With another, it is for that one only.
    let pss = verifier(&[ec_jwk, rsa_jwk(r#","alg":"PS256""#)]);
    assert_eq!(pss.verify(&rsa_token, NOW), Err(TokenError::Algorithm));
}

#[test]
fn keys_that_verify_nothing_here_are_passed_over_and_told() {
    let good = jwk(
        SEED,
        "k1",
        r#","alg":"EdDSA","use":"sig","key_ops":["verify"],"x5c":["AA"]"#,
    );
    let passed_over = [
        (jwk(SEED, "k2", r#","use":"enc""#), "its use is not sig"),
        (
            jwk(SEED, "k3", r#","key_ops":["encrypt"]"#),
            "verify is not among its key_ops",
        ),
        (
            jwk(SEED, "k4", r#","alg":"ES512""#),
            "its alg is not supported",
        ),
        (
            jwk(SEED, "k5", r#","alg":"none""#),
            "its alg is not supported",
        ),
        (
            jwk(SEED, "k6", "").replace("Ed25519", "X25519"),
            "keys of its kty and crv are not supported",
        ),
        (
            r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA","kid":"k7"}"#.into(),
            "keys of its kty and crv are not supported",
        ),
    ];
    for (other, reason) in &passed_over {
        let set = parse(&[good.clone(), other.clone()]).unwrap();
        assert_eq!(set.len(), 1);
        assert_eq!(set.ignored(), [Ignored { index: 1, reason }]);
        assert_eq!(
            parse(std::slice::from_ref(other)).err(),
            Some(JwksError::Empty)
        );
    }
}

#[test]
fn key_sets_with_anything_wrong_are_refused() {
    let good = jwk(SEED, "k1", "");
    let check = |other: String, expected: JwksError| {
        let refused = parse(&[good.clone(), other.clone()]);
        assert_eq!(refused.err(), Some(expected), "{other}");
    };
    check(
        r#"{"kty":"oct","k":"c2VjcmV0","kid":"k2"}"#.into(),
        JwksError::Symmetric(1),
    );
    check(
        r#"{"kty":"oct","kid":"k2"}"#.into(),
        JwksError::Symmetric(1),
    );
    check(
        r#"{"kty":"oct","k":"AA","kid":"k2","use":"enc"}"#.into(),
        JwksError::Symmetric(1),
    );
    check(
        jwk(SEED, "k2", r#","k":null"#).replace("null", "1"),
        JwksError::Symmetric(1),
    );
    check(jwk(SEED, "k2", r#","d":"AA""#), JwksError::Private(1));
    check(jwk(SEED, "k1", ""), JwksError::DuplicateKeyId(1));
    check(jwk(SEED, "", ""), JwksError::KeyId(1));
    check(jwk(SEED, &"k".repeat(257), ""), JwksError::KeyId(1));
    check(good.replace(r#","kid":"k1""#, ""), JwksError::KeyId(1));
    for alg in ["ES256", "RS256", "HS256"] {
        check(
            jwk(SEED, "k2", &format!(r#","alg":"{alg}""#)),
            JwksError::Algorithm(1),
        );
    }
    let invalid = |algorithm| JwksError::Key(1, KeyError::Invalid(algorithm));
    for x in [
        String::new(),
        encode([1; 31]),
        encode([1; 33]),
        "A".repeat(43) + "=",
        "!".into(),
    ] {
        check(
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"k2"}}"#),
            invalid(Algorithm::EdDsa),
        );
    }
    check(
        r#"{"kty":"OKP","crv":"Ed25519","kid":"k2"}"#.into(),
        invalid(Algorithm::EdDsa),
    );
    // A `SubjectPublicKeyInfo`, which key files have.
    let info = signer_info(SEED);
    check(
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{info}","kid":"k2"}}"#),
        invalid(Algorithm::EdDsa),
    );
    // A point of the curve, cut at the wrong place.
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = ec.public_key().as_ref()[1..].split_at(31);
    check(
        format!(
            r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}","kid":"k2"}}"#,
            encode(x),
            encode(y)
        ),
        invalid(Algorithm::Es256),
    );
    // Not on the curve, and coordinates of the other curve's length.
    for (crv, bytes, algorithm) in [
        ("P-256", 32, Algorithm::Es256),
        ("P-256", 48, Algorithm::Es256),
        ("P-384", 48, Algorithm::Es384),
        ("P-384", 32, Algorithm::Es384),
    ] {
        let c = encode(vec![5; bytes]);
        check(
            format!(r#"{{"kty":"EC","crv":"{crv}","x":"{c}","y":"{c}","kid":"k2"}}"#),
            invalid(algorithm),
        );
    }
    for bytes in [128, 255, 1025, 2000] {
        let n = encode(vec![0xff; bytes]);
        let key = format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","kid":"k2"}}"#);
        let error = parse(&[good.clone(), key]).err().unwrap();
        let named = matches!(
            error,
            JwksError::Key(
                1,
                KeyError::RsaBits(_) | KeyError::Invalid(Algorithm::Rs256)
            )
        );
        assert!(named, "{bytes}: {error:?}");
    }
    let n = encode(vec![0xff; 256]);
    for e in ["", "AA", "AQ", "Ag"] {
        check(
            format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}","kid":"k2"}}"#),
            invalid(Algorithm::Rs256),
        );
    }
}

#[test]
fn key_sets_are_bounded_and_well_formed() {
    let keys = |count: usize| -> Vec<String> {
        (0..count)
            .map(|n| jwk(SEED, &format!("k{n}"), ""))
            .collect()
    };
    assert_eq!(parse(&keys(64)).unwrap().len(), 64);
    assert_eq!(parse(&keys(65)).err(), Some(JwksError::TooManyKeys));
    assert_eq!(parse(&[]).err(), Some(JwksError::Empty));
    let mut long = set(&keys(1));
    long.push_str(&" ".repeat(jwks::MAX_BYTES));
    assert_eq!(jwks::parse(long.as_bytes()).err(), Some(JwksError::TooLong));
    let good = set(&keys(1));
    for text in [
        "",
        "null",
        "{}",
        "[]",
        r#"{"keys":{}}"#,
        r#"{"keys":[null]}"#,
        r#"{"keys":[{}]}"#,
        r#"{"keys":[],"keys":[]}"#,
        &good.replace(r#""kid":"k0""#, r#""kid":"k0","kid":"k0""#),
        &good.replace(r#""kid":"k0""#, r#""kid":1"#),
        &good.replace(r#""kty":"OKP""#, r#""kty":["OKP"]"#),
        &good[1..],
        &format!("{good}x"),
    ] {
        assert_eq!(
            jwks::parse(text.as_bytes()).err(),
            Some(JwksError::Malformed),
            "{text}"
        );
    }
}
