//! Runs a command and takes what it says: without a shell, with almost nothing of our environment, bounded in time and in
//! what it may say. What it says is never logged, and neither is what it complains about. Whether commands may run at all
//! (`allow_exec`) is for the caller to ask.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Most bytes that a command may say.
const OUTPUT_MAX: u64 = 64 * 1024;
/// Most words of a command.
const WORDS_MAX: usize = 64;

/// Why a command gives nothing, and what to do about it. Holds nothing of what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String, pub &'static str);

impl Failure {
    fn new(why: impl Into<String>, hint: &'static str) -> Self {
        Self(why.into(), hint)
    }
}

/// In which circumstances a command runs.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'c> {
    /// How long it may take.
    pub timeout: Duration,
    /// The folder in which it runs.
    pub folder: &'c Path,
    /// All of its environment.
    pub environment: &'c [(String, Secret)],
}

/// Runs a command and takes what it says, without the line end behind it.
///
/// # Errors
/// Why there is nothing.
pub async fn run(command: &str, circumstances: Circumstances<'_>) -> Result<Secret, Failure> {
    let words = split(command)?;
    let Some((program, arguments)) = words.split_first() else { return Err(Failure::new("the command is empty", "")) };
    let mut child = tokio::process::Command::new(program);
    child.args(arguments).current_dir(circumstances.folder).env_clear().process_group(0).kill_on_drop(true);
    child.envs(circumstances.environment.iter().map(|(name, value)| (name, value.expose())));
    child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().map_err(|error| Failure::new(format!("the command cannot be started: {error}"), ""))?;
    // The whole group ends with it, however this ends: a command may have started others.
    let _group = Group(child.id());
    let Some(out) = child.stdout.take() else { return Err(Failure::new("the command has no output", "")) };
    let work = async {
        let mut said = Zeroizing::new(Vec::new());
        let read = out.take(OUTPUT_MAX + 1).read_to_end(&mut said).await;
        read.map_err(|error| Failure::new(format!("the command's output cannot be read: {error}"), ""))?;
        if said.len() as u64 > OUTPUT_MAX {
            return Err(Failure::new(format!("the command says more than {} KiB", OUTPUT_MAX >> 10), ""));
        }
        let status = child.wait().await.map_err(|error| Failure::new(format!("the command cannot be waited for: {error}"), ""))?;
        if !status.success() {
            return Err(Failure::new(
                format!("the command failed: {status}"),
                "run it by hand with the environment that `exec.env` leaves it",
            ));
        }
        Ok(said)
    };
    let said = match tokio::time::timeout(circumstances.timeout, work).await {
        Ok(said) => said?,
        Err(_) => return Err(Failure::new(format!("the command took more than {:?}", circumstances.timeout), "raise `exec.timeout`")),
    };
    let text = std::str::from_utf8(&said).map_err(|_| Failure::new("the command says what is not UTF-8", ""))?;
    let text = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
    if text.is_empty() {
        return Err(Failure::new("the command says nothing", ""));
    }
    Ok(Secret::new(text.to_owned()))
}

struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// Words by blanks; `'…'` and `"…"` hold together, `\` takes the next character as it is. Nothing else has a meaning:
/// there is no shell, unless the command is one.
fn split(command: &str) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => match rest.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(Failure::new("the command ends in a backslash", "")),
            },
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Failure::new("a quote of the command is not closed", ""));
    }
    words.extend(word);
    if words.len() > WORDS_MAX {
        return Err(Failure::new(format!("the command has more than {WORDS_MAX} words"), "put it into a script"));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_together_by_quotes_and_nothing_else_has_a_meaning() {
        for (command, words) in [
            ("a b  c", &["a", "b", "c"][..]),
            ("sh -c 'echo \"$HOME\" | cat'", &["sh", "-c", "echo \"$HOME\" | cat"]),
            ("a \"b c\"d e\\ f", &["a", "b cd", "e f"]),
            ("a '' \"\"", &["a", "", ""]),
            ("a;b $(c) `d` > e", &["a;b", "$(c)", "`d`", ">", "e"]),
            (r#"a "b\"c" 'd\e'"#, &["a", "b\"c", r"d\e"]),
        ] {
            assert_eq!(split(command).unwrap(), words, "{command}");
        }
        assert!(split("a 'b").is_err() && split("a \\").is_err() && split(&"a ".repeat(65)).is_err());
    }
}
