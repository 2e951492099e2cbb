//! The report: every problem with file, line, column, an underlined snippet and a cure; or the same as JSON (ruling B11).

use std::collections::BTreeMap;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::json;

use super::raw;
use crate::secret::{Mask, Secret};
use crate::tree::{Node, Piece, Place, Problem, Problems, Severity, Value};

/// Keys whose values a snippet never shows (ruling A23), and those that hold a secret inside another scheme.
const SECRET_KEYS: [&str; 18] = [
    "password",
    "token",
    "secret",
    "client_secret",
    "secret_access_key",
    "session_token",
    "consumer_secret",
    "token_secret",
    "private_key",
    "refresh_token",
    "value",
    "key",
    "master_key",
    "client_assertion",
    "bearer",
    "username",
    "secrets",
    "authorization",
];

/// A file as the report needs it, or what can be shown like one: a variable, a flag.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Its name, as the operator wrote it.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The way to its root in the whole configuration: `resources.github`; empty for the main file.
    pub prefix: String,
    /// Where it holds values that no snippet shows: the first byte of each, and the one behind its last. None where the text
    /// is no YAML, and what it holds unknown.
    pub veiled: Option<Vec<(u32, u32)>>,
    /// Its own tree, where it has been needed: a second reading of a large file is worth avoiding.
    pub tree: Option<Node>,
}

impl File {
    /// The text with every value blanked that may be a secret, so that no snippet shows one. Lengths stay.
    pub fn blanked(&self) -> String {
        let Some(veiled) = &self.veiled else { return blanked_lines(&self.text) };
        let mut bytes = self.text.clone().into_bytes();
        for (start, end) in veiled {
            let value = bytes.get_mut(*start as usize..*end as usize).unwrap_or_default();
            value.iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b'*');
        }
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// Its tree. Empty where it is no YAML.
    fn tree(&mut self, index: u16) -> &Node {
        let empty = Node { place: Place::default(), value: Value::Null };
        let text = &self.text;
        self.tree.get_or_insert_with(|| raw::parse(text, index, &Problems::default()).unwrap_or(empty))
    }
}

/// Where `text`, read as `tree`, holds values that no snippet shows. References say nothing secret.
pub fn veiled(tree: &Node, text: &str) -> Vec<(u32, u32)> {
    let mut spans = Vec::new();
    veil(tree, false, text.as_bytes(), &mut spans);
    spans
}

/// A second wall: whoever finds a problem writes no secret into it, and should one have, it is found here by value.
/// `tree` is the whole configuration with its references resolved.
pub fn hide(problems: &mut [Problem], files: &mut [File], tree: Option<&Node>) {
    if problems.is_empty() {
        return;
    }
    let mut secrets: Vec<(Place, &Secret)> = Vec::new();
    tree.into_iter().for_each(|tree| gather(tree, &mut secrets));
    if secrets.is_empty() {
        return;
    }
    secrets.sort_by_key(|(place, _)| (place.file, place.start));
    for problem in problems {
        let Some(file) = files.get_mut(usize::from(problem.place.file)) else { continue };
        let own = file.tree(problem.place.file);
        // What the problem is about, its key included.
        let about = own.at(problem.place).place;
        let (start, end) = (about.start.min(problem.place.start), about.end.max(problem.place.end));
        let from = secrets.partition_point(|(at, _)| (at.file, at.end) < (problem.place.file, start));
        let near: Vec<&Secret> =
            secrets[from..].iter().take_while(|(at, _)| at.file == problem.place.file && at.start <= end).map(|(_, s)| *s).collect();
        if near.is_empty() {
            continue;
        }
        let mask = Mask::new(near);
        for text in [&mut problem.message, &mut problem.hint] {
            if let Some(masked) = mask.apply(text) {
                *text = masked;
            }
        }
    }
}

fn gather<'n>(node: &'n Node, into: &mut Vec<(Place, &'n Secret)>) {
    match &node.value {
        Value::Secret(secret) => into.push((node.place, secret)),
        Value::Mixed(pieces) => into.extend(pieces.iter().filter_map(|piece| match piece {
            Piece::Secret(secret) => Some((node.place, secret)),
            _ => None,
        })),
        Value::List(items) => items.iter().for_each(|n| gather(n, into)),
        Value::Map(entries) => entries.iter().for_each(|e| gather(&e.node, into)),
        _ => {}
    }
}

/// Warnings of one kind that are shown before the rest is only counted.
const ALIKE_MAX: usize = 3;

