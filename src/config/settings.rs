//! The layers that are no files: variables `POSTERN_…` of the environment (ruling C15), and `--set` of the command
//! line. Each setting becomes a small tree of its own, over a text that a report can show.

use std::collections::{BTreeMap, BTreeSet};

use super::load::Reading;
use super::problem::{self, File};
use super::{layers, raw};
use crate::config::schema::Spot;
use crate::tree::{Entry, Node, Place, Problems, Value, closest};

/// In front of every variable of ours.
pub const PREFIX: &str = "POSTERN_";
/// Between the levels of a variable's name.
const LEVEL: &str = "__";
/// Variables that are no layer.
const RESERVED: [&str; 2] = ["POSTERN_CONFIG", "POSTERN_ENV"];
/// Most settings of one kind.
const SETTINGS_MAX: usize = 1000;
/// Deepest level that a setting may name.
const LEVELS_MAX: usize = 32;
/// References to variables of the environment begin so.
const REFERENCE: &str = "${env:";

/// Lays the variables over the tree. One that a reference names is no key of ours.
pub fn variables(tree: &mut Node, all: &BTreeMap<String, String>, reading: &mut Reading) {
    let mut candidates: Vec<(&String, &String)> = all.iter().filter(|(name, _)| is_layer(name)).collect();
    if candidates.is_empty() {
        return;
    }
    let mut named = BTreeSet::new();
    references(tree, &mut named);
    candidates.retain(|(name, _)| !named.contains(name.as_str()));
    if candidates.len() > SETTINGS_MAX {
        reading.problems.error(Place::default(), format!("more than {SETTINGS_MAX} variables {PREFIX}…{LEVEL}…"), "use a file");
        return;
    }
    for (name, value) in candidates {
        variable(tree, name, value, reading);
    }
}

/// Whether a variable of this name is a layer: it has levels, or names a single value at the top.
fn is_layer(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX).filter(|_| !RESERVED.contains(&name)) else { return false };
    let root = Spot::root();
    let top = |key: &&str| fold(key) == fold(rest) && root.under(key).is_some_and(|spot| spot.takes_scalar());
    rest.contains(LEVEL) || root.keys().any(|key| top(&key))
}

/// The names of all variables of ours that references in this tree read.
fn references(node: &Node, into: &mut BTreeSet<String>) {
    match &node.value {
        Value::Map(entries) => entries.iter().for_each(|e| references(&e.node, into)),
        Value::List(items) => items.iter().for_each(|n| references(n, into)),
        Value::Text(text) => {
            let names = text.split(REFERENCE).skip(1).map(|rest| rest.split(['}', ':']).next().unwrap_or_default());
            into.extend(names.filter(|name| name.starts_with(PREFIX)).map(str::to_owned));
        }
        _ => {}
    }
}

fn variable(tree: &mut Node, name: &str, value: &str, reading: &mut Reading) {
    let mut text = Text::new(name, value);
    // Its value is shown only once it is known not to be a secret.
    let file = reading.pseudo(format!("environment variable {name}"), format!("{name}=…"));
    text.file = file;
    let (mut spot, mut at) = (Some(Spot::root()), Some(&*tree));
    let mut keys = Vec::new();
    let mut start = PREFIX.len();
    for level in name[PREFIX.len()..].split(LEVEL) {
        let place = text.place(start, start + level.len());
        let Some(key) = matched(level, spot.as_ref(), at, place, reading) else { return };
        spot = spot.and_then(|spot| spot.under(&key));
        at = at.and_then(|node| node.get(&key));
        keys.push((key, place));
        start += level.len() + LEVEL.len();
    }
    if keys.len() > LEVELS_MAX {
        return reading.problems.error(text.place(0, name.len()), "the variable names too many levels", "");
    }
    let leaf = Node { place: text.value(), value: raw::scalar(value) };
    reading.problems.trust(file);
    lay(tree, keys, leaf, reading, text);
}

