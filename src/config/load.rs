//! Finds the configuration and reads every layer of it into one tree: the file, `resources/`
//! beside it, the environment that applies, variables, flags; then `defaults` and presets under each resource. What
//! the keys mean is `config::plan`'s affair.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::environment::{self, Chosen, Said};
use super::noting::Noting;
use super::problem::{self, File};
use super::references::{self, Sources};
use super::{layers, preset, raw, settings};
use crate::file::Seen;
use crate::tree::{Entry, Folders, Node, Place, Problems, Value};

/// What runs when nothing is configured: the quick start, which needs nothing from outside.
const EMBEDDED: &str = include_str!("../../config/postern.yaml");
const EMBEDDED_NAME: &str = "<embedded>";
/// The folder of resources beside the file.
pub const RESOURCES: &str = "resources";
/// Most files of a set; a place has room for so many.
const FILES_MAX: usize = 50_000;
/// Endings of the files that are read from a folder.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--env`.
    pub environment: Option<String>,
    /// `--set`, each `key.path=value`.
    pub set: Vec<String>,
}

/// A configuration as it was read, with everything that was wrong so far.
#[derive(Debug)]
pub struct Loaded {
    /// Everything that was read, for the report.
    pub files: Vec<File>,
    /// Every file and folder that was read or looked for: when one changes, so may the configuration. Each as it was before
    /// it was read, as what changes while it is read has changed since.
    pub seen: Vec<Seen>,
    /// The environment that applies.
    pub environment: Option<Arc<str>>,
    /// The variables of the environment that references, presets and layers have read.
    pub variables: BTreeSet<String>,
    /// All layers in one, references resolved.
    pub(super) tree: Option<Node>,
    /// Where relative paths begin.
    pub(super) folders: Folders,
    /// Tells versions of the configuration apart.
    pub(super) version: String,
    pub(super) problems: Problems,
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
/// or the embedded one; and whatever lies over it. It keeps nothing between two calls.
///
/// # Errors
/// [`NotFound`] if a file was named, or stands in a usual place, and cannot be read.
pub fn load(options: &Options, sources: &dyn Sources) -> Result<Loaded, NotFound> {
    let (path, looked) = found(options, sources);
    let mut reading = Reading::new(path.as_deref().map(folder_of), looked);
    let main = match &path {
        Some(path) => {
            let text = read_text(path).map_err(|why| NotFound { path: path.clone(), why })?;
            reading.parse(path.display().to_string(), text, folder_of(path), "")
        }
        None => reading.parse(EMBEDDED_NAME.into(), EMBEDDED.into(), ".".into(), ""),
    };
    // A file that is no YAML hides nothing of what is wrong with the others.
    let whole = main.is_some();
    let mut tree = main.unwrap_or(Node { place: Place::default(), value: Value::Map(Vec::new()) });
    resources(&mut tree, &mut reading);
    let chosen = whole.then(|| environment::choose(&mut tree, said(options, sources), &mut reading)).flatten();
    let environment = chosen.as_ref().map(|c| c.name.clone());
    if let Some(overlay) = chosen.and_then(|Chosen { overlay, .. }| overlay) {
        layers::merge(&mut tree, overlay);
    }
    let sources = Noting::new(sources);
    settings::variables(&mut tree, &sources.variables(settings::PREFIX), &mut reading);
    settings::flags(&mut tree, &options.set, &mut reading);
    preset::lay(&mut tree, &sources, &mut reading);
    references::resolve(&mut tree, &reading.folders, &sources, &reading.problems);
    let version = reading.version();
    let Reading { files, folders, problems, seen, .. } = reading;
    Ok(Loaded { files, seen, environment, variables: sources.into_names(), tree: whole.then_some(tree), folders, version, problems })
}

/// The file that counts, where there is one.
pub fn find(options: &Options, sources: &dyn Sources) -> Option<PathBuf> {
    found(options, sources).0
}

/// The file that counts, and every place that was looked at for it.
fn found(options: &Options, sources: &dyn Sources) -> (Option<PathBuf>, Vec<Seen>) {
    if let Some(named) = options.file.clone().or_else(|| set(sources, "POSTERN_CONFIG").map(PathBuf::from)) {
        let seen = Seen::look(&named);
        return (Some(named), vec![seen]);
    }
    let mut looked = Vec::new();
    for place in usual(sources) {
        let seen = Seen::look(&place);
        let is_there = seen.stamp.is_some();
        looked.push(seen);
        if is_there {
            return (Some(place), looked);
        }
    }
    (None, looked)
}

/// Where a configuration may stand, first to last.
fn usual(sources: &dyn Sources) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("config/postern.yaml"), PathBuf::from("postern.yaml")];
    let home = set(sources, "XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| set(sources, "HOME").map(|h| Path::new(&h).join(".config")));
    places.extend(home.map(|h| h.join("postern/postern.yaml")));
    places.push(PathBuf::from("/etc/postern/postern.yaml"));
    places
}

/// A variable that is set and not empty.
fn set(sources: &dyn Sources, name: &str) -> Option<String> {
    sources.env(name).filter(|value| !value.is_empty())
}

/// Who names the environment from outside: the flags, then the variables.
fn said(options: &Options, sources: &dyn Sources) -> Option<Said> {
    if let Some(name) = &options.environment {
        return Some(Said { by: "--env".into(), text: name.clone(), name: name.clone() });
    }
    if let Some((text, name)) = options.set.iter().rev().find_map(|s| Some((s, s.strip_prefix("environment=")?))) {
        return Some(Said { by: "--set".into(), text: text.clone(), name: name.to_owned() });
    }
    ["POSTERN_ENV", "POSTERN_ENVIRONMENT"].into_iter().find_map(|variable| {
        let name = set(sources, variable)?;
        Some(Said { by: format!("environment variable {variable}"), text: format!("{variable}={name}"), name })
    })
}

