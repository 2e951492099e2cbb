//! A configuration as a tree whose nodes keep their place, and the reader that turns it into values.
//!
//! Every part of the house reads its own settings from here, so the tree lies below all of them. A reader never
//! stops at the first mistake: it reports to [`Problems`] and goes on. What nobody asked for is reported by
//! [`Fields::finish`]. Files are parsed by `config::raw`, references are resolved by `config::references`.

mod folders;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::digest::Digester;
use crate::file::Seen;
use crate::secret::Secret;
pub use folders::Folders;

/// Where a node stands: which file (an index into the loaded files), line and column from 1, and the byte range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index of the file in the loaded set.
    pub file: u16,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// One value of the tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it was written.
    pub place: Place,
    /// What was written.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, kept as written.
    Number(Box<str>),
    /// Text that no secret touched.
    Text(Box<str>),
    /// Text that a secret reference touched.
    Secret(Secret),
    /// Text that holds expressions beside resolved references, or a resolved reference that merely looks like one.
    Mixed(Box<[Piece]>),
    /// A reference that could not be resolved; whoever reads it reports it, or tolerates that it is unset.
    Unresolved(Box<Unresolved>),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order as written.
    Map(Vec<Entry>),
}

/// A piece of a text: only what was written is ever read as an expression (ruling H14).
#[derive(Clone, Debug)]
pub enum Piece {
    /// As written.
    Written(Box<str>),
    /// What a reference was resolved to.
    Put(Box<str>),
    /// What a secret reference was resolved to.
    Secret(Secret),
}

impl Piece {
    /// Its text, whatever it is.
    pub fn text(&self) -> &str {
        match self {
            Self::Written(text) | Self::Put(text) => text,
            Self::Secret(secret) => secret.expose(),
        }
    }
}

/// Whether text that was written has something of an expression in it.
pub fn has_braces(written: &str) -> bool {
    written.contains("{{") || written.contains("{%") || written.contains("{#")
}

/// A reference that names nothing.
#[derive(Clone, Debug)]
pub struct Unresolved {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// Whether the thing is merely unset or empty, which some places allow.
    pub unset: bool,
}

/// One entry of a map.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing starts.
    Error,
    /// Said, and gone on.
    Warning,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong. Holds no secret.
    pub message: String,
    /// What to change; empty where the message says it.
    pub hint: String,
    /// Error or warning.
    pub severity: Severity,
}

/// Everything that is wrong, collected while reading.
#[derive(Debug, Default)]
pub struct Problems {
    found: RefCell<Vec<Problem>>,
    literal_secrets: Cell<bool>,
    trusted: RefCell<Vec<u16>>,
    secrets: RefCell<Vec<Secret>>,
    seen: RefCell<Vec<Seen>>,
    #[cfg(test)]
    asked: RefCell<Vec<(Place, &'static str, bool)>>,
}

impl Problems {
    /// Says whether a literal may stand in a secret field (`allow_literal_secrets`).
    pub fn allow_literal_secrets(&self, yes: bool) {
        self.literal_secrets.set(yes);
    }

    /// Says that a file is no file but the environment, where a secret may stand as it is.
    pub fn trust(&self, file: u16) {
        self.trusted.borrow_mut().push(file);
    }

    /// Every secret that was read since the last call, however it was written: what has to be masked by value.
    pub fn take_secrets(&self) -> Vec<Secret> {
        self.secrets.take()
    }

    /// Notes a file that was read for the configuration, or a place that was looked at: when it changes, so may the rest.
    pub fn saw(&self, seen: Seen) {
        self.seen.borrow_mut().push(seen);
    }

    /// What was noted since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        self.seen.take()
    }

    fn note(&self, secret: &Secret) {
        self.secrets.borrow_mut().push(secret.clone());
    }

    /// Every key that was asked for: of the map at which place, and whether it is built.
    #[cfg(test)]
    pub fn asked(&self) -> Vec<(Place, &'static str, bool)> {
        self.asked.borrow().clone()
    }

