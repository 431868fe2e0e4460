//! JSON as Go's `encoding/json` writes it: members in the order of the struct, zero values left out where the struct says so,
//! byte strings in base64, `<`, `>` and `&` escaped.

use std::{fmt::Display, io::Write};

use base64::{Engine, engine::general_purpose::STANDARD};

/// An object being written. Its members are closed by [`Object::end`].
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn start(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, empty: true }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    /// Starts a member and gives the place for its value.
    pub(super) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        string(name, self.out);
        self.out.push(b':');
        self.out
    }

    pub(super) fn number(&mut self, name: &str, value: impl Display) {
        display(value, self.member(name));
    }

    pub(super) fn number_unless_zero<T: Display + Default + PartialEq>(
        &mut self,
        name: &str,
        value: T,
    ) {
        if value != T::default() {
            self.number(name, value);
        }
    }

    pub(super) fn bool_if_true(&mut self, name: &str, value: bool) {
        if value {
            self.number(name, value);
        }
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        string(value, self.member(name));
    }

    pub(super) fn text_unless_empty(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    pub(super) fn texts_unless_empty(&mut self, name: &str, values: &[String]) {
        self.array_unless_empty(name, values, |text, out| string(text, out));
    }

    pub(super) fn bytes_unless_empty(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            bytes(value, self.member(name));
        }
    }

    pub(super) fn object(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        object(self.member(name), write);
    }

    pub(super) fn array<T>(&mut self, name: &str, items: &[T], write: impl Fn(&T, &mut Vec<u8>)) {
        array(items, self.member(name), write);
    }

    pub(super) fn array_unless_empty<T>(
        &mut self,
        name: &str,
        items: &[T],
        write: impl Fn(&T, &mut Vec<u8>),
    ) {
        if !items.is_empty() {
            self.array(name, items, write);
        }
    }
}

pub(super) fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    let mut object = Object::start(out);
    write(&mut object);
    object.end();
}

pub(super) fn array<T>(items: &[T], out: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

pub(super) fn bytes(value: &[u8], out: &mut Vec<u8>) {
    string(&STANDARD.encode(value), out);
}

pub(super) fn string(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in value.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\x08' => out.extend_from_slice(b"\\b"),
            '\x0c' => out.extend_from_slice(b"\\f"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                display(format_args!("\\u{:04x}", u32::from(c)), out);
            }
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

fn display(value: impl Display, out: &mut Vec<u8>) {
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{value}");
}
