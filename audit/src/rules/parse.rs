//! Rules as text.

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use std::fmt;

use super::{
    Delivery, Level, MAX_PATTERNS, MAX_PREFIXES, MAX_RULES, OutcomeClass, Pattern, Rule, Rules,
    RulesError,
};

/// Longer names match nothing.
const MAX_PATTERN_BYTES: usize = 512;
/// As long as a record shows keys.
const MAX_PREFIX_BYTES: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    rules: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    rpc: Words,
    #[serde(default)]
    principal: Words,
    #[serde(default)]
    tenant: Words,
    outcome: Option<WrittenOutcome>,
    key_prefix: Option<String>,
    level: Level,
    delivery: Option<Delivery>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenOutcome {
    Any,
    Ok,
    Denied,
    Failed,
}

/// One word or a list of them. Absent is none; an empty list would match nothing, or everything, and is refused.
#[derive(Default)]
struct Words(Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or a list of text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Words, E> {
                Ok(Words(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                    if words.len() > MAX_PATTERNS {
                        let message = format!("more than {MAX_PATTERNS} patterns");
                        return Err(Error::custom(message));
                    }
                }
                if words.is_empty() {
                    return Err(Error::custom("an empty list (leave the field out)"));
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

pub(super) fn parse(text: &str) -> Result<Rules, RulesError> {
    let yaml = || serde_norway::from_str(text).map_err(|error| error.to_string());
    // YAML contains JSON, but not the tabs that JSON may be indented with.
    let document: Result<Document, String> = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).or_else(|error| yaml().map_err(|_| error.to_string()))
    } else {
        yaml()
    };
    let document = document.map_err(RulesError::Text)?;
    if document.rules.len() > MAX_RULES {
        let message = format!("more than {MAX_RULES} rules");
        return Err(RulesError::Text(message));
    }
    let mut rules = Rules {
        rules: Vec::new(),
        prefixes: Vec::new(),
        digest: None,
    };
    for (index, written) in document.rules.into_iter().enumerate() {
        let rule = check(written, &mut rules.prefixes).map_err(|reason| RulesError::Rule {
            number: index + 1,
            reason,
        })?;
        rules.rules.push(rule);
    }
    Ok(rules)
}

fn check(written: Written, prefixes: &mut Vec<Box<[u8]>>) -> Result<Rule, String> {
    let outcome = match written.outcome {
        None | Some(WrittenOutcome::Any) => None,
        Some(WrittenOutcome::Ok) => Some(OutcomeClass::Ok),
        Some(WrittenOutcome::Denied) => Some(OutcomeClass::Denied),
        Some(WrittenOutcome::Failed) => Some(OutcomeClass::Failed),
    };
    let delivery = written.delivery.unwrap_or(Delivery::BestEffort);
    if delivery == Delivery::Strict && outcome.is_some() {
        return Err(
            "delivery strict is decided before the outcome is known: it cannot have an outcome"
                .to_owned(),
        );
    }
    if delivery == Delivery::Strict && written.level == Level::None {
        return Err("delivery strict needs a level other than none".to_owned());
    }
    let prefix = match written.key_prefix {
        None => None,
        Some(prefix) if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES => {
            return Err(format!(
                "key_prefix: expected 1 to {MAX_PREFIX_BYTES} bytes"
            ));
        }
        Some(prefix) => Some(number_of(prefix.as_bytes(), prefixes)?),
    };
    for rpc in &written.rpc.0 {
        check_rpc(rpc)?;
    }
    Ok(Rule {
        rpcs: patterns("rpc", &written.rpc)?,
        principals: patterns("principal", &written.principal)?,
        tenants: patterns("tenant", &written.tenant)?,
        outcome,
        prefix,
        level: written.level,
        delivery,
    })
}

/// The index of a prefix; rules with the same one share it.
fn number_of(prefix: &[u8], prefixes: &mut Vec<Box<[u8]>>) -> Result<usize, String> {
    if let Some(index) = prefixes.iter().position(|known| **known == *prefix) {
        return Ok(index);
    }
    if prefixes.len() == MAX_PREFIXES {
        return Err(format!(
            "key_prefix: more than {MAX_PREFIXES} different ones"
        ));
    }
    prefixes.push(prefix.into());
    Ok(prefixes.len() - 1)
}

/// `*`, `Service/*` or `Service/Method`.
fn check_rpc(text: &str) -> Result<(), String> {
    let is_word =
        |word: &str| !word.is_empty() && !word.contains(['*', '/']) && !word.contains(' ');
    let is_good = text == "*"
        || text.split_once('/').is_some_and(|(service, method)| {
            is_word(service) && (method == "*" || is_word(method))
        });
    if !is_good {
        return Err(format!(
            "rpc: {text:?} is not \"*\", \"Service/*\" or \"Service/Method\""
        ));
    }
    Ok(())
}

fn patterns(field: &str, words: &Words) -> Result<Vec<Pattern>, String> {
    let mut patterns = Vec::with_capacity(words.0.len());
    for word in &words.0 {
        if word.len() > MAX_PATTERN_BYTES {
            return Err(format!("{field}: more than {MAX_PATTERN_BYTES} bytes"));
        }
        if word.trim_end_matches('*').contains('*') || word.ends_with("**") {
            return Err(format!("{field}: {word:?}: only the end can be a *"));
        }
        patterns.push(Pattern::new(word));
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuthMethod, Subject};

    #[track_caller]
    fn refused(text: &str, expected: &[&str]) {
        let error = Rules::parse(text).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        refused(
            "rules:\n- level: all\n",
            &["rules[0].level", "all", "line 2"],
        );
        refused(
            "rules:\n- level: keys\n  levle: keys\n",
            &["rules[0]", "levle", "line 3"],
        );
        refused("rules:\n- rpc: KV/Put\n", &["rules[0]", "level"]);
        refused("rule: []\n", &["unknown field `rule`"]);
        refused("{\"rules\":[{\"level\":1}]}", &["line 1"]);
        refused("", &["audit rules"]);
        refused("- level: keys", &["audit rules"]);
        refused(
            "rules: [{level: keys, level: none}]",
            &["duplicate", "level"],
        );
        refused(
            "rules: [{level: keys, delivery: sure}]",
            &["delivery", "sure"],
        );
        refused("rules: [{level: keys, rpc: []}]", &["rpc", "empty list"]);
    }

    #[test]
    fn rules_that_cannot_be_kept_are_refused() {
        let second = |rule: &str| format!("rules: [{{level: none}}, {{{rule}}}]");
        refused(
            &second("level: keys, delivery: strict, outcome: denied"),
            &["rule 2", "outcome"],
        );
        refused(
            &second("level: none, delivery: strict"),
            &["rule 2", "none"],
        );
        for rpc in ["Put", "KV/", "/Put", "K*/Put", "KV/P*", "a/b/c", "''"] {
            refused(
                &second(&format!("level: keys, rpc: {rpc}")),
                &["rule 2", "rpc"],
            );
        }
        refused(
            &second("level: keys, principal: 'a*b'"),
            &["rule 2", "principal"],
        );
        refused(&second("level: keys, tenant: 'a**'"), &["rule 2", "tenant"]);
        refused(
            &second("level: keys, key_prefix: ''"),
            &["rule 2", "key_prefix"],
        );
        let many: Vec<String> = (0..65)
            .map(|n| format!("{{level: keys, key_prefix: k{n}}}"))
            .collect();
        refused(&format!("rules: [{}]", many.join(", ")), &["rule 65"]);
        let many = vec!["{level: none}"; 257].join(", ");
        refused(&format!("rules: [{many}]"), &["256"]);
    }

    #[test]
    fn json_is_accepted_with_tabs() {
        let rules = Rules::parse("{\n\t\"rules\": [\n\t\t{\"level\": \"keys\"}\n\t]\n}").unwrap();
        assert_eq!(rules.rules.len(), 1);
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = Rules::parse(
            "rules:\n\
             - {rpc: KV/Put, principal: [root, 'svc-*'], level: keys, delivery: strict}\n\
             - {principal: '', level: keys_hashed}\n\
             - {tenant: other, outcome: denied, level: metadata}\n\
             - {rpc: 'KV/*', level: none}\n\
             - {level: metadata}\n",
        )
        .unwrap();
        let levels = |tenant, principal, rpc| -> Vec<Level> {
            let subject = Subject {
                tenant,
                principal,
                auth: AuthMethod::None,
                source: None,
            };
            let (found, _) = rules.candidates(&subject, rpc);
            found.iter().map(|candidate| candidate.level).collect()
        };
        assert_eq!(levels("default", Some("svc-1"), "KV/Put"), [Level::Keys]);
        assert_eq!(levels("default", None, "KV/Put"), [Level::KeysHashed]);
        // Nothing can come of it.
        assert_eq!(levels("default", Some("alice"), "KV/Put"), []);
        assert_eq!(
            levels("other", Some("alice"), "KV/Put"),
            [Level::Metadata, Level::None]
        );
        assert_eq!(
            levels("default", Some("root"), "Auth/UserAdd"),
            [Level::Metadata]
        );
        assert!(rules.has_strict());
        assert_eq!(
            rules.unknown_rpcs(&["KV/Range", "Auth/UserAdd"]),
            ["KV/Put"]
        );
    }
}
