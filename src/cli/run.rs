//! `postern run`.

use std::io::IsTerminal as _;

use std::sync::Arc;

use super::{Cli, FAILURE, plan_with};
use crate::audit::Audit;
use crate::config::listen::Log;
use crate::config::{self, Fixed, Outcome};
use crate::reload;
use crate::secrets::Kept;
use crate::server;
use crate::snapshot::Snapshot;
use crate::stack;

/// Runs the gateway until it is told to end, and returns the exit code.
pub fn run(cli: &Cli) -> u8 {
    let kept = Arc::new(Kept::default());
    let (plan, Outcome { problems: warnings, files, mut seen, .. }) = match plan_with(cli, &*kept) {
        Ok(planned) => planned,
        Err(code) => return code,
    };
    seen.extend(kept.seen());
    if !warnings.is_empty() {
        eprint!("{}", crate::config::problem::text(&warnings, &files, std::io::stderr().is_terminal()));
    }
    log(plan.listening.log);
    drop(files);
    let (listening, audit, fixed) = (plan.listening.clone(), plan.audit.clone(), Fixed::of(&plan));
    let snapshot = Snapshot::new(plan, stack::resource);
    let audit = match Audit::open(audit, snapshot.common.mask.clone()) {
        Ok(audit) => audit,
        Err(error) => return failed(&error),
    };
    let (options, sources) = (cli.options(), kept.clone());
    let reread = Box::new(move || config::load(&options, &*sources));
    match server::run(listening, snapshot, audit, reload::Source { reread, kept, seen, fixed }) {
        Ok(()) => 0,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> u8 {
    eprintln!("error: {error}");
    FAILURE
}

/// Logs go to stderr, as text or JSON, from this level on. Libraries speak only when it is for them to warn.
fn log(log: Log) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt as _;

    let targets = Targets::new().with_default(LevelFilter::WARN.min(LevelFilter::from_level(log.level))).with_target("postern", log.level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    let registry = tracing_subscriber::registry().with(targets);
    let set = if log.json {
        tracing::subscriber::set_global_default(registry.with(lines.json()))
    } else {
        tracing::subscriber::set_global_default(registry.with(lines))
    };
    if set.is_err() {
        eprintln!("logging was set up before");
    }
}
