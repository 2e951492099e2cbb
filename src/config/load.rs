//! Finds and reads the configuration, and walks its root: who gets which key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::references::{self, Sources};
use super::{listen, problem, raw, resource};
use crate::audit;
use crate::middleware::shape;
use crate::secret::Mask;
use crate::tree::{Entry, Fields, Node, Place, Problem, Problems, closest};

/// What runs when nothing is configured: the quick start, which needs nothing from outside.
const EMBEDDED: &str = include_str!("../../config/postern.yaml");
const EMBEDDED_NAME: &str = "<embedded>";
/// Longest name of a resource.
const NAME_MAX: usize = 63;
/// Top-level keys of the contract that this build lacks.
const UNBUILT: [&str; 8] = ["connect", "defaults", "environment", "environments", "master_key", "clients", "policies", "presets"];

/// A configuration as it was read, with everything that was wrong so far.
#[derive(Debug)]
pub struct Loaded {
    /// The files, for the report.
    pub files: Vec<problem::File>,
    /// The tree with its references resolved.
    tree: Option<Node>,
    /// Where relative paths begin.
    folder: PathBuf,
    /// Tells versions of the configuration apart.
    version: String,
    problems: Problems,
}

/// No file where one was named.
#[derive(Debug)]
pub struct NotFound {
    /// The name.
    pub path: PathBuf,
    /// The system's word.
    pub why: std::io::Error,
}

impl std::fmt::Display for NotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the configuration {} cannot be read: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for NotFound {}

/// Loads the configuration: the file named by the command line or by `POSTERN_CONFIG`, the first of the usual places,
/// or the embedded one.
///
/// # Errors
/// [`NotFound`] if a file was named, or stands in a usual place, and cannot be read.
pub fn load(named: Option<&Path>, sources: &dyn Sources) -> Result<Loaded, NotFound> {
    let named = named.map(Path::to_path_buf).or_else(|| sources.env("POSTERN_CONFIG").filter(|p| !p.is_empty()).map(PathBuf::from));
    let path = named.or_else(|| usual(sources).into_iter().find(|p| p.exists()));
    let (name, text) = match &path {
        Some(path) => (path.display().to_string(), std::fs::read_to_string(path).map_err(|why| NotFound { path: path.clone(), why })?),
        None => (EMBEDDED_NAME.to_owned(), EMBEDDED.to_owned()),
    };
    let folder = path.as_deref().map_or_else(|| PathBuf::from("."), resource::folder_of);
    let problems = Problems::default();
    let mut tree = raw::parse(&text, 0, &problems);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let version = digest.as_ref().iter().take(6).map(|b| format!("{b:02x}")).collect();
    if let Some(tree) = &mut tree {
        references::resolve(tree, &folder, sources, &problems);
    }
    let files = vec![problem::File { name, text, tree: None }];
    Ok(Loaded { files, tree, folder, version, problems })
}

/// Where a configuration may stand, first to last.
fn usual(sources: &dyn Sources) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("config/postern.yaml"), PathBuf::from("postern.yaml")];
    let home = sources.env("XDG_CONFIG_HOME").filter(|h| !h.is_empty()).map(PathBuf::from);
    let home = home.or_else(|| sources.env("HOME").filter(|h| !h.is_empty()).map(|h| Path::new(&h).join(".config")));
    places.extend(home.map(|h| h.join("postern/postern.yaml")));
    places.push(PathBuf::from("/etc/postern/postern.yaml"));
    places
}

/// A configuration that can run.
#[derive(Debug)]
pub struct Plan {
    /// Tells versions of the configuration apart.
    pub version: String,
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
    let Loaded { mut files, tree, folder, version, problems } = loaded;
    let plan = tree.as_ref().and_then(|tree| build(tree, &folder, version, &problems));
    let failed = problems.any_error();
    let mut problems = problems.into_sorted();
    if let Some(tree) = &tree {
        problems.iter_mut().for_each(|p| hide(p, tree));
    }
    if let Some(file) = files.first_mut() {
        file.tree = tree;
    }
    match plan {
        Some(plan) if !failed => (Ok(plan), problems, files),
        _ => (Err(()), problems, files),
    }
}

/// A second wall: whoever finds a problem writes no secret into it, and should one have, it is found here by value.
fn hide(problem: &mut Problem, tree: &Node) {
    let mut secrets = Vec::new();
    tree.at(problem.place).secrets(&mut secrets);
    if secrets.is_empty() {
        return;
    }
    let mask = Mask::new(&secrets);
    for text in [&mut problem.message, &mut problem.hint] {
        if let Some(masked) = mask.apply(text) {
            *text = masked;
        }
    }
}

fn build(tree: &Node, folder: &Path, version: String, problems: &Problems) -> Option<Plan> {
    let fields = Fields::of(tree, "a map", problems)?;
    let literal = fields.flag("allow_literal_secrets", false);
    problems.allow_literal_secrets(literal);
    fields.unbuilt_all(&UNBUILT);
    fields.unbuilt("allow_exec", Node::is_off);
    fields.unbuilt("store", |n| n.word() == Some("memory"));
    // Resolved already; nothing else reads them.
    fields.raw("vars");
    let listening = listen::read(&fields, folder, problems);
    let folder_of = |_: Place| folder.to_path_buf();
    let audit = audit::Config::read(fields.node("audit"), &folder_of, problems);
    let mask = Mask::new(&problems.take_secrets());
    let gateway = shape::Gateway::new(&listening.server.name, env!("CARGO_PKG_VERSION"), listening.server.trusted_proxies.clone());
    let context = resource::Context { folder: &folder_of, gateway: Arc::new(gateway) };
    let resources = match fields.node("resources") {
        Some(node) => resources(node, &context, problems),
        None => Vec::new(),
    };
    finish(&fields, tree, problems);
    Some(Plan { version, listening, audit, resources, mask })
}

fn resources(node: &Node, context: &resource::Context<'_>, problems: &Problems) -> Vec<resource::Plan> {
    if Fields::of(node, "a map of resources by name", problems).is_none() {
        return Vec::new();
    }
    node.entries().iter().filter(|e| named_well(e, problems)).filter_map(|e| resource::read(&e.key, &e.node, context, problems)).collect()
}

fn named_well(entry: &Entry, problems: &Problems) -> bool {
    let name = entry.key.as_bytes();
    let good = name.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && name.len() <= NAME_MAX
        && name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(b));
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
