//! Headers, before anybody knows who sent them. Input: the URL (u8 length), then headers: which one (one byte), and its value (u8 length).
//!
//! * A token is taken from `token`, else from `authorization`, and is visible ASCII.
//! * With a list of hosts, a request passes only if it names a host and every name that it gives is on the list.
//! * With a list of origins, no other origin is allowed, and one that is allowed is given back as it came.
//! * A version of the API that counts is short, and digits and dots.
//! * A page with a policy has a path that no server would read otherwise.

use crate::headers::{allowed_origin, host_permitted, is_api_version, token_of};
use crate::input::Input;
use holdfast_auth::http_policy;
use holdfast_config::Allowed;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Uri};

const NAMES: [&str; 6] = [
    "host",
    "origin",
    "token",
    "authorization",
    "client-api-version",
    "hasleader",
];
const HOSTS: [&str; 3] = ["db.example", "10.0.0.1", "::1"];
const ORIGIN: &str = "https://ui.example";

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let Ok(uri) = Uri::try_from(input.short()) else {
        return false;
    };
    let Ok(request) = Request::get(uri).body(()) else {
        return false;
    };
    let (mut parts, ()) = request.into_parts();
    while !input.is_empty() {
        let name = NAMES[usize::from(input.u8()) % NAMES.len()];
        let Ok(value) = HeaderValue::from_bytes(input.short()) else {
            return false;
        };
        parts.headers.append(HeaderName::from_static(name), value);
    }
    check_token(&parts);
    let is_permitted = check_host(&parts);
    check_origin(parts.headers.get("origin"));
    if let Some(version) = parts.headers.get("client-api-version") {
        let version = version.as_bytes();
        if is_api_version(version) {
            assert!(version.len() <= 16);
            assert!(version.iter().all(|byte| b"0123456789.".contains(byte)));
        }
    }
    let path = parts.uri.path();
    if http_policy(path).is_some() {
        assert!(!path.contains("..") && !path.contains("//") && !path.contains('%'));
    }
    is_permitted
}

fn check_token(parts: &Parts) {
    let given = parts
        .headers
        .get("token")
        .or_else(|| parts.headers.get("authorization"));
    match token_of(&parts.headers) {
        Ok(None) => assert!(given.is_none(), "a token was overlooked"),
        Ok(Some(token)) => {
            let given = given.expect("no token was given").as_bytes();
            assert!(given.ends_with(token.as_bytes()));
            assert!(matches!(given.len() - token.len(), 0 | 7));
            assert!(
                token
                    .bytes()
                    .all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
            );
        }
        Err(_) => assert!(given.is_some()),
    }
}

fn check_host(parts: &Parts) -> bool {
    let allowed = Allowed::Only(HOSTS.map(str::to_owned).to_vec());
    assert!(host_permitted(parts, &Allowed::Any));
    if !host_permitted(parts, &allowed) {
        return false;
    }
    let names = parts
        .headers
        .get_all("host")
        .iter()
        .map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|it| it.as_str().as_bytes());
    let mut some = false;
    for name in names.chain(authority) {
        some = true;
        assert!(is_listed(name), "{:?}", name.escape_ascii().to_string());
    }
    assert!(some, "a request without a host passed");
    true
}

/// Whether a `Host` is one of [`HOSTS`], written out: as it is, with a port, in brackets, or both.
fn is_listed(host: &[u8]) -> bool {
    let host = host.to_ascii_lowercase();
    HOSTS.iter().any(|listed| {
        let bracketed = format!("[{listed}]");
        let after = |prefix: &str| host.strip_prefix(prefix.as_bytes());
        let rest = match after(&bracketed) {
            Some(rest) => rest,
            // A colon behind a bare address is part of another address.
            None => match after(listed) {
                Some(rest) if rest.is_empty() || !listed.contains(':') => rest,
                _ => return false,
            },
        };
        match rest.split_first() {
            None => true,
            Some((b':', port)) => port.iter().all(u8::is_ascii_digit),
            Some(_) => false,
        }
    })
}

fn check_origin(origin: Option<&HeaderValue>) {
    let answer = allowed_origin(&Allowed::Any, origin);
    assert_eq!(answer.as_ref().map(HeaderValue::as_bytes), Some(&b"*"[..]));
    if let Some(answer) = allowed_origin(&Allowed::Only(vec![ORIGIN.to_owned()]), origin) {
        assert_eq!(Some(&answer), origin);
        assert!(answer.as_bytes().eq_ignore_ascii_case(ORIGIN.as_bytes()));
    }
}