/// The report for people. `colour` only on a terminal.
pub fn text(problems: &[Problem], files: &[File], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut sources: BTreeMap<usize, String> = BTreeMap::new();
    let mut report = String::new();
    let mut alike: BTreeMap<&str, usize> = BTreeMap::new();
    for problem in problems {
        if problem.severity == Severity::Warning {
            let seen = alike.entry(&problem.message).or_default();
            *seen += 1;
            if *seen > ALIKE_MAX {
                continue;
            }
        }
        let at = usize::from(problem.place.file);
        let name = files.get(at).map_or("?", |file| file.name.as_str());
        let source = sources.entry(at).or_insert_with(|| files.get(at).map(File::blanked).unwrap_or_default());
        report.push_str(&render(problem, name, source, &renderer));
        report.push_str("\n\n");
    }
    for (message, count) in alike.iter().filter(|(_, count)| **count > ALIKE_MAX) {
        report.push_str(&format!("warning: {message}: {} more of these\n", count - ALIKE_MAX));
    }
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    if errors > 0 {
        report.push_str(&format!("{errors} {}; nothing was started\n", if errors == 1 { "problem" } else { "problems" }));
    }
    report
}

/// One problem with its line. Only that line is handed to the renderer, which would read a large file each time.
fn render(problem: &Problem, name: &str, source: &str, renderer: &Renderer) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(&problem.message);
    let place = problem.place;
    let start = source.floor_char_boundary((place.start as usize).min(source.len()));
    let line_start = source[..start].rfind('\n').map_or(0, |n| n + 1);
    let line_end = source[start..].find('\n').map_or(source.len(), |n| start + n);
    let line = &source[line_start..line_end];
    let end = source.floor_char_boundary((place.end as usize).clamp(start, line_end));
    let group = if source.is_empty() || place.line == 0 {
        annotate_snippets::Group::with_title(title)
    } else {
        let span = start - line_start..end - line_start;
        title.element(Snippet::source(line).line_start(place.line as usize).path(name).annotation(AnnotationKind::Primary.span(span)))
    };
    let group = if problem.hint.is_empty() { group } else { group.element(Level::HELP.message(&problem.hint)) };
    renderer.render(&[group]).to_string()
}

/// The report for programs.
pub fn json(problems: &[Problem], files: &[File]) -> serde_json::Value {
    let ok = problems.iter().all(|p| p.severity == Severity::Warning);
    let mut files = files.to_vec();
    let rows: Vec<serde_json::Value> = problems
        .iter()
        .map(|p| {
            let file = files.get_mut(usize::from(p.place.file));
            let (name, path) = file.map(|file| (file.name.clone(), path(file, p.place))).unzip();
            json!({
                "file": name,
                "line": p.place.line,
                "column": p.place.column,
                "path": path.unwrap_or_default(),
                "message": p.message,
                "hint": p.hint,
                "severity": match p.severity { Severity::Error => "error", Severity::Warning => "warning" },
            })
        })
        .collect();
    json!({ "ok": ok, "problems": rows })
}

fn veil(node: &Node, secret: bool, text: &[u8], spans: &mut Vec<(u32, u32)>) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let own = SECRET_KEYS.iter().any(|k| entry.key.eq_ignore_ascii_case(k));
                veil(&entry.node, secret || own, text, spans);
            }
        }
        Value::List(items) => items.iter().for_each(|n| veil(n, secret, text, spans)),
        _ if !secret => {}
        _ => {
            let value = text.get(node.place.start as usize..node.place.end as usize).unwrap_or_default();
            if memchr::memmem::find(value, b"${").is_none() {
                spans.push((node.place.start, node.place.end));
            }
        }
    }
}

/// A file that is no YAML has no tree: whatever stands behind a colon of a line with a telling key is blanked, and every
/// line that begins with no key, as it may go on with a value that does.
fn blanked_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let blank = |c: char| if c == '\n' || c == ' ' { c.to_string() } else { "*".repeat(c.len_utf8()) };
    for line in text.split_inclusive('\n') {
        let shown = match key_end(line) {
            None if line.trim().chars().all(|c| "[]{},-#\"'".contains(c)) => line.len(),
            None => 0,
            Some(colon) => {
                let telling = SECRET_KEYS.iter().any(|k| line.to_ascii_lowercase().contains(k)) && !line.contains("${");
                if telling { colon + 1 } else { line.len() }
            }
        };
        out.push_str(&line[..shown]);
        out.extend(line[shown..].chars().map(blank));
    }
    out
}

/// Where the colon stands behind the key that a line begins with.
fn key_end(line: &str) -> Option<usize> {
    let colon = line.find(':')?;
    let key = line[..colon].trim_start_matches([' ', '-', '{', '"', '\'']).trim_end_matches([' ', '"', '\'']);
    let named = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let ended = line[colon + 1..].chars().next().is_none_or(char::is_whitespace);
    (named && ended).then_some(colon)
}

