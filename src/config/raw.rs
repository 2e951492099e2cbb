//! The text of one file as a tree whose nodes keep their place: YAML 1.2, and so JSON. Resolves nothing and knows no key.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use crate::tree::{Entry, Node, Place, Problems, Value};

/// Deepest nesting.
const DEPTH_MAX: usize = 64;
/// Most nodes of one file, those that aliases repeat included.
const NODES_MAX: usize = 2_000_000;
/// Largest file.
pub const BYTES_MAX: usize = 64 << 20;
/// Maps up to this size are searched for duplicates by comparing.
const SMALL_MAP: usize = 16;

/// Parses a file. `None` after an error was reported.
pub fn parse(text: &str, file: u16, problems: &Problems) -> Option<Node> {
    if text.len() > BYTES_MAX {
        problems.error(Place { file, ..Place::default() }, "the file is larger than 64MiB", "split it");
        return None;
    }
    let stripped = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        parser: Parser::new_from_str(stripped),
        text: stripped,
        offsets: (!stripped.is_ascii()).then(|| stripped.char_indices().map(|(at, _)| at as u32).chain([stripped.len() as u32]).collect()),
        shift: (text.len() - stripped.len()) as u32,
        file,
        anchors: HashMap::new(),
        nodes: 0,
        problems,
    };
    reader.document().map_err(|Stop| ()).ok()
}

/// One scalar as YAML reads it: `null`, a flag, a number, or text, which may be quoted.
pub fn scalar(text: &str) -> Value {
    if text.starts_with(['"', '\'']) {
        // What only looks like a quoted scalar is text as it is.
        return match parse(text, 0, &Problems::default()).map(|node| node.value) {
            Some(Value::Text(quoted)) => Value::Text(quoted),
            _ => Value::Text(text.into()),
        };
    }
    plain(text)
}

/// A scalar without quotes (YAML 1.2.2 section 10.3.2).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.into()),
        _ => Value::Text(text.into()),
    }
}

