//! A file that lines are appended to, rotated by size and age between two lines.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::tree::{Fields, Node, Problems};

/// How often it is looked whether the file is still where it was.
const LOOK: Duration = Duration::from_secs(1);

/// When a file is put aside, and how many of them are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotate {
    size: Option<u64>,
    age: Option<Duration>,
    keep: Option<usize>,
}

impl Rotate {
    /// Reads `rotate`. What is left out of a block that is there takes the sample's value (ruling C1).
    pub fn read(node: &Node, problems: &Problems) -> Option<Self> {
        let fields = Fields::of(node, "a map of `size`, `age` and `keep`", problems)?;
        let size = fields.size_or_off("size", Some(100 << 20));
        if size.is_some_and(|size| size < 1024) {
            problems.error(fields.key_place("size"), "`size` must be at least 1KiB", "");
        }
        let rotate = Self {
            size,
            age: fields.duration_or_off("age", Some(Duration::from_secs(86_400))),
            keep: Some(usize::try_from(fields.count("keep", 14, 1)).unwrap_or(usize::MAX)),
        };
        fields.finish();
        Some(rotate)
    }
}

/// A file that is appended to.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    rotate: Rotate,
    file: fs::File,
    inode: u64,
    size: u64,
    opened: Instant,
    looked: Instant,
    /// Whether the last byte written ended a line: only then it may be rotated.
    whole: bool,
}

impl File {
    /// Opens or makes it, with its folder. Only its owner may read it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, rotate: Rotate) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append(path)?;
        let metadata = file.metadata()?;
        let now = Instant::now();
        let mut opened = Self {
            path: path.to_owned(),
            rotate,
            file,
            inode: metadata.ino(),
            size: metadata.len(),
            opened: now,
            looked: now,
            whole: true,
        };
        opened.mend()?;
        Ok(opened)
    }

    /// A line that a crash tore is ended, so that the next one begins on its own.
    fn mend(&mut self) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        if self.size == 0 || !self.file.metadata()?.is_file() {
            return Ok(());
        }
        let mut last = [0];
        let read = fs::File::open(&self.path)?;
        read.read_exact_at(&mut last, self.size - 1)?;
        if last[0] != b'\n' {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(())
    }

    /// Appends some of `bytes`, in a new file if it is time for one.
    ///
    /// # Errors
    /// The system's. What was written before stays.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.whole {
            self.follow()?;
            if self.due(bytes.len()) {
                self.turn()?;
            }
        }
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        if written > 0 {
            self.whole = bytes[written - 1] == b'\n';
        }
        Ok(written)
    }

    /// Waits until all of it is on disk.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        match self.file.sync_data() {
            // A pipe or a terminal has no disk.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }

    fn due(&self, more: usize) -> bool {
        let large = self.rotate.size.is_some_and(|size| self.size > 0 && self.size + more as u64 > size);
        large || self.rotate.age.is_some_and(|age| self.size > 0 && self.opened.elapsed() >= age)
    }

    /// If someone has moved the file away, a new one is begun where it was.
    fn follow(&mut self) -> io::Result<()> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        match fs::metadata(&self.path) {
            Ok(there) if there.ino() == self.inode => Ok(()),
            Ok(_) => self.reopen(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.reopen(),
            Err(error) => Err(error),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.path, self.rotate)?;
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.file.sync_data().or_else(|e| if e.kind() == io::ErrorKind::InvalidInput { Ok(()) } else { Err(e) })?;
        fs::rename(&self.path, self.aside())?;
        self.reopen()?;
        self.forget()
    }

    /// A name beside the file that sorts by time and that nothing has yet.
    fn aside(&self) -> PathBuf {
        let now = crate::clock::Clock::system().millis();
        let moment = jiff::Timestamp::from_millisecond(i64::try_from(now).unwrap_or(0)).unwrap_or_default();
        let stamp: String = format!("{moment:.3}").chars().filter(char::is_ascii_alphanumeric).collect();
        let name = |n: u32| self.path.with_file_name(format!("{}.{stamp}.{n:03}", self.name()));
        (0..1000).map(name).find(|p| !p.exists()).unwrap_or_else(|| name(1000))
    }

    fn name(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Removes the oldest beyond `keep`.
    fn forget(&self) -> io::Result<()> {
        let Some(keep) = self.rotate.keep else { return Ok(()) };
        let prefix = format!("{}.", self.name());
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut aside: Vec<PathBuf> = fs::read_dir(folder)?
            .flatten()
            .filter(|e| e.file_name().to_str().and_then(|n| n.strip_prefix(&prefix)).is_some_and(is_stamp))
            .map(|e| e.path())
            .collect();
        aside.sort();
        let surplus = aside.len().saturating_sub(keep);
        aside[..surplus].iter().try_for_each(fs::remove_file)
    }
}

/// Only what this file has put aside is ever removed.
fn is_stamp(name: &str) -> bool {
    name.split_once('.').is_some_and(|(stamp, n)| {
        stamp.len() == 19 && stamp.bytes().all(|b| b.is_ascii_digit() || b == b'T' || b == b'Z') && n.bytes().all(|b| b.is_ascii_digit())
    })
}

fn append(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn lines(folder: &Path) -> Vec<String> {
        let mut names: Vec<PathBuf> = fs::read_dir(folder).unwrap().flatten().map(|e| e.path()).collect();
        // The live file is the newest, and its name the shortest.
        names.sort_by_key(|p| (p.extension().is_some_and(|e| e == "jsonl"), p.clone()));
        names.iter().flat_map(|p| fs::read_to_string(p).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn rotation_by_size_loses_and_tears_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::open(&folder.path().join("a.jsonl"), Rotate { size: Some(1024), age: None, keep: Some(1000) }).unwrap();
        for i in 0..500 {
            let line = format!("line {i:04} {}\n", "x".repeat(50));
            assert_eq!(file.write(line.as_bytes()).unwrap(), line.len());
        }
        let all = lines(folder.path());
        assert_eq!(all.len(), 500);
        for (i, line) in all.iter().enumerate() {
            assert!(line.starts_with(&format!("line {i:04} ")), "{line}");
        }
        assert!(fs::read_dir(folder.path()).unwrap().count() > 20);
    }

    #[test]
    fn the_oldest_beyond_keep_go_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.jsonl.precious"), "mine").unwrap();
        let mut file = File::open(&folder.path().join("a.jsonl"), Rotate { size: Some(1024), age: None, keep: Some(3) }).unwrap();
        for _ in 0..20 {
            file.write(format!("{}\n", "x".repeat(1000)).as_bytes()).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
        assert!(folder.path().join("a.jsonl.precious").exists());
    }

    #[test]
    fn age_rotates_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::open(&folder.path().join("a.jsonl"), Rotate { size: None, age: Some(Duration::ZERO), keep: Some(3) }).unwrap();
        file.write(b"1\n").unwrap();
        file.write(b"2\n").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_the_owner_may_read_it_and_its_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x/y/a.jsonl");
        File::open(&path, Rotate::default()).unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let mut file = File::open(&path, Rotate::default()).unwrap();
        file.write(b"1\n").unwrap();
        fs::rename(&path, folder.path().join("b")).unwrap();
        file.looked -= LOOK;
        file.write(b"2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, "{\"torn").unwrap();
        File::open(&path, Rotate::default()).unwrap().write(b"{}\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"torn\n{}\n");
    }
}
