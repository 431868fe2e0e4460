//! Certificates put together from the pieces of an input, so that little stands between the input and what is read out of them.

use crate::input::Input;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The extended key usage that a client's certificate needs, as the input's first byte.
pub(crate) const FOR_CLIENTS: u8 = 1;

/// A certificate of an issuer "ca" (X.509 v3, Ed25519). Input: the extended key usage (one byte), then names: where each stands (one byte; 0:
/// common name, else alternative name), its tag, and its bytes (u8 length). `sign` makes the signature over the content.
pub(crate) fn certificate(input: &mut Input<'_>, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let (mut subject, mut names) = (Vec::new(), Vec::new());
    let usage = input.u8();
    while !input.is_empty() {
        let (place, tag) = (input.u8(), input.u8());
        let bytes = input.short();
        if place == 0 {
            subject.extend(common_name(tag, bytes));
        } else {
            names.extend(element(tag, bytes));
        }
    }
    let mut extensions = Vec::new();
    if !names.is_empty() {
        extensions.extend(extension(ALTERNATIVE_NAMES, &element(SEQUENCE, &names)));
    }
    let purpose = |last| element(OBJECT_ID, &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, last]);
    // For clients, for servers, for nothing, or an extension that cannot be read; else none.
    let purposes = match usage {
        FOR_CLIENTS => Some(element(SEQUENCE, &purpose(2))),
        2 => Some(element(SEQUENCE, &purpose(1))),
        3 => Some(element(SEQUENCE, &[])),
        4 => Some(Vec::new()),
        _ => None,
    };
    if let Some(purposes) = purposes {
        extensions.extend(extension(EXTENDED_KEY_USAGE, &purposes));
    }
    signed(&subject, &[0; 32], &extensions, sign)
}

/// The certificate of the issuer "ca" with this public key.
pub(crate) fn authority(key: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let is_ca = element(SEQUENCE, &element(BOOLEAN, &[0xff]));
    let extensions = extension(BASIC_CONSTRAINTS, &is_ca);
    signed(&common_name(UTF8_STRING, b"ca"), key, &extensions, sign)
}

fn signed(
    subject: &[u8],
    key: &[u8],
    extensions: &[u8],
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let algorithm = element(SEQUENCE, &element(OBJECT_ID, ED25519));
    let validity = [
        element(UTC_TIME, b"250101000000Z"),
        element(UTC_TIME, b"490101000000Z"),
    ]
    .concat();
    let mut content = [
        element(0xa0, &element(INTEGER, &[2])),
        element(INTEGER, &[1]),
        algorithm.clone(),
        element(SEQUENCE, &common_name(UTF8_STRING, b"ca")),
        element(SEQUENCE, &validity),
        element(SEQUENCE, subject),
        element(SEQUENCE, &[algorithm.clone(), bits(key)].concat()),
    ]
    .concat();
    if !extensions.is_empty() {
        content.extend(element(0xa3, &element(SEQUENCE, extensions)));
    }
    let content = element(SEQUENCE, &content);
    let signature = sign(&content);
    element(SEQUENCE, &[content, algorithm, bits(&signature)].concat())
}

fn common_name(tag: u8, text: &[u8]) -> Vec<u8> {
    let attribute = [element(OBJECT_ID, COMMON_NAME), element(tag, text)].concat();
    element(SET, &element(SEQUENCE, &attribute))
}

fn extension(id: &[u8], value: &[u8]) -> Vec<u8> {
    let parts = [element(OBJECT_ID, id), element(OCTET_STRING, value)].concat();
    element(SEQUENCE, &parts)
}

/// A string of bits with none left over in its last byte.
fn bits(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// A DER element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xff => out.extend([0x81, length as u8]),
        0x100..=0xffff => {
            out.push(0x82);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x84);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}
