//! `postern exec -- COMMAND`: a gateway for one command. The command learns where its resources are; the secrets stay
//! with the gateway, whose environment and memory it cannot read. The gateway's own lines go to standard error.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::run::Ready;
use super::{Cli, FAILURE, fail};
use crate::config::listen::{Address, Listener};
use crate::config::preset;
use crate::config::resource::Plan;

/// What a shell says of a command that is not there, and of one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
/// Added to the number of the signal that ended a command.
const SIGNALLED: i32 = 128;
/// Variables that say where the configuration is, which hold no secret.
const HARMLESS: [&str; 2] = ["POSTERN_CONFIG", "POSTERN_ENV"];

/// What `postern exec` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command and its arguments, behind `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command, and returns its exit code.
pub fn run(cli: &Cli, args: &Args) -> u8 {
    // Before a secret is read: what runs beside this process under the same user cannot look into it.
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        return fail(cli, &format!("this process cannot be closed to others: {error}"));
    }
    let mut ready = match Ready::prepare(cli) {
        Ok(ready) => ready,
        Err(code) => return code,
    };
    let Some(url) = ready.listening.server.listen.iter_mut().find_map(address) else {
        return fail(cli, "a command needs a TCP listener without TLS: --set server.listen=127.0.0.1:0 chooses a free port");
    };
    let stdout = match to_stderr() {
        Ok(stdout) => stdout,
        Err(error) => return fail(cli, &format!("standard output: {error}")),
    };
    let variables = variables(&url, &ready.plan.resources);
    let command = command(&args.command, stdout, &ready.variables, variables);
    let status = Rc::new(Cell::new(FAILURE));
    let told = status.clone();
    let errand = move || -> Pin<Box<dyn Future<Output = ()>>> { Box::pin(async move { told.set(accompany(command).await) }) };
    match ready.serve(Some(Box::new(errand))) {
        0 => status.get(),
        code => code,
    }
}

/// Where the command reaches the gateway, if this listener serves it. Port 0 becomes one that is free.
fn address(listener: &mut Listener) -> Option<String> {
    let Address::Tcp(address) = &mut listener.address else { return None };
    if listener.tls.is_some() {
        return None;
    }
    if address.port() == 0 {
        *address = std::net::TcpListener::bind(*address).and_then(|socket| socket.local_addr()).ok()?;
    }
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    Some(format!("http://{}", SocketAddr::new(ip, address.port())))
}

/// What this process writes to standard output goes to standard error from here on; returns the former for the command.
fn to_stderr() -> std::io::Result<Stdio> {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(std::io::stderr())?;
    Ok(stdout.into())
}

/// The variables that the command gets: where the gateway and each resource are, and what a preset's SDK reads.
fn variables(url: &str, resources: &[Plan]) -> Vec<(String, String)> {
    let mut all = vec![("POSTERN_URL".to_owned(), url.to_owned())];
    for resource in resources {
        let at = format!("{url}/r/{}", resource.name);
        all.push((format!("POSTERN_{}_URL", resource.name.to_ascii_uppercase().replace('-', "_")), at.clone()));
        for (name, value) in resource.preset.as_deref().and_then(preset::find).map(|p| p.sdk).unwrap_or_default() {
            // The first resource on a preset is the one that its SDK finds.
            if !all.iter().any(|(n, _)| *n == name) {
                all.push((name, value.replace("{url}", &at)));
            }
        }
    }
    all
}

fn command(words: &[OsString], stdout: Stdio, secret: &BTreeSet<String>, variables: Vec<(String, String)>) -> Command {
    let (program, arguments) = words.split_first().map_or((OsString::new(), &[][..]), |(first, rest)| (first.clone(), rest));
    let mut command = Command::new(program);
    command.args(arguments).stdout(stdout);
    for name in secret.iter().filter(|name| !HARMLESS.contains(&name.as_str())) {
        command.env_remove(name);
    }
    command.envs(variables);
    command
}

/// Runs the command to its end, hands signals on, and returns its exit code.
async fn accompany(mut command: Command) -> u8 {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("error: {program}: {error}");
            return if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
        }
    };
    // What it holds for the command, its standard output above all, must not stay open here.
    drop(command);
    match wait(&mut child).await {
        Ok(status) => code(status),
        Err(error) => {
            eprintln!("error: {program}: {error}");
            FAILURE
        }
    }
}

async fn wait(child: &mut Child) -> std::io::Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut user1, mut user2) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    // A terminal sends these to the command by itself.
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    loop {
        let told = tokio::select! {
            status = child.wait() => return status,
            _ = interrupt.recv() => if terminal { continue } else { Signal::SIGINT },
            _ = quit.recv() => if terminal { continue } else { Signal::SIGQUIT },
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hangup.recv() => Signal::SIGHUP,
            _ = user1.recv() => Signal::SIGUSR1,
            _ = user2.recv() => Signal::SIGUSR2,
        };
        // It has not been waited for, so its number is still its own; should it just have ended, nobody is left to be told.
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(pid), told);
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILURE)
}
