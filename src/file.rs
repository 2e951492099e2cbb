//! Files that the configuration depends on: read within a bound, and told apart later without reading them again.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// What tells one state of a file or folder from another. Links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The state now; `None` where there is nothing.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::from)
    }
}

impl Stamp {
    /// Device and number: the same for as long as it is the same file or folder, whatever is in it.
    pub fn identity(self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A path that was looked at for the configuration, and what was there.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The path.
    pub path: PathBuf,
    /// What was there, taken before anything was read.
    pub stamp: Option<Stamp>,
    /// What was read, where something was.
    pub content: Option<Digest>,
}

impl Seen {
    /// A path that is only looked at: a folder, or a place where a file may come to stand.
    pub fn look(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { stamp: Stamp::of(&path), content: None, path }
    }

    /// Whether there is now something else than there was.
    pub fn has_changed(&self) -> bool {
        Stamp::of(&self.path) != self.stamp
    }
}

/// Reads a regular file of at most `most` bytes. Anything else (a pipe, a device) could keep the reader for ever.
pub fn read(path: &Path, most: u64) -> (Seen, io::Result<Vec<u8>>) {
    let mut seen = Seen::look(path);
    let read = bytes(path, most);
    seen.content = read.as_ref().ok().map(|bytes| Digest::of(bytes));
    (seen, read)
}

fn bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(most)).unwrap_or(0));
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {} KiB", most >> 10)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_link_a_new_file_and_a_lost_one_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let absent = Seen::look(path("link"));
        std::fs::write(path("a"), "same").unwrap();
        std::fs::write(path("b"), "same").unwrap();
        std::os::unix::fs::symlink("a", path("link")).unwrap();
        assert!(absent.has_changed());
        let (seen, read) = read(&path("link"), 4);
        assert_eq!(read.unwrap(), b"same");
        assert!(!seen.has_changed());
        std::os::unix::fs::symlink("b", path("next")).unwrap();
        std::fs::rename(path("next"), path("link")).unwrap();
        assert!(seen.has_changed());
        std::fs::remove_file(path("link")).unwrap();
        assert!(seen.has_changed() && Seen::look(path("link")).stamp.is_none());
    }

    #[test]
    fn what_is_too_large_or_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 4).1.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(folder.path(), 4).1.unwrap_err().to_string(), "it is not a file");
        assert_eq!(read(&folder.path().join("b"), 4).1.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
