//! Keys from files, for every algorithm, and keys that must not be used.

use crate::forge::*;
use aws_lc_rs::{
    encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der, PublicKeyX509Der},
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, RsaKeyPair,
    },
};
use holdfast_auth::token::{Algorithm, KeyError, PublicKey, Signer, TokenError, Verified};
use pem::{EncodeConfig, LineEnding, Pem};
use std::sync::LazyLock;

pub(crate) fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(label, der), lines).into_bytes()
}

/// Private key in PKCS#8, and public key.
struct Pair {
    private: Vec<u8>,
    public: Vec<u8>,
}

static RSA: LazyLock<Pair> = LazyLock::new(|| {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    Pair {
        private: private.as_ref().to_vec(),
        public: public.as_ref().to_vec(),
    }
});

fn ed25519() -> Pair {
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    Pair {
        private: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        public: public.as_ref().to_vec(),
    }
}

fn ec(algorithm: Algorithm) -> (EcdsaKeyPair, Pair) {
    let signing = if algorithm == Algorithm::Es256 {
        &ECDSA_P256_SHA256_FIXED_SIGNING
    } else {
        &ECDSA_P384_SHA384_FIXED_SIGNING
    };
    let pair = EcdsaKeyPair::generate(signing).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let both = Pair {
        private: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        public: public.as_ref().to_vec(),
    };
    (pair, both)
}

/// What the private file mints, the public one verifies, and the ids are the same.
#[track_caller]
fn check(algorithm: Algorithm, private: &[u8], public: &[u8]) {
    let signer = Signer::from_pem(algorithm, private).unwrap();
    let public = PublicKey::from_pem(algorithm, public).unwrap();
    assert_eq!(signer.kid(), public.kid());
    assert_eq!(signer.public().unwrap().kid(), public.kid());
    let token = signer.mint(&claims(), ISSUER, AUDIENCE).unwrap();
    let verifier = empty_verifier().with_key(&public, None).unwrap();
    // The same key from the other source is no second one.
    let verifier = verifier.with_signer(&signer).unwrap();
    let expected = Ok(Verified::Ours(claims()));
    assert_eq!(verifier.verify(&token, NOW), expected, "{algorithm}");

    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut claims = message.to_owned();
    claims.pop();
    let changed = format!("{claims}.{signature}");
    assert!(verifier.verify(&changed, NOW).is_err(), "{algorithm}");
    assert_eq!(
        verifier.verify(&format!("{message}.{}", encode([0; 64])), NOW),
        Err(TokenError::Signature),
        "{algorithm}"
    );
}

#[test]
fn every_asymmetric_algorithm_mints_and_verifies() {
    let pair = ed25519();
    check(
        Algorithm::EdDsa,
        &pem("PRIVATE KEY", &pair.private),
        &pem("PUBLIC KEY", &pair.public),
    );
    for algorithm in [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
    ] {
        check(
            algorithm,
            &pem("PRIVATE KEY", &RSA.private),
            &pem("PUBLIC KEY", &RSA.public),
        );
    }
    for algorithm in [Algorithm::Es256, Algorithm::Es384] {
        let (_, pair) = ec(algorithm);
        check(
            algorithm,
            &pem("PRIVATE KEY", &pair.private),
            &pem("PUBLIC KEY", &pair.public),
        );
    }
}

#[test]
fn older_forms_of_key_files_are_read() {
    // PKCS#1: what PKCS#8 wraps for a key of 2048 bits, behind 26 bytes.
    let private = pem("RSA PRIVATE KEY", &RSA.private[26..]);
    // The same for the public half, behind 24.
    let public = pem("RSA PUBLIC KEY", &RSA.public[24..]);
    check(Algorithm::Rs256, &private, &public);

    let (pair, both) = ec(Algorithm::Es256);
    let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
    // As `openssl ecparam -genkey` writes it, with the curve before.
    let curve = pem("EC PARAMETERS", &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7]);
    let file = [curve, pem("EC PRIVATE KEY", sec1.as_ref())].concat();
    check(Algorithm::Es256, &file, &pem("PUBLIC KEY", &both.public));
}

#[test]
fn every_symmetric_algorithm_mints_and_verifies() {
    let secret = [b's'; 64];
    for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
        let signer = Signer::from_pem(algorithm, &secret).unwrap();
        assert!(signer.public().is_none());
        let token = signer.mint(&claims(), ISSUER, AUDIENCE).unwrap();
        let verifier = empty_verifier().with_signer(&signer).unwrap();
        assert_eq!(
            verifier.verify(&token, NOW),
            Ok(Verified::Ours(claims())),
            "{algorithm}"
        );
        let mut other = secret;
        other[63] = b't';
        let forged = Signer::from_pem(algorithm, &other).unwrap();
        assert_ne!(forged.kid(), signer.kid());
        let forged = forged.mint(&claims(), ISSUER, AUDIENCE).unwrap();
        assert_eq!(verifier.verify(&forged, NOW), Err(TokenError::UnknownKey));

        let short = &secret[..algorithm.name()[2..].parse::<usize>().unwrap() / 8 - 1];
        assert!(matches!(
            Signer::from_pem(algorithm, short),
            Err(KeyError::ShortSecret(..))
        ));
        assert_eq!(
            PublicKey::from_pem(algorithm, &secret).err(),
            Some(KeyError::NoPublicKey(algorithm))
        );
    }
}

