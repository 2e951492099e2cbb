//! `postern run`.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::sync::Arc;

use super::{Cli, FAILURE, plan_with};
use crate::audit::Audit;
use crate::auth::grant::Tokens;
use crate::config::listen::{self, Log};
use crate::config::{self, Fixed, Outcome, Plan};
use crate::net::Background;
use crate::reload;
use crate::secrets::Kept;
use crate::server::{self, Errand};
use crate::snapshot::Snapshot;
use crate::stack;
use crate::store;

/// Runs the gateway until it is told to end, and returns the exit code.
pub fn run(cli: &Cli) -> u8 {
    match Ready::prepare(cli) {
        Ok(ready) => ready.serve(None),
        Err(code) => code,
    }
}

/// A gateway that is configured and not yet started.
pub struct Ready {
    /// What is to run.
    pub plan: Plan,
    /// The listening side, which may still be changed.
    pub listening: listen::Root,
    /// The variables of the environment that the configuration has read.
    pub variables: BTreeSet<String>,
    source: reload::Source,
}

impl Ready {
    /// Reads the configuration and sets up logging. What is wrong has been reported when this returns the exit code.
    pub fn prepare(cli: &Cli) -> Result<Self, u8> {
        let kept = Arc::new(Kept::default());
        let (plan, Outcome { problems: warnings, files, variables, mut seen, .. }) = plan_with(cli, &*kept)?;
        seen.extend(kept.seen());
        if !warnings.is_empty() {
            eprint!("{}", crate::config::problem::text(&warnings, &files, std::io::stderr().is_terminal()));
        }
        log(plan.listening.log);
        let (options, sources) = (cli.options(), kept.clone());
        let reread = Box::new(move || config::load(&options, &*sources));
        let source = reload::Source { reread, kept, seen, fixed: Fixed::of(&plan) };
        Ok(Self { listening: plan.listening.clone(), plan, variables, source })
    }

    /// Serves until the end, and returns the exit code.
    pub fn serve(self, errand: Option<Errand>) -> u8 {
        let audit = self.plan.audit.clone();
        let (tokens, store) = (self.plan.tokens.clone(), self.plan.store.clone());
        let snapshot = Snapshot::new(self.plan, stack::resource);
        let audit = match Audit::open(audit, snapshot.common.mask.clone()) {
            Ok(audit) => audit,
            Err(error) => return failed(&error),
        };
        if let Err(code) = start(&tokens, &store) {
            return code;
        }
        // Where the operator has configured a token, there is no second one.
        let own_token = match self.listening.token {
            Some(_) => Ok(None),
            None => store::own_token(&store, store::Make::Once),
        };
        let own_token = match own_token {
            Ok(token) => token,
            Err(error) => return failed(&error),
        };
        match server::run(self.listening, snapshot, audit, self.source, own_token, errand) {
            Ok(()) => 0,
            Err(error) => failed(&error),
        }
    }
}

/// Starts the life of tokens. What is wrong has been said when this returns the exit code.
pub fn start(tokens: &Tokens, store: &store::Config) -> Result<(), u8> {
    // Only where records outlive the process is there anything to open.
    let store = store.is_durable().then(|| store::open(store)).transpose().map_err(|error| failed(&error))?;
    let background = Background::start().map_err(|error| failed(&error))?;
    tokens.start(background, store.map(Arc::new)).map_err(|error| failed(&error))
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
