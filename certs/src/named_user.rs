//! Which user a verified client certificate names.
//!
//! A SPIFFE id in the URI alternative name comes first; a certificate that has one is judged by it alone, whatever else it
//! says. Without a URI the common name is the user, as in etcd.

use std::fmt;

use crate::identity::PeerIdentity;

/// Longest trust domain, as long as a host name (SPIFFE-ID §2.1).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest SPIFFE id (SPIFFE-ID §2.3).
const MAX_ID_BYTES: usize = 2048;

const SCHEME: &str = "spiffe://";

/// The user that a certificate names. Whether there is such a tenant and such a user is not for this crate to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedUser {
    /// The tenant, if the certificate names one: letters, digits, `.`, `-` and `_`.
    pub tenant: Option<String>,
    /// The user, never empty and free of control characters: a segment of letters, digits, `.`, `-` and `_` when there is a
    /// tenant, otherwise the whole SPIFFE id or the common name.
    pub user: String,
    /// Where the name stands in the certificate.
    pub by: NameSource,
}

/// The place of a user's name in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSource {
    /// The URI alternative name.
    Uri,
    /// The subject's common name.
    CommonName,
}

impl NameSource {
    /// A short fixed word for audit records.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Uri => "uri",
            Self::CommonName => "common_name",
        }
    }
}

/// Why a certificate that is valid names nobody who could be let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Two names are two users: whoever picks one picks a user. The handshake has refused it already.
    #[error("the certificate has several URI names")]
    SeveralUris,
    /// The URI is not a SPIFFE id that names a workload.
    #[error("the certificate's URI {uri:?} is not a SPIFFE id: {reason}")]
    NotSpiffe {
        /// The URI as in the certificate.
        uri: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another trust domain than the accepted one.
    #[error("the certificate is of trust domain {found:?}; only {accepted:?} is accepted")]
    OtherTrustDomain {
        /// That of the certificate.
        found: String,
        /// The one that is accepted.
        accepted: String,
    },
    /// The common name looks like a SPIFFE id: as a user name it would stand for a URI that the certificate does not have.
    #[error("the certificate's common name {0:?} is a SPIFFE id, which belongs into a URI name")]
    UriAsCommonName(String),
    /// Asked for a member, and the URI is the SPIFFE id of something else.
    #[error("the certificate's URI {0:?} does not name a member")]
    NotAMember(String),
}

impl IdentityError {
    /// A short fixed word for metric labels and audit records.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::SeveralUris => "several_uris",
            Self::NotSpiffe { .. } => "not_spiffe",
            Self::OtherTrustDomain { .. } => "other_trust_domain",
            Self::UriAsCommonName(_) => "uri_as_common_name",
            Self::NotAMember(_) => "not_a_member",
        }
    }
}

impl PeerIdentity {
    /// The user that the certificate names; `None` if it names nobody and so is good for the connection alone.
    ///
    /// `spiffe://<trust domain>/tenant/<t>/user/<u>` names user `u` of tenant `t`; any other SPIFFE id is a user name as a whole.
    /// With a `trust_domain` only ids of that one are accepted.
    ///
    /// # Errors
    ///
    /// The certificate has a URI, and it is not a SPIFFE id or one of another trust domain; or its common name pretends to be one.
    /// The holder is then nobody: to fall back to the common name would be to let the issuer's mistake choose a user.
    pub fn named_user(
        &self,
        trust_domain: Option<&str>,
    ) -> Result<Option<NamedUser>, IdentityError> {
        named_user(&self.uri_sans, self.common_name.as_deref(), trust_domain)
    }
}

fn named_user(
    uris: &[String],
    common_name: Option<&str>,
    trust_domain: Option<&str>,
) -> Result<Option<NamedUser>, IdentityError> {
    let Some((uri, id)) = spiffe_id(uris, trust_domain)? else {
        return by_common_name(common_name);
    };
    let (tenant, user) = match id.path.split('/').collect::<Vec<_>>()[..] {
        ["tenant", tenant, "user", user] => (Some(tenant.to_owned()), user.to_owned()),
        _ => (None, uri.to_owned()),
    };
    Ok(Some(NamedUser {
        tenant,
        user,
        by: NameSource::Uri,
    }))
}

/// The one SPIFFE id among the URIs, whole and taken apart; `None` if there is no URI.
pub(crate) fn spiffe_id<'a>(
    uris: &'a [String],
    trust_domain: Option<&str>,
) -> Result<Option<(&'a str, SpiffeId<'a>)>, IdentityError> {
    let uri = match uris {
        [] => return Ok(None),
        [uri] => uri,
        [_, _, ..] => return Err(IdentityError::SeveralUris),
    };
    let id = SpiffeId::parse(uri).map_err(|reason| IdentityError::NotSpiffe {
        uri: uri.clone(),
        reason,
    })?;
    if let Some(accepted) = trust_domain
        && accepted != id.trust_domain
    {
        return Err(IdentityError::OtherTrustDomain {
            found: id.trust_domain.to_owned(),
            accepted: accepted.to_owned(),
        });
    }
    Ok(Some((uri, id)))
}

