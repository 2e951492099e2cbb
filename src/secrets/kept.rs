//! The values that references had when they were last good. A secret that had a value keeps it while its source gives
//! none: an emptied or vanished file must not take a running gateway's credentials away, but it is said loudly.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use zeroize::Zeroizing;

use super::ask::{Answers, Ask};
use super::remote::{Anew, Remote};
use super::settings::Settings;
use crate::file::{self, Seen};
use crate::secret::Secret;

/// Largest file that a reference may name.
pub const FILE_MAX: u64 = 1 << 20;

/// The sources of a running gateway.
#[derive(Debug, Default)]
pub struct Kept {
    state: Mutex<State>,
    remote: Remote,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<PathBuf, Secret>,
    /// Since [`Kept::begin`].
    read: HashSet<PathBuf>,
    seen: Vec<Seen>,
    /// What serves on with its last good value, and why.
    stale: BTreeMap<String, String>,
    anew: Anew,
}

impl Kept {
    /// Begins to read a configuration. `anew` says whether sources that are not at hand are asked though they are not due.
    pub fn begin(&self, anew: Anew) {
        let mut state = self.state();
        state.read.clear();
        state.seen.clear();
        state.anew = anew;
    }

    /// What references to sources that are not at hand come to; their last good values where these give none now.
    pub fn answers(&self, asked: BTreeSet<Ask>, settings: Settings) -> Answers {
        let anew = self.state().anew;
        self.remote.answers(asked, settings, anew)
    }

    /// When something has to be fetched again.
    pub fn due(&self) -> Option<Instant> {
        self.remote.due()
    }

    /// Fetches again what is due, in the background. `told` is called if any value is another.
    pub fn refresh(&self, told: impl FnOnce() + Send + 'static) {
        self.remote.refresh(told);
    }

    /// The text of a file; the last good one where there is none now.
    ///
    /// # Errors
    /// Why it cannot be read, without its content.
    pub fn file(&self, path: &Path) -> Result<String, String> {
        let (seen, read) = text(path);
        let mut state = self.state();
        state.seen.push(seen);
        state.read.insert(path.to_path_buf());
        let reference = format!("${{file:{}}}", path.display());
        let why = match read {
            Ok(text) if !text.trim_end_matches(['\r', '\n']).is_empty() => {
                if state.stale.remove(&reference).is_some() {
                    tracing::info!("{reference} has a value again");
                }
                state.files.insert(path.to_path_buf(), Secret::new(text.as_str().to_owned()));
                return Ok(text.as_str().to_owned());
            }
            Ok(_) => "the file is empty".to_owned(),
            Err(why) => why,
        };
        let Some(last) = state.files.get(path).map(|s| s.expose().to_owned()) else {
            // Whoever asked knows an empty file from one that is not there.
            return if why == "the file is empty" { Ok(String::new()) } else { Err(why) };
        };
        if state.stale.insert(reference.clone(), why.clone()).is_none() {
            tracing::error!("{reference} has no value any more ({why}); its last good one is used until it has");
        }
        Ok(last)
    }

    /// The files that were read since [`Kept::begin`], as they were then.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Forgets what no reference of the configuration just read has asked for.
    pub fn forget(&self) {
        self.remote.forget();
        let State { files, read, stale, .. } = &mut *self.state();
        files.retain(|path, _| read.contains(path));
        stale.retain(|reference, _| read.iter().any(|path| *reference == format!("${{file:{}}}", path.display())));
    }

    /// What serves on with its last good value, and why.
    pub fn stale(&self) -> Vec<(String, String)> {
        let mut stale = self.remote.stale();
        stale.extend(self.state().stale.iter().map(|(reference, why)| (reference.clone(), why.clone())));
        stale
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of a file, with what was seen of it.
pub fn text(path: &Path) -> (Seen, Result<Zeroizing<String>, String>) {
    let (seen, read) = file::read(path, FILE_MAX);
    let text = read.map_err(|error| error.to_string()).and_then(|bytes| {
        let bytes = Zeroizing::new(bytes);
        std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| "it is not UTF-8".into())
    });
    (seen, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_had_a_value_keeps_it_until_it_has_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let kept = Kept::default();
        assert!(kept.file(&path).is_err());
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(kept.file(&path).unwrap(), "");
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(kept.file(&path).unwrap(), "one\n");
        for emptied in [true, false] {
            if emptied {
                std::fs::write(&path, "").unwrap()
            } else {
                std::fs::remove_file(&path).unwrap()
            }
            assert_eq!(kept.file(&path).unwrap(), "one\n");
            assert_eq!(kept.stale().len(), 1);
        }
        std::fs::write(&path, "two").unwrap();
        assert_eq!(kept.file(&path).unwrap(), "two");
        assert!(kept.stale().is_empty());
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let kept = Kept::default();
        kept.file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        kept.file(&path).unwrap();
        kept.begin(Anew::Due);
        kept.forget();
        assert!(kept.stale().is_empty() && kept.file(&path).is_err());
    }
}
