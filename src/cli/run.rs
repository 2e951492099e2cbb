//! `postern run`.

use std::io::IsTerminal as _;

use super::{Cli, FAILURE, plan};
use crate::audit::Audit;
use crate::config::listen::Log;
use crate::server;
use crate::snapshot::Snapshot;
use crate::stack;

/// Runs the gateway until it is told to end, and returns the exit code.
pub fn run(cli: &Cli) -> u8 {
    let (plan, warnings, files) = match plan(cli) {
        Ok(planned) => planned,
        Err(code) => return code,
    };
    if !warnings.is_empty() {
        eprint!("{}", crate::config::problem::text(&warnings, &files, std::io::stderr().is_terminal()));
    }
    log(plan.listening.log);
    drop(files);
    let audit = match Audit::open(plan.audit, plan.mask) {
        Ok(audit) => audit,
        Err(error) => return failed(&error),
    };
    let snapshot = Snapshot::new(&plan.version, plan.environment, plan.resources, stack::resource);
    match server::run(plan.listening, snapshot, audit) {
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
