//! The parameters of a token call, in order, and how they are written: as a form, as JSON, or in the query.

use serde_json::{Map, Value as Json};
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::uri::encode_query;

/// The value of a parameter.
#[derive(Clone, Debug)]
pub enum Value {
    /// Text that may be shown.
    Plain(String),
    /// Text that may not.
    Text(Secret),
    /// Anything else, for JSON bodies; scalars and lists of scalars go into forms too.
    Json(Json),
    /// Scopes and their separator (ruling B23).
    Scopes(Vec<String>, String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl From<Secret> for Value {
    fn from(secret: Secret) -> Self {
        Self::Text(secret)
    }
}

/// Parameters in order.
#[derive(Clone, Debug, Default)]
pub struct Form(Vec<(String, Value)>);

impl Form {
    /// Sets a parameter, in the place of an earlier one of that name.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes a parameter.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    /// Gives a parameter another name.
    pub fn rename(&mut self, name: &str, to: &str) {
        self.0.iter_mut().filter(|(n, _)| n == name).for_each(|(n, _)| to.clone_into(n));
    }

    /// Removes what is empty.
    pub fn remove_empty(&mut self) {
        self.0.retain(|(_, value)| match value {
            Value::Plain(text) => !text.is_empty(),
            Value::Text(text) => !text.is_empty(),
            Value::Json(json) => !plain(json).is_empty(),
            Value::Scopes(..) => true,
        });
    }

    /// Every text in it that may not be shown. Texts inside JSON are among them: nobody knows which came from a reference.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut all = Vec::new();
        for (_, value) in &self.0 {
            match value {
                Value::Text(secret) => all.push(secret.clone()),
                Value::Json(json) => texts(json, &mut all),
                Value::Plain(_) | Value::Scopes(..) => {}
            }
        }
        all
    }

    /// `a=b&c=d`, everything but unreserved characters encoded.
    pub fn encoded(&self) -> Zeroizing<String> {
        self.encoded_by(encode_query)
    }

    /// The same with values encoded otherwise.
    pub fn encoded_by(&self, encode: fn(&str) -> String) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::new());
        let mut pair = |name: &str, encoded: &str| {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(&encode_query(name));
            out.push('=');
            out.push_str(encoded);
        };
        for (name, value) in &self.0 {
            match value {
                Value::Plain(text) => pair(name, &encode(text)),
                Value::Text(text) => pair(name, &Zeroizing::new(encode(text.expose()))),
                Value::Scopes(scopes, separator) => {
                    let scopes: Vec<String> = scopes.iter().map(|scope| encode(scope)).collect();
                    // A literal plus is what such issuers look for.
                    let separator = if separator == "+" { "+".to_owned() } else { encode(separator) };
                    pair(name, &scopes.join(&separator));
                }
                Value::Json(Json::Array(items)) => items.iter().for_each(|item| pair(name, &encode(&plain(item)))),
                Value::Json(other) => pair(name, &encode(&plain(other))),
            }
        }
        out
    }

    /// One JSON object.
    pub fn json(&self) -> Zeroizing<String> {
        let value = |value: &Value| match value {
            Value::Plain(text) => Json::String(text.clone()),
            Value::Text(text) => Json::String(text.expose().to_owned()),
            Value::Scopes(scopes, separator) => Json::String(scopes.join(separator)),
            Value::Json(json) => json.clone(),
        };
        let map: Map<String, Json> = self.0.iter().map(|(name, v)| (name.clone(), value(v))).collect();
        Zeroizing::new(Json::Object(map).to_string())
    }
}

fn texts(json: &Json, into: &mut Vec<Secret>) {
    match json {
        Json::String(text) => into.push(Secret::new(text.clone())),
        Json::Array(items) => items.iter().for_each(|item| texts(item, into)),
        Json::Object(map) => map.values().for_each(|value| texts(value, into)),
        _ => {}
    }
}

/// A value as a form has it; what is nested is JSON inside the field.
fn plain(value: &Json) -> String {
    crate::auth::capture::text(value).unwrap_or_else(|| if value.is_null() { String::new() } else { value.to_string() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_form_is_encoded_so_that_no_value_becomes_structure() {
        let mut form = Form::default();
        form.set("a", "x&b=1 +%");
        form.set("list", Value::Json(json!(["https://a", 2])));
        form.set("flag", Value::Json(json!(true)));
        form.set("scope", Value::Scopes(vec!["r/w".into(), "q".into()], " ".into()));
        form.set("a", "y&");
        assert_eq!(*form.encoded(), "a=y%26&list=https%3A%2F%2Fa&list=2&flag=true&scope=r%2Fw%20q");
        assert_eq!(*form.json(), r#"{"a":"y&","list":["https://a",2],"flag":true,"scope":"r/w q"}"#);
    }

    #[test]
    fn scopes_are_joined_as_the_issuer_wants() {
        for (separator, encoded) in [(" ", "a%20b"), (",", "a%2Cb"), ("+", "a+b")] {
            let mut form = Form::default();
            form.set("scope", Value::Scopes(vec!["a".into(), "b".into()], separator.into()));
            assert_eq!(*form.encoded(), format!("scope={encoded}"));
        }
    }

    #[test]
    fn a_parameter_is_removed_or_renamed() {
        let mut form = Form::default();
        form.set("grant_type", "x");
        form.set("client_id", "id");
        form.remove("grant_type");
        form.rename("client_id", "client_key");
        assert_eq!(*form.encoded(), "client_key=id");
    }
}
