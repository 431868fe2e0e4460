//! Cipher suite names of TLS 1.2, as etcd's `--cipher-suites` takes them.

use rustls::{CipherSuite, SupportedCipherSuite};

use crate::error::{TlsError, Warning};

/// Names under which Go and IANA know the TLS 1.2 suites that are offered. The two short ChaCha20 names are Go's older
/// spelling.
const OFFERED: [(&str, CipherSuite); 8] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// TLS 1.3 suites: Go accepts the names and ignores them, the protocol chooses.
const TLS13: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// Suites that Go knows and that existing unit files name: no forward secrecy, CBC, RC4 or 3DES. They are skipped with a
/// warning, so that a list that also names a sound suite keeps working.
const WEAK: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// Keeps of `all` every TLS 1.3 suite and the TLS 1.2 suites that `names` asks for (all of them if `names` is empty).
///
/// # Errors
///
/// A name that nobody knows, or, if `tls12` is enabled, a list of which nothing can be offered.
pub(crate) fn select(
    all: &[SupportedCipherSuite],
    names: &[String],
    tls12: bool,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let mut wanted = Vec::new();
    for name in names {
        if let Some((_, suite)) = OFFERED.iter().find(|(known, _)| known == name) {
            wanted.push(*suite);
        } else if WEAK.contains(&name.as_str()) {
            warnings.push(Warning::CipherSuiteNotOffered { name: name.clone() });
        } else if !TLS13.contains(&name.as_str()) {
            return Err(TlsError::UnknownCipherSuite {
                name: name.chars().take(100).collect(),
                known: OFFERED.map(|(known, _)| known)[..6].join(", "),
            });
        }
    }
    if !tls12 {
        warnings.push(Warning::CipherSuitesWithoutEffect);
    } else if wanted.is_empty() {
        return Err(TlsError::Settings(format!(
            "none of the cipher suites {} is offered for TLS 1.2",
            names.join(",")
        )));
    }
    Ok(all
        .iter()
        .filter(|suite| {
            matches!(suite, SupportedCipherSuite::Tls13(_)) || wanted.contains(&suite.suite())
        })
        .copied()
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::provider;

    fn chosen(names: &[&str], tls12: bool) -> Result<(Vec<CipherSuite>, Vec<Warning>), TlsError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut warnings = Vec::new();
        let suites = select(&provider().cipher_suites, &names, tls12, &mut warnings)?;
        let tls12_suites = suites
            .iter()
            .filter(|suite| matches!(suite, SupportedCipherSuite::Tls12(_)))
            .map(SupportedCipherSuite::suite)
            .collect();
        Ok((tls12_suites, warnings))
    }

    #[test]
    fn every_offered_name_selects_exactly_its_suite() {
        for (name, suite) in OFFERED {
            let (suites, warnings) = chosen(&[name], true).unwrap();
            assert_eq!(suites, [suite], "{name}");
            assert_eq!(warnings, []);
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_even_when_it_would_have_no_effect() {
        for tls12 in [true, false] {
            let error = chosen(&["TLS_NULL_WITH_NULL_NULL"], tls12).unwrap_err();
            assert!(
                matches!(error, TlsError::UnknownCipherSuite { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn weak_suites_are_skipped_with_a_warning_but_cannot_stand_alone() {
        let strong = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        let weak = "TLS_RSA_WITH_AES_128_GCM_SHA256";
        let (suites, warnings) = chosen(&[weak, strong], true).unwrap();
        assert_eq!(suites, [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
        assert_eq!(
            warnings,
            [Warning::CipherSuiteNotOffered {
                name: weak.to_owned()
            }]
        );
        assert!(matches!(
            chosen(&[weak], true).unwrap_err(),
            TlsError::Settings(_)
        ));
    }

    #[test]
    fn with_tls13_only_the_list_is_accepted_and_called_without_effect() {
        let (_, warnings) = chosen(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], false).unwrap();
        assert_eq!(warnings, [Warning::CipherSuitesWithoutEffect]);
    }
}