    /// Reports an error.
    pub fn error(&self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Error, place, message.into(), hint.into());
    }

    /// Reports a warning.
    pub fn warn(&self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, place, message.into(), hint.into());
    }

    fn push(&self, severity: Severity, place: Place, message: String, hint: String) {
        self.found.borrow_mut().push(Problem { place, message, hint, severity });
    }

    /// Whether an error is among them.
    pub fn any_error(&self) -> bool {
        self.found.borrow().iter().any(|p| p.severity == Severity::Error)
    }

    /// All of them, in the order of their places, each once.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by(|a, b| {
            (a.place.file, a.place.line, a.place.column, &a.message).cmp(&(b.place.file, b.place.line, b.place.column, &b.message))
        });
        found.dedup_by(|a, b| a.place == b.place && a.message == b.message);
        found
    }
}

impl Node {
    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What kind of thing this is, in the operator's words.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) | Value::Secret(_) | Value::Mixed(_) | Value::Unresolved(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The entries, where this is a map.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value under a key, where this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|e| &*e.key == key).map(|e| &e.node)
    }

    /// The text as written, where it is text or a bare scalar, without reporting. For error messages and look-ups of
    /// fixed words only: a secret is never returned.
    pub fn word(&self) -> Option<&str> {
        match &self.value {
            Value::Text(t) => Some(t),
            Value::Number(n) => Some(n),
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            _ => None,
        }
    }

    /// The text of a scalar. Numbers and booleans are read as they were written. `{{ … }}` is refused: where expressions
    /// may stand, they are read by `expr` (ruling C8).
    pub fn text(&self, problems: &Problems) -> Option<String> {
        if self.is_template() {
            let hint = "write the value itself, or `${var:NAME}`; where expressions stand: docs/expressions.md";
            problems.error(self.place, "this expression (`{{ … }}`) cannot stand here", hint);
            return None;
        }
        self.literal(problems)
    }

    /// Whether this is text with an expression in it. What a reference was resolved to does not count.
    pub fn is_template(&self) -> bool {
        match &self.value {
            Value::Text(text) => has_braces(text),
            Value::Mixed(pieces) => pieces.iter().any(|p| matches!(p, Piece::Written(text) if has_braces(text))),
            _ => false,
        }
    }

    /// Like [`Node::text`], but an unset reference is empty text rather than a problem.
    pub fn text_or_unset(&self, problems: &Problems) -> Option<String> {
        match &self.value {
            Value::Unresolved(u) if u.unset => Some(String::new()),
            Value::Null => Some(String::new()),
            _ => self.text(problems),
        }
    }

    /// The text of a scalar, in which `{{` means nothing.
    pub fn literal(&self, problems: &Problems) -> Option<String> {
        match &self.value {
            Value::Text(t) => Some(t.to_string()),
            Value::Number(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            Value::Secret(s) => Some(s.expose().to_owned()),
            Value::Mixed(pieces) => Some(pieces.iter().map(Piece::text).collect()),
            Value::Unresolved(u) => {
                problems.error(self.place, u.message.clone(), u.hint.clone());
                None
            }
            Value::Null | Value::List(_) | Value::Map(_) => {
                problems.error(self.place, format!("expected text, found {}", self.kind()), quote_hint(self));
                None
            }
        }
    }

    /// A secret. A literal is an error unless `allow_literal_secrets` says otherwise, and then a warning.
    pub fn secret(&self, problems: &Problems) -> Option<Secret> {
        let secret = match &self.value {
            Value::Secret(secret) => secret.clone(),
            _ => {
                let text = self.text(problems)?;
                self.judge_literal(&text, problems);
                Secret::new(text)
            }
        };
        problems.note(&secret);
        Some(secret)
    }

    /// Like [`Node::secret`], but an unset reference, `null` or `""` is the empty secret.
    pub fn secret_or_empty(&self, problems: &Problems) -> Option<Secret> {
        match &self.value {
            Value::Unresolved(u) if u.unset => Some(Secret::new(String::new())),
            Value::Null => Some(Secret::new(String::new())),
            _ => self.secret(problems),
        }
    }

    fn judge_literal(&self, text: &str, problems: &Problems) {
        if text.is_empty() || problems.trusted.borrow().contains(&self.place.file) {
            return;
        }
        let named = text.strip_prefix('$').map(|t| t.trim_start_matches('{').trim_end_matches('}'));
        if let Some(name) = named.filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')) {
            problems.error(self.place, "this is text, not a reference", format!("did you mean \"${{env:{name}}}\"?"));
        } else if problems.literal_secrets.get() {
            problems.warn(self.place, "a secret is written into the file", "use \"${env:NAME}\" or \"${file:PATH}\"");
        } else {
            let hint = if text.starts_with('/') || text.starts_with("./") {
                "did you mean \"${file:PATH}\"?".to_owned()
            } else {
                "use \"${env:NAME}\" or \"${file:PATH}\"; `allow_literal_secrets: true` allows it, with a warning".to_owned()
            };
            problems.error(self.place, "a secret must be a reference, not a literal", hint);
        }
    }

    /// `true` or `false`; `on`, `off`, `yes` and `no` are refused with the right spelling.
    pub fn flag(&self, problems: &Problems) -> Option<bool> {
        match (&self.value, self.word()) {
            (Value::Bool(b), _) => Some(*b),
            (_, Some("true")) => Some(true),
            (_, Some("false")) => Some(false),
            _ => {
                problems.error(self.place, format!("expected true or false, found {}", self.shown()), "");
                None
            }
        }
    }

    /// A whole number.
    pub fn count(&self, problems: &Problems) -> Option<u64> {
        match self.word().map(str::parse::<u64>) {
            Some(Ok(n)) => Some(n),
            _ => {
                problems.error(self.place, format!("expected a whole number, found {}", self.shown()), "");
                None
            }
        }
    }

    /// A duration: an integer and a unit, `250ms 10s 5m 1h 7d`.
    pub fn duration(&self, problems: &Problems) -> Option<Duration> {
        let read = self.word().ok_or(()).and_then(|w| duration(w).ok_or(()));
        if read.is_err() {
            problems.error(self.place, format!("expected a duration, found {}", self.shown()), duration_hint(self.word()));
        }
        read.ok()
    }

    /// A size in bytes: an integer and a unit, `240B 64KiB 10MiB 1GiB`.
    pub fn size(&self, problems: &Problems) -> Option<u64> {
        let read = self.word().ok_or(()).and_then(|w| size(w).ok_or(()));
        if read.is_err() {
            problems.error(self.place, format!("expected a size, found {}", self.shown()), size_hint(self.word()));
        }
        read.ok()
    }

    /// Whether this says `off` (or `false`, its spelling under YAML 1.1).
    pub fn is_off(&self) -> bool {
        matches!(self.word(), Some("off" | "false"))
    }

    /// The items of a list; a scalar is a list of one.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => std::slice::from_ref(self),
        }
    }

    /// The value for a message: a short scalar as written, else its kind. Never a secret.
    pub fn shown(&self) -> String {
        match self.word() {
            Some(w) if w.len() <= 40 => format!("`{w}`"),
            _ => self.kind().to_owned(),
        }
    }

    /// The smallest node that holds a place of this file, its key included.
    pub fn at(&self, place: Place) -> &Self {
        let holds = |from: Place, node: &Self| {
            let end = node.place.end.max(from.end);
            from.start <= place.start && place.start < end.max(from.start + 1)
        };
        // A file's own tree is in the order of its text, so that the one to look at is the last that begins before.
        let inner = match &self.value {
            Value::List(items) => {
                let last = items.partition_point(|n| n.place.start <= place.start).checked_sub(1).and_then(|at| items.get(at));
                last.filter(|n| holds(n.place, n)).or_else(|| items.iter().find(|n| holds(n.place, n)))
            }
            Value::Map(entries) => {
                let last = entries.partition_point(|e| e.place.start <= place.start).checked_sub(1).and_then(|at| entries.get(at));
                last.filter(|e| holds(e.place, &e.node)).or_else(|| entries.iter().find(|e| holds(e.place, &e.node))).map(|e| &e.node)
            }
            _ => None,
        };
        inner.map_or(self, |node| node.at(place))
    }

    /// Takes this subtree in, without its places: what is written elsewhere, or spread over other lines, is the same.
    pub fn feed(&self, digester: &mut Digester) {
        match &self.value {
            Value::Null => digester.mark(0),
            Value::Bool(b) => digester.mark(1 + u8::from(*b)),
            Value::Number(n) => {
                digester.mark(3);
                digester.bytes(n.as_bytes());
            }
            Value::Text(t) => {
                digester.mark(4);
                digester.bytes(t.as_bytes());
            }
            Value::Secret(s) => {
                digester.mark(5);
                digester.bytes(s.expose().as_bytes());
            }
            Value::Mixed(pieces) => {
                for piece in pieces {
                    digester.mark(if matches!(piece, Piece::Written(_)) { 11 } else { 12 });
                    digester.bytes(piece.text().as_bytes());
                }
            }
            Value::Unresolved(u) => {
                digester.mark(6);
                digester.bytes(u.message.as_bytes());
            }
            Value::List(items) => {
                digester.mark(7);
                items.iter().for_each(|n| n.feed(digester));
                digester.mark(8);
            }
            Value::Map(entries) => {
                digester.mark(9);
                for entry in entries {
                    digester.bytes(entry.key.as_bytes());
                    entry.node.feed(digester);
                }
                digester.mark(10);
            }
        }
    }

    /// Every secret in this subtree.
    pub fn secrets(&self, into: &mut Vec<Secret>) {
        match &self.value {
            Value::Secret(s) => into.push(s.clone()),
            Value::Mixed(pieces) => into.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Secret(secret) => Some(secret.clone()),
                _ => None,
            })),
            Value::List(items) => items.iter().for_each(|n| n.secrets(into)),
            Value::Map(entries) => entries.iter().for_each(|e| e.node.secrets(into)),
            _ => {}
        }
    }
}

