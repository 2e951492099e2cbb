//! `store` and `master_key`.

use std::path::PathBuf;

use super::MasterKey;
use crate::tree::{Fields, Folders, Node, Problems, Value};

/// Most keys in a rotation.
const KEYS_MAX: usize = 16;

/// Where records live.
#[derive(Clone, Debug, PartialEq)]
pub enum Backend {
    /// As long as the process (the default).
    Memory,
    /// In this folder.
    File(PathBuf),
}

/// What the configuration says of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where records live.
    pub backend: Backend,
    /// `master_key`: the first seals, all open.
    pub keys: Vec<MasterKey>,
}

impl Default for Config {
    fn default() -> Self {
        Self { backend: Backend::Memory, keys: Vec::new() }
    }
}

impl Config {
    /// Reads both keys. `folders` says where relative paths begin (ruling C3).
    pub fn read(fields: &Fields<'_>, folders: &Folders, problems: &Problems) -> Self {
        let keys: Vec<MasterKey> = fields.items("master_key").iter().filter_map(|node| key(node, problems)).collect();
        if keys.len() > KEYS_MAX {
            problems.error(fields.key_place("master_key"), format!("more than {KEYS_MAX} keys"), "drop the oldest");
        }
        let backend = fields.node("store").map_or(Backend::Memory, |node| backend(node, folders, problems));
        Self { backend, keys }
    }

    /// Whether records outlive the process.
    pub fn is_durable(&self) -> bool {
        !matches!(self.backend, Backend::Memory)
    }
}

fn key(node: &Node, problems: &Problems) -> Option<MasterKey> {
    let text = node.secret(problems)?;
    let key = MasterKey::parse(text.expose());
    if key.is_none() {
        problems.error(node.place, "a master key is 32 bytes in base64 or hexadecimal", "make one: openssl rand -base64 32");
    }
    key
}

fn backend(node: &Node, folders: &Folders, problems: &Problems) -> Backend {
    let wrong = |node: &Node| {
        problems.error(node.place, format!("expected a kind of store, found {}", node.shown()), "memory, or { file: { path: ./data } }");
        Backend::Memory
    };
    match (&node.value, node.word()) {
        (_, Some("memory")) => Backend::Memory,
        (_, Some("file")) => Backend::File(folders.join(node.place, "data")),
        (Value::Map(entries), _) if entries.len() == 1 => match &*entries[0].key {
            "memory" => Backend::Memory,
            "file" => file(&entries[0].node, folders, problems),
            "redis" => {
                problems.error(
                    entries[0].place,
                    "the store `redis` is not built into this version",
                    "memory, or { file: { path: ./data } }",
                );
                Backend::Memory
            }
            other => {
                problems.error(entries[0].place, format!("unknown kind of store `{other}`"), "memory, or { file: { path: ./data } }");
                Backend::Memory
            }
        },
        _ => wrong(node),
    }
}

fn file(node: &Node, folders: &Folders, problems: &Problems) -> Backend {
    if node.is_null() {
        return Backend::File(folders.join(node.place, "data"));
    }
    let Some(fields) = Fields::of(node, "a map with `path`", problems) else { return Backend::Memory };
    let path = fields.text("path").unwrap_or_else(|| "data".into());
    fields.finish();
    Backend::File(folders.join(node.place, path))
}
