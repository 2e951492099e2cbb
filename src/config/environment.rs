//! Which environment applies, and its overlay: an entry of `environments`, or `environments/<name>.yaml` beside the
//! file. One that is not active is not looked at (ruling A20).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::load::{Reading, Stem};
use crate::tree::{Entry, Node, Place, Value, closest};

/// The folder beside the file.
pub const FOLDER: &str = "environments";

/// The environment that applies.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Its name.
    pub name: Arc<str>,
    /// What lies over the files; none after an error was reported.
    pub overlay: Option<Node>,
}

/// What names an environment from outside of the files.
pub struct Said {
    /// By what: `--env`, or a variable.
    pub by: String,
    /// The text that says it, which ends with the name.
    pub text: String,
    /// The name.
    pub name: String,
}

/// Chooses, and reads no more than what was chosen. `None` where no environment is there and none is asked for.
pub fn choose(tree: &mut Node, said: Option<Said>, reading: &mut Reading) -> Option<Chosen> {
    let inline = take(tree);
    let files: BTreeMap<String, PathBuf> = reading.folder(FOLDER).into_iter().map(|Stem { name, path }| (name, path)).collect();
    let name = match named(tree, said, reading) {
        Some((name, place)) => {
            let known: Vec<&str> = inline.iter().map(|e| &*e.key).chain(files.keys().map(String::as_str)).collect();
            if !known.contains(&&*name) {
                let hint = if known.is_empty() { "there is none: add it under `environments`".to_owned() } else { closest(&name, &known) };
                reading.problems.error(place, format!("there is no environment `{name}`"), hint);
                return None;
            }
            name
        }
        None => {
            let known: Vec<&str> = inline.iter().map(|e| &*e.key).chain(files.keys().map(String::as_str)).collect();
            if !known.is_empty() {
                let place = inline.first().map_or(Place { line: 1, column: 1, ..Place::default() }, |e| e.place);
                let message = format!("there are environments, and none is chosen: {}", known.join(", "));
                reading.problems.error(place, message, "choose by --env NAME, POSTERN_ENV, or `environment: NAME`");
            }
            return None;
        }
    };
    let inline = inline.into_iter().find(|e| *e.key == *name);
    let file = files.get(&*name).and_then(|path| reading.read(path, &format!("{FOLDER}.{name}")));
    let overlay = match (inline, file) {
        (Some(inline), Some(file)) => {
            let message = format!("the environment `{name}` is there twice: under `{FOLDER}`, and as a file");
            reading.problems.error(inline.place, message, "keep one of them");
            Some(file)
        }
        (inline, file) => file.or(inline.map(|e| e.node)),
    };
    Some(Chosen { name: name.into(), overlay: overlay.and_then(|node| judged(node, reading)) })
}

/// Takes `environments` out of the tree, so that nothing of what is not active is resolved or judged.
fn take(tree: &mut Node) -> Vec<Entry> {
    let Value::Map(entries) = &mut tree.value else { return Vec::new() };
    // Anything but a map stays where it is, and is reported by whoever reads the root.
    let at = entries.iter().position(|e| &*e.key == FOLDER && matches!(e.node.value, Value::Map(_)));
    match at.map(|at| entries.remove(at).node.value) {
        Some(Value::Map(environments)) => environments,
        _ => Vec::new(),
    }
}

/// The name that counts, and where it was said: from outside, else by `environment` in the file.
fn named(tree: &Node, said: Option<Said>, reading: &mut Reading) -> Option<(String, Place)> {
    if let Some(Said { by, text, name }) = said {
        let (start, end) = (text.len() - name.len(), text.len());
        let column = text[..start].chars().count() as u32 + 1;
        let file = reading.pseudo(by, text);
        return Some((name, Place { file, line: 1, column, start: start as u32, end: end as u32 }));
    }
    let node = tree.get("environment").filter(|n| !n.is_null())?;
    match node.word() {
        Some(name) if !name.contains("${") => Some((name.to_owned(), node.place)),
        _ => {
            let message = format!("`environment` is the name of one, written out; found {}", node.shown());
            reading.problems.error(node.place, message, "what differs from place to place is POSTERN_ENV");
            None
        }
    }
}

/// An overlay is a map, and names no environment itself.
fn judged(node: Node, reading: &Reading) -> Option<Node> {
    if node.is_null() {
        return None;
    }
    if !matches!(node.value, Value::Map(_)) {
        reading.problems.error(node.place, format!("expected a map: what differs in this environment; found {}", node.kind()), "");
        return None;
    }
    for entry in node.entries().iter().filter(|e| ["environment", FOLDER].contains(&&*e.key)) {
        let message = format!("`{}` cannot stand inside an environment", entry.key);
        reading.problems.error(entry.place, message, "environments stand beside one another, at the top of the main file");
    }
    Some(node)
}