/// Unquoted `${…}` and `{{ … }}` inside `{ }` parse as maps: say so where text was expected.
fn quote_hint(node: &Node) -> &'static str {
    match &node.value {
        Value::Map(_) => "if this is a `{{ … }}` or a `${…}`, put it in quotes",
        Value::Null => "write a value, or remove the key",
        _ => "",
    }
}

/// Reads `250ms 10s 5m 1h 7d`; `None` for anything else.
pub fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let n: u64 = text[..split].parse().ok()?;
    match &text[split..] {
        "ms" => Some(Duration::from_millis(n)),
        "s" => Some(Duration::from_secs(n)),
        "m" => n.checked_mul(60).map(Duration::from_secs),
        "h" => n.checked_mul(3600).map(Duration::from_secs),
        "d" => n.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    }
    .filter(|d| *d <= Duration::from_secs(10 * 365 * 86_400))
}

/// Reads `240B 64KiB 10MiB 1GiB`; `None` for anything else.
pub fn size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let n: u64 = text[..split].parse().ok()?;
    let unit = match &text[split..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    n.checked_mul(unit)
}

fn duration_hint(word: Option<&str>) -> String {
    let Some(word) = word else { return "an integer and a unit: 250ms 10s 5m 1h 7d".into() };
    let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
    let rest = word[digits.len()..].trim().to_ascii_lowercase();
    let unit = match rest.as_str() {
        "" | "sec" | "secs" | "second" | "seconds" | "s" => "s",
        "milliseconds" | "millis" | "msec" | "ms" => "ms",
        "min" | "mins" | "minute" | "minutes" | "m" => "m",
        "hour" | "hours" | "hr" | "hrs" | "h" => "h",
        "day" | "days" | "d" => "d",
        _ => return "an integer and a unit: 250ms 10s 5m 1h 7d".into(),
    };
    if digits.is_empty() { "an integer and a unit: 250ms 10s 5m 1h 7d".into() } else { format!("did you mean `{digits}{unit}`?") }
}

