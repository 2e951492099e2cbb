//! Notices that files have changed: by the system's notices about the folders that they stand in, and by looking at them
//! now and then, because notices are lost on some file systems. Folders are watched and not files, as files are
//! replaced; and every link on the way counts, as Kubernetes swaps a whole folder of secrets by one link (`..data`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::file::{Seen, Stamp};

/// Most folders that are watched; what stands in others is looked at only.
const FOLDERS_MAX: usize = 1024;
/// Most links that are followed on the way to one file.
const LINKS_MAX: usize = 32;
/// How often everything is looked at, and what each file adds to that: looking must stay cheap.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_EACH: Duration = Duration::from_millis(1);

/// Watches a set of files and folders.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    names: Arc<Mutex<Names>>,
    watched: HashMap<PathBuf, Option<Stamp>>,
    seen: BTreeMap<PathBuf, Seen>,
}

/// What a notice must be about to matter.
#[derive(Debug, Default)]
struct Names {
    /// Files, and links on the way to them.
    files: HashSet<PathBuf>,
    /// Folders in which every file matters.
    folders: HashSet<PathBuf>,
}

impl Names {
    fn hold(&self, path: &Path) -> bool {
        self.files.contains(path) || path.parent().is_some_and(|folder| self.folders.contains(folder))
    }
}

impl Watch {
    /// Watches nothing yet. `tell` is called for every notice that matters, on a thread of the watcher's own.
    pub fn new(tell: impl Fn() + Send + 'static) -> Self {
        let names: Arc<Mutex<Names>> = Arc::default();
        let matters = names.clone();
        let watcher = notify::recommended_watcher(move |notice: notify::Result<notify::Event>| match notice {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) => {
                let names = matters.lock().unwrap_or_else(PoisonError::into_inner);
                let matters = event.need_rescan() || event.paths.iter().any(|path| names.hold(path));
                drop(names);
                if matters {
                    tell();
                }
            }
            Err(error) => tracing::debug!("a notice about files failed: {error}"),
        });
        let watcher = watcher.inspect_err(|error| tracing::warn!("the system gives no notice of files: {error}; they are looked at")).ok();
        Self { watcher, names, watched: HashMap::new(), seen: BTreeMap::new() }
    }

    /// From here on watches these, and nothing else.
    pub fn follow(&mut self, seen: Vec<Seen>) {
        self.seen = seen.into_iter().map(|s| (s.path.clone(), s)).collect();
        self.attend();
    }

    /// Watches these as well. What was watched before counts as it is now.
    pub fn add(&mut self, seen: Vec<Seen>) {
        let new: HashSet<PathBuf> = seen.iter().map(|s| s.path.clone()).collect();
        self.seen.values_mut().filter(|s| !new.contains(&s.path)).for_each(|s| s.stamp = Stamp::of(&s.path));
        self.seen.extend(seen.into_iter().map(|s| (s.path.clone(), s)));
        self.attend();
    }

    /// Whether anything is not what it was.
    pub fn has_changed(&self) -> bool {
        self.seen.values().any(Seen::has_changed)
    }

    /// How often [`Watch::has_changed`] is to be asked.
    pub fn interval(&self) -> Duration {
        LOOK + LOOK_EACH * u32::try_from(self.seen.len()).unwrap_or(u32::MAX)
    }

    /// Registers the folders of everything that matters, and forgets the others.
    fn attend(&mut self) {
        let mut trace = Trace::default();
        for seen in self.seen.values() {
            trace.path(&seen.path, LINKS_MAX);
            if seen.path.is_dir() {
                trace.folder(&seen.path);
            }
        }
        let Trace { names, real, .. } = trace;
        let wanted: HashSet<PathBuf> = real.into_values().flatten().take(FOLDERS_MAX).collect();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        let Some(watcher) = &mut self.watcher else { return };
        // A folder that was replaced has the same name and is another.
        self.watched.retain(|folder, stamp| {
            let kept = wanted.contains(folder) && Stamp::of(folder).map(Stamp::identity) == stamp.map(Stamp::identity);
            if !kept {
                let _ = watcher.unwatch(folder);
            }
            kept
        });
        for folder in wanted {
            if self.watched.contains_key(&folder) {
                continue;
            }
            let stamp = Stamp::of(&folder);
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(folder, stamp)),
                Err(error) => tracing::debug!("{} is not watched: {error}; it is looked at", folder.display()),
            }
        }
    }
}

