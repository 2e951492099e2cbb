//! What lies under a resource: `defaults`, and above them the preset that it names. Presets are data files: they hold
//! no references, but declare inputs, which come from the environment unless the resource says otherwise (ruling G7).
//! An input stands where it goes, or under `vars` or `secrets` where more than one place needs it.

use super::load::Reading;
use super::references::Sources;
use super::schema::Spot;
use super::{layers, raw};
use crate::secret::Secret;
use crate::tree::{Entry, Node, Piece, Place, Problems, Unresolved, Value, closest, has_braces};

/// Name and text of every preset.
const TABLE: &[(&str, &str)] = &include!("../../config/presets/table.rs");
/// Nodes that `defaults` may add, over all resources.
const ADDED_MAX: usize = 4_000_000;

/// A preset, read.
#[derive(Clone, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is of, for people.
    pub title: String,
    /// Where its vendor documents it.
    pub documentation: String,
    /// What it needs.
    pub inputs: Vec<Input>,
    /// Variables that its SDK reads, with `{url}` for the address of the resource at the gateway.
    pub sdk: Vec<(String, String)>,
    /// The body of a resource.
    body: Node,
}

/// Something that a preset needs.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Whether it is a secret.
    pub secret: bool,
    /// The variable that brings it.
    pub variable: String,
    /// What it is, for people.
    pub description: String,
    /// What it is where nobody says.
    pub default: Option<String>,
    /// Whether the API works without it.
    pub optional: bool,
    /// The way to the place in the resource where it goes.
    pub way: Vec<String>,
}

/// The names of all presets.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// A preset by its name.
pub fn find(name: &str) -> Option<Preset> {
    let (name, text) = TABLE.iter().find(|(n, _)| *n == name)?;
    let root = raw::parse(text, 0, &Problems::default())?;
    let word = |node: Option<&Node>| node.and_then(Node::word).unwrap_or_default().to_owned();
    let body = root.get("resource")?.clone();
    let inputs = root.get("inputs").map(Node::entries).unwrap_or_default();
    let inputs = inputs.iter().map(|Entry { key, node, .. }| Input {
        name: key.to_string(),
        secret: word(node.get("secret")) == "true",
        variable: word(node.get("env")),
        description: word(node.get("description")),
        default: node.get("default").and_then(Node::word).map(str::to_owned),
        optional: word(node.get("optional")) == "true",
        way: way_to(&body, key).unwrap_or_default(),
    });
    let sdk = root.get("sdk").map(Node::entries).unwrap_or_default();
    Some(Preset {
        name,
        title: word(root.get("title")),
        documentation: word(root.get("documentation")),
        inputs: inputs.collect(),
        sdk: sdk.iter().map(|e| (e.key.to_string(), word(Some(&e.node)))).collect(),
        body,
    })
}

impl Input {
    /// Whether nothing works without it.
    pub fn is_needed(&self) -> bool {
        !self.optional && self.default.is_none()
    }

    /// What to write in the resource instead of setting the variable: `auth: { bearer: { token: "${env:NAME}" } }`.
    pub fn written(&self) -> String {
        let value = if self.secret { format!("\"${{env:{}}}\"", self.variable) } else { "…".to_owned() };
        let (first, inner) = match self.way.split_first() {
            Some((first, rest)) => (first.as_str(), rest.iter().rev().fold(value, |inner, key| format!("{{ {key}: {inner} }}"))),
            None => ("", value),
        };
        format!("{first}: {inner}")
    }
}

/// Where the input stands in a body.
fn way_to(node: &Node, input: &str) -> Option<Vec<String>> {
    if reads(node) == Some(input) {
        return Some(Vec::new());
    }
    node.entries().iter().find_map(|e| {
        let mut way = way_to(&e.node, input)?;
        way.insert(0, e.key.to_string());
        Some(way)
    })
}

/// The input that a node of a preset stands for: `{ input: NAME }`.
fn reads(node: &Node) -> Option<&str> {
    match node.entries() {
        [only] if &*only.key == "input" => only.node.word(),
        _ => None,
    }
}

