//! What is read out of a request's headers before anybody knows who sent it. Nothing here needs the rest of the server, so that the fuzz
//! targets can have this file alone.

use holdfast_auth::Denied;
use holdfast_config::Allowed;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

/// The longest version of the API that is taken for one.
const API_VERSION_BYTES_MAX: usize = 16;

/// The token that a request carries. etcd's clients send it as `token`, the gateway's as `authorization`.
///
/// # Errors
/// [`Denied::InvalidToken`] for one that is not visible ASCII.
pub(crate) fn token_of(headers: &HeaderMap) -> Result<Option<&str>, Denied> {
    let value = match headers.get("token") {
        Some(value) => value,
        None => match headers.get(AUTHORIZATION) {
            Some(value) => value,
            None => return Ok(None),
        },
    };
    let text = value.to_str().map_err(|_| Denied::InvalidToken)?;
    Ok(Some(text.strip_prefix("Bearer ").unwrap_or(text)))
}

/// Whether every host that a request names is permitted.
pub(crate) fn host_permitted(parts: &Parts, allowed: &Allowed) -> bool {
    if *allowed == Allowed::Any {
        return true;
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let mut hosts = parts
        .headers
        .get_all(HOST)
        .iter()
        .map(|value| value.to_str().ok())
        .chain(authority.map(Some))
        .peekable();
    hosts.peek().is_some()
        && hosts.all(|host| host.is_some_and(|host| allowed.permits(without_port(host))))
}

/// The host of `host:port`, without brackets; the whole text if it is not of that form.
fn without_port(host: &str) -> &str {
    let (name, port) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((ip, ""))) => return ip,
        Some(Some((ip, rest))) => (ip, rest.strip_prefix(':')),
        Some(None) => (host, None),
        None => match host.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') => (name, Some(port)),
            _ => (host, None),
        },
    };
    match port {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The value of `Access-Control-Allow-Origin` for a request of this origin, if browsers may read the answer there.
pub(crate) fn allowed_origin(cors: &Allowed, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    match cors {
        Allowed::Any => Some(HeaderValue::from_static("*")),
        Allowed::Only(_) => {
            let origin = origin?;
            let permitted = origin.to_str().is_ok_and(|text| cors.permits(text));
            permitted.then(|| origin.clone())
        }
    }
}

/// Whether the header `client-api-version` has a version in it: `3`, `3.7`, `3.7.1`, digits in up to three parts.
pub(crate) fn is_api_version(text: &[u8]) -> bool {
    text.len() <= API_VERSION_BYTES_MAX
        && text.split(|byte| *byte == b'.').count() <= 3
        && text
            .split(|byte| *byte == b'.')
            .all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_and_brackets_are_not_part_of_a_host() {
        for (given, host) in [
            ("db.example", "db.example"),
            ("db.example:2379", "db.example"),
            ("db.example:", "db.example"),
            ("[::1]", "::1"),
            ("[::1]:2379", "::1"),
            ("::1", "::1"),
        ] {
            assert_eq!(without_port(given), host, "{given}");
        }
        // Nothing that only begins or ends like one.
        for odd in [
            "[db.example].evil.example",
            "[db.example]:2379.evil.example",
            "[db.example",
            "db.example:80@evil.example",
            "a:db.example:80",
        ] {
            assert_eq!(without_port(odd), odd);
        }
    }
}