fn size_hint(word: Option<&str>) -> String {
    let Some(word) = word else { return "an integer and a unit: 240B 64KiB 10MiB 1GiB".into() };
    let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
    let rest = word[digits.len()..].trim().to_ascii_lowercase();
    let unit = match rest.as_str() {
        "" | "b" | "bytes" => "B",
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        _ => return "an integer and a unit: 240B 64KiB 10MiB 1GiB".into(),
    };
    if digits.is_empty() { "an integer and a unit: 240B 64KiB 10MiB 1GiB".into() } else { format!("did you mean `{digits}{unit}`?") }
}

/// A map that is being read key by key. Keys that nobody asked for are unknown: [`Fields::finish`] reports them.
#[derive(Debug)]
pub struct Fields<'n> {
    node: &'n Node,
    problems: &'n Problems,
    asked: RefCell<Vec<&'static str>>,
}

impl<'n> Fields<'n> {
    /// Reads `node` as a map; anything else is reported as `expected … , found …`.
    pub fn of(node: &'n Node, expected: &str, problems: &'n Problems) -> Option<Self> {
        match &node.value {
            Value::Map(_) => Some(Self { node, problems, asked: RefCell::default() }),
            Value::Unresolved(u) => {
                problems.error(node.place, u.message.clone(), u.hint.clone());
                None
            }
            _ => {
                problems.error(node.place, format!("expected {expected}, found {}", node.shown()), "");
                None
            }
        }
    }