/// The key that one level of a variable's name means: one that is there, or one that the schema knows.
fn matched(level: &str, spot: Option<&Spot>, at: Option<&Node>, place: Place, reading: &Reading) -> Option<Box<str>> {
    let mut known: BTreeSet<&str> = at.into_iter().flat_map(Node::entries).map(|e| &*e.key).collect();
    for key in spot.into_iter().flat_map(|spot| spot.keys().collect::<Vec<&'static str>>()) {
        known.insert(key);
    }
    let mut matching = known.iter().filter(|key| fold(key) == fold(level));
    match (matching.next(), matching.next()) {
        (Some(key), None) => Some((*key).into()),
        (Some(one), Some(other)) => {
            let message = format!("`{level}` may be `{one}` or `{other}`");
            reading.problems.error(place, message, "set it in a file, or by --set");
            None
        }
        (None, _) => {
            let known: Vec<&str> = known.into_iter().collect();
            let message = format!("`{level}` matches nothing that is configured here");
            let hint = if known.is_empty() { "nothing can stand below this".to_owned() } else { closest(&level.to_lowercase(), &known) };
            reading.problems.error(place, message, hint);
            None
        }
    }
}

/// Case, `-` and `_` make no difference in a variable's name.
fn fold(key: &str) -> String {
    key.to_ascii_lowercase().replace('-', "_")
}

/// Lays each `key.path=value` over the tree, the last one wins.
pub fn flags(tree: &mut Node, all: &[String], reading: &mut Reading) {
    if all.len() > SETTINGS_MAX {
        return reading.problems.error(Place::default(), format!("more than {SETTINGS_MAX} times --set"), "use a file");
    }
    for flag in all {
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let mut text = Text::new(name, value);
        text.file = reading.pseudo("--set".into(), name.to_owned());
        let whole = text.place(0, name.len());
        if !flag.contains('=') {
            reading.problems.error(whole, "a setting is a key and a value", "--set server.workers=2");
            continue;
        }
        let mut start = 0;
        let mut keys: Vec<(Box<str>, Place)> = Vec::new();
        for key in name.split('.') {
            keys.push((key.into(), text.place(start, start + key.len())));
            start += key.len() + 1;
        }
        if keys.iter().any(|(key, _)| key.is_empty()) || keys.len() > LEVELS_MAX {
            reading.problems.error(whole, format!("`{name}` is no way to a key"), "--set server.workers=2");
            continue;
        }
        let Some(leaf) = parsed(value, text.value(), reading) else { continue };
        lay(tree, keys, leaf, reading, text);
    }
}

/// The value of a flag: any YAML. All of it stands where the text behind the `=` stands.
fn parsed(value: &str, place: Place, reading: &Reading) -> Option<Node> {
    if value.trim().is_empty() {
        return Some(Node { place, value: Value::Null });
    }
    let own = Problems::default();
    let mut node = raw::parse(value, place.file, &own);
    own.into_sorted().into_iter().for_each(|p| reading.problems.error(place, p.message, p.hint));
    if let Some(node) = &mut node {
        put(node, place);
    }
    node
}

fn put(node: &mut Node, place: Place) {
    node.place = place;
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().for_each(|e| {
            e.place = place;
            put(&mut e.node, place);
        }),
        Value::List(items) => items.iter_mut().for_each(|n| put(n, place)),
        _ => {}
    }
}

/// Lays one value under these keys over the tree, and keeps the small tree for the report.
fn lay(tree: &mut Node, keys: Vec<(Box<str>, Place)>, leaf: Node, reading: &mut Reading, text: Text) {
    let whole = Place { end: leaf.place.end, ..keys.first().map_or(leaf.place, |(_, place)| *place) };
    let setting = keys.into_iter().rev().fold(leaf, |node, (key, place)| {
        let at = Place { end: node.place.end.max(place.end), ..place };
        Node { place: at, value: Value::Map(vec![Entry { key, place, node }]) }
    });
    let setting = Node { place: whole, ..setting };
    if let Some(file) = reading.files.get_mut(usize::from(text.file)) {
        let veiled = Some(problem::veiled(&setting, &text.whole));
        *file = File { text: text.whole, veiled, tree: Some(setting.clone()), ..std::mem::take(file) };
    }
    layers::merge(tree, setting);
}

/// `name=value` as a text of one line, and places in it.
struct Text {
    whole: String,
    name: usize,
    file: u16,
}

impl Text {
    fn new(name: &str, value: &str) -> Self {
        Self { whole: format!("{name}={value}"), name: name.len(), file: 0 }
    }

    fn place(&self, start: usize, end: usize) -> Place {
        let column = self.whole[..start].chars().count() as u32 + 1;
        Place { file: self.file, line: 1, column, start: start as u32, end: end as u32 }
    }

    fn value(&self) -> Place {
        self.place((self.name + 1).min(self.whole.len()), self.whole.len())
    }
}
