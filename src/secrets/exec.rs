//! `${exec:COMMAND}`: the first line of defence is that it is off unless the main file says `allow_exec: true`. How a
//! command runs is `command.rs`.

use std::path::PathBuf;
use std::time::Duration;

use super::ask::{Document, Trouble};
use crate::command::{self, Circumstances, Failure};
use crate::secret::Secret;

/// How commands run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether they may run at all (`allow_exec`).
    pub allowed: bool,
    /// `exec.timeout`.
    pub timeout: Duration,
    /// `exec.refresh`.
    pub refresh: Duration,
    /// The folder of the main file: commands run there.
    pub folder: PathBuf,
    /// All of their environment: `PATH`, `HOME`, `LANG`, and what `exec.env` names.
    pub environment: Vec<(String, Secret)>,
}

/// Runs a command and takes what it says.
///
/// # Errors
/// Why there is no value. The text holds nothing of what the command said.
pub async fn fetch(command: &str, settings: &Settings) -> Result<Document, Trouble> {
    if !settings.allowed {
        return Err(Trouble::new("commands are not allowed", "say `allow_exec: true` in the main file"));
    }
    let circumstances = Circumstances { timeout: settings.timeout, folder: &settings.folder, environment: &settings.environment };
    let said = command::run(command, circumstances).await;
    said.map(Document::Text).map_err(|Failure(why, hint)| Trouble::new(why, hint))
}