#[test]
fn a_public_key_is_no_secret() {
    for (label, der) in [
        ("PUBLIC KEY", &RSA.public),
        ("RSA PUBLIC KEY", &RSA.public),
        ("CERTIFICATE", &RSA.public),
    ] {
        let refused = Signer::from_pem(Algorithm::Hs256, &pem(label, der));
        assert_eq!(refused.err(), Some(KeyError::PublicSecret), "{label}");
    }
}

#[test]
fn a_token_signed_with_hmac_and_an_rsa_key_file_is_refused() {
    let file = pem("PUBLIC KEY", &RSA.public);
    let key = PublicKey::from_pem(Algorithm::Rs256, &file).unwrap();
    let verifier = empty_verifier().with_key(&key, None).unwrap();
    let header = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, key.kid());
    for secret in [file.as_slice(), file.trim_ascii_end(), &RSA.public] {
        let token = sign_hmac(
            aws_lc_rs::hmac::HMAC_SHA256,
            secret,
            &header,
            &claims_json(),
        );
        assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Algorithm));
    }
}

#[test]
fn one_rsa_key_verifies_one_algorithm() {
    let private = pem("PRIVATE KEY", &RSA.private);
    let pss = Signer::from_pem(Algorithm::Ps256, &private).unwrap();
    let pkcs1 = Signer::from_pem(Algorithm::Rs256, &private).unwrap();
    assert_eq!(pss.kid(), pkcs1.kid());
    let verifier = empty_verifier().with_signer(&pss).unwrap();
    let token = pkcs1.mint(&claims(), ISSUER, AUDIENCE).unwrap();
    assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Algorithm));
    assert_eq!(
        verifier.with_signer(&pkcs1).err(),
        Some(KeyError::DuplicateKeyId)
    );
}

#[test]
fn files_of_the_wrong_kind_are_refused() {
    let (_, p256) = ec(Algorithm::Es256);
    let (_, p384) = ec(Algorithm::Es384);
    let ed = ed25519();
    let pairs = [
        (Algorithm::EdDsa, &ed),
        (Algorithm::Es256, &p256),
        (Algorithm::Es384, &p384),
        (Algorithm::Rs256, &*RSA),
    ];
    for (algorithm, own) in pairs {
        for (_, other) in pairs.iter().filter(|(other, _)| *other != algorithm) {
            assert_eq!(
                Signer::from_pem(algorithm, &pem("PRIVATE KEY", &other.private)).err(),
                Some(KeyError::Invalid(algorithm)),
            );
            assert_eq!(
                PublicKey::from_pem(algorithm, &pem("PUBLIC KEY", &other.public)).err(),
                Some(KeyError::Invalid(algorithm)),
            );
        }
        let private = pem("PRIVATE KEY", &own.private);
        let public = pem("PUBLIC KEY", &own.public);
        assert_eq!(
            Signer::from_pem(algorithm, &public).err(),
            Some(KeyError::NotOneKey("private key"))
        );
        assert_eq!(
            PublicKey::from_pem(algorithm, &private).err(),
            Some(KeyError::NotOneKey("public key"))
        );
        let twice = [private.clone(), private].concat();
        assert_eq!(
            Signer::from_pem(algorithm, &twice).err(),
            Some(KeyError::NotOneKey("private key"))
        );
        assert_eq!(
            Signer::from_pem(algorithm, &pem("ENCRYPTED PRIVATE KEY", &own.private)).err(),
            Some(KeyError::Encrypted)
        );
        for bytes in [&[][..], b"not a key", &[0xff; 100], &own.private] {
            assert!(Signer::from_pem(algorithm, bytes).is_err());
            assert!(PublicKey::from_pem(algorithm, bytes).is_err());
        }
        assert_eq!(
            PublicKey::from_pem(algorithm, &vec![b' '; 65 * 1024]).err(),
            Some(KeyError::TooLong)
        );
        // Every length that a damaged file may have.
        for length in 0..own.private.len() {
            let cut = pem("PRIVATE KEY", &own.private[..length]);
            assert!(Signer::from_pem(algorithm, &cut).is_err(), "{length}");
        }
    }
}

#[test]
fn the_algorithm_that_is_not_offered_says_so() {
    let message = Algorithm::from_name("ES512").unwrap_err().to_string();
    assert!(message.contains("ES512"), "{message}");
    for name in ["none", "", "eddsa", "HS1", "RS256 ", "ES256K"] {
        assert!(Algorithm::from_name(name).is_err(), "{name}");
    }
}

#[test]
fn a_seed_gives_one_key_and_the_log_carries_its_public_half() {
    let signer = signer();
    let bytes = signer.public().unwrap().ed25519_bytes().unwrap();
    let carried = PublicKey::ed25519(bytes).unwrap();
    assert_eq!(carried.kid(), signer.kid());
    assert_eq!(signer.kid(), Signer::generate(SEED).unwrap().kid());
    assert_ne!(signer.kid(), Signer::generate([43; 32]).unwrap().kid());
}

#[test]
fn keys_are_not_shown() {
    let secret = [b's'; 32];
    let hmac = Signer::from_pem(Algorithm::Hs256, &secret).unwrap();
    let shown = format!("{:?} {:?} {:?}", hmac, signer(), signer().public());
    for hidden in ["sss", "115, 115", "7373", "42, 42", "2a2a"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(shown.contains(hmac.kid()));
}
