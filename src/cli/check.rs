//! `postern check`.

use super::{Cli, plan, report};
use crate::config::Outcome;

/// Checks, and returns the exit code.
pub fn run(cli: &Cli) -> u8 {
    match plan(cli) {
        Err(code) => code,
        Ok((plan, Outcome { problems: warnings, files, .. })) => {
            if cli.json || !warnings.is_empty() {
                report(cli, &warnings, &files);
            }
            if !cli.json {
                let n = plan.resources.len();
                println!("ok: {n} {} in {}", if n == 1 { "resource" } else { "resources" }, files.first().map_or("?", |f| f.name.as_str()));
            }
            0
        }
    }
}
