//! Random and damaged input: nothing panics, and nothing but what was signed passes.

use crate::{flag::duration, forge::*};
use holdfast_auth::token::{Signer, TokenError, jwks, parse_auth_token_flag};
use proptest::prelude::*;

/// Texts that look like tokens: parts of real ones, of right and wrong JSON, and of nothing.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(encode(header_json())),
        Just(encode(claims_json())),
        any::<Vec<u8>>().prop_map(encode),
        "[A-Za-z0-9_=+/-]{0,40}",
        json().prop_map(encode),
        ".*",
    ]
}

/// Objects with the names that are looked at and values of all kinds.
fn json() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "alg", "kid", "crit", "iss", "aud", "sub", "username", "tenant", "uid", "epoch", "exp",
        "iat", "nbf", "keys", "kty", "crv", "x", "y", "n", "e", "use", "key_ops",
    ]);
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("\"EdDSA\"".to_owned()),
        Just(format!("{ISSUER:?}")),
        Just(format!("{AUDIENCE:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        Just("[\"RSA\",{\"kty\":\"OKP\"}]".to_owned()),
        "[A-Za-z0-9_-]{0,60}".prop_map(|text| format!("{text:?}")),
        prop::sample::select(vec!["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "sig"])
            .prop_map(|text| format!("{text:?}")),
    ];
    prop::collection::vec((name, value), 0..12).prop_map(|members| {
        let members: Vec<String> = members
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_passes_or_panics(text in any::<String>(), now in any::<u64>()) {
        prop_assert!(verifier().verify(&text, now).is_err());
    }

    #[test]
    fn no_token_of_random_parts_passes(parts in prop::collection::vec(part(), 0..5), now in any::<u64>()) {
        prop_assert!(verifier().verify(&parts.join("."), now).is_err());
    }

    #[test]
    fn signed_nonsense_is_refused(header in json(), claims in json(), now in any::<u64>()) {
        prop_assert!(verifier().verify(&sign(&header, &claims), now).is_err());
        prop_assert!(verifier().verify(&sign(&header_json(), &claims), now).is_err());
    }

    #[test]
    fn a_damaged_token_is_refused(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let token = sign(&header_json(), &claims_json());
        let mut bytes = token.clone().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(changed) = String::from_utf8(bytes) && changed != token {
            prop_assert!(verify(&changed).is_err());
        }
    }

    #[test]
    fn what_is_minted_is_read_back(
        user in "[^\\p{Cc}]{1,60}",
        numbers in any::<[u64; 3]>(),
        age in 0u64..1000,
        seed in any::<[u8; 32]>(),
    ) {
        let mut claims = claims();
        claims.user = user;
        [claims.user_id, claims.epoch, claims.credential] = numbers;
        claims.issued_at = NOW - age;
        let signer = Signer::generate(seed).unwrap();
        let token = signer.mint(&claims, ISSUER, AUDIENCE).unwrap();
        let verifier = empty_verifier().with_signer(&signer).unwrap();
        let read = verifier.verify(&token, NOW);
        prop_assert_eq!(read, Ok(holdfast_auth::token::Verified::Ours(claims)));
        prop_assert_eq!(empty_verifier().verify(&token, NOW), Err(TokenError::UnknownKey));
    }

    #[test]
    fn no_bytes_make_the_key_set_reader_panic(bytes in any::<Vec<u8>>(), keys in prop::collection::vec(json(), 0..4)) {
        let _ = jwks::parse(&bytes);
        let _ = jwks::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes());
    }

    #[test]
    fn no_text_makes_the_flag_reader_panic(
        text in any::<String>(),
        options in "jwt(,(sign-method|pub-key|priv-key|ttl|x)=?(EdDSA|HS256|5s|)){0,5}",
    ) {
        let _ = parse_auth_token_flag(&text, duration);
        let _ = parse_auth_token_flag(&options, duration);
    }
}