    /// Reads what is not there: every key is absent.
    pub fn none(node: &'n Node, problems: &'n Problems) -> Self {
        Self { node, problems, asked: RefCell::default() }
    }

    /// Where the map stands.
    pub fn place(&self) -> Place {
        self.node.place
    }

    /// Where problems go.
    pub fn problems(&self) -> &'n Problems {
        self.problems
    }

    /// The node under `key`, `null` included.
    pub fn raw(&self, key: &'static str) -> Option<&'n Node> {
        self.asked.borrow_mut().push(key);
        #[cfg(test)]
        self.problems.asked.borrow_mut().push((self.node.place, key, true));
        self.node.get(key)
    }

    /// The node under `key`; `null` counts as absent.
    pub fn node(&self, key: &'static str) -> Option<&'n Node> {
        self.raw(key).filter(|n| !n.is_null())
    }

    /// The node under `key`; its absence is an error.
    pub fn need(&self, key: &'static str) -> Option<&'n Node> {
        let found = self.node(key);
        if found.is_none() {
            self.problems.error(self.node.place, format!("`{key}` is missing"), format!("add `{key}: …`"));
        }
        found
    }

    /// Text under `key`.
    pub fn text(&self, key: &'static str) -> Option<String> {
        self.node(key)?.text(self.problems)
    }

    /// A secret under `key`.
    pub fn secret(&self, key: &'static str) -> Option<Secret> {
        self.node(key)?.secret(self.problems)
    }

    /// `true` or `false` under `key`.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        self.node(key).and_then(|n| n.flag(self.problems)).unwrap_or(default)
    }

    /// A whole number under `key`, at least `least`.
    pub fn count(&self, key: &'static str, default: u64, least: u64) -> u64 {
        let Some(node) = self.node(key) else { return default };
        match node.count(self.problems) {
            Some(n) if n < least => {
                self.problems.error(node.place, format!("`{key}` must be at least {least}"), "");
                default
            }
            Some(n) => n,
            None => default,
        }
    }

    /// A duration under `key`, greater than zero.
    pub fn duration(&self, key: &'static str, default: Duration) -> Duration {
        let Some(node) = self.node(key) else { return default };
        match node.duration(self.problems) {
            Some(d) if d.is_zero() => {
                self.problems.error(node.place, format!("`{key}` must be more than zero"), "");
                default
            }
            Some(d) => d,
            None => default,
        }
    }

    /// A duration under `key`, or `off`.
    pub fn duration_or_off(&self, key: &'static str, default: Option<Duration>) -> Option<Duration> {
        let Some(node) = self.node(key) else { return default };
        if node.is_off() { None } else { Some(self.duration(key, Duration::from_secs(1))) }
    }

    /// A size under `key`.
    pub fn size(&self, key: &'static str, default: u64) -> u64 {
        self.node(key).and_then(|n| n.size(self.problems)).unwrap_or(default)
    }

    /// A size under `key`, or `off`.
    pub fn size_or_off(&self, key: &'static str, default: Option<u64>) -> Option<u64> {
        let Some(node) = self.node(key) else { return default };
        if node.is_off() { None } else { node.size(self.problems).or(default) }
    }

    /// One of a few words under `key`.
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)], default: T) -> T {
        let Some(node) = self.node(key) else { return default };
        let word = if node.is_off() { Some("off") } else { node.word() };
        if let Some((_, value)) = word.and_then(|w| words.iter().find(|(name, _)| *name == w)) {
            return *value;
        }
        if let Value::Unresolved(u) = &node.value {
            self.problems.error(node.place, u.message.clone(), u.hint.clone());
            return default;
        }
        let all: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        self.problems.error(
            node.place,
            format!("`{key}` is one of: {}; found {}", all.join(", "), node.shown()),
            closest(node.word().unwrap_or(""), &all),
        );
        default
    }

    /// The nodes of a list under `key`; a scalar is a list of one.
    pub fn items(&self, key: &'static str) -> &'n [Node] {
        self.node(key).map(Node::items).unwrap_or_default()
    }

    /// Texts under `key`, as a list or one alone.
    pub fn texts(&self, key: &'static str) -> Vec<String> {
        self.items(key).iter().filter_map(|n| n.text(self.problems)).collect()
    }

    /// A key of the contract that this build lacks. What `off` recognises as "not wanted" is accepted.
    pub fn unbuilt(&self, key: &'static str, off: impl Fn(&Node) -> bool) {
        #[cfg(test)]
        self.problems.asked.borrow_mut().push((self.node.place, key, false));
        let Some(node) = self.node(key) else { return };
        if !off(node) {
            self.problems.error(
                self.key_place(key),
                format!("`{key}` is not built into this version"),
                "remove it: nothing is ignored quietly",
            );
        }
    }

    /// Contract keys that this build lacks altogether.
    pub fn unbuilt_all(&self, keys: &[&'static str]) {
        keys.iter().for_each(|key| self.unbuilt(key, |_| false));
    }

    /// Where the key itself stands; the map's place if it is absent.
    pub fn key_place(&self, key: &str) -> Place {
        self.node.entries().iter().find(|e| &*e.key == key).map_or(self.node.place, |e| e.place)
    }

    /// The keys that were asked for.
    pub fn known(&self) -> Vec<&'static str> {
        self.asked.borrow().clone()
    }

    /// Reports every key that was not asked for, with the nearest one that was.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for entry in self.node.entries() {
            if !asked.contains(&&*entry.key) {
                self.problems.error(entry.place, format!("unknown key `{}`", entry.key), closest(&entry.key, &asked));
            }
        }
    }
}

/// "did you mean …?" for the nearest word, or the list of all when none is near.
pub fn closest<S: AsRef<str>>(word: &str, known: &[S]) -> String {
    let near = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&word.to_ascii_lowercase(), &k.as_ref().to_ascii_lowercase()), k.as_ref()))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, k)| *distance <= 2.max(k.len() / 3) && *distance < k.len());
    match near {
        Some((_, k)) => format!("did you mean `{k}`?"),
        None if known.is_empty() => String::new(),
        None => {
            let mut names: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
            names.sort_unstable();
            names.dedup();
            names.truncate(40);
            format!("known here: {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_an_integer_and_a_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(604_800)));
        for wrong in ["", "10", "s", "1.5s", "10 s", "-1s", "10S", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_size_is_an_integer_and_a_binary_unit() {
        assert_eq!(size("64KiB"), Some(65_536));
        for wrong in ["", "10", "10MB", "1.5KiB", "18446744073709551615GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_hint_names_the_right_spelling() {
        assert_eq!(duration_hint(Some("10")), "did you mean `10s`?");
        assert_eq!(size_hint(Some("10MB")), "did you mean `10MiB`?");
        assert_eq!(closest("bearr", &["basic", "bearer"]), "did you mean `bearer`?");
    }
}
