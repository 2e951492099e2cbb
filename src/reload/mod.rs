//! A changed configuration takes over: read again, validated whole, and swapped in one step, on a thread of its own. What
//! is under way ends with the version that it began with. A configuration that is wrong, or that would change what a
//! running gateway cannot, changes nothing and says why.

mod status;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::oneshot;

use self::status::Status;
use crate::audit::Audit;
use crate::config::{self, Fixed, Loaded, NotFound, Outcome, Plan, problem};
use crate::error::Error;
use crate::file::Seen;
use crate::secrets::{Anew, Kept, Watch};
use crate::snapshot::{Difference, Snapshot};
use crate::stack::{self, Live};
use crate::telemetry::Metrics;
use crate::tree::{Place, Problem, Severity};

/// Orders that wait. More callers than this are told to come back.
const ORDERS: usize = 64;
/// After a file has changed, so much silence says that its writer is done; it is waited for so long at most.
const SILENCE: Duration = Duration::from_millis(50);
const SETTLE_MAX: Duration = Duration::from_millis(500);
/// How often a configuration that changes while it is read is read again.
const ATTEMPTS: u32 = 4;
/// How long a caller waits for its reload.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads the configuration anew, from wherever it was read at the start.
pub type Reread = Box<dyn Fn() -> Result<Loaded, NotFound> + Send>;

/// What the running configuration came from.
pub struct Source {
    /// Reads it again.
    pub reread: Reread,
    /// The sources of its secrets.
    pub kept: Arc<Kept>,
    /// The files that were read and the places that were looked at.
    pub seen: Vec<Seen>,
    /// What cannot change.
    pub fixed: Fixed,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

/// Why the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    File,
    Secret,
    Signal,
    Api,
}

impl Cause {
    fn word(self) -> &'static str {
        match self {
            Self::File => "a file has changed",
            Self::Secret => "a secret has changed",
            Self::Signal => "HUP",
            Self::Api => "asked by the API",
        }
    }
}

/// What became of a reload.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This version runs now.
    Applied(Arc<str>, Difference),
    /// Nothing of it runs: the report, for programs (ruling B11).
    Refused(Value),
}

enum Order {
    Touched,
    Fetched,
    Hangup,
    Asked(oneshot::Sender<Answer>),
}

/// The way to the thread that reloads.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: SyncSender<Order>,
    status: Arc<Mutex<Status>>,
    live: Live,
    kept: Arc<Kept>,
}

impl Handle {
    /// Reads the configuration again soon; nobody waits.
    pub fn hangup(&self) {
        if let Err(TrySendError::Disconnected(_)) = self.orders.try_send(Order::Hangup) {
            tracing::error!("the thread that reloads has ended");
        }
    }

    /// Reads the configuration again, and waits for the result. Who asks while another waits may share its reload.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if too many wait, [`Error::Internal`] if there is no result.
    pub async fn ask(&self) -> Result<Answer, Error> {
        let (give, given) = oneshot::channel();
        self.orders.try_send(Order::Asked(give)).map_err(|error| match error {
            TrySendError::Full(_) => Error::Overloaded("The thread that reloads".into()),
            TrySendError::Disconnected(_) => Error::Internal("the thread that reloads has ended".into()),
        })?;
        match tokio::time::timeout(PATIENCE, given).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(Error::Internal("the reload gave no result".into())),
        }
    }

    /// What runs, what became of the last reload, and which secrets serve on with their last good value.
    pub fn state(&self) -> Value {
        let live = self.live.load();
        status(&self.status).json(&live.version, live.resources.len(), &self.kept.stale())
    }
}

fn status(status: &Mutex<Status>) -> std::sync::MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread. From here on every change of what `source` has seen is noticed.
///
/// # Errors
/// If the system gives no thread.
pub fn start(source: Source, live: Live, audit: Arc<Audit>, metrics: Arc<Metrics>) -> std::io::Result<Handle> {
    let (sender, orders) = sync_channel(ORDERS);
    let handle =
        Handle { orders: sender.clone(), status: Arc::new(Mutex::new(Status::new())), live: live.clone(), kept: source.kept.clone() };
    // If there is no room, there is an order already, and it will see this change too.
    let touched = sender.clone();
    let mut watch = Watch::new(move || drop(touched.try_send(Order::Touched)));
    let status = handle.status.clone();
    let thread = move || {
        watch.follow(source.seen.clone());
        let mut reload = Reload { source, live, audit, metrics, status, watch, orders, sender, buried: Vec::new() };
        reload.run();
    };
    std::thread::Builder::new().name("reload".into()).spawn(thread)?;
    Ok(handle)
}

struct Reload {
    source: Source,
    live: Live,
    audit: Arc<Audit>,
    metrics: Arc<Metrics>,
    status: Arc<Mutex<Status>>,
    watch: Watch,
    orders: Receiver<Order>,
    sender: SyncSender<Order>,
    /// Snapshots that no new request sees. They are kept until nobody else has them, so that it is this thread that takes
    /// ten thousand resources apart, and not a core amid its requests.
    buried: Vec<Arc<Snapshot>>,
}

