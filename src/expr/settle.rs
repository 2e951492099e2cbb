//! What a resource's configuration gives to expressions, and the evaluation of those that need nothing else: once, when
//! the configuration is loaded, so that they cost no request anything.

use std::sync::Arc;

use super::value::{Map, Value};
use super::{Failure, Inputs, Mistake, Name, Names, Part, Rendered, Scope, Template};
use crate::tree::{Entry, Node, Piece, Place, Problems, Unresolved, Value as Tree, has_braces};

/// `vars`, `secrets` and `base` of one resource.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    vars: Arc<Map>,
    secrets: Arc<Map>,
    names: Arc<[Box<str>]>,
    base: Option<Arc<str>>,
    /// What of all this only a call knows.
    unsettled: Names,
}

impl Settings {
    /// Those of a resource: its own `vars` lie over the top level's (ruling C9).
    pub fn new(top: Option<&Node>, own: Option<&Node>, secrets: Option<&Node>) -> Self {
        let map = |node: Option<&Node>| match node.and_then(Value::of_node) {
            Some(Value::Map(map)) => map,
            _ => Arc::default(),
        };
        let names = secrets.map(Node::entries).unwrap_or_default().iter().map(|e| e.key.clone()).collect();
        Self { vars: Arc::new(map(top).overlaid(&map(own))), secrets: map(secrets), names, base: None, unsettled: Names::NONE }
    }

    /// The same where only a call knows these of `vars` and `base`.
    #[must_use]
    pub fn without(mut self, names: Names) -> Self {
        self.unsettled = self.unsettled.with(names);
        self
    }

    /// What of `vars` and `base` only a call knows.
    pub fn unsettled(&self) -> Names {
        self.unsettled
    }

    /// With the base URL, from which a trailing slash goes.
    #[must_use]
    pub fn with_base(mut self, base: &str) -> Self {
        self.base = Some(base.strip_suffix('/').unwrap_or(base).into());
        self
    }

    /// `vars`, the resource's over the top level's.
    pub fn vars(&self) -> &Arc<Map> {
        &self.vars
    }

    /// The base URL without a trailing slash, where there is one.
    pub fn base(&self) -> Option<Arc<str>> {
        self.base.clone()
    }

    /// All of it, for what names a grant: secrets included.
    pub fn material(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let mut text = zeroize::Zeroizing::new(String::new());
        for map in [&self.vars, &self.secrets] {
            // What is nested too deeply to be written cannot be read by an expression either.
            let _ = Value::Map(map.clone()).write_json(super::Moments::Seconds, &mut text);
        }
        text.push_str(self.base.as_deref().unwrap_or_default());
        zeroize::Zeroizing::new(text.as_bytes().to_vec())
    }

    /// A place that offers these inputs.
    pub fn scope(&self, names: Names) -> Scope<'_> {
        Scope { names, secrets: Some(&self.names) }
    }

    /// Evaluates what of a subtree needs nothing else than these settings. What needs more is left as it is, if the place
    /// offers it. A value that is unset or cannot be evaluated becomes [`Tree::Unresolved`]: whoever reads it reports it,
    /// or tolerates that it is unset.
    pub fn settle(&self, node: &Node, names: Names, problems: &Problems) -> Node {
        let value = match &node.value {
            Tree::List(items) => Tree::List(items.iter().map(|item| self.settle(item, names, problems)).collect()),
            Tree::Map(entries) => {
                let entry = |e: &Entry| Entry { key: e.key.clone(), place: e.place, node: self.settle(&e.node, names, problems) };
                Tree::Map(entries.iter().map(entry).collect())
            }
            _ if node.is_template() => return self.settled(node, names, problems).node,
            other => other.clone(),
        };
        Node { place: node.place, value }
    }

    /// As [`Settings::settle`] for a map of defaults: what reads `secrets`, a token or what came with one is locked,
    /// as no client may set it (ruling F12).
    pub fn settle_defaults(&self, node: &Node, names: Names, problems: &Problems) -> Node {
        let Tree::Map(entries) = &node.value else { return self.settle(node, names, problems) };
        let entry = |e: &Entry| {
            let value = e.node.get("value").unwrap_or(&e.node);
            let templates = || value.items().iter().filter(|item| item.is_template());
            let owned = templates().any(|item| self.settled(item, names, problems).reads_secrets);
            // What is encoded already must be known to be so where it is put in.
            let encodes = templates().any(|item| compile(item, &self.scope(names)).is_ok_and(|template| template.encodes()));
            let mut settled = if encodes { e.node.clone() } else { self.settle(&e.node, names, problems) };
            if owned {
                settled = locked(settled);
            }
            Entry { key: e.key.clone(), place: e.place, node: settled }
        };
        Node { place: node.place, value: Tree::Map(entries.iter().map(entry).collect()) }
    }

    fn settled(&self, node: &Node, names: Names, problems: &Problems) -> Settled {
        let with = |value| Node { place: node.place, value };
        let template = match compile(node, &self.scope(names)) {
            Ok(template) => template,
            Err(mistakes) => return Settled { node: with(refused(node, mistakes, problems)), reads_secrets: false },
        };
        let reads_secrets = template.names().has(Name::Secrets) || template.names().meets(Names::GRANTED);
        if !template.names().without(Names::FIXED.without(self.unsettled)).is_empty() {
            return Settled { node: node.clone(), reads_secrets };
        }
        // Null would mean something else where it lands.
        let value = match template.render(self) {
            Ok(Rendered { value: Value::Null, .. }) => unset("the value of this expression is null".into()),
            Ok(rendered) => tree(&rendered.value, node.place),
            Err(failure) => failed(failure),
        };
        Settled { node: with(value), reads_secrets }
    }
}