/// An error was reported and nothing more can be read.
struct Stop;

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    text: &'t str,
    /// Byte offset of each character, where they differ.
    offsets: Option<Vec<u32>>,
    shift: u32,
    file: u16,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    problems: &'t Problems,
}

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if root.is_some() => {
                    return self.stop(span, "there is more than one document in the file", "one file, one document: remove the `---`");
                }
                Event::DocumentStart(_) => {}
                other => root = Some(self.node(other, span, 0)?),
            }
        }
        Ok(root.unwrap_or(Node { place: Place { file: self.file, line: 1, column: 1, start: 0, end: 0 }, value: Value::Map(Vec::new()) }))
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => self.syntax(&error),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Stop> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return self.stop(span, "the file has too many nodes", "fewer aliases, or several files");
        }
        if depth > DEPTH_MAX {
            return self.stop(span, "the file is nested too deeply", "");
        }
        let before = self.nodes;
        let (anchor, node) = match event {
            Event::Alias(id) => return self.alias(id, span),
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), span)?;
                (anchor, Node { place: self.place(span), value })
            }
            Event::SequenceStart(anchor, tag) => {
                self.untagged(tag.as_deref(), span)?;
                (anchor, self.list(span, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.untagged(tag.as_deref(), span)?;
                (anchor, self.map(span, depth)?)
            }
            _ => return self.stop(span, "something is out of place", ""),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<Node, Stop> {
        let Some((node, size)) = self.anchors.get(&id) else {
            return self.stop(span, "the alias stands inside its own anchor", "");
        };
        if self.nodes + size > NODES_MAX {
            return self.stop(span, "aliases repeat too much", "");
        }
        self.nodes += size;
        Ok(node.clone())
    }

    fn list(&mut self, span: Span, depth: usize) -> Result<Node, Stop> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Node { place: self.whole(span, at), value: Value::List(items) });
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    fn map(&mut self, span: Span, depth: usize) -> Result<Node, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashSet<Box<str>> = HashSet::new();
        loop {
            let (event, at) = self.next()?;
            let key: Box<str> = match event {
                Event::MappingEnd => return Ok(Node { place: self.whole(span, at), value: Value::Map(entries) }),
                Event::Scalar(text, ..) => text.into(),
                Event::Alias(_) => return self.stop(at, "a key cannot be an alias", ""),
                _ if self.source(span).starts_with("{{") || self.source(at).starts_with('{') => {
                    return self.stop(span, "an unquoted `{{` is a YAML map, not an expression", "put it in quotes: \"{{ … }}\"");
                }
                _ => return self.stop(at, "a key must be text", ""),
            };
            let place = self.place(at);
            if &*key == "<<" {
                self.problems.error(place, "merge keys (`<<`) are not supported", "repeat the keys, or use `vars`");
            }
            self.unique(&key, place, &entries, &mut seen);
            let (event, at) = self.next()?;
            let node = self.node(event, at, depth + 1)?;
            entries.push(Entry { key, place, node });
        }
    }

    fn unique(&self, key: &str, place: Place, entries: &[Entry], seen: &mut HashSet<Box<str>>) {
        let repeated = if entries.len() < SMALL_MAP {
            entries.iter().any(|e| &*e.key == key)
        } else {
            if seen.is_empty() {
                seen.extend(entries.iter().map(|e| e.key.clone()));
            }
            !seen.insert(key.into())
        };
        if repeated && let Some(first) = entries.iter().find(|e| &*e.key == key) {
            let message = format!("`{key}` is there twice: in line {} and in line {}", first.place.line, place.line);
            self.problems.error(place, message, "remove one of them");
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Value, Stop> {
        if let Some(tag) = tag {
            return match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
                (true, "str") => Ok(Value::Text(text.into())),
                _ => self.stop(span, "this YAML tag is not supported", "remove it"),
            };
        }
        if style != ScalarStyle::Plain {
            return Ok(Value::Text(text.into()));
        }
        Ok(plain(text))
    }

    fn untagged(&self, tag: Option<&Tag>, span: Span) -> Result<(), Stop> {
        match tag {
            None => Ok(()),
            Some(_) => self.stop(span, "this YAML tag is not supported", "remove it"),
        }
    }

    fn syntax<T>(&self, error: &ScanError) -> Result<T, Stop> {
        let marker = *error.marker();
        let place = self.place(Span::new(marker, marker));
        let line = self.text.lines().nth((place.line as usize).saturating_sub(1)).unwrap_or("");
        let (message, hint) = if let Some(at) = unquoted(line) {
            (format!("`{}` must be quoted here", &line[at..at + 2]), quoted(line, at))
        } else if line.starts_with('\t') || line.trim_start_matches(' ').starts_with('\t') {
            ("a tab cannot indent YAML".to_owned(), "indent by spaces".to_owned())
        } else {
            (format!("this is not YAML: {}", error.info()), String::new())
        };
        self.problems.error(place, message, hint);
        Err(Stop)
    }

    fn stop<T>(&self, span: Span, message: &str, hint: &str) -> Result<T, Stop> {
        self.problems.error(self.place(span), message, hint);
        Err(Stop)
    }

    fn offset(&self, index: usize) -> u32 {
        match &self.offsets {
            None => index.min(self.text.len()) as u32,
            Some(offsets) => offsets.get(index).or(offsets.last()).copied().unwrap_or(0),
        }
    }

    fn place(&self, span: Span) -> Place {
        Place {
            file: self.file,
            line: span.start.line().max(1) as u32,
            column: span.start.col() as u32 + 1,
            start: self.offset(span.start.index()) + self.shift,
            end: self.offset(span.end.index()) + self.shift,
        }
    }

    fn whole(&self, start: Span, end: Span) -> Place {
        Place { end: self.offset(end.end.index()) + self.shift, ..self.place(start) }
    }

    fn source(&self, span: Span) -> &'t str {
        self.text.get(self.offset(span.start.index()) as usize..).unwrap_or("")
    }
}

/// A number of the core schema (YAML 1.2.2 section 10.3.2), without infinities.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.bytes().next().is_some_and(|b| b.is_ascii_digit() || b == b'.') {
        return false;
    }
    digits.bytes().all(|b| b.is_ascii_digit())
        || (digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) && digits.parse::<f64>().is_ok())
}

/// Where an unquoted `${` or `{{` stands in a line.
fn unquoted(line: &str) -> Option<usize> {
    let at = line.find("${").or_else(|| line.find("{{"))?;
    let quotes = line[..at].matches(['"', '\'']).count();
    quotes.is_multiple_of(2).then_some(at)
}

