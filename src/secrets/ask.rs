//! What a reference asks of a source that is not at hand: a command, a Vault, AWS Secrets Manager.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

use crate::secret::Secret;

/// Longest name of a secret, and longest command.
const LONG_MAX: usize = 2048;

/// Which source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `${exec:COMMAND}`.
    Exec,
    /// `${vault:MOUNT/PATH#FIELD}`.
    Vault,
    /// `${aws-sm:ID#FIELD}`.
    AwsSm,
}

impl Kind {
    /// The word in front of the colon.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Vault => "vault",
            Self::AwsSm => "aws-sm",
        }
    }

    /// The kind of this word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Exec, Self::Vault, Self::AwsSm].into_iter().find(|kind| kind.word() == word)
    }
}

/// One thing to fetch: what several references may name, each with a field of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    /// From which source.
    pub kind: Kind,
    /// A command, `MOUNT/PATH`, or the name or ARN of a secret.
    pub id: Box<str>,
}

/// What a reference asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ask {
    /// What is to be fetched.
    pub item: Item,
    /// The field of it, where it has several.
    pub field: Option<Box<str>>,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field.as_deref().map(|field| format!("#{field}")).unwrap_or_default();
        write!(f, "${{{}:{}{field}}}", self.item.kind.word(), self.item.id)
    }
}

/// Why a source gives no value. Holds none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What went wrong.
    pub why: String,
    /// What to change.
    pub hint: String,
}

impl Trouble {
    /// With a hint, which may be empty.
    pub fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { why: why.into(), hint: hint.into() }
    }
}

/// What the references of a configuration came to.
pub type Answers = HashMap<Ask, Result<Secret, Trouble>>;

impl Ask {
    /// Reads what stands behind the colon.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, Trouble> {
        let (id, field) = match text.rsplit_once('#') {
            Some((id, field)) if kind != Kind::Exec => (id, Some(field)),
            _ => (text, None),
        };
        let wrong = |why: &str, hint: &str| Err(Trouble::new(why, hint));
        if id.trim().is_empty() || id.len() > LONG_MAX || id.bytes().any(|b| b.is_ascii_control()) || field == Some("") {
            return wrong("this names nothing", "${vault:MOUNT/PATH#FIELD}, ${aws-sm:ID#FIELD}, ${exec:COMMAND}");
        }
        if kind == Kind::Vault {
            let odd = |segment: &str| segment.is_empty() || segment == "." || segment == "..";
            if field.is_none() || !id.contains('/') || id.split('/').any(odd) {
                return wrong("a secret of a Vault is named by its mount, its path and a field", "${vault:secret/app/x#token}");
            }
        }
        Ok(Self { item: Item { kind, id: id.into() }, field: field.map(Into::into) })
    }

    /// The value in what was fetched.
    ///
    /// # Errors
    /// If there is no such field, or nothing in it.
    pub fn pick(&self, document: &Document) -> Result<Secret, Trouble> {
        let value = match (document, self.field.as_deref()) {
            (Document::Text(text), None) => Some(text.clone()),
            (Document::Text(text), Some(field)) => match serde_json::from_str::<Value>(text.expose()) {
                Ok(Value::Object(map)) => map.get(field).and_then(text_of),
                _ => return Err(Trouble::new("the secret is no JSON object, so it has no fields", "leave `#FIELD` out")),
            },
            (Document::Map(map), field) => field.and_then(|field| map.get(field)).cloned(),
        };
        match value {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) => Err(Trouble::new("it is empty", "")),
            None => Err(Trouble::new("the secret has no such field", "field names are case-sensitive")),
        }
    }
}

/// What a source has under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Text, which may be JSON.
    Text(Secret),
    /// Values by name.
    Map(HashMap<String, Secret>),
}

/// A value of a JSON document as text: numbers and booleans as they are written, lists and maps as JSON.
pub fn text_of(value: &Value) -> Option<Secret> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Secret::new(text.clone())),
        other => Some(Secret::new(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(kind: &str, text: &str) -> Result<Ask, Trouble> {
        Ask::parse(Kind::of(kind).unwrap(), text)
    }

    #[test]
    fn references_name_an_item_and_a_field_of_it() {
        for (kind, text, id, field) in [
            ("vault", "secret/app/x#token", "secret/app/x", Some("token")),
            ("aws-sm", "prod/db", "prod/db", None),
            ("aws-sm", "arn:aws:secretsmanager:eu-west-1:1:secret:a-b#k", "arn:aws:secretsmanager:eu-west-1:1:secret:a-b", Some("k")),
            ("exec", "pass show a#b", "pass show a#b", None),
        ] {
            let ask = ask(kind, text).unwrap();
            assert_eq!((&*ask.item.id, ask.field.as_deref()), (id, field));
            assert_eq!(ask.to_string(), format!("${{{kind}:{text}}}"));
        }
        for (kind, text) in [
            ("vault", "a#b"),
            ("vault", "a/b"),
            ("vault", "a/../b#c"),
            ("vault", "a//b#c"),
            ("vault", "#c"),
            ("exec", " "),
            ("aws-sm", "a#"),
        ] {
            assert!(ask(kind, text).is_err(), "{kind} {text}");
        }
    }

    #[test]
    fn fields_are_picked_from_maps_and_from_json() {
        let text = Document::Text(Secret::new(r#"{"a":"x","n":5,"o":{"b":1},"e":"","z":null}"#.into()));
        let pick = |field: Option<&str>| {
            let item = Item { kind: Kind::AwsSm, id: "i".into() };
            Ask { item, field: field.map(Into::into) }.pick(&text).map(|s| s.expose().to_owned())
        };
        assert_eq!(pick(Some("a")).unwrap(), "x");
        assert_eq!(pick(Some("n")).unwrap(), "5");
        assert_eq!(pick(Some("o")).unwrap(), r#"{"b":1}"#);
        assert!(pick(None).unwrap().starts_with('{'));
        for missing in ["e", "z", "nope"] {
            assert!(pick(Some(missing)).is_err(), "{missing}");
        }
    }
}