/// Lays `defaults` and presets under every resource.
pub fn lay(tree: &mut Node, sources: &dyn Sources, reading: &mut Reading) {
    let Value::Map(root) = &mut tree.value else { return };
    let defaults = take_defaults(root, reading);
    let top = root.iter().find(|e| &*e.key == "vars").map(|e| e.node.entries()).unwrap_or_default();
    let top: Vec<Box<str>> = top.iter().filter(|e| !e.node.is_null()).map(|e| e.key.clone()).collect();
    let Some(resources) = root.iter_mut().find(|e| &*e.key == "resources") else { return };
    let Value::Map(resources) = &mut resources.node.value else { return };
    if let Some(defaults) = &defaults
        && size(defaults).saturating_mul(resources.len()) > ADDED_MAX
    {
        reading.problems.error(defaults.place, "`defaults` are too large for so many resources", "fewer keys here, or fewer resources");
        return;
    }
    let mut presets: Vec<(Preset, u16)> = Vec::new();
    for resource in resources.iter_mut().filter(|e| matches!(e.node.value, Value::Map(_))) {
        let named = resource.node.get("preset").or_else(|| defaults.as_ref()?.get("preset")).filter(|n| !n.is_null());
        let preset = named.and_then(|node| known(node, &mut presets, reading)).map(|(at, place)| (&presets[at], place));
        if defaults.is_none() && preset.is_none() {
            continue;
        }
        let nothing = Node { place: resource.node.place, value: Value::Map(Vec::new()) };
        let mut lower = defaults.clone().unwrap_or_else(|| nothing.clone());
        if let Some(((preset, file), _)) = &preset {
            layers::merge_resource(&mut lower, moved(preset.body.clone(), *file));
        }
        layers::merge_resource(&mut lower, std::mem::replace(&mut resource.node, nothing));
        if let Some(((preset, file), place)) = &preset {
            fill(&mut lower, preset, (*file, *place), sources);
            tell(&mut lower, *file, &top);
        }
        resource.node = lower;
    }
}