/// Finds every folder whose entries decide what a path leads to.
#[derive(Default)]
struct Trace {
    names: Names,
    /// Folders by the name they were called by, as they are really called; none where they are not there.
    real: HashMap<PathBuf, Option<PathBuf>>,
    done: HashSet<PathBuf>,
}

impl Trace {
    fn path(&mut self, path: &Path, links: usize) {
        let Ok(path) = std::path::absolute(path) else { return };
        if links == 0 || !self.done.insert(path.clone()) {
            return;
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        if let Some(real) = self.real(folder) {
            self.names.files.insert(real.join(name));
        }
        if let Ok(target) = std::fs::read_link(&path) {
            self.path(&folder.join(target), links - 1);
        }
        // The folder may be reached through links as well.
        for above in folder.ancestors() {
            if self.done.contains(above) {
                break;
            }
            if std::fs::read_link(above).is_ok() {
                self.path(above, links - 1);
            } else {
                self.done.insert(above.to_path_buf());
            }
        }
    }

    fn folder(&mut self, folder: &Path) {
        if let Some(real) = self.real(folder) {
            self.names.folders.insert(real);
        }
    }

    fn real(&mut self, folder: &Path) -> Option<PathBuf> {
        let folder = if folder.as_os_str() == OsStr::new("") { Path::new(".") } else { folder };
        self.real.entry(folder.to_path_buf()).or_insert_with(|| std::fs::canonicalize(folder).ok()).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn watch(paths: &[PathBuf]) -> (Watch, mpsc::Receiver<()>) {
        let (sender, told) = mpsc::channel();
        let mut watch = Watch::new(move || {
            let _ = sender.send(());
        });
        watch.follow(paths.iter().map(Seen::look).collect());
        (watch, told)
    }

    fn told(told: &mpsc::Receiver<()>) -> bool {
        let first = told.recv_timeout(PATIENCE).is_ok();
        while told.recv_timeout(Duration::from_millis(100)).is_ok() {}
        first
    }

    #[test]
    fn a_file_that_is_written_replaced_or_removed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "1").unwrap();
        let (mut watch, notices) = watch(std::slice::from_ref(&path));
        std::fs::write(&path, "2").unwrap();
        assert!(told(&notices) && watch.has_changed());
        watch.follow(vec![Seen::look(&path)]);
        std::fs::write(folder.path().join("b"), "3").unwrap();
        std::fs::rename(folder.path().join("b"), &path).unwrap();
        assert!(told(&notices) && watch.has_changed());
        watch.follow(vec![Seen::look(&path)]);
        std::fs::remove_file(&path).unwrap();
        assert!(told(&notices) && watch.has_changed());
    }

    #[test]
    fn a_folder_of_secrets_that_is_swapped_by_a_link_is_told_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2", "..3"] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("token"), version).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/token", at("token")).unwrap();
        let (mut watch, notices) = watch(&[at("token")]);
        for version in ["..2", "..3"] {
            symlink(version, at("..tmp")).unwrap();
            std::fs::rename(at("..tmp"), at("..data")).unwrap();
            assert!(told(&notices) && watch.has_changed());
            watch.follow(vec![Seen::look(at("token"))]);
        }
    }

    #[test]
    fn a_link_far_from_the_file_counts_too() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for version in ["1", "2"] {
            std::fs::create_dir(other.path().join(version)).unwrap();
            std::fs::write(other.path().join(version).join("token"), version).unwrap();
        }
        symlink("1", other.path().join("current")).unwrap();
        symlink(other.path().join("current/token"), one.path().join("token")).unwrap();
        let (watch, notices) = watch(&[one.path().join("token")]);
        symlink("2", other.path().join("next")).unwrap();
        std::fs::rename(other.path().join("next"), other.path().join("current")).unwrap();
        assert!(told(&notices) && watch.has_changed());
    }

    #[test]
    fn neighbours_do_not_matter_but_in_a_watched_folder_all_do() {
        let folder = tempfile::tempdir().unwrap();
        let resources = folder.path().join("resources");
        std::fs::create_dir(&resources).unwrap();
        let (watch, notices) = watch(&[folder.path().join("postern.yaml"), resources.clone()]);
        std::fs::write(folder.path().join("audit.jsonl"), "x").unwrap();
        assert!(notices.recv_timeout(Duration::from_millis(300)).is_err() && !watch.has_changed());
        std::fs::write(resources.join("new.yaml"), "x").unwrap();
        assert!(told(&notices) && watch.has_changed());
        std::fs::write(folder.path().join("postern.yaml"), "x").unwrap();
        assert!(told(&notices));
    }
}
