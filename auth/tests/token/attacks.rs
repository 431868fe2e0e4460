//! Forged, stolen, old and odd tokens.

use crate::forge::*;
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use holdfast_auth::token::{Claims, MAX_TOKEN_BYTES, Signer, TokenError, Verified};

#[test]
fn a_token_of_ours_passes() {
    let token = signer().mint(&claims(), ISSUER, AUDIENCE).unwrap();
    assert_eq!(verify(&token), Ok(Verified::Ours(claims())));
    assert!(token.len() < 1024);
    // The forge makes the same, so that what is refused below is refused for what was changed.
    assert_eq!(sign(&header_json(), &claims_json()), token);
}

#[test]
fn algorithm_none_is_refused_in_every_spelling() {
    let kid = signer().kid().to_owned();
    for spelling in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "NoNe",
        "",
        " none",
        "none ",
        "n\\u006fne",
    ] {
        let header = format!(r#"{{"alg":"{spelling}","kid":"{kid}"}}"#);
        let message = format!("{}.{}", encode(&header), encode(claims_json()));
        refused(&format!("{message}."), TokenError::Malformed);
        refused(&message, TokenError::Malformed);
        refused(&format!("{message}.{}", encode("x")), TokenError::Algorithm);
        refused(&sign(&header, &claims_json()), TokenError::Algorithm);
    }
    for header in [
        format!(r#"{{"kid":"{kid}"}}"#),
        format!(r#"{{"alg":null,"kid":"{kid}"}}"#),
        format!(r#"{{"alg":["EdDSA"],"kid":"{kid}"}}"#),
        format!(r#"{{"ALG":"EdDSA","kid":"{kid}"}}"#),
    ] {
        refused(&sign(&header, &claims_json()), TokenError::Algorithm);
    }
}

#[test]
fn hmac_with_the_public_key_as_secret_is_refused() {
    let public = signer().public().unwrap().ed25519_bytes().unwrap();
    // SubjectPublicKeyInfo of an Ed25519 key (RFC 8410).
    let mut der = vec![
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    der.extend(public);
    let pem = |line_end: &str| {
        let body = STANDARD.encode(&der);
        format!(
            "-----BEGIN PUBLIC KEY-----{line_end}{body}{line_end}-----END PUBLIC KEY-----{line_end}"
        )
    };
    let secrets = [
        public.to_vec(),
        der.clone(),
        pem("\n").into_bytes(),
        pem("\n").trim_end().as_bytes().to_vec(),
        pem("\r\n").into_bytes(),
        encode(public).into_bytes(),
        signer().kid().as_bytes().to_vec(),
        Vec::new(),
    ];
    for (name, algorithm) in [
        ("HS256", hmac::HMAC_SHA256),
        ("HS384", hmac::HMAC_SHA384),
        ("HS512", hmac::HMAC_SHA512),
        ("EdDSA", hmac::HMAC_SHA512),
    ] {
        let header = format!(r#"{{"alg":"{name}","kid":"{}"}}"#, signer().kid());
        let because = if name == "EdDSA" {
            TokenError::Signature
        } else {
            TokenError::Algorithm
        };
        for secret in &secrets {
            refused(
                &sign_hmac(algorithm, secret, &header, &claims_json()),
                because,
            );
        }
    }
}

#[test]
fn another_algorithm_of_the_same_key_is_refused() {
    for name in ["ES256", "RS256", "PS256", "Ed25519", "eddsa", "EDDSA"] {
        let header = header_json().replace("EdDSA", name);
        refused(&sign(&header, &claims_json()), TokenError::Algorithm);
    }
}

#[test]
fn another_tenants_token_is_refused() {
    for tenant in [
        Some("\"other\""),
        Some("\"\""),
        Some("null"),
        Some("1"),
        None,
    ] {
        let token = sign(&header_json(), &with_claim("tenant", tenant));
        refused(&token, TokenError::Tenant);
    }
}

#[test]
fn another_audiences_token_is_refused() {
    let listed = format!("[\"{AUDIENCE}\"]");
    for audience in [
        Some("\"holdfast:ffff\""),
        Some("\"\""),
        Some("null"),
        Some(listed.as_str()),
        None,
    ] {
        let token = sign(&header_json(), &with_claim("aud", audience));
        refused(&token, TokenError::Audience);
    }
}

#[test]
fn another_issuers_token_is_refused() {
    let listed = format!("[\"{ISSUER}\"]");
    for issuer in [
        Some("\"holdfast/ffff\""),
        Some("\"\""),
        Some("null"),
        Some(listed.as_str()),
        None,
    ] {
        let token = sign(&header_json(), &with_claim("iss", issuer));
        refused(&token, TokenError::Issuer);
    }
}

#[test]
fn an_expired_token_is_refused_to_the_second() {
    let token = signer().mint(&claims(), ISSUER, AUDIENCE).unwrap();
    let at = |now| verifier().verify(&token, now).err();
    assert_eq!(at(NOW + 299), None);
    assert_eq!(at(NOW + 300), Some(TokenError::Expired));
    assert_eq!(at(u64::MAX), Some(TokenError::Expired));
}

#[test]
fn a_token_from_the_future_is_refused() {
    for (name, because) in [
        ("iat", TokenError::NotYetValid),
        ("nbf", TokenError::NotYetValid),
    ] {
        let token = |at: u64| {
            let claims = claims_json().replace(&format!("\"iat\":{NOW},"), "");
            let iat = if name == "iat" { at } else { NOW };
            let nbf = if name == "nbf" { at } else { NOW };
            sign(
                &header_json(),
                &claims.replacen('{', &format!("{{\"iat\":{iat},\"nbf\":{nbf},"), 1),
            )
        };
        assert!(verify(&token(NOW + 60)).is_ok(), "{name}");
        refused(&token(NOW + 61), because);
    }
}

#[test]
fn a_retired_key_is_refused() {
    let token = signer().mint(&claims(), ISSUER, AUDIENCE).unwrap();
    let signer = signer();
    let key = signer.public().unwrap();
    let verifier = empty_verifier().with_key(key, Some(NOW + 10)).unwrap();
    assert!(verifier.verify(&token, NOW + 9).is_ok());
    assert_eq!(
        verifier.verify(&token, NOW + 10),
        Err(TokenError::RetiredKey)
    );
    // Two keys overlap, each with its own end.
    let next = Signer::generate([43; 32]).unwrap();
    let verifier = verifier.with_key(next.public().unwrap(), None).unwrap();
    let fresh = next.mint(&claims(), ISSUER, AUDIENCE).unwrap();
    assert!(verifier.verify(&token, NOW).is_ok());
    assert!(verifier.verify(&fresh, NOW + 10).is_ok());
}

#[test]
fn an_unknown_or_missing_key_id_is_refused() {
    assert_eq!(
        empty_verifier().verify(&sign(&header_json(), &claims_json()), NOW),
        Err(TokenError::UnknownKey)
    );
    for header in [
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","kid":""}"#,
        r#"{"alg":"EdDSA","kid":null}"#,
        r#"{"alg":"EdDSA","kid":0}"#,
        r#"{"alg":"EdDSA","kid":"../../etc/passwd"}"#,
        r#"{"alg":"EdDSA","kid":"' OR 1=1"}"#,
    ] {
        refused(&sign(header, &claims_json()), TokenError::UnknownKey);
    }
    // Another key's signature under a known id.
    let token = sign_with(&[43; 32], &header_json(), &claims_json());
    refused(&token, TokenError::Signature);
}

#[test]
fn a_token_of_1_mib_is_refused() {
    let token = sign(
        &header_json(),
        &with_claim("sub", Some(&format!("{:?}", "x".repeat(1 << 20)))),
    );
    refused(&token, TokenError::TooLong);
    assert_eq!(
        verify(&"x".repeat(MAX_TOKEN_BYTES)),
        Err(TokenError::Malformed)
    );
    assert_eq!(
        verify(&"x".repeat(MAX_TOKEN_BYTES + 1)),
        Err(TokenError::TooLong)
    );
}

#[test]
fn what_has_not_three_parts_is_refused() {
    let token = sign(&header_json(), &claims_json());
    let parts: Vec<&str> = token.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        header.into(),
        format!("{header}.{claims}"),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{header}.{claims}."),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{token}.{signature}.{signature}"),
        format!("{header}.{header}.{claims}.{signature}"),
        format!("Bearer {token}"),
    ] {
        refused(&token, TokenError::Malformed);
    }
}

#[test]
fn duplicate_members_are_refused() {
    let exp = format!("\"exp\":{}", NOW + 300);
    for twice in [
        claims_json().replace(&exp, &format!("{exp},{exp}")),
        claims_json().replace(&exp, &format!("\"exp\":1,{exp}")),
        claims_json().replace(&exp, &format!("\"e\\u0078p\":1,{exp}")),
        claims_json().replace("\"sub\":\"alice\"", "\"sub\":\"root\",\"sub\":\"alice\""),
        claims_json().replacen('{', "{\"unknown\":1,\"unknown\":1,", 1),
    ] {
        refused(&sign(&header_json(), &twice), TokenError::Malformed);
    }
    for twice in [
        header_json().replace("\"alg\":", "\"alg\":\"none\",\"alg\":"),
        header_json().replace("\"kid\":", "\"kid\":\"x\",\"kid\":"),
        header_json().replacen('{', "{\"unknown\":1,\"unknown\":1,", 1),
    ] {
        refused(&sign(&twice, &claims_json()), TokenError::Malformed);
    }
}

#[test]
fn unknown_members_of_any_type_are_ignored() {
    let odd = r#"{"a":null,"b":[1,{"c":[]}],"d":1e300,"e":{"exp":1},"#;
    let token = sign(
        &header_json().replacen('{', odd, 1),
        &claims_json().replacen('{', odd, 1),
    );
    assert_eq!(verify(&token), Ok(Verified::Ours(claims())));
}

#[test]
fn numbers_of_other_kinds_are_refused() {
    for name in ["exp", "iat", "uid", "epoch", "credential"] {
        for value in [
            "-1",
            "-0",
            "1.0",
            "1800000300.5",
            "1e3",
            "1e400",
            "18446744073709551616",
            "99999999999999999999999999",
            "\"1800000300\"",
            "null",
            "true",
            "[1800000300]",
            "{}",
        ] {
            let token = sign(&header_json(), &with_claim(name, Some(value)));
            let because = if value == "1e400" {
                TokenError::Malformed
            } else {
                TokenError::Claim(name)
            };
            refused(&token, because);
        }
        let token = sign(&header_json(), &with_claim(name, None));
        refused(&token, TokenError::Claim(name));
    }
    for name in ["exp", "iat"] {
        for value in [
            "18446744073709551615",
            "9223372036854775807",
            "253402300800",
        ] {
            let token = sign(&header_json(), &with_claim(name, Some(value)));
            refused(&token, TokenError::Claim(name));
        }
    }
    for value in ["null", "-1", "1.5", "\"1\"", "18446744073709551615"] {
        let claims = claims_json().replacen('{', &format!("{{\"nbf\":{value},"), 1);
        refused(&sign(&header_json(), &claims), TokenError::Claim("nbf"));
    }
    // Ids above 2^53 arrive whole.
    let token = sign(
        &header_json(),
        &with_claim("uid", Some("18446744073709551615")),
    );
    let whole = Claims {
        user_id: u64::MAX,
        ..claims()
    };
    assert_eq!(verify(&token), Ok(Verified::Ours(whole)));
}

#[test]
fn a_name_that_no_user_can_have_is_refused() {
    for (name, because) in [("sub", "sub"), ("username", "username")] {
        for value in ["\"root\"", "\"\"", "null", "1", "[\"alice\"]"] {
            let token = sign(&header_json(), &with_claim(name, Some(value)));
            let error = verify(&token).unwrap_err();
            assert!(
                [TokenError::Claim(because), TokenError::Claim("username")].contains(&error),
                "{name} {value}: {error:?}"
            );
        }
    }
    for name in [r"a\u0000b", r"a\nb", &"x".repeat(257)] {
        let token = sign(&header_json(), &claims_json().replace("alice", name));
        refused(&token, TokenError::Claim("sub"));
    }
    let token = sign(&header_json(), &claims_json().replace("alice", r"\ud800"));
    refused(&token, TokenError::Malformed);
}

#[test]
fn a_critical_extension_is_refused() {
    for crit in [
        "[]",
        "[\"exp\"]",
        "[\"b64\"],\"b64\":false",
        "\"exp\"",
        "null",
        "{}",
    ] {
        let header = header_json().replacen('{', &format!("{{\"crit\":{crit},"), 1);
        refused(&sign(&header, &claims_json()), TokenError::Critical);
    }
}

#[test]
fn keys_in_the_header_are_not_used() {
    let attacker = Signer::generate([66; 32]).unwrap();
    let x = encode(attacker.public().unwrap().ed25519_bytes().unwrap());
    let embedded = format!(
        r#"{{"jwk":{{"kty":"OKP","crv":"Ed25519","x":"{x}"}},"jku":"https://attacker.example/keys","x5u":"https://attacker.example/x","x5c":["AAAA"],"#
    );
    let header = header_json().replacen('{', &embedded, 1);
    let forged = sign_with(&[66; 32], &header, &claims_json());
    refused(&forged, TokenError::Signature);
    let unnamed = format!("{embedded}\"alg\":\"EdDSA\"}}");
    refused(
        &sign_with(&[66; 32], &unnamed, &claims_json()),
        TokenError::UnknownKey,
    );
    let named = format!(
        "{embedded}\"alg\":\"EdDSA\",\"kid\":\"{}\"}}",
        attacker.kid()
    );
    refused(
        &sign_with(&[66; 32], &named, &claims_json()),
        TokenError::UnknownKey,
    );
    // They are ignored, not refused: some issuers send them.
    assert!(verify(&sign(&header, &claims_json())).is_ok());
}

#[test]
fn only_one_spelling_of_base64_is_taken() {
    let token = sign(&header_json(), &claims_json());
    let parts: Vec<&str> = token.split('.').collect();
    for place in 0..3 {
        let with = |part: String| {
            let mut changed = parts.clone();
            changed[place] = &part;
            changed.join(".")
        };
        for changed in [
            format!("{}=", parts[place]),
            format!("{}==", parts[place]),
            format!(" {}", parts[place]),
            format!("{}\n", parts[place]),
            format!("{}%3D", parts[place]),
            format!("{}A", parts[place]),
            format!("{}\0", parts[place]),
        ] {
            assert!(
                verify(&with(changed.clone())).is_err(),
                "{place} {changed:?}"
            );
        }
    }
    // 64 bytes leave four unused bits in the last character; any but zero is another text for the same signature.
    let last = token.chars().next_back().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for other in alphabet.chars().filter(|other| *other != last) {
        let changed = format!("{}{other}", &token[..token.len() - 1]);
        assert!(verify(&changed).is_err(), "{other}");
    }
    // The alphabet of plain base64.
    let signature = parts[2].replace('-', "+").replace('_', "/");
    assert_ne!(signature, parts[2], "choose a seed with such a signature");
    let changed = format!("{}.{}.{signature}", parts[0], parts[1]);
    refused(&changed, TokenError::Malformed);
}

#[test]
fn a_change_of_any_character_is_noticed() {
    let token = sign(&header_json(), &claims_json());
    for at in 0..token.len() {
        for replacement in ["A", "B", "_", ".", "="] {
            if token[at..=at] == *replacement {
                continue;
            }
            let changed = format!("{}{replacement}{}", &token[..at], &token[at + 1..]);
            assert!(verify(&changed).is_err(), "{at} {replacement}");
        }
        let shorter = format!("{}{}", &token[..at], &token[at + 1..]);
        assert!(verify(&shorter).is_err(), "{at}");
    }
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    let nested = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    for part in [
        "",
        "null",
        "[]",
        "\"x\"",
        "{",
        "{}{}",
        "{} x",
        "\u{feff}{}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"a\":1,}",
        "{a:1}",
        nested.as_str(),
        &format!("{{\"a\":{nested}}}"),
    ] {
        refused(&sign(&header_json(), part), TokenError::Malformed);
        refused(&sign(part, &claims_json()), TokenError::Malformed);
    }
    let message = format!("{}.{}", encode(header_json()), encode(b"{\"a\":\"\xff\"}"));
    refused(&format!("{message}.AAAA"), TokenError::Malformed);
}

#[test]
fn errors_tell_nothing_of_the_token() {
    let secret = "s3cr3t";
    let header = format!(r#"{{"alg":"{secret}","kid":"{secret}","crit":["{secret}"]}}"#);
    for token in [
        secret.to_owned(),
        sign(&header, &claims_json()),
        sign(&header_json(), &with_claim("iss", Some("\"s3cr3t\""))),
        sign(&header_json(), &with_claim("exp", Some("\"s3cr3t\""))),
    ] {
        let error = verify(&token).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(!told.contains(secret), "{told}");
    }
}
