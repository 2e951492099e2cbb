//! What was captured from answers beside a token: values by name, in order, bounded, and each as secret as the token
//! (rulings E1, E3, E26). They never print, are wiped when the last of them goes, and keep their type: text stays text, a
//! number stays as it was written. Where they stand in an answer is the affair of `capture.rs`.

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::expr::{self, Map, Value};
use crate::secret::{REDACTED, Secret};

/// Most values of one grant.
pub const ENTRIES_MAX: usize = 64;
/// Longest name, in bytes.
pub const NAME_MAX: usize = 128;
/// Largest value, in bytes of its text or of its JSON.
pub const VALUE_MAX: usize = 64 * 1024;
/// Most bytes of all values together.
const TOTAL_MAX: usize = 256 * 1024;

/// One value. It is never `null`: that is as good as none.
#[derive(Clone, PartialEq, Eq)]
pub enum Held {
    /// Text.
    Text(Secret),
    /// A number, `true` or `false`, a list or a map, in its JSON spelling.
    Json(Secret),
}

impl Held {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Secret::new(text.into()))
    }

    /// What stands in an answer; `None` for `null`.
    pub fn of(json: &Json) -> Option<Self> {
        match json {
            Json::Null => None,
            Json::String(text) => Some(Self::text(text.as_str())),
            other => Some(Self::Json(Secret::new(other.to_string()))),
        }
    }

    /// Its text: that of a scalar as it was written, of anything else its JSON.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Text(secret) | Self::Json(secret) => secret,
        }
    }

    /// As expressions see it, with every text in it marked as secret.
    pub fn value(&self) -> Value {
        match self {
            Self::Text(secret) => Value::Secret(secret.clone()),
            // What cannot be read any more is text again: nothing is lost, and nothing becomes structure.
            Self::Json(secret) => Value::from_json(secret.expose()).map_or_else(|_| Value::Secret(secret.clone()), expr::sealed),
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Values by name, in the order in which they were first captured.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Captured(Vec<(Arc<str>, Held)>);

/// Why a value cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full(pub &'static str);

impl Captured {
    /// Keeps a value, in the place of an earlier one of that name.
    ///
    /// # Errors
    /// Where a bound is reached; nothing is changed then.
    pub fn insert(&mut self, name: &str, held: Held) -> Result<(), Full> {
        let size = held.secret().expose().len();
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Full("a captured value has a name of at most 128 bytes"));
        }
        if size > VALUE_MAX {
            return Err(Full("a captured value is larger than 64 KiB"));
        }
        let others: usize = self.0.iter().filter(|(n, _)| **n != *name).map(|(_, held)| held.secret().expose().len()).sum();
        if others + size > TOTAL_MAX {
            return Err(Full("all captured values together are larger than 256 KiB"));
        }
        let full = self.0.len() == ENTRIES_MAX;
        match self.0.iter_mut().find(|(n, _)| **n == *name) {
            Some((_, old)) => *old = held,
            None if full => return Err(Full("more than 64 values are captured")),
            None => self.0.push((name.into(), held)),
        }
        Ok(())
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Held> {
        self.0.iter().find(|(n, _)| **n == *name).map(|(_, held)| held)
    }

    /// Forgets a value.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| **n != *name);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each name with its value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.0.iter().map(|(name, held)| (&**name, held))
    }

    /// Every value, for a mask.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter().map(|(_, held)| held.secret())
    }

    /// The input `captured` of expressions.
    pub fn value(&self) -> Value {
        Value::Map(Arc::new(self.0.iter().map(|(name, held)| (name.clone(), held.value())).collect::<Map>()))
    }

    /// As a record has it: a list of `[name, kind, text]`.
    pub fn to_record(&self) -> Json {
        let entry = |(name, held): &(Arc<str>, Held)| {
            let kind = if matches!(held, Held::Text(_)) { "text" } else { "json" };
            Json::Array(vec![(&**name).into(), kind.into(), held.secret().expose().into()])
        };
        Json::Array(self.0.iter().map(entry).collect())
    }

    /// What a record has; a map of names and texts is one of before there were types. What has no place is left out.
    pub fn of_record(json: &Json) -> Self {
        let mut captured = Self::default();
        match json {
            Json::Object(map) => {
                for (name, value) in map {
                    // A record that was sealed was within the bounds, and so nothing is lost here.
                    let _ = value.as_str().map(|text| captured.insert(name, Held::text(text)));
                }
            }
            Json::Array(entries) => {
                for entry in entries {
                    let Some([Json::String(name), Json::String(kind), Json::String(text)]) = entry.as_array().map(Vec::as_slice) else {
                        continue;
                    };
                    let secret = Secret::new(text.clone());
                    let _ = captured.insert(name, if kind == "json" { Held::Json(secret) } else { Held::Text(secret) });
                }
            }
            _ => {}
        }
        captured
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn captured(entries: &[(&str, Json)]) -> Captured {
        let mut captured = Captured::default();
        entries.iter().for_each(|(name, value)| captured.insert(name, Held::of(value).unwrap()).unwrap());
        captured
    }

    #[test]
    fn values_keep_their_order_and_their_type() {
        let number: Json = serde_json::from_str("12345678901234567890.10").unwrap();
        let all = captured(&[("z", json!("text")), ("a", number), ("m", json!({ "list": [1, "x", true] }))]);
        assert_eq!(all.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["z", "a", "m"]);
        assert_eq!(Captured::of_record(&all.to_record()), all);
        let Value::Map(map) = all.value() else { panic!() };
        assert_eq!(map.get("a"), Some(&Value::Number("12345678901234567890.10".into())));
        assert!(map.get("z").unwrap().holds_secret() && map.get("m").unwrap().holds_secret());
        assert_eq!(Held::of(&Json::Null), None);
    }

    #[test]
    fn a_later_value_takes_the_place_of_an_earlier_one() {
        let mut all = captured(&[("a", json!("1")), ("b", json!("2"))]);
        all.insert("a", Held::text("3")).unwrap();
        assert_eq!(all, captured(&[("a", json!("3")), ("b", json!("2"))]));
        all.remove("a");
        assert_eq!(all, captured(&[("b", json!("2"))]));
    }

    #[test]
    fn a_record_of_before_there_were_types_is_read() {
        let old = json!({ "realm": "7", "odd": 5 });
        assert_eq!(Captured::of_record(&old), captured(&[("realm", json!("7"))]));
        for wrong in [json!(null), json!("x"), json!([1, ["a"], ["a", "text", 5]])] {
            assert!(Captured::of_record(&wrong).is_empty(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_kept_beyond_the_bounds() {
        let mut all = Captured::default();
        (0..ENTRIES_MAX).for_each(|n| all.insert(&n.to_string(), Held::text("x")).unwrap());
        assert!(all.insert("one more", Held::text("x")).is_err() && all.insert("5", Held::text("y")).is_ok());
        assert!(all.insert("5", Held::text("x".repeat(VALUE_MAX + 1))).is_err());
        assert!(all.insert(&"n".repeat(NAME_MAX + 1), Held::text("x")).is_err());
        let mut large = Captured::default();
        (0..4).for_each(|n| large.insert(&n.to_string(), Held::text("x".repeat(VALUE_MAX))).unwrap());
        assert!(large.insert("4", Held::text("x")).is_err() && large.insert("3", Held::text("x")).is_ok());
    }

    #[test]
    fn no_value_prints() {
        let all = captured(&[("a", json!("hunter2hunter2")), ("b", json!(["hunter2hunter2"]))]);
        let shown = format!("{all:?} {:?}", all.value());
        assert!(!shown.contains("hunter2") && shown.contains("\"a\""), "{shown}");
    }
}
