//! What a YAML or JSON document says, with scalars still as text, and repeated keys refused: both parsers would take the
//! last one in silence.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Scalar { text: String, is_integer: bool },
    List(Vec<Node>),
    Section(Vec<(String, Node)>),
}

impl Node {
    /// Parses JSON if the text begins like it, else YAML. (YAML contains JSON, but not the tabs that JSON may be indented with.)
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let yaml = || serde_norway::from_str(text).map_err(|error| error.to_string());
        if text.trim_start().starts_with('{') {
            return serde_json::from_str(text)
                .or_else(|error| yaml().map_err(|_| error.to_string()));
        }
        yaml()
    }

    pub(super) fn into_scalar(self) -> Option<String> {
        match self {
            Self::Scalar { text, .. } => Some(text),
            Self::Null | Self::List(_) | Self::Section(_) => None,
        }
    }

    fn word(text: impl ToString) -> Self {
        Self::Scalar {
            text: text.to_string(),
            is_integer: false,
        }
    }

    fn integer(number: impl ToString) -> Self {
        Self::Scalar {
            text: number.to_string(),
            is_integer: true,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a section")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    // What the YAML parser says of an empty document.
    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::word(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::integer(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::word(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::word(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Node>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!(
                    "the key {key:?} is given twice"
                )));
            }
            entries.push((key, value));
        }
        Ok(Node::Section(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let word = |text: &str| Node::word(text);
        for (text, expected) in [
            ("", Node::Null),
            ("# only a comment\n", Node::Null),
            ("a:\n", Node::Section(vec![("a".into(), Node::Null)])),
            ("a: off\n", Node::Section(vec![("a".into(), word("off"))])),
            (
                "a: 5\nb: [x, 'y']\n",
                Node::Section(vec![
                    ("a".into(), Node::integer(5)),
                    ("b".into(), Node::List(vec![word("x"), word("y")])),
                ]),
            ),
            (
                "{\n\t\"a\": \"5\",\n\t\"b\": true\n}",
                Node::Section(vec![("a".into(), word("5")), ("b".into(), word("true"))]),
            ),
            (
                "{a: 1}",
                Node::Section(vec![("a".into(), Node::integer(1))]),
            ),
        ] {
            assert_eq!(Node::parse(text), Ok(expected), "{text:?}");
        }
        for text in [
            "a: 1\na: 2\n",
            "{\"a\":1,\"a\":2}",
            "a: [",
            "a: !tag 1\n",
            "a: 1\n---\nb: 2\n",
            &format!("a: {}", "[".repeat(5000)),
        ] {
            assert!(Node::parse(text).is_err(), "{text:?}");
        }
    }
}
