//! Resolves `${…}` on the tree: secrets from the environment and from files, plain variables from `vars`. What a secret
//! has touched becomes one. Resolution happens once; what a value holds is never resolved again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use zeroize::Zeroizing;

use crate::expr::{self, Cut};
use crate::secret::Secret;
use crate::secrets::{Anew, Answers, Ask, Kept, Kind, Remote, Settings, Trouble, kept, settings};
use crate::tree::{Entry, Folders, Node, Piece, Place, Problems, Unresolved, Value, closest, has_braces};

/// Where values come from.
pub trait Sources {
    /// A variable of the environment.
    fn env(&self, name: &str) -> Option<String>;

    /// All variables whose names begin with `prefix`, by name.
    fn variables(&self, prefix: &str) -> BTreeMap<String, String>;

    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read, without its content.
    fn file(&self, path: &Path) -> Result<String, String>;

    /// What references to sources that are not at hand come to. Blocks until it is known, within bounds.
    fn fetch(&self, asked: BTreeSet<Ask>, settings: Settings) -> Answers;
}

/// The process's environment and the file system.
#[derive(Debug)]
pub struct System;

impl Sources for System {
    #[expect(clippy::disallowed_methods, reason = "this is where references read the environment")]
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn variables(&self, prefix: &str) -> BTreeMap<String, String> {
        // What is not UTF-8 is no text, and so no value of ours.
        let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        all.filter(|(name, _)| name.starts_with(prefix)).collect()
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        kept::text(path).1.map(|text| text.as_str().to_owned())
    }

    fn fetch(&self, asked: BTreeSet<Ask>, settings: Settings) -> Answers {
        Remote::default().answers(asked, settings, Anew::Due)
    }
}

/// A variable of the environment, for parts of the house that look for an identity which the configuration does not hold.
pub fn variable(name: &str) -> Option<String> {
    System.env(name)
}

/// The sources of a running gateway, which remember what they gave.
impl Sources for Kept {
    fn env(&self, name: &str) -> Option<String> {
        System.env(name)
    }

    fn variables(&self, prefix: &str) -> BTreeMap<String, String> {
        System.variables(prefix)
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        Self::file(self, path)
    }

    fn fetch(&self, asked: BTreeSet<Ask>, settings: Settings) -> Answers {
        self.answers(asked, settings)
    }
}

/// Resolves everything in the tree. `folders` says where relative paths begin.
pub fn resolve(root: &mut Node, folders: &Folders, sources: &dyn Sources, problems: &Problems) {
    let settings = settings(root, folders, sources, problems);
    let mut asked = BTreeSet::new();
    root.entries().iter().filter(|e| !e.key.starts_with("x-")).for_each(|e| ask(&e.node, &mut asked));
    let answers = if asked.is_empty() { Answers::new() } else { sources.fetch(asked, settings) };
    Resolver { folders, sources, problems, vars: HashMap::new(), answers: Some(answers) }.root(root);
}

/// Reads how the sources that are not at hand are reached. The blocks themselves may name variables and files alone.
fn settings(root: &mut Node, folders: &Folders, sources: &dyn Sources, problems: &Problems) -> Settings {
    problems.allow_literal_secrets(root.get("allow_literal_secrets").is_some_and(|n| n.word() == Some("true")));
    let mut resolver = Resolver { folders, sources, problems, vars: HashMap::new(), answers: None };
    if let Value::Map(entries) = &mut root.value {
        entries.iter_mut().filter(|e| settings::KEYS.contains(&&*e.key)).for_each(|e| resolver.node(&mut e.node));
    }
    let env = |name: &str| sources.env(name);
    let file = |path: &str| {
        let text = sources.file(Path::new(path)).map(Zeroizing::new).ok()?;
        Some(Secret::new(text.trim_end().to_owned())).filter(|s| !s.is_empty())
    };
    settings::Reader { folders, env: &env, file: &file, problems }.read(root)
}

