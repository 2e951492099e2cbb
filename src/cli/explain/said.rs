//! Who said what: looks a part of a request up in the configuration, whose values keep their places.

use serde_json::{Value as Json, json};

use crate::config::problem::File;
use crate::secret::Secret;
use crate::tree::{Node, Piece, Place, Value};

/// Where a part of a request comes from.
#[derive(Clone, Debug)]
pub enum From {
    /// The client sent it.
    Client,
    /// The gateway made it, as HTTP or its own rules demand.
    Gateway,
    /// The configuration says it.
    Configured {
        /// The way to it: `resources.github.headers.Accept`.
        way: String,
        /// The file, or the variable or flag.
        file: String,
        /// The line.
        line: u32,
    },
}

impl From {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Client => "client".into(),
            Self::Gateway => "gateway".into(),
            Self::Configured { way, file, line: 0 } => format!("{way} ({file})"),
            Self::Configured { way, file, line } => format!("{way} ({file}:{line})"),
        }
    }

    /// For programs.
    pub fn json(&self) -> Json {
        match self {
            Self::Client => json!({ "layer": "client" }),
            Self::Gateway => json!({ "layer": "gateway" }),
            Self::Configured { way, file, line } => json!({ "layer": file, "line": line, "path": way }),
        }
    }
}

/// What one resource says, through one of its routes or by itself.
pub struct Said<'s> {
    /// The files, variables and flags by index.
    pub files: &'s [File],
    /// The resource's name.
    pub resource: &'s str,
    /// The resource.
    pub node: Option<&'s Node>,
    /// Whether a variable that expressions may read is a secret.
    pub secret_vars: bool,
    /// The route that was chosen, and its index.
    pub route: Option<(usize, &'s Node)>,
}

/// A value of the configuration that was found.
pub struct Found<'s> {
    /// The value.
    pub node: &'s Node,
    /// Where it was said.
    pub from: From,
}

impl<'s> Said<'s> {
    /// What the route, else the resource, says under these keys; the last one is compared without case.
    pub fn find(&self, keys: &[&str]) -> Option<Found<'s>> {
        let in_route = self.route.and_then(|(index, node)| {
            let (node, place) = below(node, keys)?;
            Some(self.found(node, place, &format!("routes[{index}].{}", keys.join("."))))
        });
        in_route.or_else(|| {
            let (node, place) = below(self.node?, keys)?;
            Some(self.found(node, place, &keys.join(".")))
        })
    }

    /// The route itself.
    pub fn route(&self) -> Option<Found<'s>> {
        self.route.map(|(index, node)| self.found(node, node.place, &format!("routes[{index}]")))
    }

    fn found(&self, node: &'s Node, place: Place, way: &str) -> Found<'s> {
        let file = self.files.get(usize::from(place.file)).map_or_else(|| "?".to_owned(), |file| file.name.clone());
        Found { node, from: From::Configured { way: format!("resources.{}.{way}", self.resource), file, line: place.line } }
    }

    /// Every secret of the resource.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut all = Vec::new();
        self.node.into_iter().for_each(|node| node.secrets(&mut all));
        all
    }
}

/// A value below a node, and where it was said.
fn below<'n>(node: &'n Node, keys: &[&str]) -> Option<(&'n Node, Place)> {
    let (last, way) = keys.split_last()?;
    let node = way.iter().try_fold(node, |node, key| node.get(key))?;
    let entry = node.entries().iter().find(|e| e.key.eq_ignore_ascii_case(last))?;
    Some((&entry.node, entry.place))
}

impl Said<'_> {
    /// Whether a value is, or may turn out to hold, a secret.
    pub fn is_secret(&self, node: &Node) -> bool {
        is_secret(node, self.secret_vars)
    }
}

/// Whether a variable of this map is a secret.
pub fn holds_secret(vars: Option<&Node>) -> bool {
    vars.is_some_and(|vars| is_secret(vars, false))
}

fn is_secret(node: &Node, secret_vars: bool) -> bool {
    match &node.value {
        Value::Secret(_) | Value::Unresolved(_) => true,
        Value::Mixed(pieces) => pieces.iter().any(|piece| match piece {
            Piece::Secret(_) => true,
            Piece::Written(text) => reads_secrets(text, secret_vars),
            Piece::Put(_) => false,
        }),
        Value::Text(text) => reads_secrets(text, secret_vars),
        Value::List(items) => items.iter().any(|n| is_secret(n, secret_vars)),
        Value::Map(entries) => entries.iter().any(|e| is_secret(&e.node, secret_vars)),
        _ => false,
    }
}

/// Whether an expression may read a secret.
fn reads_secrets(text: &str, secret_vars: bool) -> bool {
    let names = ["secrets", "token", "captured"];
    text.contains("{{") && (names.iter().any(|name| text.contains(name)) || (secret_vars && text.contains("vars")))
}
