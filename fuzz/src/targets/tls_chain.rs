//! The whole verdict on what a client presents in the handshake: path, purpose, names.
//!
//! Input: mode; then
//!
//! * 0: certificates as they are (u16 length each);
//! * 1: pieces of a certificate (`certificate`), which the trusted CA signs;
//! * 2: the same, signed by somebody else.
//!
//! Whoever is let in has a certificate of the CA for clients, at most one URI, and names within the bounds of `tls_identity`. A
//! certificate that is none of the CA's never passes.

use super::tls_identity::{check_bounds, check_name};
use crate::certificate::{FOR_CLIENTS, authority, certificate};
use crate::input::Input;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use holdfast_certs::testing::Judge;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// 2027-01-15.
const NOW: Duration = Duration::from_secs(1_800_000_000);
/// More than a handshake takes.
const MAX_CERTIFICATES: usize = 10;

static CA: LazyLock<Ed25519KeyPair> = LazyLock::new(|| pair(&[44; 32]));
static STRANGER: LazyLock<Ed25519KeyPair> = LazyLock::new(|| pair(&[45; 32]));
static JUDGE: LazyLock<Judge> = LazyLock::new(|| {
    let der = authority(CA.public_key().as_ref(), |content| sign(&CA, content));
    let text = STANDARD.encode(der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    Judge::of(&pem).expect("a CA")
});

fn pair(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed")
}

fn sign(key: &Ed25519KeyPair, content: &[u8]) -> Vec<u8> {
    key.sign(content).as_ref().to_vec()
}

/// Pieces of a certificate as one of the CA's.
pub(crate) fn issued(pieces: &[u8]) -> Vec<u8> {
    certificate(&mut Input::new(pieces), |content| sign(&CA, content))
}

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mode = input.u8() % 3;
    let pieces = input.rest();
    let chain = match mode {
        0 => {
            let mut input = Input::new(pieces);
            let mut chain = Vec::new();
            while !input.is_empty() && chain.len() < MAX_CERTIFICATES {
                chain.push(input.long().to_vec());
            }
            chain
        }
        1 => vec![issued(pieces)],
        _ => vec![certificate(&mut Input::new(pieces), |content| {
            sign(&STRANGER, content)
        })],
    };
    let Ok(identity) = JUDGE.verdict(&chain, SystemTime::UNIX_EPOCH + NOW) else {
        return false;
    };
    assert_ne!(mode, 2, "signed by a stranger");
    if mode == 1 {
        assert_eq!(pieces.first(), Some(&FOR_CLIENTS), "not for clients");
    }
    assert!(identity.uri_sans.len() <= 1, "several URIs");
    assert!(identity.not_after > SystemTime::UNIX_EPOCH + NOW);
    assert!(
        JUDGE.verdict(&chain, SystemTime::UNIX_EPOCH).is_err(),
        "before its time"
    );
    check_bounds(&identity);
    check_name(&identity, None);
    check_name(&identity, Some("example.org"));
    true
}