/// The files of `resources/`: the stem is the name, the body is one resource (ruling C14).
fn resources(tree: &mut Node, reading: &mut Reading) {
    let stems = reading.folder(RESOURCES);
    if stems.is_empty() {
        return;
    }
    let Value::Map(root) = &mut tree.value else { return };
    let at = root.iter().position(|e| &*e.key == RESOURCES).unwrap_or_else(|| {
        let node = Node { place: Place::default(), value: Value::Map(Vec::new()) };
        root.push(Entry { key: RESOURCES.into(), place: Place::default(), node });
        root.len() - 1
    });
    if root[at].node.is_null() {
        root[at].node.value = Value::Map(Vec::new());
    }
    // Anything but a map is reported by whoever reads it.
    let Value::Map(resources) = &mut root[at].node.value else { return };
    let written: BTreeMap<Box<str>, Place> = resources.iter().map(|e| (e.key.clone(), e.place)).collect();
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    for Stem { name, path } in stems {
        let Some(node) = reading.read(&path, &format!("{RESOURCES}.{name}")) else { continue };
        let first = written.get(&*name).map(|place| format!("in line {} of the main file", place.line));
        let first = first.or_else(|| seen.get(&name).map(|other| format!("in {}", other.display())));
        if let Some(first) = first {
            let message = format!("the resource `{name}` is there twice: {first}, and in {}", path.display());
            reading.problems.error(node.place, message, "remove one of them; what differs in one place goes into an environment");
            continue;
        }
        seen.insert(name.clone(), path);
        let place = Place { end: node.place.start, ..node.place };
        resources.push(Entry { key: name.into(), place, node });
    }
}

/// A file of a folder whose stem is a name.
#[derive(Debug)]
pub struct Stem {
    /// The name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// What has been read so far.
pub struct Reading {
    pub(super) files: Vec<File>,
    pub(super) folders: Folders,
    pub(super) problems: Problems,
    seen: Vec<Seen>,
    /// The folder of the main file; none where it is embedded.
    folder: Option<PathBuf>,
}

impl Reading {
    fn new(folder: Option<PathBuf>, seen: Vec<Seen>) -> Self {
        Self { files: Vec::new(), folders: Folders::default(), problems: Problems::default(), seen, folder }
    }

    /// The files of a folder beside the main file, by name. Hidden ones are passed over: Kubernetes keeps its own there.
    pub fn folder(&mut self, name: &str) -> Vec<Stem> {
        let Some(folder) = self.folder.as_ref().map(|f| f.join(name)) else { return Vec::new() };
        // Watched even while it is not there, as it may come.
        self.seen.push(Seen::look(&folder));
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound || why.kind() == std::io::ErrorKind::NotADirectory => return Vec::new(),
            Err(why) => {
                self.problems.error(Place::default(), format!("the folder {} cannot be read: {why}", folder.display()), "");
                return Vec::new();
            }
        };
        let mut stems = Vec::new();
        for path in entries.flatten().map(|e| e.path()).take(FILES_MAX + 1) {
            let (Some(stem), Some(ending)) = (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|e| e.to_str())) else {
                continue;
            };
            if stem.starts_with('.') {
                continue;
            }
            if ending == "toml" {
                let message = format!("{} is TOML, which is not read", path.display());
                self.problems.error(Place::default(), message, "write YAML or JSON");
            } else if ENDINGS.contains(&ending) && path.is_file() {
                stems.push(Stem { name: stem.to_owned(), path });
            }
        }
        stems.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        stems
    }

    /// Reads and parses a file. `None` after an error was reported.
    pub fn read(&mut self, path: &Path, prefix: &str) -> Option<Node> {
        self.seen.push(Seen::look(path));
        if self.files.len() >= FILES_MAX {
            self.problems.error(Place::default(), format!("more than {FILES_MAX} files"), "fewer and larger files");
            return None;
        }
        let name = path.display().to_string();
        match read_text(path) {
            Ok(text) => self.parse(name, text, folder_of(path), prefix),
            Err(why) => {
                self.problems.error(Place::default(), format!("{name} cannot be read: {why}"), "");
                None
            }
        }
    }

    fn parse(&mut self, name: String, text: String, folder: PathBuf, prefix: &str) -> Option<Node> {
        let index = self.index();
        let node = raw::parse(&text, index, &self.problems);
        self.folders.push(folder);
        let veiled = node.as_ref().map(|node| problem::veiled(node, &text));
        self.files.push(File { name, text, prefix: prefix.to_owned(), veiled, tree: None });
        node
    }

    /// Adds what is no file but can be shown like one; its relative paths begin at the working directory.
    pub fn pseudo(&mut self, name: String, text: String) -> u16 {
        let index = self.index();
        self.folders.push(".".into());
        self.files.push(File { name, text, ..File::default() });
        index
    }

    fn index(&self) -> u16 {
        u16::try_from(self.files.len()).unwrap_or(u16::MAX)
    }

    /// A digest of everything that was read, without the values that may be secrets.
    fn version(&self) -> String {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for file in &self.files {
            match &file.tree {
                // A variable or a flag.
                Some(_) => digest.update(file.blanked().as_bytes()),
                None => digest.update(file.text.as_bytes()),
            }
            digest.update(&[0]);
        }
        digest.finish().as_ref().iter().take(6).map(|b| format!("{b:02x}")).collect()
    }
}

/// The text of a file, as far as it may be read at all.
fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    // One byte more than allowed: the parser then says that it is too large.
    std::fs::File::open(path)?.take(raw::BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// The folder of a file.
pub fn folder_of(file: &Path) -> PathBuf {
    file.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| ".".into(), Path::to_path_buf)
}
