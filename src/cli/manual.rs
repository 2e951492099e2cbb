//! `postern completions` and `postern man`: both made from the command line as it is parsed.

use clap::CommandFactory as _;

use super::{Cli, fail, print};

/// What `postern completions` takes.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// For which shell.
    shell: clap_complete::Shell,
}

/// What `postern man` takes.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Of which command; of the program itself without.
    command: Option<String>,
}

/// Prints the completions, and returns the exit code.
pub fn completions(args: &Completions) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "postern", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// Prints the page in roff, and returns the exit code.
pub fn man(cli: &Cli, args: &Man) -> u8 {
    let mut whole = Cli::command();
    whole.build();
    let page = match &args.command {
        None => Some(whole.clone()),
        Some(name) => whole.find_subcommand(name).cloned(),
    };
    let Some(page) = page else {
        return fail(cli, &format!("there is no command `{}`", args.command.as_deref().unwrap_or_default()));
    };
    let mut text = Vec::new();
    match clap_mangen::Man::new(page).render(&mut text) {
        Ok(()) => print(&String::from_utf8_lossy(&text)),
        Err(error) => fail(cli, &format!("the page cannot be made: {error}")),
    }
}