/// Every reference of this subtree to a source that is not at hand. What is wrong with one is found when it is resolved.
fn ask(node: &Node, into: &mut BTreeSet<Ask>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|n| ask(n, into)),
        Value::Map(entries) => entries.iter().for_each(|e| ask(&e.node, into)),
        Value::Text(text) => {
            for (at, _) in text.match_indices("${").filter(|(at, _)| !text[..*at].ends_with('$')) {
                let reference = text[at + 2..].split('}').next().unwrap_or_default();
                let asked = reference.split_once(':').and_then(|(kind, rest)| Ask::parse(Kind::of(kind)?, rest).ok());
                into.extend(asked);
            }
        }
        _ => {}
    }
}

struct Resolver<'r> {
    folders: &'r Folders,
    sources: &'r dyn Sources,
    problems: &'r Problems,
    vars: HashMap<Box<str>, Value>,
    /// What was fetched; none where only variables and files may be named.
    answers: Option<Answers>,
}

impl Resolver<'_> {
    fn root(&mut self, root: &mut Node) {
        self.take_vars(root);
        let Value::Map(entries) = &mut root.value else { return };
        for entry in entries {
            match &*entry.key {
                "vars" => {}
                "resources" => self.resources(&mut entry.node),
                _ => self.node(&mut entry.node),
            }
        }
    }

    /// Resolves `vars` of this map and makes them known. They may name the environment and files, not one another.
    fn take_vars(&mut self, node: &mut Node) -> Vec<(Box<str>, Option<Value>)> {
        let Value::Map(entries) = &mut node.value else { return Vec::new() };
        let Some(vars) = entries.iter_mut().find(|e| &*e.key == "vars") else { return Vec::new() };
        let Value::Map(vars) = &mut vars.node.value else { return Vec::new() };
        let outer = self.vars.clone();
        let mut shadowed = Vec::new();
        for Entry { key, node, .. } in vars {
            self.node(node);
            shadowed.push((key.clone(), outer.get(key).cloned()));
        }
        let Some(vars) = entries.iter().find(|e| &*e.key == "vars") else { return shadowed };
        for entry in vars.node.entries() {
            self.vars.insert(entry.key.clone(), entry.node.value.clone());
        }
        shadowed
    }

    fn resources(&mut self, node: &mut Node) {
        let Value::Map(entries) = &mut node.value else { return self.node(node) };
        for entry in entries {
            let shadowed = self.take_vars(&mut entry.node);
            if let Value::Map(keys) = &mut entry.node.value {
                keys.iter_mut().filter(|e| &*e.key != "vars").for_each(|e| self.node(&mut e.node));
            }
            for (name, outer) in shadowed {
                match outer {
                    Some(value) => self.vars.insert(name, value),
                    None => self.vars.remove(&name),
                };
            }
        }
    }

    fn node(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::List(items) => items.iter_mut().for_each(|n| self.node(n)),
            Value::Map(entries) => {
                for entry in entries {
                    if entry.key.contains("${") {
                        self.problems.error(entry.place, "a key cannot hold a reference", "");
                    }
                    self.node(&mut entry.node);
                }
            }
            Value::Text(text) if text.contains("${") => {
                let text = std::mem::take(text);
                node.value = self.text(&text, node.place);
            }
            _ => {}
        }
    }

    /// Resolves all references of one text. A text that is exactly one `${var:}` keeps the variable's own type.
    fn text(&mut self, text: &str, place: Place) -> Value {
        let mut out = Pieces::default();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            // Inside an expression nothing is put in: the compiler says so, where expressions may stand at all.
            if let Some(end) = inside_expression(text, text.len() - rest.len() + at) {
                let length = end - (text.len() - rest.len());
                out.written(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
            if rest[..at].ends_with('$') {
                out.written(&rest[..at - 1]);
                out.written("${");
                rest = &rest[at + 2..];
                continue;
            }
            out.written(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                return unresolved("a reference lacks its closing brace", "${env:NAME}", false);
            };
            let reference = &rest[at + 2..at + end];
            rest = &rest[at + end + 1..];
            match self.reference(reference, place) {
                Value::Secret(value) => out.0.push(Piece::Secret(value)),
                value @ Value::Mixed(_) if out.is_empty() && rest.is_empty() => return value,
                Value::Mixed(pieces) => pieces.into_iter().for_each(|piece| match piece {
                    // What a secret has touched stays one.
                    piece @ Piece::Secret(_) => out.0.push(piece),
                    Piece::Written(text) | Piece::Put(text) => out.put(&text),
                }),
                value @ (Value::Unresolved(_) | Value::List(_) | Value::Map(_)) if out.is_empty() && rest.is_empty() => return value,
                value @ Value::Unresolved(_) => return value,
                value @ (Value::Null | Value::Bool(_) | Value::Number(_)) if out.is_empty() && rest.is_empty() => return value,
                Value::Null => {}
                Value::Bool(b) => out.put(&b.to_string()),
                Value::Number(n) => out.put(&n),
                Value::Text(t) => out.put(&t),
                Value::List(_) | Value::Map(_) => {
                    return unresolved(&format!("`{reference}` is no text"), "only a whole value can be a list or a map", false);
                }
            }
        }
        out.written(rest);
        out.joined()
    }

    fn reference(&mut self, reference: &str, place: Place) -> Value {
        let Some((kind, name)) = reference.split_once(':') else {
            return unresolved(&format!("`${{{reference}}}` is no reference"), &format!("did you mean \"${{env:{reference}}}\"?"), false);
        };
        match kind {
            "env" => self.env(name),
            "file" => self.file(name, place),
            "var" => self.var(name),
            _ => match Kind::of(kind) {
                Some(kind) => self.fetched(kind, name),
                None => {
                    let known = ["env", "file", "var", "exec", "vault", "aws-sm"];
                    unresolved(&format!("there is no `${{{kind}:…}}`"), &closest(kind, &known), false)
                }
            },
        }
    }

    fn fetched(&self, kind: Kind, name: &str) -> Value {
        let Some(answers) = &self.answers else {
            let message = format!("`${{{}:…}}` cannot stand here", kind.word());
            return unresolved(&message, "what reaches a source of secrets is itself read from ${env:…} or ${file:…}", false);
        };
        let value = Ask::parse(kind, name)
            .and_then(|ask| answers.get(&ask).cloned().unwrap_or_else(|| Err(Trouble::new("it was not fetched", ""))));
        match value {
            Ok(secret) => Value::Secret(secret),
            Err(Trouble { why, hint }) => unresolved(&format!("${{{}:{name}}} has no value: {why}", kind.word()), &hint, false),
        }
    }

    fn env(&self, reference: &str) -> Value {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return unresolved(&format!("`{name}` is no name of a variable"), "${env:NAME}, ${env:NAME:-default}", false);
        }
        match (self.sources.env(name).filter(|v| !v.is_empty()), default) {
            (Some(value), _) => Value::Secret(Secret::new(value)),
            (None, Some("")) => Value::Text("".into()),
            (None, Some(default)) => Value::Secret(Secret::new(default.to_owned())),
            (None, None) => unresolved(
                &format!("the environment variable {name} is not set"),
                &format!("set it, or write ${{env:{name}:-default}}"),
                true,
            ),
        }
    }

    fn file(&mut self, path: &str, place: Place) -> Value {
        let full = self.folders.join(place, path);
        match self.sources.file(&full).map(Zeroizing::new) {
            Err(why) => unresolved(
                &format!("the file {path} cannot be read: {why}"),
                "paths begin at the folder of the file that names them",
                false,
            ),
            Ok(text) => {
                let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
                if text.is_empty() {
                    unresolved(&format!("the file {path} is empty"), "", true)
                } else {
                    Value::Secret(Secret::new(text.to_owned()))
                }
            }
        }
    }

    fn var(&self, name: &str) -> Value {
        match self.vars.get(name) {
            Some(Value::Null) => unresolved(&format!("the variable {name} has no value"), "give it one under `vars`", true),
            Some(value) => value.clone(),
            None => {
                let known: Vec<&str> = self.vars.keys().map(AsRef::as_ref).collect();
                let hint = if known.is_empty() { "add it under `vars`".to_owned() } else { closest(name, &known) };
                unresolved(&format!("there is no variable {name}"), &hint, true)
            }
        }
    }
}

