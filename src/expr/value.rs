//! What expressions work on and result in: the types of the language, with numbers kept as written and secrets that
//! do not print. How they look inside the engine is the affair of `bridge.rs`.

use std::fmt;
use std::sync::Arc;

use crate::expr::json;
use crate::expr::moment::Moment;
use crate::secret::{REDACTED, Secret};
use crate::tree;

/// Deepest nesting of a value that is read or written.
pub const DEPTH_MAX: usize = 32;

/// One value. Clones share what is large.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it was written, which is always a JSON number.
    Number(Arc<str>),
    /// Text that no secret touched.
    Text(Arc<str>),
    /// Text that a secret touched.
    Secret(Secret),
    /// Bytes. They have no text of their own (ruling F5).
    Bytes(Arc<[u8]>),
    /// A moment. It has no text of its own: there are too many spellings.
    Moment(Moment),
    /// A list.
    List(Arc<[Value]>),
    /// A map.
    Map(Arc<Map>),
}

/// Why a value has no text, or no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unprintable {
    /// Bytes.
    Bytes,
    /// A moment.
    Moment,
    /// `null` as text.
    Null,
    /// A list as text.
    List,
    /// A map as text.
    Map,
    /// Nested too deeply.
    Depth,
}

impl fmt::Display for Unprintable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "it puts bytes into text: say how they are written, with `hex`, `b64encode`, `b64url` or `text`",
            Self::Moment => {
                "it puts a moment into text: say how it is written, with `rfc3339`, `epoch`, `epoch_ms`, `http_date` or `date_format`"
            }
            Self::Null => "it is null, which has no text: give it a `default(…)`",
            Self::List => "it puts a list into text: say how it is written, with `join` or `json`, or pick one with `first`",
            Self::Map => "it puts a map into text: say how it is written, with `json`",
            Self::Depth => "its value is nested too deeply",
        })
    }
}

/// How a moment is written into JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moments {
    /// Not at all.
    Refused,
    /// As whole seconds since 1970: `NumericDate` of JWT (RFC 7519 section 2).
    Seconds,
}

impl Value {
    /// Text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// A whole number.
    pub fn whole(number: impl Into<i128>) -> Self {
        Self::Number(number.into().to_string().into())
    }

