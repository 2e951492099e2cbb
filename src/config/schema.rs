//! The JSON Schema of the whole configuration as data: editors read it, and the layers ask it which keys there are.
//! It judges nothing here: what is wrong with a configuration is found by whoever reads a key.

use std::sync::OnceLock;

use serde_json::Value;

/// Its text, for `postern schema`.
pub const TEXT: &str = include_str!("../../config/schema.json");
/// In front of the name of a definition.
const DEFINITIONS: &str = "#/definitions/";
/// References followed for one spot: definitions name each other only so deep before there is an object.
const DEPTH_MAX: usize = 16;

/// A spot of the configuration: everything that may stand there.
#[derive(Clone, Debug)]
pub struct Spot {
    forms: Vec<&'static Value>,
    unbuilt: bool,
}

impl Spot {
    /// The root of the configuration.
    pub fn root() -> Self {
        Self::of(root())
    }

    fn of(schema: &'static Value) -> Self {
        let mut spot = Self { forms: Vec::new(), unbuilt: schema["x-unbuilt"] == Value::Bool(true) };
        spot.add(schema, 0);
        spot
    }

    fn add(&mut self, schema: &'static Value, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        match schema["$ref"].as_str() {
            Some("#") => self.forms.push(root()),
            Some(name) => self.add(&root()["definitions"][name.trim_start_matches(DEFINITIONS)], depth + 1),
            None => self.forms.push(schema),
        }
        for form in schema["anyOf"].as_array().into_iter().flatten() {
            self.add(form, depth + 1);
        }
    }

    /// The spot under a key; `None` where there can be none.
    pub fn under(&self, key: &str) -> Option<Self> {
        let named = self.forms.iter().find_map(|form| form["properties"].get(key));
        let free = || self.forms.iter().map(|form| &form["additionalProperties"]).find(|free| free.is_object());
        named.or_else(free).map(Self::of)
    }

    /// The keys with a meaning of their own.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.forms.iter().filter_map(|form| form["properties"].as_object()).flat_map(|map| map.keys().map(String::as_str))
    }

    /// The spot of an item, where a list may stand here.
    #[cfg(test)]
    pub fn item(&self) -> Option<Self> {
        let items = self.forms.iter().map(|form| &form["items"]).find(|items| items.is_object())?;
        Some(Self::of(items))
    }

    /// What the schema says of a key: nothing, that this version lacks it, or that it lacks part of it.
    #[cfg(test)]
    pub fn mark(&self, key: &str) -> Option<Option<()>> {
        let mark = self.forms.iter().find_map(|form| form["properties"].get(key))?.get("x-unbuilt")?;
        Some((*mark == Value::Bool(true)).then_some(()))
    }

    /// The spot under a key that the operator chooses.
    #[cfg(test)]
    pub fn free(&self) -> Option<Self> {
        let free = self.forms.iter().map(|form| &form["additionalProperties"]).find(|free| free.is_object())?;
        Some(Self::of(free))
    }

    /// Whether this version refuses whatever stands here.
    pub fn is_unbuilt(&self) -> bool {
        self.unbuilt
    }

    /// Whether a single value may stand here.
    pub fn takes_scalar(&self) -> bool {
        let scalar = |form: &Value| {
            let kinds = &form["type"];
            let is_scalar = |kind: &Value| !matches!(kind.as_str(), None | Some("object" | "array" | "null"));
            form.get("enum").is_some() || is_scalar(kinds) || kinds.as_array().is_some_and(|all| all.iter().any(is_scalar))
        };
        self.forms.iter().any(|form| scalar(form))
    }
}

fn root() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| serde_json::from_str(TEXT).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(way: &str) -> Option<Spot> {
        way.split('.').filter(|k| !k.is_empty()).try_fold(Spot::root(), |spot, key| spot.under(key))
    }

    #[test]
    fn it_is_json_and_every_reference_leads_somewhere() {
        let schema: Value = serde_json::from_str(TEXT).unwrap();
        for name in TEXT.split(DEFINITIONS).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(schema["definitions"].get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_spot_is_found_by_its_way() {
        assert!(at("").unwrap().keys().any(|k| k == "resources"));
        assert!(at("resources.any.timeouts").unwrap().keys().any(|k| k == "head"));
        assert!(at("resources.any.auth.bearer").unwrap().keys().any(|k| k == "scheme"));
        assert!(at("environments.any.resources.any.tls.ca").is_some());
        assert!(at("resources.any.timeouts.haed").is_none() && at("nope").is_none());
        assert!(at("resources.any.headers.X-Any").is_some());
    }

    #[test]
    fn scalars_at_the_top_are_told_from_blocks() {
        for (way, scalar) in [("environment", true), ("allow_exec", true), ("store", true), ("master_key", true), ("server", false)] {
            assert_eq!(at(way).unwrap().takes_scalar(), scalar, "{way}");
        }
        assert!(at("policies").unwrap().is_unbuilt() && !at("store").unwrap().is_unbuilt());
    }
}
