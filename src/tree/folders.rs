//! Where the relative paths of each file begin: in the folder of the file that says them (ruling C3).

use std::path::{Path, PathBuf};

use super::Place;

/// The folder of every file of the loaded set, by its index.
#[derive(Clone, Debug, Default)]
pub struct Folders(Vec<PathBuf>);

impl Folders {
    /// One folder for all files: for a set of one.
    pub fn one(folder: impl Into<PathBuf>) -> Self {
        Self(vec![folder.into()])
    }

    /// Adds the folder of the next file.
    pub fn push(&mut self, folder: PathBuf) {
        self.0.push(folder);
    }

    /// A path as it stands at this place. An absolute one stays as it is.
    pub fn join(&self, place: Place, path: impl AsRef<Path>) -> PathBuf {
        match self.0.get(usize::from(place.file)) {
            Some(folder) => folder.join(path),
            None => path.as_ref().to_path_buf(),
        }
    }
}