/// The same with its quotes: what to write instead.
fn quoted(line: &str, at: usize) -> String {
    let rest = &line[at..];
    let end = if rest.starts_with("{{") { rest.find("}}").map(|e| e + 2) } else { rest.find('}').map(|e| e + 1) };
    match end {
        Some(end) => format!("quote it: \"{}\"", &rest[..end]),
        None => "quote it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<crate::tree::Problem>) {
        let problems = Problems::default();
        let node = parse(text, 0, &problems);
        (node, problems.into_sorted())
    }

    fn message(text: &str) -> String {
        let (_, problems) = read(text);
        problems.first().map(|p| format!("{}:{} {} ({})", p.place.line, p.place.column, p.message, p.hint)).unwrap_or_default()
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let (node, _) = read("a: 1\nb: 1.50\nc: true\nd: ~\ne:\nf: \"1\"\ng: 1.2.3\nh: yes\ni: 10s\nj: '${env:X}'\nk: ${env:X}\n");
        let node = node.unwrap();
        let shown: Vec<String> = node.entries().iter().map(|e| format!("{}={}", e.key, e.node.word().unwrap_or(e.node.kind()))).collect();
        assert_eq!(
            shown,
            ["a=1", "b=1.50", "c=true", "d=nothing", "e=nothing", "f=1", "g=1.2.3", "h=yes", "i=10s", "j=${env:X}", "k=${env:X}"]
        );
        assert!(matches!(node.get("f").unwrap().value, Value::Text(_)));
        assert!(matches!(node.get("b").unwrap().value, Value::Number(_)));
    }

    #[test]
    fn places_count_characters_and_offsets_count_bytes() {
        let text = "\u{feff}ä: { ö: \"ü\", x: 1 }\n";
        let (node, _) = read(text);
        let node = node.unwrap();
        let x = &node.entries()[0].node.entries()[1];
        assert_eq!((x.place.line, x.place.column), (1, 14));
        assert_eq!(&text[x.place.start as usize..x.place.end as usize], "x");
        assert_eq!(&text[x.node.place.start as usize..x.node.place.end as usize], "1");
    }

    #[test]
    fn json_is_read_too() {
        let (node, problems) = read("{\"a\": [1, {\"b\": null}]}");
        assert!(problems.is_empty());
        assert_eq!(node.unwrap().get("a").unwrap().items().len(), 2);
    }

    #[test]
    fn duplicate_keys_name_both_lines() {
        assert!(message("a: 1\nb: 2\na: 3\n").starts_with("3:1 `a` is there twice: in line 1 and in line 3"));
        let many: String = (0..100).map(|i| format!("k{i}: 1\n")).collect();
        assert!(message(&format!("{many}k50: 2\n")).contains("in line 51 and in line 101"));
    }

    #[test]
    fn unquoted_references_and_expressions_are_told_to_be_quoted() {
        assert!(
            message("auth: { bearer: { token: ${env:T} } }\n").contains("quote it: \"${env:T}\""),
            "{}",
            message("auth: { bearer: { token: ${env:T} } }\n")
        );
        assert!(message("headers:\n  X: {{ vars.x }}\n").contains("in quotes"), "{}", message("headers:\n  X: {{ vars.x }}\n"));
    }

    #[test]
    fn what_is_not_plain_yaml_is_refused() {
        for (text, part) in [
            ("a: !!binary x\n", "tag"),
            ("a: 1\n---\nb: 2\n", "more than one document"),
            ("? [a]\n: b\n", "a key must be text"),
            ("a: &x 1\nb: { <<: *x }\n", "merge keys"),
            ("a:\n\t- b\n", "tab"),
            ("a: [1, 2\n", "not YAML"),
            ("a: *nowhere\n", "not YAML"),
        ] {
            assert!(message(text).contains(part), "{text:?}: {}", message(text));
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let last = format!("*a{}", i - 1);
            text.push_str(&format!("a{i}: &a{i} [{}]\n", vec![last; 10].join(",")));
        }
        assert!(message(&text).contains("aliases repeat too much"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = format!("{}{}", "[".repeat(500), "]".repeat(500));
        assert!(!read(&text).1.is_empty());
    }

    #[test]
    fn random_bytes_never_panic() {
        fastrand::seed(7);
        let alphabet: Vec<char> = "ab:{}[]\"'\\-?&*!|>#%@`,$ \n\t\u{e4}~0".chars().collect();
        for _ in 0..3000 {
            let text: String = (0..fastrand::usize(0..60)).map(|_| alphabet[fastrand::usize(0..alphabet.len())]).collect();
            read(&text);
        }
    }
}
