//! The command line: parsed here, done by one file for each command.

mod add;
mod admin;
mod check;
mod client;
mod connect;
mod exec;
mod explain;
mod healthcheck;
mod list;
mod manual;
mod mock;
mod run;
mod test;
mod token;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Options, Outcome, Plan, Sources, System, problem};

/// Something failed.
pub const FAILURE: u8 = 1;
/// The configuration is wrong.
pub const CONFIGURATION: u8 = 3;

/// An authenticating reverse proxy: apps call `/r/<resource>/<path>`, the gateway holds the secrets.
#[derive(Debug, Parser)]
#[command(name = "postern", version, max_term_width = 100)]
pub struct Cli {
    /// The configuration. Without it: $POSTERN_CONFIG, ./config/postern.yaml, ./postern.yaml,
    /// $XDG_CONFIG_HOME/postern/postern.yaml, /etc/postern/postern.yaml, or a demo that is built in.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The environment that applies: an entry of `environments`, or environments/NAME.yaml. Wins over $POSTERN_ENV.
    #[arg(long, global = true, value_name = "NAME")]
    env: Option<String>,

    /// A setting over all files and variables: `--set server.workers=2`. May be given several times.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Run,
    /// Say everything that is wrong with the configuration: exit 0 or 3.
    Check,
    /// List the resources, or the presets.
    List(list::Args),
    /// Add a resource that stands on a preset: writes a file into resources/.
    Add(add::Args),
    /// Show the life of every token of the running gateway: state, age, last error.
    Token(token::Args),
    /// Connect an account of a resource: a person consents in a browser. Lists and deletes connections too.
    Connect(connect::Args),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Go the way to each upstream stage by stage: secret, DNS, TCP, TLS, credential, call. Exit 0 or 4.
    Test(test::Args),
    /// Show what an upstream would get for a request, redacted, and who said each part. Nothing is sent.
    Explain(explain::Args),
    /// Run a command beside a gateway of its own: the command gets addresses, the gateway keeps the secrets.
    Exec(exec::Args),
    /// Ask the running gateway whether it is ready: exit 0 or 1.
    Healthcheck(healthcheck::Args),
    /// Print what a shell needs to complete this command line.
    Completions(manual::Completions),
    /// Print the manual page, of `postern` or of one of its commands.
    Man(manual::Man),
    /// Serve the sample API alone: /customers, /orders, /products.
    Mock(mock::Args),
}

impl Cli {
    /// What it says about the configuration.
    fn options(&self) -> Options {
        Options { file: self.config.clone(), environment: self.env.clone(), set: self.set.clone() }
    }
}

/// Runs what the command line says, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match cli.command {
        None | Some(Command::Run) => run::run(&cli),
        Some(Command::Check) => check::run(&cli),
        Some(Command::List(ref args)) => list::run(&cli, args),
        Some(Command::Add(ref args)) => add::run(&cli, args),
        Some(Command::Token(ref args)) => token::run(&cli, args),
        Some(Command::Connect(ref args)) => connect::run(&cli, args),
        Some(Command::Schema) => print(config::schema::TEXT),
        Some(Command::Test(ref args)) => test::run(&cli, args),
        Some(Command::Explain(ref args)) => explain::run(&cli, args),
        Some(Command::Exec(ref args)) => exec::run(&cli, args),
        Some(Command::Healthcheck(ref args)) => healthcheck::run(&cli, args),
        Some(Command::Completions(ref args)) => manual::completions(args),
        Some(Command::Man(ref args)) => manual::man(&cli, args),
        Some(Command::Mock(ref args)) => mock::run(args),
    };
    ExitCode::from(code)
}

/// Writes to standard output, and returns the exit code. A reader that has had enough is no failure.
fn print(text: &str) -> u8 {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => FAILURE,
        _ => 0,
    }
}

/// Says why on standard error (in JSON on standard output), and returns the exit code.
fn fail(cli: &Cli, why: &str) -> u8 {
    if cli.json {
        println!("{}", serde_json::json!({ "ok": false, "error": why }));
    } else {
        eprintln!("error: {why}");
    }
    FAILURE
}

/// Loads and checks the configuration. What is wrong has been reported when this returns the exit code for it.
fn plan(cli: &Cli) -> Result<(Plan, Outcome), u8> {
    plan_with(cli, &System)
}

/// The same with these sources of values.
fn plan_with(cli: &Cli, sources: &dyn Sources) -> Result<(Plan, Outcome), u8> {
    let loaded = config::load(&cli.options(), sources).map_err(|error| {
        if cli.json {
            println!(
                "{}",
                serde_json::json!({ "ok": false, "problems": [{ "file": error.path, "message": error.to_string(), "severity": "error" }] })
            );
        } else {
            eprintln!("error: {error}");
        }
        CONFIGURATION
    })?;
    let mut outcome = config::plan(loaded);
    match outcome.plan.take() {
        Some(plan) => Ok((plan, outcome)),
        None => {
            report(cli, &outcome.problems, &outcome.files);
            Err(CONFIGURATION)
        }
    }
}

/// Text for people on stderr, JSON for programs on stdout.
fn report(cli: &Cli, problems: &[crate::tree::Problem], files: &[problem::File]) {
    if cli.json {
        println!("{}", problem::json(problems, files));
    } else {
        eprint!("{}", problem::text(problems, files, std::io::stderr().is_terminal()));
    }
}
