//! Runs every example of `docs/expressions.md`, and sees to it that the page leaves nothing out.

use std::sync::Arc;

use super::filters;
use super::tests::{EVERYWHERE, shown};
use super::*;
use crate::secret::Secret;

const PAGE: &str = include_str!("../../docs/expressions.md");
/// The examples of RSA need a key that is too long for the page: one is made.
fn rsa_key() -> String {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use base64::Engine as _;

    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    base64::engine::general_purpose::STANDARD.encode(der.as_ref())
}

/// The examples under a tag: what is written, and what becomes of it.
fn examples(tag: &str) -> Vec<(&'static str, &'static str)> {
    let open = format!("```{tag}\n");
    let blocks = PAGE.split(&open[..]).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .flat_map(str::lines)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (text, result) = line.rsplit_once(" => ").unwrap_or_else(|| panic!("no result: {line}"));
            (text.trim_end(), result.trim())
        })
        .collect()
}

fn secret(value: &Value) -> Value {
    match value {
        Value::Text(text) => Value::Secret(Secret::new(text.to_string())),
        Value::Map(map) => Value::Map(Arc::new(map.entries().iter().map(|(key, value)| (key.clone(), secret(value))).collect())),
        other => other.clone(),
    }
}

fn inputs() -> Given {
    let json = PAGE.split("```json inputs\n").nth(1).unwrap().split("```").next().unwrap();
    let Value::Map(all) = Value::from_json(json).unwrap() else { panic!() };
    let mut given = Given::default();
    for name in names::ALL {
        let (root, part) = name.spelled();
        let Some(value) = all.get(root) else { continue };
        let value = match (part, value) {
            ("", value) => value,
            (part, Value::Map(map)) => match map.get(part) {
                Some(value) => value,
                None => continue,
            },
            _ => continue,
        };
        let value = match name {
            Name::Now | Name::TokenExpiresAt => {
                let Value::Text(text) = value else { panic!() };
                Value::Moment(Moment::parse(text).unwrap())
            }
            Name::Secrets => {
                let Value::Map(map) = secret(value) else { panic!() };
                let rsa: Map = [("rsa", Value::Secret(Secret::new(rsa_key())))].into_iter().collect();
                Value::Map(Arc::new(map.overlaid(&rsa)))
            }
            Name::TokenAccess | Name::TokenRefresh | Name::TokenId => secret(value),
            Name::RequestHeaders | Name::Headers => {
                let Value::Map(map) = value else { panic!() };
                Value::Map(Arc::new(Map::of_fields(map.entries().to_vec())))
            }
            _ => value.clone(),
        };
        given = given.with(name, value);
    }
    let Some(Value::Map(request)) = all.get("request") else { panic!() };
    let Some(Value::Text(body)) = request.get("body") else { panic!() };
    given.with(Name::RequestBodySha256, Value::Bytes(crate::key::sha256(body.as_bytes()).into()))
}

fn judge(text: &str, expected: &str, result: &str) -> Option<String> {
    let good = match expected.split_once(": ").filter(|(kind, _)| matches!(*kind, "load" | "error")) {
        Some((kind, part)) => result.strip_prefix(kind).is_some_and(|rest| rest.starts_with(": ") && rest.contains(part)),
        None => result == expected,
    };
    (!good).then(|| format!("{text}\n    is    {result}\n    not   {expected}"))
}

#[test]
fn every_example_of_the_page_does_what_it_says() {
    let inputs = inputs();
    let mut wrong = Vec::new();
    let loaded = |mistakes: Vec<Mistake>| format!("load: {}", mistakes[0].message);
    for (text, expected) in examples("expressions") {
        let result = match Template::compile(text, &Scope::of(EVERYWHERE)) {
            Err(mistakes) => loaded(mistakes),
            Ok(template) => template.render(&inputs).map_or_else(|failure| format!("error: {}", failure.why), |r| shown(&r)),
        };
        wrong.extend(judge(text, expected, &result));
    }
    for (text, expected) in examples("conditions") {
        let result = match Condition::compile(text, &Scope::of(EVERYWHERE.with(Names::ANSWER))) {
            Err(mistakes) => loaded(mistakes),
            Ok(condition) => condition.holds(&inputs).map_or_else(|failure| format!("error: {}", failure.why), |holds| holds.to_string()),
        };
        wrong.extend(judge(text, expected, &result));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_shows_every_filter_test_and_input() {
    let examples: String = examples("expressions").into_iter().chain(examples("conditions")).map(|(text, _)| format!("{text}\n")).collect();
    let word = |text: &str, word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !inside(text[..at].chars().next_back()) && !inside(text[at + word.len()..].chars().next())
        })
    };
    for name in filters::names() {
        assert!(word(PAGE, &format!("`{name}")) || word(PAGE, name), "{name} is not in the page");
        assert!(
            examples.lines().any(|line| line
                .split('|')
                .skip(1)
                .any(|part| word(part.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap(), name))),
            "{name} has no example"
        );
    }
    for test in code::TESTS {
        assert!(word(&examples, &format!("is {test}")) || word(&examples, &format!("is not {test}")), "`is {test}` has no example");
    }
    for name in names::ALL {
        let placed = matches!(name, Name::PlacedToken | Name::Signature | Name::Claims);
        assert!(placed || examples.contains(&name.to_string()), "{name} has no example");
    }
}