    /// Bytes: text where they are UTF-8, so that filters for either can take them.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::text(text),
            Err(_) => Self::Bytes(bytes.into()),
        }
    }

    /// Reads JSON. Numbers stay as written, and so does the order of keys.
    ///
    /// # Errors
    /// Where it is no JSON or nested too deeply; the text says where, and nothing of what.
    pub fn from_json(text: &str) -> Result<Self, String> {
        json::read(text)
    }

    /// A value of the configuration: `vars`, `secrets`. `None` for a reference that names nothing: it is undefined.
    pub fn of_node(node: &tree::Node) -> Option<Self> {
        Some(match &node.value {
            tree::Value::Null => Self::Null,
            tree::Value::Bool(b) => Self::Bool(*b),
            tree::Value::Number(n) => number(n).map_or_else(|| Self::text(&**n), Self::Number),
            tree::Value::Text(t) => Self::text(&**t),
            tree::Value::Secret(s) => Self::Secret(s.clone()),
            tree::Value::Mixed(pieces) => {
                let text: String = pieces.iter().map(tree::Piece::text).collect();
                let secret = pieces.iter().any(|piece| matches!(piece, tree::Piece::Secret(_)));
                if secret { Self::Secret(Secret::new(text)) } else { Self::text(text) }
            }
            tree::Value::Unresolved(_) => return None,
            tree::Value::List(items) => Self::List(items.iter().filter_map(Self::of_node).collect()),
            tree::Value::Map(entries) => {
                Self::Map(Arc::new(Map::new(entries.iter().filter_map(|e| Some((Arc::from(&*e.key), Self::of_node(&e.node)?))))))
            }
        })
    }

    /// Whether it counts as unset for `default` and `omit_if_unset` (ruling F8): null or empty.
    pub fn is_unset(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(t) => t.is_empty(),
            Self::Secret(s) => s.is_empty(),
            Self::Bytes(b) => b.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Map(map) => map.entries().is_empty(),
            Self::Bool(_) | Self::Number(_) | Self::Moment(_) => false,
        }
    }

    /// Whether a secret is anywhere in it.
    pub fn holds_secret(&self) -> bool {
        match self {
            Self::Secret(_) => true,
            Self::List(items) => items.iter().any(Self::holds_secret),
            Self::Map(map) => map.entries().iter().any(|(_, value)| value.holds_secret()),
            _ => false,
        }
    }

    /// Whether bytes are anywhere in it.
    pub fn holds_bytes(&self) -> bool {
        match self {
            Self::Bytes(_) => true,
            Self::List(items) => items.iter().any(Self::holds_bytes),
            Self::Map(map) => map.entries().iter().any(|(_, value)| value.holds_bytes()),
            _ => false,
        }
    }

    /// Appends its text: numbers as written, booleans as in JSON (ruling F15).
    ///
    /// # Errors
    /// Where it has none.
    pub fn write_text(&self, into: &mut String) -> Result<(), Unprintable> {
        match self {
            Self::Bool(b) => into.push_str(if *b { "true" } else { "false" }),
            Self::Number(n) => into.push_str(n),
            Self::Text(t) => into.push_str(t),
            Self::Secret(s) => into.push_str(s.expose()),
            Self::Null => return Err(Unprintable::Null),
            Self::Bytes(_) => return Err(Unprintable::Bytes),
            Self::Moment(_) => return Err(Unprintable::Moment),
            Self::List(_) => return Err(Unprintable::List),
            Self::Map(_) => return Err(Unprintable::Map),
        }
        Ok(())
    }

    /// Appends its JSON without white space: numbers as written, keys in their order.
    ///
    /// # Errors
    /// For bytes, for moments where they are refused, and for what is nested too deeply.
    pub fn write_json(&self, moments: Moments, into: &mut String) -> Result<(), Unprintable> {
        self.json_at(0, moments, into)
    }

    fn json_at(&self, depth: usize, moments: Moments, into: &mut String) -> Result<(), Unprintable> {
        if depth > DEPTH_MAX {
            return Err(Unprintable::Depth);
        }
        match self {
            Self::Null => into.push_str("null"),
            Self::Bool(_) | Self::Number(_) => self.write_text(into)?,
            Self::Text(t) => quote(t, into),
            Self::Secret(s) => quote(s.expose(), into),
            Self::Bytes(_) => return Err(Unprintable::Bytes),
            Self::Moment(moment) if moments == Moments::Seconds => into.push_str(&moment.seconds().to_string()),
            Self::Moment(_) => return Err(Unprintable::Moment),
            Self::List(items) => {
                into.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        into.push(',');
                    }
                    item.json_at(depth + 1, moments, into)?;
                }
                into.push(']');
            }
            Self::Map(map) => {
                into.push('{');
                for (index, (key, value)) in map.entries().iter().enumerate() {
                    if index > 0 {
                        into.push(',');
                    }
                    quote(key, into);
                    into.push(':');
                    value.json_at(depth + 1, moments, into)?;
                }
                into.push('}');
            }
        }
        Ok(())
    }
}

/// Appends a JSON string.
fn quote(text: &str, into: &mut String) {
    into.push('"');
    for c in text.chars() {
        match c {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            c if c < ' ' => into.push_str(&format!("\\u{:04x}", c as u32)),
            c => into.push(c),
        }
    }
    into.push('"');
}

/// The text as a JSON number (RFC 8259 section 6), if it is one.
pub fn number(text: &str) -> Option<Arc<str>> {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.starts_with('0')) {
        return None;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        rest = (length > 0).then(|| &fraction[length..])?;
    }
    if let Some(power) = rest.strip_prefix(['e', 'E']) {
        let power = power.strip_prefix(['+', '-']).unwrap_or(power);
        let length = digits(power);
        rest = (length > 0).then(|| &power[length..])?;
    }
    rest.is_empty().then(|| text.into())
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Number(n) => f.write_str(n),
            Self::Text(t) => write!(f, "{t:?}"),
            Self::Secret(_) => f.write_str(REDACTED),
            Self::Bytes(b) => write!(f, "{} bytes", b.len()),
            Self::Moment(moment) => write!(f, "{}", moment.rfc3339()),
            Self::List(items) => f.debug_list().entries(items.iter()).finish(),
            Self::Map(map) => map.fmt(f),
        }
    }
}

/// A map in the order as written, found in by name in logarithmic time. Of a name that occurs twice the last one counts.
#[derive(Clone, Default)]
pub struct Map {
    entries: Vec<(Arc<str>, Value)>,
    /// Indexes of entries, by key.
    order: Vec<u32>,
    folded: bool,
}

impl Map {
    /// A map of these.
    pub fn new(entries: impl IntoIterator<Item = (Arc<str>, Value)>) -> Self {
        Self::build(entries.into_iter().collect(), false)
    }

