//! Passwords: hashing, verifying, and what bcrypt must not be asked.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_auth::{
    HashScheme, PasswordHash,
    password::{
        HashError, HashParams, MAX_PASSWORD_BYTES, decoy, hash_argon2id, memory_bytes,
        needs_upgrade, verify,
    },
};

/// A vector of the reference implementation: `password`, `somesalt`, 256 KiB, two passes.
const REFERENCE: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

/// Vectors of jBCrypt.
const BCRYPT: &[(&[u8], &str)] = &[
    (
        b"",
        "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.",
    ),
    (
        b"a",
        "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe",
    ),
];

fn hash(text: &str) -> PasswordHash {
    PasswordHash::parse(text).unwrap()
}

fn bcrypt_of(password: &[u8]) -> PasswordHash {
    let parts = bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap();
    hash(&parts.format_for_version(bcrypt::Version::TwoA))
}

#[test]
fn a_hashed_password_fits_and_no_other() {
    let params = HashParams::default();
    let made = hash_argon2id(b"correct horse", [1; 16], &params).unwrap();
    assert_eq!(
        made.scheme(),
        HashScheme::Argon2id {
            memory_kib: 19 * 1024,
            passes: 2,
            lanes: 1
        }
    );
    assert!(verify(b"correct horse", &made));
    for other in [
        b"correct horsf".as_slice(),
        b"",
        b"correct horse\0",
        b"Correct horse",
    ] {
        assert!(!verify(other, &made), "{other:?}");
    }
    let salted = hash_argon2id(b"correct horse", [2; 16], &params).unwrap();
    assert_ne!(made.as_str(), salted.as_str());
}

#[test]
fn vectors_of_others_fit() {
    assert!(verify(b"password", &hash(REFERENCE)));
    assert!(!verify(b"passwore", &hash(REFERENCE)));
    for (password, text) in BCRYPT {
        for form in ["$2a$", "$2b$", "$2y$"] {
            let stored = hash(&text.replace("$2a$", form));
            assert!(verify(password, &stored), "{text}");
            assert!(!verify(b"another", &stored), "{text}");
        }
    }
}

#[test]
fn bcrypt_does_not_look_at_the_first_72_bytes_only() {
    let longest = [b'x'; 72];
    let stored = bcrypt_of(&longest);
    assert!(verify(&longest, &stored));
    assert!(!verify(&[b'x'; 73], &stored));
    assert!(!verify(&[b'x'; 200], &stored));
    assert!(!verify(&longest[..71], &stored));
}

#[test]
fn bcrypt_does_not_repeat_a_password_at_its_zero_byte() {
    // bcrypt repeats password and terminator, so that these are one to it.
    assert!(verify(b"a", &bcrypt_of(b"a\0a")));
    assert!(!verify(b"a\0a", &bcrypt_of(b"a")));
    assert!(!verify(b"a\0a", &bcrypt_of(b"a\0a")));
    assert!(!verify(b"a\0", &bcrypt_of(b"a")));
}

#[test]
fn argon2_takes_zero_bytes_and_long_passwords() {
    let cheap = |password: &[u8]| hash_argon2id(password, [3; 16], &HashParams::default());
    let long = vec![b'x'; MAX_PASSWORD_BYTES];
    for password in [b"a\0a".as_slice(), &long] {
        let stored = cheap(password).unwrap();
        assert!(verify(password, &stored));
        assert!(!verify(&password[..password.len() - 1], &stored));
    }
}

#[test]
fn a_password_of_10_mib_is_refused_early() {
    let huge = vec![b'x'; 10 << 20];
    let refused = hash_argon2id(&huge, [3; 16], &HashParams::default());
    assert_eq!(refused.err(), Some(HashError::TooLong));
    assert!(!verify(&huge, &hash(REFERENCE)));
    assert!(!verify(&huge, &bcrypt_of(b"x")));
}

#[test]
fn nothing_fits_a_decoy_and_it_costs_as_much() {
    let params = HashParams::new(20 * 1024, 3, 2).unwrap();
    let decoy = decoy(&params).unwrap();
    let real = hash_argon2id(b"", [0; 16], &params).unwrap();
    assert_eq!(decoy.scheme(), real.scheme());
    assert_eq!(decoy.as_str().len(), real.as_str().len());
    for password in [b"".as_slice(), b"root", &[0; 32]] {
        assert!(!verify(password, &decoy));
    }
}

#[test]
fn weaker_hashes_are_made_anew() {
    let fresh = hash_argon2id(b"p", [0; 16], &HashParams::default()).unwrap();
    assert!(!needs_upgrade(&fresh));
    assert!(needs_upgrade(&hash(REFERENCE)));
    assert!(needs_upgrade(&bcrypt_of(b"p")));
    let one_pass = fresh.as_str().replace("t=2", "t=1");
    assert!(needs_upgrade(&hash(&one_pass)));
}

#[test]
fn costs_below_the_least_or_beyond_the_bounds_are_refused() {
    for (memory, passes, lanes) in [
        (19 * 1024 - 1, 2, 1),
        (64 * 1024 + 1, 2, 1),
        (19 * 1024, 1, 1),
        (19 * 1024, 9, 1),
        (19 * 1024, 2, 0),
        (19 * 1024, 2, 5),
        (u32::MAX, u32::MAX, u32::MAX),
    ] {
        let refused = HashParams::new(memory, passes, lanes);
        assert_eq!(refused, Err(HashError::Params), "{memory} {passes} {lanes}");
    }
    assert!(HashParams::new(64 * 1024, 8, 4).is_ok());
}

#[test]
fn memory_is_what_verifying_takes() {
    assert_eq!(memory_bytes(&hash(REFERENCE)), 256 * 1024);
    let fresh = decoy(&HashParams::default()).unwrap();
    assert_eq!(memory_bytes(&fresh), 19 << 20);
    assert!(memory_bytes(&bcrypt_of(b"p")) < 8 * 1024);
}