struct Settled {
    node: Node,
    reads_secrets: bool,
}

impl Inputs for Settings {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        Ok(match name {
            Name::Vars => Some(Value::Map(self.vars.clone())),
            Name::Secrets => Some(Value::Map(self.secrets.clone())),
            Name::Base => self.base.clone().map(Value::Text),
            _ => None,
        })
    }
}

/// Compiles the text of a node for a place. `None` after the mistakes were reported.
pub fn read(node: &Node, scope: &Scope<'_>, problems: &Problems) -> Option<Template> {
    match compile(node, scope) {
        Ok(template) => Some(template),
        Err(mistakes) => {
            for mistake in mistakes {
                problems.error(within(node, mistake.at), mistake.message, mistake.hint);
            }
            None
        }
    }
}

fn compile(node: &Node, scope: &Scope<'_>) -> Result<Template, Vec<Mistake>> {
    match &node.value {
        Tree::Text(text) => Template::compile(text, scope),
        Tree::Number(text) => Template::of_parts(&[Part::Put(text)], scope),
        Tree::Bool(b) => Template::of_parts(&[Part::Put(if *b { "true" } else { "false" })], scope),
        Tree::Secret(secret) => Template::of_parts(&[Part::Secret(secret)], scope),
        Tree::Mixed(pieces) => {
            let parts: Vec<Part<'_>> = pieces.iter().map(part).collect();
            Template::of_parts(&parts, scope)
        }
        Tree::Unresolved(u) => Err(vec![Mistake::new(0, u.message.clone(), u.hint.clone())]),
        Tree::Null | Tree::List(_) | Tree::Map(_) => Err(vec![Mistake::new(0, format!("expected text, found {}", node.kind()), "")]),
    }
}

fn part(piece: &Piece) -> Part<'_> {
    match piece {
        Piece::Written(text) => Part::Written(text),
        Piece::Put(text) => Part::Put(text),
        Piece::Secret(secret) => Part::Secret(secret),
    }
}

/// The first mistake is left to whoever reads the node, so that it is said once; the others are reported here.
fn refused(node: &Node, mistakes: Vec<Mistake>, problems: &Problems) -> Tree {
    let mut mistakes = mistakes.into_iter();
    let first = mistakes.next().unwrap_or_else(|| Mistake::new(0, "the template cannot be compiled", ""));
    for mistake in mistakes {
        problems.error(within(node, mistake.at), mistake.message, mistake.hint);
    }
    Tree::Unresolved(Box::new(Unresolved { message: first.message, hint: first.hint, unset: false }))
}

fn failed(failure: Failure) -> Tree {
    if failure.undefined {
        return unset(failure.to_string());
    }
    Tree::Unresolved(Box::new(Unresolved { message: failure.to_string(), hint: String::new(), unset: false }))
}

fn unset(message: String) -> Tree {
    let hint = "set it, give it a `default(…)`, or say `omit_if_unset: true` where there is that".to_owned();
    Tree::Unresolved(Box::new(Unresolved { message, hint, unset: true }))
}

/// Where a byte of a node's text stands in its file, if the text stands there as it is; else where the node stands.
fn within(node: &Node, at: usize) -> Place {
    let place = node.place;
    let Tree::Text(text) = &node.value else { return place };
    let quotes = (place.end as usize).saturating_sub(place.start as usize).checked_sub(text.len());
    let before = match quotes {
        Some(0) => 0,
        Some(2) => 1,
        _ => return place,
    };
    if text.contains(['\n', '\r']) || !text.is_char_boundary(at) {
        return place;
    }
    let (Ok(bytes), Ok(columns)) = (u32::try_from(at + before), u32::try_from(text[..at].chars().count() + before)) else { return place };
    Place { column: place.column + columns, start: place.start + bytes, ..place }
}