fn by_common_name(name: Option<&str>) -> Result<Option<NamedUser>, IdentityError> {
    Ok(plain_common_name(name)?.map(|name| NamedUser {
        tenant: None,
        user: name.to_owned(),
        by: NameSource::CommonName,
    }))
}

/// The common name where it may stand for a name: not empty, and not a SPIFFE id in the wrong place.
pub(crate) fn plain_common_name(name: Option<&str>) -> Result<Option<&str>, IdentityError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let scheme = name.get(..SCHEME.len());
    if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
        return Err(IdentityError::UriAsCommonName(name.to_owned()));
    }
    Ok(Some(name))
}

/// A SPIFFE id that names a workload, taken apart. Nothing is decoded or normalised: there is one spelling for each id, so that
/// comparing bytes compares ids.
pub(crate) struct SpiffeId<'a> {
    pub(crate) trust_domain: &'a str,
    /// Without the first slash; never empty.
    pub(crate) path: &'a str,
}

impl<'a> SpiffeId<'a> {
    /// SPIFFE-ID §2; the alphabets leave no room for a port, a user, a query, a fragment or percent-encoding.
    pub(crate) fn parse(uri: &'a str) -> Result<Self, &'static str> {
        if uri.len() > MAX_ID_BYTES {
            return Err("it is longer than 2048 bytes");
        }
        let rest = uri
            .strip_prefix(SCHEME)
            .ok_or("it does not begin with spiffe://")?;
        let (trust_domain, path) = rest
            .split_once('/')
            .ok_or("it has no path, so it names no workload")?;
        if trust_domain.is_empty() || trust_domain.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err("the trust domain must have 1 to 255 bytes");
        }
        let in_domain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if !trust_domain.bytes().all(in_domain) {
            return Err("the trust domain may have lower-case letters, digits, '.', '-' and '_'");
        }
        for segment in path.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err("the path has an empty segment, or one of dots");
            }
            let in_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if !segment.bytes().all(in_path) {
                return Err("the path may have letters, digits, '.', '-' and '_'");
            }
        }
        Ok(Self { trust_domain, path })
    }
}

