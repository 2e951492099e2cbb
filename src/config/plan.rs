//! Walks the root of the tree: who gets which key, and what comes of it, or everything that is wrong.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::load::{Loaded, NotFound, Options, RESOURCES};
use super::references::Sources;
use super::restart::Fixed;
use super::{listen, problem, resource};
use crate::audit;
use crate::auth::grant::Tokens;
use crate::clock::Clock;
use crate::digest::{Digest, Digester};
use crate::file::Seen;
use crate::middleware::shape;
use crate::secret::Mask;
use crate::secrets::settings;
use crate::store;
use crate::tree::{Entry, Fields, Folders, Node, Place, Problem, Problems, closest};

/// Longest name of a resource.
const NAME_MAX: usize = 63;
/// Top-level keys of the contract that this build lacks.
const UNBUILT: [&str; 2] = ["clients", "policies"];

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
    /// `store` and `master_key`.
    pub store: store::Config,
    /// All grants; those of a gateway that runs already are the same ones.
    pub tokens: Tokens,
}

/// What became of a configuration.
#[derive(Debug)]
pub struct Outcome {
    /// The plan, unless something is wrong.
    pub plan: Option<Plan>,
    /// Everything that is wrong, and the warnings.
    pub problems: Vec<Problem>,
    /// The files, for the report.
    pub files: Vec<problem::File>,
    /// The whole configuration, references resolved: every value knows where it was said.
    pub tree: Option<Node>,
    /// The variables of the environment that references, presets and layers have read.
    pub variables: BTreeSet<String>,
    /// The files that were read and the places that were looked at: when one changes, so may the plan.
    pub seen: Vec<Seen>,
}

/// Builds the plan. There is none if at least one problem is an error.
pub fn plan(loaded: Loaded) -> Outcome {
    judged(loaded, None)
}

/// Builds a plan for a gateway that runs already: to change what is fixed is an error too.
pub fn plan_over(loaded: Loaded, fixed: &Fixed) -> Outcome {
    judged(loaded, Some(fixed))
}

fn judged(loaded: Loaded, fixed: Option<&Fixed>) -> Outcome {
    let Loaded { mut files, environment, variables, tree, folders, version, problems, mut seen } = loaded;
    let plan = tree.as_ref().and_then(|tree| {
        let tokens = fixed.map_or_else(|| Tokens::new(Clock::system()), |fixed| fixed.tokens().clone());
        let plan = build(tree, environment.clone(), tokens, &folders, &problems, &mut seen)?;
        fixed.into_iter().for_each(|fixed| fixed.judge(&plan, tree, &problems));
        Some(Plan { version: version.clone(), ..plan })
    });
    seen.extend(problems.take_seen());
    let failed = problems.any_error();
    let mut problems = problems.into_sorted();
    problem::hide(&mut problems, &mut files, tree.as_ref());
    Outcome { plan: plan.filter(|_| !failed), problems, files, tree, variables, seen }
}

pub(super) fn build(
    tree: &Node,
    environment: Option<Arc<str>>,
    tokens: Tokens,
    folders: &Folders,
    problems: &Problems,
    seen: &mut Vec<Seen>,
) -> Option<Plan> {
    let fields = Fields::of(tree, "a map", problems)?;
    let literal = fields.flag("allow_literal_secrets", false);
    problems.allow_literal_secrets(literal);
    fields.unbuilt_all(&UNBUILT);
    // Layers and references have been laid and resolved already; nothing else reads these.
    for key in ["vars", "environment", "environments", "defaults"].into_iter().chain(settings::KEYS) {
        fields.raw(key);
    }
    if let Some(node) = fields.node("environments") {
        problems.error(node.place, format!("expected a map of environments by name, found {}", node.kind()), "");
    }
    let listening = listen::read(&fields, folders, problems);
    let audit = audit::Config::read(fields.node("audit"), folders, problems);
    let store = store::Config::read(&fields, folders, problems);
    let mask = Mask::new(&problems.take_secrets());
    let gateway = shape::Gateway::new(&listening.server.name, env!("CARGO_PKG_VERSION"), listening.server.trusted_proxies.clone());
    seen.extend(problems.take_seen());
    let seen = RefCell::new(seen);
    let saw = |more| seen.borrow_mut().extend(more);
    let context = resource::Context {
        folders,
        gateway: Arc::new(gateway),
        vars: tree.get("vars"),
        digest: common(tree, environment.as_deref(), &listening),
        saw: &saw,
        environment: environment.clone().unwrap_or_default(),
        tokens: &tokens,
        durable: store.is_durable(),
        commands: commands(tree, folders, problems),
    };
    let resources = match fields.node(RESOURCES) {
        Some(node) => resources(node, &context, problems),
        None => Vec::new(),
    };
    finish(&fields, tree, problems);
    Some(Plan { version: String::new(), environment, listening, audit, resources, mask, store, tokens })
}

/// The folder where commands run, where the main file allows them (ruling G7); that no other does is judged by
/// `secrets::settings`.
fn commands(tree: &Node, folders: &Folders, problems: &Problems) -> Option<PathBuf> {
    let allowed = tree.get("allow_exec").filter(|node| node.place.file == 0)?.flag(problems)?;
    let folder = folders.join(Place::default(), "");
    allowed.then(|| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder })
}

/// What every resource is built from besides its own keys.
fn common(tree: &Node, environment: Option<&str>, listening: &listen::Root) -> Digest {
    let mut digester = Digester::new();
    digester.bytes(listening.server.name.as_bytes());
    digester.bytes(environment.unwrap_or_default().as_bytes());
    for key in ["vars", "allow_literal_secrets", "allow_exec"] {
        digester.bytes(key.as_bytes());
        tree.get(key).into_iter().for_each(|n| n.feed(&mut digester));
    }
    let trusted = tree.get("server").and_then(|n| n.get("trusted_proxies"));
    trusted.into_iter().for_each(|n| n.feed(&mut digester));
    digester.finish()
}

fn resources(node: &Node, context: &resource::Context<'_>, problems: &Problems) -> Vec<resource::Plan> {
    if Fields::of(node, "a map of resources by name", problems).is_none() {
        return Vec::new();
    }
    let read = |e: &Entry| {
        let plan = resource::read(&e.key, &e.node, context, problems);
        if plan.is_none() && !problems.any_error() {
            // Nothing is left out quietly, not even by a defect.
            problems.error(e.place, "this resource cannot be read, and nothing says why: a defect of this version", "please report it");
        }
        plan
    };
    node.entries().iter().filter(|e| named_well(e, problems)).filter_map(read).collect()
}

/// Where a running gateway tells about its health: `health`, else `admin`. What is wrong with all the rest plays no
/// part, as a gateway goes on with what it has when its configuration is broken.
///
/// # Errors
/// [`NotFound`] if there is no configuration to look into.
pub fn health_address(options: &Options, sources: &dyn Sources) -> Result<Option<SocketAddr>, NotFound> {
    let Loaded { tree, folders, .. } = super::load(options, sources)?;
    let problems = Problems::default();
    let listening = tree.as_ref().and_then(|tree| Some(listen::read(&Fields::of(tree, "a map", &problems)?, &folders, &problems)));
    Ok(listening.and_then(|l| l.health.or(l.admin)))
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