impl Reload {
    fn run(&mut self) {
        let mut look = Instant::now() + self.watch.interval();
        loop {
            let next = self.source.kept.due().map_or(look, |due| due.min(look));
            match self.orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(order) => self.work(order),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.look(look),
            }
            self.buried.retain(|snapshot| Arc::strong_count(snapshot) > 1);
            if look <= Instant::now() {
                look = Instant::now() + self.watch.interval();
            }
        }
    }

    /// Looks at the files if it is time, and has fetched what is due.
    fn look(&mut self, look: Instant) {
        let now = Instant::now();
        if self.source.kept.due().is_some_and(|due| due <= now) {
            let sender = self.sender.clone();
            self.source.kept.refresh(move || {
                // If there is no room, another reload is to come, which sees what was fetched.
                let _ = sender.try_send(Order::Fetched);
            });
        }
        if look <= now && self.watch.has_changed() {
            self.work(Order::Touched);
        }
    }

    /// Works off this order together with all that have come meanwhile.
    fn work(&mut self, first: Order) {
        let mut asked = Vec::new();
        let cause = match first {
            Order::Touched => Cause::File,
            Order::Fetched => Cause::Secret,
            Order::Hangup => Cause::Signal,
            Order::Asked(give) => {
                asked.push(give);
                Cause::Api
            }
        };
        let until = Instant::now() + SETTLE_MAX;
        loop {
            // A file is seldom written in one go; who asks by signal or API says that it is written.
            let next = match cause {
                Cause::File if Instant::now() < until => self.orders.recv_timeout(SILENCE).ok(),
                _ => self.orders.try_recv().ok(),
            };
            match next {
                Some(Order::Asked(give)) => asked.push(give),
                Some(Order::Touched | Order::Fetched | Order::Hangup) => {}
                None => break,
            }
        }
        let answer = self.reload(cause);
        for give in asked {
            let _ = give.send(answer.clone());
        }
    }

    fn reload(&mut self, cause: Cause) -> Answer {
        let began = Instant::now();
        // Who asks by signal or API means all of it; a file says nothing about what other sources have.
        let anew = if matches!(cause, Cause::Signal | Cause::Api) { Anew::All } else { Anew::Due };
        let answer = match self.read(anew) {
            Ok((plan, outcome)) => self.apply(plan, outcome, cause, began),
            Err(refusal) => self.refuse(refusal, cause),
        };
        self.metrics.stale(self.source.kept.stale().len());
        status(&self.status).note(cause.word(), &answer);
        answer
    }

    /// Reads the configuration until it stood still while it was read.
    fn read(&self, anew: Anew) -> Result<(Plan, Outcome), Refusal> {
        let mut attempt = 1;
        loop {
            self.source.kept.begin(if attempt == 1 { anew } else { Anew::Due });
            let loaded = (self.source.reread)().map_err(Refusal::from)?;
            let mut outcome = config::plan_over(loaded, &self.source.fixed);
            outcome.seen.extend(self.source.kept.seen());
            if attempt < ATTEMPTS && outcome.seen.iter().any(Seen::has_changed) {
                attempt += 1;
                std::thread::sleep(SILENCE);
                continue;
            }
            let plan = outcome.plan.take();
            // Beside this, whatever else is missing is of no interest.
            outcome.problems = blank(&outcome.files).map_or(outcome.problems, |problem| vec![problem]);
            return match plan {
                Some(plan) if outcome.problems.iter().all(|p| p.severity == Severity::Warning) => Ok((plan, outcome)),
                _ => Err(Refusal::from(outcome)),
            };
        }
    }

    fn apply(&mut self, plan: Plan, outcome: Outcome, cause: Cause, began: Instant) -> Answer {
        let certificates = self.source.fixed.renew(&plan);
        let before = self.live.load_full();
        let tokens = plan.tokens.clone();
        let (next, difference) = before.next(plan, stack::resource);
        let next = Arc::new(next);
        // What is new must be hidden before it can be used.
        self.audit.mask(next.common.mask.clone());
        self.live.store(next.clone());
        before.retire(&next);
        let all = matches!(cause, Cause::Signal | Cause::Api);
        tokens.forgive(|name| all || next.has_changed(name, &before));
        self.buried.push(before);
        self.source.kept.forget();
        self.watch.follow(outcome.seen);
        self.metrics.reloaded(true);
        tracing::info!(
            version = &*next.version,
            added = difference.added,
            changed = difference.changed,
            removed = difference.removed,
            certificates,
            warnings = outcome.problems.len(),
            took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "reloaded ({}): {} resources",
            cause.word(),
            next.resources.len()
        );
        Answer::Applied(next.version.clone(), difference)
    }

    fn refuse(&mut self, refusal: Refusal, cause: Cause) -> Answer {
        self.watch.add(refusal.seen);
        self.metrics.reloaded(false);
        tracing::error!("the changed configuration is refused ({}), and what runs goes on:\n{}", cause.word(), refusal.text.trim_end());
        Answer::Refused(refusal.json)
    }
}

/// Why a configuration does not take over.
struct Refusal {
    text: String,
    json: Value,
    seen: Vec<Seen>,
}

impl From<Outcome> for Refusal {
    fn from(outcome: Outcome) -> Self {
        Self {
            text: problem::text(&outcome.problems, &outcome.files, false).replace("nothing was started", "nothing was changed"),
            json: problem::json(&outcome.problems, &outcome.files),
            seen: outcome.seen,
        }
    }
}

impl From<NotFound> for Refusal {
    fn from(error: NotFound) -> Self {
        let row = serde_json::json!({ "file": error.path, "message": error.to_string(), "severity": "error" });
        let json = serde_json::json!({ "ok": false, "problems": [row] });
        Self { text: error.to_string(), json, seen: vec![Seen::look(error.path)] }
    }
}

/// A file that is being written is empty for a moment, and an empty configuration is a valid one: it would take every
/// resource away.
fn blank(files: &[problem::File]) -> Option<Problem> {
    let first = files.first()?;
    first.text.trim().is_empty().then(|| Problem {
        place: Place { line: 1, column: 1, ..Place::default() },
        message: "the file is empty".into(),
        hint: "a running gateway takes no empty configuration: write `resources: {}` to remove all resources".into(),
        severity: Severity::Error,
    })
}