    /// A map of header fields: found in whatever the case of the name. The keys must be in lower case.
    pub fn of_fields(entries: impl IntoIterator<Item = (Arc<str>, Value)>) -> Self {
        Self::build(entries.into_iter().collect(), true)
    }

    fn build(mut entries: Vec<(Arc<str>, Value)>, folded: bool) -> Self {
        let by_key = |entries: &[(Arc<str>, Value)]| {
            let mut order: Vec<u32> = (0..u32::try_from(entries.len()).unwrap_or(u32::MAX)).collect();
            order.sort_by(|a, b| entries[*a as usize].0.cmp(&entries[*b as usize].0).then(a.cmp(b)));
            order
        };
        let mut order = by_key(&entries);
        let twice = |pair: &[u32]| entries[pair[0] as usize].0 == entries[pair[1] as usize].0;
        if order.windows(2).any(twice) {
            let mut last: Vec<u32> = Vec::with_capacity(order.len());
            for index in order {
                match last.last_mut() {
                    Some(before) if entries[*before as usize].0 == entries[index as usize].0 => *before = index,
                    _ => last.push(index),
                }
            }
            last.sort_unstable();
            entries = last.into_iter().map(|index| entries[index as usize].clone()).collect();
            order = by_key(&entries);
        }
        Self { entries, order, folded }
    }

    /// The entries, in their order.
    pub fn entries(&self) -> &[(Arc<str>, Value)] {
        &self.entries
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let folded = if self.folded { std::borrow::Cow::Owned(key.to_ascii_lowercase()) } else { key.into() };
        let at = self.order.binary_search_by(|index| (*self.entries[*index as usize].0).cmp(&*folded)).ok()?;
        Some(&self.entries[self.order[at] as usize].1)
    }

    /// This one with the entries of another laid over it.
    #[must_use]
    pub fn overlaid(&self, other: &Self) -> Self {
        Self::build(self.entries.iter().chain(&other.entries).cloned().collect(), self.folded)
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len() && self.entries.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|(key, value)| (key, value))).finish()
    }
}

impl<K: Into<Arc<str>>> FromIterator<(K, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(entries: I) -> Self {
        Self::new(entries.into_iter().map(|(key, value)| (key.into(), value)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(value: &Value) -> String {
        let mut out = String::new();
        value.write_json(Moments::Refused, &mut out).unwrap();
        out
    }

    #[test]
    fn json_keeps_numbers_and_the_order_of_keys() {
        let text = r#"{"b":12345678901234567890,"a":[1.10,1e400,-0,0.1E-7],"c":{"z":null,"y":true},"d":"\"\\\n\u0001ü"}"#;
        assert_eq!(json(&Value::from_json(text).unwrap()), text);
    }

    #[test]
    fn of_a_key_that_occurs_twice_the_last_counts() {
        let map = Map::new([("a", 1), ("b", 2), ("a", 3)].map(|(k, v)| (k.into(), Value::whole(v))));
        assert_eq!((map.entries().len(), map.get("a")), (2, Some(&Value::whole(3))));
    }

    #[test]
    fn fields_are_found_in_any_case() {
        let map = Map::of_fields([("content-type".into(), Value::text("x"))]);
        assert!(map.get("Content-Type").is_some() && map.get("content_type").is_none());
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Value::from_json(&nested(DEPTH_MAX)).is_ok());
        assert!(Value::from_json(&nested(DEPTH_MAX + 2)).is_err());
        assert!(Value::from_json(&nested(100_000)).is_err());
    }

    #[test]
    fn a_secret_does_not_print() {
        let value = Value::List(vec![Value::Secret(Secret::new("hunter2".into()))].into());
        assert_eq!(format!("{value:?}"), "[[redacted]]");
        assert!(value.holds_secret());
    }

    proptest! {
        #[test]
        fn a_number_is_one_exactly_where_json_says_so(text in "-?[0-9]{0,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?") {
            prop_assert_eq!(number(&text).is_some(), serde_json::from_str::<serde_json::Number>(&text).is_ok());
        }

        #[test]
        fn quoted_text_reads_back(text in any::<String>()) {
            let written = json(&Value::text(text.clone()));
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }

        #[test]
        fn every_entry_is_found(keys in prop::collection::vec("[a-c]{1,2}", 0..12)) {
            let map: Map = keys.iter().enumerate().map(|(at, key)| (key.as_str(), Value::whole(at as i128))).collect();
            for (at, key) in keys.iter().enumerate() {
                let last = keys.iter().rposition(|k| k == key).unwrap();
                prop_assert!(last >= at);
                prop_assert_eq!(map.get(key), Some(&Value::whole(last as i128)));
            }
        }
    }
}
