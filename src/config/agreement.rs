//! Holds three things together: the keys that the code reads, those of `config/schema.json`, and those that
//! `config/reference.yaml` shows. Whoever builds a key adds it to all three.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::references::{Sources, System};
use super::schema::{Spot, TEXT};
use super::{load, plan};
use crate::auth::grant::Tokens;
use crate::clock::Clock;
use crate::secrets::{Answers, Ask, Settings};
use crate::tree::{Node, Place, Value};

/// Gives every variable a value.
struct Anything;

impl Sources for Anything {
    fn env(&self, name: &str) -> Option<String> {
        match name {
            "TLS_KEY" => Some(include_str!("../../tests/fixtures/listener.key").into()),
            "GOOGLE_KEY" => {
                let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
                let url = "https://issuer.example/token";
                Some(serde_json::json!({ "client_email": "a@b.example", "private_key": key, "token_uri": url }).to_string())
            }
            "PRIVATE_KEY" => Some(rcgen::KeyPair::generate().unwrap().serialize_pem()),
            "MASTER_KEY" => Some("07".repeat(32)),
            _ => (!name.starts_with("POSTERN_")).then(|| "0123456789abcdef".into()),
        }
    }

    fn variables(&self, _: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|e| e.to_string())
    }

    fn fetch(&self, asked: BTreeSet<Ask>, settings: Settings) -> Answers {
        System.fetch(asked, settings)
    }
}

fn reference() -> (load::Options, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    (load::Options { file: Some(file), ..Default::default() }, text)
}

/// The way to every map of the tree, by its place. What the schema has no name for is `*`.
fn ways(node: &Node, spot: Option<Spot>, way: &str, into: &mut BTreeMap<(u16, u32), String>) {
    match &node.value {
        Value::Map(entries) => {
            into.insert((node.place.file, node.place.start), way.to_owned());
            for entry in entries {
                let named = spot.as_ref().is_some_and(|s| s.keys().any(|k| k == &*entry.key));
                let key = if named { &*entry.key } else { "*" };
                let below = spot.as_ref().and_then(|s| s.under(&entry.key));
                ways(&entry.node, below, &format!("{way}.{key}"), into);
            }
        }
        Value::List(items) => {
            let item = spot.and_then(|s| s.item());
            items.iter().for_each(|n| ways(n, item.clone(), way, into));
        }
        _ => {}
    }
}

/// What the code asked for while it read the reference: by way, the keys, and whether they are built.
fn asked() -> BTreeMap<String, BTreeMap<&'static str, bool>> {
    let (options, _) = reference();
    let loaded = load::load(&options, &Anything).unwrap();
    let tree = loaded.tree.unwrap();
    let mut places = BTreeMap::new();
    ways(&tree, Some(Spot::root()), "", &mut places);
    assert!(
        plan::build(&tree, None, Tokens::new(Clock::system()), &loaded.folders, &loaded.problems, &mut Vec::new()).is_some()
            && !loaded.problems.any_error(),
        "{:?}",
        loaded.problems
    );
    let mut all: BTreeMap<String, BTreeMap<&'static str, bool>> = BTreeMap::new();
    for (Place { file, start, .. }, key, built) in loaded.problems.asked() {
        if let Some(way) = places.get(&(file, start)) {
            *all.entry(way.clone()).or_default().entry(key).or_insert(true) &= built;
        }
    }
    all
}

fn spot(way: &str) -> Spot {
    let keys = way.split('.').filter(|k| !k.is_empty());
    keys.fold(Spot::root(), |spot, key| keyed(spot.under(key).unwrap_or_else(|| panic!("config/schema.json has no `{way}`"))))
}

/// The spot itself, or that of its items where only they have keys.
fn keyed(spot: Spot) -> Spot {
    let has_keys = spot.keys().next().is_some();
    if has_keys { spot } else { spot.item().unwrap_or(spot) }
}

const ADVICE: &str = "a built key stands in config/schema.json without `x-unbuilt: true`, and in config/reference.yaml with its default";

#[test]
fn the_code_and_the_schema_know_the_same_keys() {
    let mut wrong = Vec::new();
    for (way, keys) in asked() {
        let spot = spot(&way);
        let known: BTreeSet<&str> = spot.keys().collect();
        for key in known.iter().filter(|k| !keys.contains_key(**k)) {
            wrong.push(format!("the schema knows `{way}.{key}`, the code does not ask for it"));
        }
        for (key, built) in &keys {
            if !known.contains(key) {
                wrong.push(format!("the code asks for `{way}.{key}`, the schema does not know it"));
                continue;
            }
            match (built, spot.mark(key)) {
                (true, Some(Some(()))) => wrong.push(format!("`{way}.{key}` is built, and the schema marks it x-unbuilt")),
                (false, None) => wrong.push(format!("`{way}.{key}` is unbuilt, and the schema does not mark it")),
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{ADVICE}\n{}", wrong.join("\n"));
}

#[test]
fn the_reference_shows_every_block_and_every_key() {
    let all = asked();
    let mut missing = Vec::new();
    blocks("", &Spot::root(), &all, &mut missing);
    // What several schemes have in common is shown under one of them.
    let elsewhere = |way: &String| {
        let rest = way.split_once(".auth.").and_then(|(_, scheme)| scheme.split_once('.')).map(|(_, rest)| format!(".{rest}"));
        rest.is_some_and(|rest| all.keys().any(|other| other.contains(".auth.") && other.ends_with(&rest)))
    };
    missing.retain(|way| !elsewhere(way));
    let (_, text) = reference();
    for (way, keys) in &all {
        for key in keys.iter().filter(|(_, built)| **built).map(|(key, _)| key) {
            let shown =
                text.match_indices(&format!("{key}:")).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if !shown {
                missing.push(format!("{way}.{key}"));
            }
        }
    }
    assert!(missing.is_empty(), "{ADVICE}; missing in the reference: {missing:#?}");
}

/// Every block of the schema that is built must have been read.
fn blocks(way: &str, spot: &Spot, all: &BTreeMap<String, BTreeMap<&'static str, bool>>, missing: &mut Vec<String>) {
    // An environment holds the whole again, `defaults` a resource, a route what a resource has, a step and a credential a
    // scheme.
    let again = [".environments", ".defaults"].iter().any(|part| way.starts_with(part));
    if again || way.contains(".routes.") || way.contains(".credentials.") || way.ends_with(".steps.auth") {
        return;
    }
    let spot = keyed(spot.clone());
    let keys: Vec<&str> = spot.keys().collect();
    if !keys.is_empty() && !all.contains_key(way) && !way.ends_with(".auth") && ![".store", ".resources.*.redirects"].contains(&way) {
        missing.push(way.to_owned());
    }
    for key in keys {
        if spot.mark(key) != Some(Some(()))
            && let Some(below) = spot.under(key)
        {
            blocks(&format!("{way}.{key}"), &below, all, missing);
        }
    }
    if let Some(free) = spot.free() {
        blocks(&format!("{way}.*"), &free, all, missing);
    }
}

#[test]
fn the_schemes_of_the_code_are_those_of_the_schema() {
    let auth = spot(".resources.*.auth");
    let code: BTreeMap<&str, bool> = crate::auth::schemes().collect();
    // What names a credential is none itself.
    let schema: BTreeMap<&str, bool> = auth.keys().filter(|key| *key != "use").map(|key| (key, auth.mark(key).is_none())).collect();
    assert_eq!(code, schema, "{ADVICE}");
}

#[test]
fn the_schema_is_tidy() {
    assert!(!TEXT.contains('\t') && TEXT.ends_with("}\n"));
}
