//! Holds the floors: imports only go down, steps know nothing of each other, and no cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

const FLOORS: [(u8, &[&str]); 7] = [
    (6, &["main", "cli", "server", "admin", "connect", "mock", "fuzz"]),
    (5, &["reload", "stack", "snapshot"]),
    (4, &["config"]),
    (3, &["middleware"]),
    (2, &["auth", "audit", "secrets"]),
    (1, &["net", "aws", "store"]),
    (
        0,
        &[
            "http1",
            "hex",
            "command",
            "call",
            "record",
            "body",
            "error",
            "secret",
            "key",
            "tree",
            "path",
            "uri",
            "origin",
            "xml",
            "expr",
            "clock",
            "telemetry",
            "trailers",
            "digest",
            "file",
            "fill",
            "lib",
        ],
    ),
];

/// Pairs on one floor that may import each other one way.
fn floor(room: &str) -> u8 {
    let found = FLOORS.iter().find(|(_, rooms)| rooms.contains(&room));
    found.unwrap_or_else(|| panic!("`{room}` has no floor: add it to ARCHITECTURE.md and here")).0
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The parts of a path below `src`: `middleware/shape/mod.rs` is `[middleware, shape]`.
fn parts(path: &Path) -> Vec<String> {
    let below = path.strip_prefix(root().join("src")).unwrap().with_extension("");
    below.iter().map(|p| p.to_string_lossy().into_owned()).filter(|p| p != "mod").collect()
}

/// Every `crate::a::b` in the production part of a file.
fn imports(text: &str) -> Vec<Vec<String>> {
    let production = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut found = Vec::new();
    for line in production.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + 7..];
            if let Some(group) = rest.strip_prefix('{') {
                let names = group.split(['}', ',']).map(|n| n.trim().split("::").next().unwrap().to_owned());
                found.extend(names.filter(|n| !n.is_empty()).map(|n| vec![n]));
            } else {
                let words: Vec<String> =
                    rest.split("::").map(|w| w.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).take(2).collect();
                found.push(words);
            }
        }
    }
    found
}

#[test]
fn imports_only_go_down() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let from = parts(file);
        if from[0] == "lib" || from[0] == "main" {
            continue;
        }
        for import in imports(&fs::read_to_string(file).unwrap()) {
            if floor(&import[0]) > floor(&from[0]) {
                wrong.push(format!("{} imports {}", file.display(), import.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn steps_know_nothing_of_each_other() {
    let mut files = Vec::new();
    sources(&root().join("src/middleware"), &mut files);
    for file in &files {
        let from = parts(file);
        let Some(own) = from.get(1) else { continue };
        for import in imports(&fs::read_to_string(file).unwrap()) {
            let sibling =
                import[0] == "middleware" && import.get(1).is_some_and(|s| s.starts_with(char::is_lowercase) && s != own && s != "layer");
            assert!(!sibling, "{} imports {}", file.display(), import.join("::"));
        }
        assert!(!fs::read_to_string(file).unwrap().contains("use super::super::"), "{}", file.display());
    }
}

#[test]
fn rooms_form_no_cycle() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &files {
        let from = parts(file)[0].clone();
        for import in imports(&fs::read_to_string(file).unwrap()) {
            if import[0] != from && from != "lib" && from != "main" {
                edges.entry(from.clone()).or_default().insert(import[0].clone());
            }
        }
    }
    // A room without an edge into what is left can be taken away; if none can, there is a cycle.
    while !edges.is_empty() {
        let Some(leaf) = edges.iter().find(|(_, to)| to.iter().all(|t| !edges.contains_key(t))).map(|(from, _)| from.clone()) else {
            panic!("a cycle: {edges:#?}")
        };
        edges.remove(&leaf);
    }
}

#[test]
fn every_error_code_has_its_section() {
    let page = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let source = fs::read_to_string(root().join("src/error.rs")).unwrap();
    let table = source.split("pub fn code").nth(1).unwrap().split("/// The status").next().unwrap();
    let codes: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
    assert!(codes.len() > 15);
    for code in codes {
        assert!(page.contains(&format!("\n## {code}\n")), "docs/errors.md has no section `{code}`");
    }
}

#[test]
fn the_repository_speaks_of_itself_alone() {
    let mut files = Vec::new();
    for folder in ["src", "tests", "docs", "config", "benches"] {
        collect(&root().join(folder), &mut files);
    }
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        assert!(!text.contains(concat!("/wo", "rk/")), "{} holds a path of a machine", file.display());
    }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, into) } else { into.push(path) }
    }
}

#[test]
fn every_class_of_vulnerabilities_has_a_test_that_is_there() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let table = page.split("## Classes of vulnerabilities").nth(1).unwrap();
    let named: Vec<&str> =
        table.lines().filter(|l| l.starts_with("| ")).skip(1).filter_map(|l| l.rsplit('`').nth(1)).filter(|n| n.contains("::")).collect();
    assert!(named.len() >= 40, "{}", named.len());
    let mut missing = Vec::new();
    for test in named {
        let (module, name) = test.rsplit_once("::").unwrap();
        let files = match module.strip_suffix("::tests") {
            Some(module) => {
                let path = root().join("src").join(module.replace("::", "/"));
                vec![path.with_extension("rs"), path.join("mod.rs"), path.join("tests.rs"), path.join("hostile.rs")]
            }
            None => vec![root().join("tests/it").join(module).with_extension("rs")],
        };
        let there = files.iter().any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {name}()"))));
        if !there {
            missing.push(test);
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
