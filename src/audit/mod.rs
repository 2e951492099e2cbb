//! The audit log: one line of JSON for every request, written off the hot path (ruling H7).
//!
//! A core formats lines into a buffer of its own; a full or second-old buffer goes to one writer thread. Room for a
//! line is reserved before the upstream is called; what `audit.on_full` says happens when there is none (ruling A4).

mod core;
mod file;
mod line;
mod writer;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::core::{CoreAudit, Room};
pub use file::Rotate;
pub use line::{Redact, estimate};

use arc_swap::ArcSwap;

use crate::secret::Mask;
use crate::tree::{Fields, Folders, Node, Problems};
use writer::{Order, Sink, Writer};

/// What happens to a call when there is no room for its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// It waits, and is refused in the end.
    Block,
    /// It is served, and its record is counted as dropped.
    Drop,
}

/// When a record is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Within a second.
    Batch,
    /// Before the last byte of the answer leaves.
    Always,
}

/// `audit`, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    on_full: OnFull,
    sync: Sync,
    redact: Redact,
    sinks: Vec<Target>,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Stdout,
    File(PathBuf, Rotate),
}

impl Config {
    /// Reads `audit`; without it lines go to standard output (ruling C28). `folders` says
    /// where relative paths begin.
    pub fn read(node: Option<&Node>, folders: &Folders, problems: &Problems) -> Self {
        let mut config = Self { on_full: OnFull::Block, sync: Sync::Batch, redact: Redact::default(), sinks: vec![Target::Stdout] };
        let Some(fields) = node.and_then(|n| Fields::of(n, "a map of audit settings", problems)) else { return config };
        config.on_full = fields.choice("on_full", &[("block", OnFull::Block), ("drop", OnFull::Drop)], OnFull::Block);
        config.sync = fields.choice("sync", &[("batch", Sync::Batch), ("always", Sync::Always)], Sync::Batch);
        fields.unbuilt("chain", Node::is_off);
        fields.unbuilt("bodies", Node::is_off);
        if let Some(redact) = fields.node("redact").and_then(|n| Fields::of(n, "a map of `headers`, `params` and `json`", problems)) {
            config.redact.params = redact.texts("params").into_iter().map(|p| p.to_ascii_lowercase()).collect();
            // No header and no body is recorded by this build, so what these name is never written.
            redact.texts("headers");
            redact.texts("json");
            redact.finish();
        }
        if fields.node("sinks").is_some() {
            config.sinks = fields.items("sinks").iter().filter_map(|n| sink(n, folders, problems)).collect();
            if fields.items("sinks").is_empty() {
                problems.error(fields.key_place("sinks"), "`sinks` is empty", "write `- stdout: {}` or `- file: { path: … }`");
            }
        }
        fields.finish();
        config
    }
}

impl Config {
    /// No record goes anywhere: for a request that is only tried.
    pub fn nowhere() -> Self {
        Self { on_full: OnFull::Drop, sync: Sync::Batch, redact: Redact::default(), sinks: Vec::new() }
    }
}

fn sink(node: &Node, folders: &Folders, problems: &Problems) -> Option<Target> {
    if node.word() == Some("stdout") {
        return Some(Target::Stdout);
    }
    let fields = Fields::of(node, "a sink: `stdout: {}` or `file: { path: … }`", problems)?;
    fields.unbuilt("otlp", |_| false);
    let stdout = fields.raw("stdout");
    let file = fields.node("file");
    fields.finish();
    if let Some(stdout) = stdout {
        if let Some(fields) = Some(stdout).filter(|n| !n.is_null()).and_then(|n| Fields::of(n, "{}", problems)) {
            fields.finish();
        }
        if file.is_some() {
            problems.error(node.place, "two sinks in one entry", "write each as an entry of its own");
        }
        return Some(Target::Stdout);
    }
    let file = Fields::of(file?, "a map with `path`", problems)?;
    let path = file.need("path").and_then(|n| n.text(problems).map(|text| folders.join(n.place, text)));
    let rotate = file.node("rotate").map_or_else(|| Some(Rotate::default()), |n| Rotate::read(n, problems));
    file.finish();
    Some(Target::File(path?, rotate?))
}

/// The audit log of the process.
#[derive(Debug)]
pub struct Audit {
    config: Config,
    mask: ArcSwap<Mask>,
    orders: mpsc::Sender<Order>,
    dropped: Arc<AtomicU64>,
    healthy: Arc<AtomicBool>,
    /// A person is looking at standard output: nothing is held back.
    prompt: bool,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// A sink that could not be opened.
#[derive(Debug)]
pub struct OpenError {
    /// Which.
    pub path: PathBuf,
    /// The system's word.
    pub why: std::io::Error,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the audit log {} cannot be opened: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for OpenError {}

impl Audit {
    /// Opens all sinks and starts the writer. `mask` hides what belongs to no resource.
    ///
    /// # Errors
    /// If a sink cannot be opened: nothing starts without its log.
    pub fn open(config: Config, mask: Arc<Mask>) -> Result<Arc<Self>, OpenError> {
        let mut sinks = Vec::new();
        for target in &config.sinks {
            sinks.push(match target {
                Target::Stdout => Sink::stdout(),
                Target::File(path, rotate) => Sink::file(path, *rotate).map_err(|why| OpenError { path: path.clone(), why })?,
            });
        }
        let (orders, taken) = mpsc::channel();
        let healthy = Arc::new(AtomicBool::new(true));
        let writer = Writer { orders: taken, sinks, sync: config.sync, healthy: healthy.clone() };
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || writer.run());
        let thread = thread.map_err(|why| OpenError { path: "writer".into(), why })?;
        let prompt = config.sinks.contains(&Target::Stdout) && std::io::stdout().is_terminal();
        let mask = ArcSwap::new(mask);
        Ok(Arc::new(Self { config, mask, orders, dropped: Arc::default(), healthy, prompt, writer: Mutex::new(Some(thread)) }))
    }

    /// A core's part. Call it on that core.
    pub fn core(self: &Arc<Self>) -> CoreAudit {
        CoreAudit::new(self.clone())
    }

    /// From here on this hides what belongs to no resource.
    pub fn mask(&self, mask: Arc<Mask>) {
        self.mask.store(mask);
    }

    /// Counts the records that were dropped.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }

    /// Whether all sinks could be written the last time.
    pub fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Writes what is left and ends the writer, within `patience`.
    pub fn close(&self, patience: Duration) {
        let Some(thread) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (done, ended) = mpsc::channel();
        if self.orders.send(Order::End(done)).is_ok() && ended.recv_timeout(patience).is_ok() {
            let _ = thread.join();
        } else {
            tracing::error!("the audit log could not take its last records");
        }
    }
}