/// The way to the node or key at a place: `resources.github.auth.bearer.token`, lists as `[0]`.
fn path(file: &mut File, place: Place) -> String {
    let mut path = file.prefix.clone();
    let mut node = file.tree(place.file);
    'down: loop {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let inside = entry.place.start <= place.start && place.start <= entry.node.place.end.max(entry.place.end);
                    if inside {
                        if !path.is_empty() {
                            path.push('.');
                        }
                        path.push_str(&entry.key);
                        if place == entry.place {
                            return path;
                        }
                        node = &entry.node;
                        continue 'down;
                    }
                }
            }
            Value::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    if item.place.start <= place.start && place.start < item.place.end.max(item.place.start + 1) {
                        path.push_str(&format!("[{at}]"));
                        node = item;
                        continue 'down;
                    }
                }
            }
            _ => {}
        }
        return path;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        let veiled = raw::parse(text, 0, &Problems::default()).map(|tree| veiled(&tree, text));
        File { name: "postern.yaml".into(), text: text.into(), veiled, ..File::default() }
    }

    fn problem(file: &File, what: &str) -> Problem {
        let start = file.text.find(what).unwrap();
        let line = file.text[..start].matches('\n').count() as u32 + 1;
        let column = file.text[..start].rsplit('\n').next().unwrap().chars().count() as u32 + 1;
        let place = Place { file: 0, line, column, start: start as u32, end: (start + what.len()) as u32 };
        Problem { place, message: "wrong".into(), hint: "right".into(), severity: Severity::Error }
    }

    #[test]
    fn a_problem_shows_its_line_and_its_cure() {
        let file = file("a:\n  ä: { bcd: 1 }\n");
        let report = text(&[problem(&file, "bcd")], std::slice::from_ref(&file), false);
        for part in ["error: wrong", "postern.yaml:2:8", "bcd: 1", "^^^", "help: right", "1 problem"] {
            assert!(report.contains(part), "{part} in {report}");
        }
    }

    #[test]
    fn warnings_of_one_kind_are_counted_after_the_third() {
        let file = file("a: 1\n");
        let one = Problem { severity: Severity::Warning, ..problem(&file, "a") };
        let report = text(&vec![one; 10_000], std::slice::from_ref(&file), false);
        assert!(report.contains("9997 more of these") && report.matches("postern.yaml:1:1").count() == 3, "{report}");
    }

    #[test]
    fn a_file_that_is_no_yaml_shows_no_line_that_may_go_on_with_a_secret() {
        let text =
            "a:\n  private_key: |\n      -----BEGIN\n    MIIEvQ\nAbC=\n  token: \"abc\n   def\"\n  base_url: http://x\n  b: [\n  ]\n";
        let file = File { name: "postern.yaml".into(), text: text.into(), ..File::default() };
        let shown = file.blanked();
        for secret in ["BEGIN", "MIIE", "AbC", "abc", "def"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert!(shown.len() == text.len() && shown.contains("base_url: http://x\n  b: [\n  ]\n"), "{shown}");
    }

    #[test]
    fn the_path_leads_to_the_key() {
        let file = file("resources:\n  a:\n    auth: { bearer: { tokn: x } }\n    routes: [ { path: /a }, { pth: /b } ]\n");
        let paths: Vec<String> = ["tokn", "pth", "x }"]
            .iter()
            .map(|what| json(&[problem(&file, what)], std::slice::from_ref(&file))["problems"][0]["path"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(paths, ["resources.a.auth.bearer.tokn", "resources.a.routes[1].pth", "resources.a.auth.bearer.tokn"]);
    }

    #[test]
    fn no_snippet_shows_a_literal_secret() {
        for text_of in [
            "auth: { bearer: { token: hunter2hunter2, x: 1 } }\n",
            "auth: { bearer: hunter2hunter2, x: 1 }\n",
            "a: { password: [hunter2hunter2], x: 1 }\n",
            "secrets: { any: hunter2hunter2 }\nx: 1\n",
            "a: { password: \"hunter2hunter2\", x: 1 \n",
            "password: |\n  hunter2hunter2\nx: 1\n",
        ] {
            let file = file(text_of);
            let report = text(&[problem(&file, "x"), problem(&file, &text_of[..3])], std::slice::from_ref(&file), false);
            assert!(!report.contains("hunter2"), "{report}");
        }
    }

    #[test]
    fn references_are_shown() {
        let file = file("auth: { bearer: { token: \"${env:T}\" } }\n");
        assert!(text(&[problem(&file, "token")], std::slice::from_ref(&file), false).contains("${env:T}"));
    }
}