/// Where the expression ends that the byte at `at` stands in.
fn inside_expression(text: &str, at: usize) -> Option<usize> {
    if !has_braces(text) {
        return None;
    }
    let cuts = expr::split(text).ok()?;
    cuts.into_iter().find_map(|cut| match cut {
        Cut::Expression(range) if range.contains(&at) => Some(range.end),
        _ => None,
    })
}

/// A text as it is put together: what was written apart from what was put in.
#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn written(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Written(before)) => *before = [before, text].concat().into(),
            _ if text.is_empty() => {}
            _ => self.0.push(Piece::Written(text.into())),
        }
    }

    fn put(&mut self, text: &str) {
        if !text.is_empty() {
            self.0.push(Piece::Put(text.into()));
        }
    }

    /// One text where it makes no difference, else the pieces.
    fn joined(self) -> Value {
        let secret = self.0.iter().any(|piece| matches!(piece, Piece::Secret(_)));
        let written = self.0.iter().any(|piece| matches!(piece, Piece::Written(text) if has_braces(text)));
        let looks_so = !secret && self.0.iter().any(|piece| matches!(piece, Piece::Put(text) if has_braces(text)));
        if written || looks_so {
            return Value::Mixed(self.0.into());
        }
        let mut text = Zeroizing::new(self.0.iter().map(Piece::text).collect::<String>());
        if secret { Value::Secret(Secret::new(std::mem::take(&mut *text))) } else { Value::Text(text.as_str().into()) }
    }
}

