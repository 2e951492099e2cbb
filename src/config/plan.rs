//! Walks the root of the tree: who gets which key, and what comes of it, or everything that is wrong.

use std::sync::Arc;

use super::load::{Loaded, RESOURCES};
use super::{listen, problem, resource};
use crate::audit;
use crate::middleware::shape;
use crate::secret::Mask;
use crate::tree::{Entry, Fields, Folders, Node, Problem, Problems, closest};

/// Longest name of a resource.
const NAME_MAX: usize = 63;
/// Top-level keys of the contract that this build lacks.
const UNBUILT: [&str; 4] = ["connect", "master_key", "clients", "policies"];

/// A configuration that can run.
#[derive(Debug)]
pub struct Plan {
    /// Tells versions of the configuration apart.
    pub version: String,
    /// The environment that applies.
    pub environment: Option<Arc<str>>,
    /// The listening side.
    pub listening: listen::Root,
    /// `audit`.
    pub audit: audit::Config,
    /// The resources.
    pub resources: Vec<resource::Plan>,
    /// Finds the secrets that belong to no resource.
    pub mask: Mask,
}

/// Builds the plan. Returns it with its warnings, or everything that is wrong; the files are for the report.
///
/// # Errors
/// Every problem, if at least one of them is an error.
pub fn plan(loaded: Loaded) -> (Result<Plan, ()>, Vec<Problem>, Vec<problem::File>) {
    let Loaded { mut files, environment, tree, folders, version, problems, .. } = loaded;
    let plan = tree.as_ref().and_then(|tree| build(tree, &folders, &problems));
    let failed = problems.any_error();
    let mut problems = problems.into_sorted();
    problem::hide(&mut problems, &mut files, tree.as_ref());
    match plan {
        Some(plan) if !failed => (Ok(Plan { version, environment, ..plan }), problems, files),
        _ => (Err(()), problems, files),
    }
}

fn build(tree: &Node, folders: &Folders, problems: &Problems) -> Option<Plan> {
    let fields = Fields::of(tree, "a map", problems)?;
    let literal = fields.flag("allow_literal_secrets", false);
    problems.allow_literal_secrets(literal);
    fields.unbuilt_all(&UNBUILT);
    fields.unbuilt("allow_exec", Node::is_off);
    fields.unbuilt("store", |n| n.word() == Some("memory"));
    // Layers and references have been laid and resolved already; nothing else reads these.
    for key in ["vars", "environment", "environments", "defaults"] {
        fields.raw(key);
    }
    if let Some(node) = fields.node("environments") {
        problems.error(node.place, format!("expected a map of environments by name, found {}", node.kind()), "");
    }
    let listening = listen::read(&fields, folders, problems);
    let audit = audit::Config::read(fields.node("audit"), folders, problems);
    let mask = Mask::new(&problems.take_secrets());
    let gateway = shape::Gateway::new(&listening.server.name, env!("CARGO_PKG_VERSION"), listening.server.trusted_proxies.clone());
    let context = resource::Context { folders, gateway: Arc::new(gateway) };
    let resources = match fields.node(RESOURCES) {
        Some(node) => resources(node, &context, problems),
        None => Vec::new(),
    };
    finish(&fields, tree, problems);
    Some(Plan { version: String::new(), environment: None, listening, audit, resources, mask })
}

fn resources(node: &Node, context: &resource::Context<'_>, problems: &Problems) -> Vec<resource::Plan> {
    if Fields::of(node, "a map of resources by name", problems).is_none() {
        return Vec::new();
    }
    node.entries().iter().filter(|e| named_well(e, problems)).filter_map(|e| resource::read(&e.key, &e.node, context, problems)).collect()
}

/// Whether a resource can have this name under `/r/`.
pub fn is_resource_name(name: &str) -> bool {
    let name = name.as_bytes();
    name.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && name.len() <= NAME_MAX
        && name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(b))
}

fn named_well(entry: &Entry, problems: &Problems) -> bool {
    let good = is_resource_name(&entry.key);
    if !good {
        problems.error(
            entry.place,
            format!("`{}` is no name for a resource", entry.key),
            "up to 63 of a-z, 0-9, `_` and `-`, beginning with a letter or digit",
        );
    }
    good
}

/// Unknown keys, but for those that begin with `x-`: a home for anchors (ruling A2).
fn finish(fields: &Fields<'_>, tree: &Node, problems: &Problems) {
    let known = fields.known();
    for entry in tree.entries() {
        if !entry.key.starts_with("x-") && !known.contains(&&*entry.key) {
            problems.error(entry.place, format!("unknown key `{}`", entry.key), closest(&entry.key, &known));
        }
    }
}