fn take_defaults(root: &mut Vec<Entry>, reading: &Reading) -> Option<Node> {
    let at = root.iter().position(|e| &*e.key == "defaults")?;
    let node = root.remove(at).node;
    match &node.value {
        Value::Map(_) => Some(node),
        Value::Null => None,
        _ => {
            reading.problems.error(node.place, format!("expected the shape of a resource, found {}", node.shown()), "");
            None
        }
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Map(entries) => 1 + entries.iter().map(|e| size(&e.node)).sum::<usize>(),
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// The preset that a node names, which is read once: its index, and the place that names it.
fn known(node: &Node, presets: &mut Vec<(Preset, u16)>, reading: &mut Reading) -> Option<(usize, Place)> {
    let Some(name) = node.word() else {
        reading.problems.error(node.place, format!("`preset` is the name of one, found {}", node.kind()), "postern list --presets");
        return None;
    };
    if let Some(at) = presets.iter().position(|(preset, _)| preset.name == name) {
        return Some((at, node.place));
    }
    let Some(mut preset) = find(name) else {
        let known: Vec<&str> = names().collect();
        reading.problems.error(node.place, format!("there is no preset `{name}`"), closest(name, &known));
        return None;
    };
    let resource = Spot::root().under("resources").and_then(|spot| spot.under("any"));
    if let Some(resource) = resource {
        prune(&mut preset.body, &resource);
    }
    let text = TABLE.iter().find(|(n, _)| *n == name).map_or("", |(_, text)| text);
    let file = reading.pseudo(format!("preset {name}"), text.to_owned());
    presets.push((preset, file));
    Some((presets.len() - 1, node.place))
}

/// Takes away what this version lacks. A preset tells what an API is like; nobody asked for each of its keys.
fn prune(node: &mut Node, spot: &Spot) {
    let Value::Map(entries) = &mut node.value else { return };
    entries.retain(|e| spot.under(&e.key).is_none_or(|spot| !spot.is_unbuilt()));
    for entry in entries {
        if let Some(spot) = spot.under(&entry.key) {
            prune(&mut entry.node, &spot);
        }
    }
}

/// The same node as one of this file.
fn moved(mut node: Node, file: u16) -> Node {
    node.place.file = file;
    match &mut node.value {
        Value::Map(entries) => {
            for entry in entries {
                entry.place.file = file;
                entry.node = moved(std::mem::replace(&mut entry.node, Node { place: node.place, value: Value::Null }), file);
            }
        }
        Value::List(items) => {
            for item in items {
                *item = moved(std::mem::replace(item, Node { place: node.place, value: Value::Null }), file);
            }
        }
        _ => {}
    }
    node
}

/// Puts a preset's inputs where it reads them and the resource has said nothing. `named` is where the preset is named.
fn fill(node: &mut Node, preset: &Preset, named: (u16, Place), sources: &dyn Sources) {
    let input = if node.place.file == named.0 { reads(node).map(str::to_owned) } else { None };
    if let Some(input) = input.and_then(|name| preset.inputs.iter().find(|i| i.name == name)) {
        *node = Node { place: named.1, value: value(preset, input, sources) };
        return;
    }
    if let Value::Map(entries) = &mut node.value {
        entries.iter_mut().for_each(|e| fill(&mut e.node, preset, named, sources));
    }
}

fn value(preset: &Preset, input: &Input, sources: &dyn Sources) -> Value {
    match sources.env(&input.variable).filter(|v| !v.is_empty()).or_else(|| input.default.clone()) {
        Some(value) if input.secret => Value::Secret(Secret::new(value)),
        // What a variable brings is never read as a reference or an expression.
        Some(value) if has_braces(&value) || value.contains("${") => Value::Mixed([Piece::Put(value.into())].into()),
        Some(value) => Value::Text(value.into()),
        None => Value::Unresolved(Box::new(Unresolved {
            message: format!("the preset `{}` needs {}: {} is not set", preset.name, input.description, input.variable),
            hint: format!("set {}, or write `{}` in the resource", input.variable, input.written()),
            // Never "merely unset" where it is needed: a credential without its secret is no credential.
            unset: input.optional,
        })),
    }
}

/// An input that is not set, how texts name it, and where its preset is named.
struct Missing {
    names: [String; 2],
    what: Unresolved,
    place: Place,
}

/// Takes the inputs that are not set out of `vars` and `secrets`, and lets whatever names one say what is missing. What
/// nothing names any more, as the resource says something else in its place, is not needed; `top` are the variables that
/// the top level has.
fn tell(resource: &mut Node, file: u16, top: &[Box<str>]) {
    let Value::Map(entries) = &mut resource.value else { return };
    let mut missing = Vec::new();
    for Entry { key: holder, node, .. } in entries.iter_mut().filter(|e| matches!(&*e.key, "vars" | "secrets")) {
        let Value::Map(values) = &mut node.value else { continue };
        values.retain(|value| {
            let Value::Unresolved(what) = &value.node.value else { return true };
            let elsewhere = &**holder == "vars" && top.contains(&value.key);
            if !what.unset && !elsewhere {
                let kind = holder.trim_end_matches('s');
                let names = [format!("{holder}.{}", value.key), format!("{kind}:{}", value.key)];
                missing.push(Missing { names, what: (**what).clone(), place: value.node.place });
            }
            false
        });
    }
    if !missing.is_empty() {
        entries.iter_mut().for_each(|e| tell_in(&mut e.node, file, &missing));
    }
}

fn tell_in(node: &mut Node, file: u16, missing: &[Missing]) {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().for_each(|e| tell_in(&mut e.node, file, missing)),
        Value::List(items) => items.iter_mut().for_each(|item| tell_in(item, file, missing)),
        Value::Text(text) if has_braces(text) || text.contains("${") => {
            if let Some(missing) = missing.iter().find(|m| m.names.iter().any(|name| says(text, name))) {
                node.value = Value::Unresolved(Box::new(missing.what.clone()));
                // Once for all places of the preset, and where a text of the operator's own names it.
                if node.place.file == file {
                    node.place = missing.place;
                }
            }
        }
        _ => {}
    }
}

/// Whether `name` stands in a text as a name of its own.
fn says(text: &str, name: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    text.match_indices(name).any(|(at, _)| !part(text[..at].chars().next_back()) && !part(text[at + name.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_complete_and_holds_no_reference() {
        for (name, text) in TABLE {
            let preset = find(name).unwrap_or_else(|| panic!("{name}"));
            assert!(!preset.title.is_empty() && preset.documentation.starts_with("https://"), "{name}");
            assert!(text.contains("read on 20") && text.contains("#   https://"), "{name} names no page or date");
            assert!(!text.contains("${"), "{name} holds a reference");
            assert!(preset.body.get("base_url").is_some() && preset.body.get("auth").is_some(), "{name}");
            for input in &preset.inputs {
                assert!(!input.variable.is_empty() && !input.description.is_empty() && !input.way.is_empty(), "{name}: {input:?}");
                assert!(!input.secret || input.default.is_none(), "{name}: a secret has no default");
            }
            assert!(preset.inputs.iter().any(|i| i.secret && i.is_needed()), "{name} needs no secret");
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/presets")).unwrap().flatten();
        let files = files.filter(|e| e.path().extension().is_some_and(|e| e == "yaml")).count();
        assert_eq!(files, TABLE.len(), "the table names every file");
    }

    #[test]
    fn what_to_write_instead_of_the_variable_is_told() {
        for input in names().flat_map(|n| find(n).unwrap().inputs) {
            let written = input.written();
            let whole = ["auth: { ", "vars: { ", "secrets: { "].iter().any(|start| written.starts_with(start));
            assert!(whole && written.ends_with('}'), "{written}");
            assert_eq!(written.contains(&format!("\"${{env:{}}}\"", input.variable)), input.secret, "{written}");
        }
    }

    #[test]
    fn a_name_stands_alone_in_a_text_or_does_not_stand_there() {
        for (text, name, stands) in [
            ("https://{{ vars.shop }}.example", "vars.shop", true),
            ("{{vars.shop|lower}}", "vars.shop", true),
            ("https://${var:shop}.example", "var:shop", true),
            ("{{ vars.shops }}", "vars.shop", false),
            ("{{ vars.shop_id }}", "vars.shop", false),
            ("{{ myvars.shop }}", "vars.shop", false),
            ("{{ vars.shops ~ vars.shop }}", "vars.shop", true),
        ] {
            assert_eq!(says(text, name), stands, "{text}");
        }
    }
}