fn unresolved(message: &str, hint: &str, unset: bool) -> Value {
    Value::Unresolved(Box::new(Unresolved { message: message.to_owned(), hint: hint.to_owned(), unset }))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Sources for Fixed {
        fn env(&self, name: &str) -> Option<String> {
            match name {
                "T" => Some("token".into()),
                "EMPTY" => Some(String::new()),
                "TRICKY" => Some("${env:T}{{ x }}".into()),
                _ => None,
            }
        }

        fn variables(&self, _: &str) -> BTreeMap<String, String> {
            BTreeMap::new()
        }

        fn file(&self, path: &Path) -> Result<String, String> {
            match path.to_str() {
                Some("/conf/a") => Ok("line\n\n".into()),
                Some("/conf/crlf") => Ok("line\r\n".into()),
                _ => Err("no such file".into()),
            }
        }

        fn fetch(&self, asked: BTreeSet<Ask>, settings: Settings) -> Answers {
            System.fetch(asked, settings)
        }
    }

    fn read(text: &str) -> Node {
        let problems = Problems::default();
        let mut node = super::super::raw::parse(text, 0, &problems).unwrap();
        resolve(&mut node, &Folders::one("/conf"), &Fixed, &problems);
        node
    }

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Secret(s) => format!("secret {}", s.expose()),
            Value::Unresolved(u) => format!("{}{} ({})", if u.unset { "unset: " } else { "" }, u.message, u.hint),
            Value::Null => "null".into(),
            Value::Mixed(pieces) => format!("{pieces:?}"),
            _ => node.word().unwrap_or(node.kind()).to_owned(),
        }
    }

    fn one(value: &str) -> String {
        shown(read(&format!("vars: {{ region: eu, n: 5, none: ~, s: \"${{env:T}}\" }}\na: \"{value}\"\n")).get("a").unwrap())
    }

    #[test]
    fn references_are_replaced_and_what_a_secret_touches_becomes_one() {
        for (value, result) in [
            ("${env:T}", "secret token"),
            ("Bearer ${env:T}!", "secret Bearer token!"),
            ("${env:NOPE:-d}", "secret d"),
            ("${env:NOPE:-}", ""),
            ("${env:EMPTY:-d}", "secret d"),
            ("${var:region}-1", "eu-1"),
            ("${var:n}", "5"),
            ("${var:s}x", "secret tokenx"),
            ("$${env:T}", "${env:T}"),
            ("a$${x}${var:region}", "a${x}eu"),
            ("${file:a}", "secret line\n"),
            ("${file:crlf}", "secret line"),
            ("$5 {x}", "$5 {x}"),
        ] {
            assert_eq!(one(value), result, "{value}");
        }
    }

    #[test]
    fn a_value_is_never_resolved_again() {
        assert_eq!(one("${env:TRICKY}"), "secret ${env:T}{{ x }}");
        assert_eq!(one("a${env:TRICKY}b"), "secret a${env:T}{{ x }}b");
    }

    #[test]
    fn what_was_written_stays_apart_from_what_was_put_in_where_expressions_are_about() {
        assert_eq!(one("{{ a }}-${var:region}"), r#"[Written("{{ a }}-"), Put("eu")]"#);
        assert_eq!(one("{{ a }}${env:TRICKY}$${x}"), r#"[Written("{{ a }}"), Secret([redacted]), Written("${x}")]"#);
        assert_eq!(one("{{ '${env:T}' }}${var:n}"), r#"[Written("{{ '${env:T}' }}"), Put("5")]"#);
        assert_eq!(one("{{ a }}"), "{{ a }}");
        let node = read("vars: { v: \"{{ x }}\" }\na: \"${var:v}\"\nb: \"x${var:v}\"\n");
        assert_eq!(shown(node.get("b").unwrap()), r#"[Written("x"), Put("{{ x }}")]"#);
        assert_eq!(node.get("b").unwrap().text(&Problems::default()).as_deref(), Some("x{{ x }}"));
        assert!(!node.get("a").unwrap().is_template());
        let node = read("vars: { v: \"{{ x }}${env:T}\" }\nb: \"x${var:v}\"\n");
        assert_eq!(shown(node.get("b").unwrap()), "secret x{{ x }}token");
    }

    #[test]
    fn what_cannot_be_resolved_says_what_to_do() {
        for (value, part) in [
            ("${env:NOPE}", "unset: the environment variable NOPE is not set"),
            ("${env:EMPTY}", "unset: "),
            ("${T}", "did you mean \"${env:T}\"?"),
            ("${file:nope}", "no such file"),
            ("${var:regoin}", "did you mean `region`?"),
            ("${var:none}", "unset: "),
            ("${exec:ls}", "allow_exec: true"),
            ("${vault:a#b}", "by its mount"),
            ("${vault:a/b#c}", "VAULT_ADDR"),
            ("${aws-sm:a}", "AWS_REGION"),
            ("${enf:T}", "did you mean `env`?"),
            ("${env:T", "closing brace"),
            ("${env:}", "no name"),
        ] {
            assert!(one(value).contains(part), "{value}: {}", one(value));
        }
    }

    #[test]
    fn a_resources_vars_lie_over_the_top_level_ones_and_end_with_it() {
        let node =
            read("vars: { a: top }\nresources:\n  x: { vars: { a: own }, base_url: \"${var:a}\" }\n  y: { base_url: \"${var:a}\" }\n");
        let resources = node.get("resources").unwrap();
        let url = |name| shown(resources.get(name).unwrap().get("base_url").unwrap());
        assert_eq!((url("x"), url("y")), ("own".into(), "top".into()));
    }
}