/// A value as a part of the tree, which is never read as an expression again.
fn tree(value: &Value, place: Place) -> Tree {
    match value {
        Value::Null => Tree::Null,
        Value::Bool(b) => Tree::Bool(*b),
        Value::Number(n) => Tree::Number((**n).into()),
        Value::Text(t) if has_braces(t) => Tree::Mixed([Piece::Put((**t).into())].into()),
        Value::Text(t) => Tree::Text((**t).into()),
        Value::Secret(s) => Tree::Secret(s.clone()),
        Value::List(items) => Tree::List(items.iter().map(|item| Node { place, value: tree(item, place) }).collect()),
        Value::Map(map) => {
            let entry =
                |(key, value): &(Arc<str>, Value)| Entry { key: (**key).into(), place, node: Node { place, value: tree(value, place) } };
            Tree::Map(map.entries().iter().map(entry).collect())
        }
        Value::Bytes(_) | Value::Moment(_) => {
            let message = "the value of this expression has no text".to_owned();
            Tree::Unresolved(Box::new(Unresolved { message, hint: String::new(), unset: false }))
        }
    }
}

/// `{ value: …, locked: true }`, whatever it said before.
fn locked(node: Node) -> Node {
    let place = node.place;
    let flag = Entry { key: "locked".into(), place, node: Node { place, value: Tree::Bool(true) } };
    let value = match node.value {
        Tree::Map(mut entries) if entries.iter().any(|e| &*e.key == "value") => {
            entries.retain(|e| &*e.key != "locked");
            entries.push(flag);
            Tree::Map(entries)
        }
        value => Tree::Map(vec![Entry { key: "value".into(), place, node: Node { place, value } }, flag]),
    };
    Node { place, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn text(text: &str) -> Node {
        Node { place: Place::default(), value: Tree::Text(text.into()) }
    }

    fn map(entries: &[(&str, Node)]) -> Node {
        let entry = |(key, node): &(&str, Node)| Entry { key: (*key).into(), place: Place::default(), node: node.clone() };
        Node { place: Place::default(), value: Tree::Map(entries.iter().map(entry).collect()) }
    }

    fn settings() -> Settings {
        let secret = Node { place: Place::default(), value: Tree::Secret(Secret::new("s3cr3t".into())) };
        let top = map(&[("a", text("top")), ("b", text("top")), ("look", text("{{ vars.a }}"))]);
        Settings::new(Some(&top), Some(&map(&[("b", text("own"))])), Some(&map(&[("key", secret)]))).with_base("https://x/v1/")
    }

    fn settled(written: &str) -> String {
        let names = Names::FIXED.with(Names::REQUEST);
        match settings().settle(&text(written), names, &Problems::default()).value {
            Tree::Unresolved(u) => format!("{}{}", if u.unset { "unset: " } else { "" }, u.message),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_the_settings_suffice_for_is_evaluated_at_once() {
        assert_eq!(settled("{{ vars.a }}-{{ vars.b }}"), r#"Text("top-own")"#);
        assert_eq!(settled("{{ base }}/x"), r#"Text("https://x/v1/x")"#);
        assert_eq!(settled("{{ secrets.key }}"), "Secret([redacted])");
        assert_eq!(settled("{{ 5 }}"), r#"Number("5")"#);
        assert_eq!(settled("{{ vars.look }}"), r#"Mixed([Put("{{ vars.a }}")])"#);
    }

    #[test]
    fn what_needs_a_request_is_left_as_it_is() {
        assert_eq!(settled("{{ request.method }}"), r#"Text("{{ request.method }}")"#);
    }

    #[test]
    fn what_is_unset_or_wrong_is_left_to_the_reader() {
        assert!(settled("{{ vars.nope }}").starts_with("unset: `vars.nope`"), "{}", settled("{{ vars.nope }}"));
        assert!(settled("{{ none }}").starts_with("unset: "));
        assert!(settled("{{ vars.a | unhex | text }}").contains("no hex"));
        assert!(settled("{{ vars.a | nope }}").contains("no filter"));
        assert!(settled("{{ secrets.kye }}").contains("no secret `kye`"));
        assert!(settled("{{ now | epoch }}").contains("does not exist at this place"));
    }

    #[test]
    fn a_default_that_reads_secrets_is_locked() {
        let defaults = map(&[
            ("X-A", text("{{ vars.a }}")),
            ("X-B", text("{{ secrets.key }}")),
            ("X-C", map(&[("value", text("{{ request.path | hmac_sha256(secrets.key) | hex }}")), ("omit_if_unset", text("true"))])),
        ]);
        let settled = settings().settle_defaults(&defaults, Names::FIXED.with(Names::REQUEST), &Problems::default());
        let locked = |name: &str| settled.get(name).unwrap().get("locked").is_some();
        assert_eq!((locked("X-A"), locked("X-B"), locked("X-C")), (false, true, true));
    }
}
