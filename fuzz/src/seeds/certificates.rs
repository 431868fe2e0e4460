//! Certificates of clients.

use super::{long, short};
use crate::certificate::{FOR_CLIENTS, certificate};
use crate::input::Input;
use crate::targets::tls_chain::issued;

const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const WIDE: u8 = 0x1e;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;

/// Where a name stands.
const SUBJECT: u8 = 0;
const ALTERNATIVE: u8 = 1;

const ALICE: &[u8] = b"alice";
const ID: &[u8] = b"spiffe://example.org/tenant/blue/user/alice";

/// Extended key usage; place, tag and bytes of each name.
fn pieces(usage: u8, names: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let mut out = vec![usage];
    for (place, tag, bytes) in names {
        out.extend([vec![*place, *tag], short(bytes)].concat());
    }
    out
}

pub(super) fn names() -> Vec<(&'static str, Vec<u8>)> {
    let made = |domain: u8, pieces: Vec<u8>| [vec![1, domain], pieces].concat();
    let whole = |domain: u8, pieces: Vec<u8>| {
        let der = certificate(&mut Input::new(&pieces), |_| vec![0; 64]);
        [vec![0, domain], der].concat()
    };
    let common_name = pieces(FOR_CLIENTS, &[(SUBJECT, UTF8, ALICE)]);
    let host: &[u8] = b"host.example";
    vec![
        ("common_name", made(0, common_name.clone())),
        ("whole_common_name", whole(0, common_name)),
        (
            "uri",
            made(
                1,
                pieces(1, &[(SUBJECT, UTF8, b"root"), (ALTERNATIVE, URI, ID)]),
            ),
        ),
        (
            "whole_uri",
            whole(
                1,
                pieces(3, &[(ALTERNATIVE, URI, ID), (ALTERNATIVE, DNS, host)]),
            ),
        ),
        (
            "other_uri",
            made(
                0,
                pieces(0, &[(ALTERNATIVE, URI, b"spiffe://example.org/ns/a/sa/b")]),
            ),
        ),
        (
            "two_uris",
            made(
                0,
                pieces(
                    1,
                    &[
                        (ALTERNATIVE, URI, ID),
                        (ALTERNATIVE, URI, b"spiffe://example.org/x"),
                    ],
                ),
            ),
        ),
        (
            "two_common_names",
            made(
                0,
                pieces(2, &[(SUBJECT, UTF8, ALICE), (SUBJECT, PRINTABLE, b"bob")]),
            ),
        ),
        (
            "wide",
            made(
                0,
                pieces(
                    5,
                    &[
                        (SUBJECT, WIDE, b"\0a\0b"),
                        (ALTERNATIVE, ADDRESS, &[10, 0, 0, 1]),
                    ],
                ),
            ),
        ),
        (
            "unreadable_usage",
            made(0, pieces(4, &[(SUBJECT, UTF8, ALICE)])),
        ),
        (
            "uri_as_common_name",
            made(0, pieces(1, &[(SUBJECT, UTF8, b"Spiffe://example.org/x")])),
        ),
    ]
}

pub(super) fn chains() -> Vec<(&'static str, Vec<u8>)> {
    let by_common_name = pieces(FOR_CLIENTS, &[(SUBJECT, UTF8, ALICE)]);
    let by_uri = pieces(FOR_CLIENTS, &[(ALTERNATIVE, URI, ID)]);
    let two_uris = pieces(
        FOR_CLIENTS,
        &[(ALTERNATIVE, URI, ID), (ALTERNATIVE, URI, ID)],
    );
    let der = long(&issued(&by_uri));
    vec![
        ("common_name", [vec![1], by_common_name].concat()),
        ("uri", [vec![1], by_uri.clone()].concat()),
        ("whole", [vec![0], der.clone()].concat()),
        ("several", [vec![0], der.clone(), der.clone(), der].concat()),
        (
            "for_servers",
            [vec![1], pieces(2, &[(SUBJECT, UTF8, ALICE)])].concat(),
        ),
        (
            "for_nothing",
            [vec![1], pieces(3, &[(SUBJECT, UTF8, ALICE)])].concat(),
        ),
        (
            "for_anything",
            [vec![1], pieces(0, &[(SUBJECT, UTF8, ALICE)])].concat(),
        ),
        ("two_uris", [vec![1], two_uris].concat()),
        ("stranger", [vec![2], by_uri].concat()),
        ("none", vec![0]),
    ]
}
