//! `--auth-token`.

use holdfast_auth::token::{
    Algorithm, AlgorithmError, DEFAULT_TTL, FlagError, TokenOptions, parse_auth_token_flag,
};
use std::time::Duration;

/// Stands for the configuration's reader of durations: whole seconds, and `1500ms`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "1500ms" {
        return Some(Duration::from_millis(1500));
    }
    Some(Duration::from_secs(text.strip_suffix('s')?.parse().ok()?))
}

#[track_caller]
fn check(text: &str, expected: Result<TokenOptions, FlagError>) {
    assert_eq!(parse_auth_token_flag(text, duration), expected, "{text}");
}

fn jwt(
    method: Algorithm,
    public: Option<&str>,
    private: Option<&str>,
    ttl: Duration,
) -> TokenOptions {
    TokenOptions::Jwt {
        sign_method: method,
        pub_key: public.map(Into::into),
        priv_key: private.map(Into::into),
        ttl,
    }
}

#[test]
fn etcds_values_are_read() {
    check("", Ok(TokenOptions::None));
    check("simple", Ok(TokenOptions::Simple));
    check(
        "jwt,pub-key=/a/app.rsa.pub,priv-key=/a/app.rsa,sign-method=RS512,ttl=600s",
        Ok(jwt(
            Algorithm::Rs512,
            Some("/a/app.rsa.pub"),
            Some("/a/app.rsa"),
            Duration::from_secs(600),
        )),
    );
    check(
        "jwt,sign-method=EdDSA,pub-key=a=b",
        Ok(jwt(Algorithm::EdDsa, Some("a=b"), None, DEFAULT_TTL)),
    );
    check(
        "jwt,sign-method=ES384,priv-key=p",
        Ok(jwt(Algorithm::Es384, None, Some("p"), DEFAULT_TTL)),
    );
    check(
        "jwt,priv-key=secret,sign-method=HS256",
        Ok(jwt(Algorithm::Hs256, None, Some("secret"), DEFAULT_TTL)),
    );
}

#[test]
fn other_values_are_refused_with_their_reason() {
    for (text, expected) in [
        ("Simple", FlagError::Type),
        (" simple", FlagError::Type),
        ("jwt2,sign-method=EdDSA", FlagError::Type),
        (",", FlagError::Type),
        ("simple,", FlagError::SimpleOptions),
        ("simple,ttl=1s", FlagError::SimpleOptions),
        ("jwt", FlagError::NoMethod),
        ("jwt,", FlagError::Option),
        ("jwt,priv-key=p", FlagError::NoMethod),
        ("jwt,sign-method", FlagError::Option),
        ("jwt,sign-method=EdDSA,priv-key=p,", FlagError::Option),
        ("jwt,sign-method=EdDSA,private-key=p", FlagError::Option),
        ("jwt,sign-method=EdDSA, priv-key=p", FlagError::Option),
        (
            "jwt,sign-method=,priv-key=p",
            FlagError::NoValue("sign-method"),
        ),
        (
            "jwt,sign-method=EdDSA,priv-key=",
            FlagError::NoValue("priv-key"),
        ),
        (
            "jwt,sign-method=EdDSA,priv-key=p,sign-method=HS256",
            FlagError::Twice("sign-method"),
        ),
        (
            "jwt,sign-method=EdDSA,priv-key=p,priv-key=p",
            FlagError::Twice("priv-key"),
        ),
        (
            "jwt,sign-method=none,priv-key=p",
            FlagError::Method(AlgorithmError::Unknown),
        ),
        (
            "jwt,sign-method=eddsa,priv-key=p",
            FlagError::Method(AlgorithmError::Unknown),
        ),
        (
            "jwt,sign-method=ES512,priv-key=p",
            FlagError::Method(AlgorithmError::Es512),
        ),
        ("jwt,sign-method=EdDSA", FlagError::NoKey),
        (
            "jwt,sign-method=HS256",
            FlagError::NoSecret(Algorithm::Hs256),
        ),
        (
            "jwt,sign-method=HS256,pub-key=p",
            FlagError::NoPublicKey(Algorithm::Hs256),
        ),
        (
            "jwt,sign-method=HS256,pub-key=p,priv-key=p",
            FlagError::NoPublicKey(Algorithm::Hs256),
        ),
        ("jwt,sign-method=EdDSA,priv-key=p,ttl=x", FlagError::Ttl),
        ("jwt,sign-method=EdDSA,priv-key=p,ttl=0s", FlagError::Ttl),
        (
            "jwt,sign-method=EdDSA,priv-key=p,ttl=1500ms",
            FlagError::Ttl,
        ),
        ("jwt,sign-method=EdDSA,priv-key=p,ttl=-5s", FlagError::Ttl),
        (
            "jwt,sign-method=EdDSA,priv-key=p,ttl=2592001s",
            FlagError::Ttl,
        ),
    ] {
        check(text, Err(expected));
    }
    check(&"x".repeat(17 * 1024), Err(FlagError::TooLong));
}