impl fmt::Display for NamedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{}@{tenant}", self.user),
            None => f.write_str(&self.user),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_uri(uri: &str) -> Result<NamedUser, IdentityError> {
        // The common name must never show through.
        named_user(&[uri.to_owned()], Some("root"), None).map(|user| user.unwrap())
    }

    #[test]
    fn a_spiffe_id_of_our_form_names_tenant_and_user() {
        let user = of_uri("spiffe://example.org/tenant/blue-1/user/A.b_c").unwrap();
        assert_eq!(
            user,
            NamedUser {
                tenant: Some("blue-1".to_owned()),
                user: "A.b_c".to_owned(),
                by: NameSource::Uri,
            }
        );
    }

    #[test]
    fn any_other_spiffe_id_is_a_name_as_a_whole() {
        for uri in [
            "spiffe://example.org/ns/default/sa/web",
            "spiffe://example.org/tenant/blue",
            "spiffe://example.org/tenant/blue/user",
            "spiffe://example.org/tenant/blue/user/a/b",
            "spiffe://example.org/x/tenant/blue/user/a",
            "spiffe://example.org/Tenant/blue/user/a",
            "spiffe://example.org/user/a/tenant/blue",
            "spiffe://1.2.3.4/root",
        ] {
            let user = of_uri(uri).unwrap();
            assert_eq!((user.tenant, user.user.as_str()), (None, uri));
        }
    }

    #[test]
    fn what_is_not_a_spiffe_id_names_nobody() {
        let long = format!("spiffe://td/{}", "a".repeat(MAX_ID_BYTES));
        let long_domain = format!("spiffe://{}/a", "d".repeat(256));
        for uri in [
            "",
            "root",
            "https://example.org/tenant/a/user/b",
            "SPIFFE://td/tenant/a/user/b",
            "spiffe:/td/tenant/a/user/b",
            "spiffe:td/tenant/a/user/b",
            "spiffe:///tenant/a/user/b",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://TD/tenant/a/user/b",
            "spiffe://td:8443/tenant/a/user/b",
            "spiffe://user@td/tenant/a/user/b",
            "spiffe://td/tenant/a/user/b?x=y",
            "spiffe://td/tenant/a/user/b#c",
            "spiffe://td/tenant/a/user/b/",
            "spiffe://td//tenant/a/user/b",
            "spiffe://td/tenant//user/b",
            "spiffe://td/tenant/a/user/",
            "spiffe://td/tenant/../user/b",
            "spiffe://td/tenant/./user/b",
            "spiffe://td/tenant/a%2fb/user/b",
            "spiffe://td/tenant/a/user/r%6fot",
            "spiffe://td/tenant/a/user/zoë",
            "spiffe://td/tenant/a/user/b c",
            "spiffe://td/tenant/a/user/b\n",
            "spiffe://td/tenant/a\\b/user/c",
            " spiffe://td/tenant/a/user/b",
            &long,
            &long_domain,
        ] {
            let refused = of_uri(uri);
            assert!(
                matches!(refused, Err(IdentityError::NotSpiffe { .. })),
                "{uri:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_trust_domain_excludes_all_others() {
        let uri = ["spiffe://example.org/tenant/a/user/b".to_owned()];
        assert!(named_user(&uri, None, Some("example.org")).is_ok());
        for other in ["example.com", "example.org.", "Example.org", "org", ""] {
            assert!(matches!(
                named_user(&uri, None, Some(other)),
                Err(IdentityError::OtherTrustDomain { .. })
            ));
        }
        // A common name is of no trust domain.
        assert!(named_user(&[], Some("alice"), Some("example.org")).is_ok());
    }

    #[test]
    fn two_uris_are_nobody_even_if_they_are_equal() {
        let uri = "spiffe://td/tenant/a/user/b".to_owned();
        let twice = [uri.clone(), uri];
        assert_eq!(
            named_user(&twice, Some("alice"), None),
            Err(IdentityError::SeveralUris)
        );
    }

    #[test]
    fn without_a_uri_the_common_name_is_the_user() {
        let user = named_user(&[], Some("system:kube-apiserver/x"), None).unwrap();
        assert_eq!(
            user,
            Some(NamedUser {
                tenant: None,
                user: "system:kube-apiserver/x".to_owned(),
                by: NameSource::CommonName,
            })
        );
        assert_eq!(named_user(&[], None, None), Ok(None));
        assert_eq!(named_user(&[], Some(""), None), Ok(None));
        for forged in ["spiffe://td/tenant/a/user/root", "Spiffe://td/x"] {
            assert_eq!(
                named_user(&[], Some(forged), None),
                Err(IdentityError::UriAsCommonName(forged.to_owned()))
            );
        }
        // Shorter than the scheme, and cut in the middle of a character.
        for odd in ["s", "spiffe:/é", "ééééé"] {
            assert!(named_user(&[], Some(odd), None).is_ok());
        }
    }

    /// Beginnings of ids and pieces that make and break them, so that random strings come near them.
    fn near_ids() -> impl Strategy<Value = String> {
        let head = prop_oneof![
            4 => Just("spiffe://td/tenant/".to_owned()),
            1 => Just("spiffe://td/".to_owned()),
            1 => Just("spiffe://".to_owned()),
            1 => any::<String>(),
        ];
        let piece = prop_oneof![
            4 => Just("/user/".to_owned()),
            4 => "[A-Za-z0-9._-]{1,8}",
            1 => Just("/tenant/".to_owned()),
            1 => Just("/".to_owned()),
            1 => Just("..".to_owned()),
            1 => Just("%2f".to_owned()),
            1 => any::<String>(),
        ];
        (head, prop::collection::vec(piece, 0..7))
            .prop_map(|(head, pieces)| head + &pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

        #[test]
        fn no_string_yields_a_name_that_deceives(uri in near_ids()) {
            let Ok(user) = of_uri(&uri) else { return Ok(()) };
            prop_assert!(!user.user.is_empty() && !user.user.chars().any(char::is_control));
            match &user.tenant {
                Some(tenant) => {
                    let plain = |name: &str| {
                        !name.is_empty()
                            && name != "."
                            && name != ".."
                            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                    };
                    prop_assert!(plain(tenant) && plain(&user.user));
                    // Written back it is the same id: nothing was dropped or decoded on the way.
                    let rest = format!("/tenant/{tenant}/user/{}", user.user);
                    let domain = uri.strip_suffix(&rest).and_then(|uri| uri.strip_prefix(SCHEME));
                    prop_assert!(domain.is_some_and(|domain| !domain.is_empty() && !domain.contains('/')));
                }
                None => prop_assert_eq!(&user.user, &uri),
            }
        }

        #[test]
        fn ids_of_our_form_are_always_understood(
            domain in "[a-z0-9._-]{1,40}", tenant in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", name in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}",
        ) {
            let user = of_uri(&format!("spiffe://{domain}/tenant/{tenant}/user/{name}")).unwrap();
            prop_assert_eq!((user.tenant.as_deref(), user.user.as_str()), (Some(tenant.as_str()), name.as_str()));
        }
    }
}
