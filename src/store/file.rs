//! Records in one file (redb): a write is on disk when it returns, and a crash leaves the old record or the new one. One
//! process at a time; the file's lock says so.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use zeroize::Zeroizing;

use super::{Failure, MasterKey, RECORD_MAX, Records};
use crate::secret::Secret;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Only its owner reads or writes it.
const PRIVATE: u32 = 0o600;
/// Shortest token that is one.
const TOKEN_LEAST: usize = 32;
/// Memory for pages of the file: records are few and small.
const CACHE_BYTES: usize = 4 << 20;

/// Records in a file.
pub struct File {
    path: PathBuf,
    /// `None` after the medium has failed: the library wants the file opened anew then.
    database: Mutex<Option<Database>>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({})", self.path.display())
    }
}

impl File {
    /// Opens or makes the file in this folder.
    ///
    /// # Errors
    /// If another process has it, or it cannot be read or made.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("postern.redb");
        let database = database(&path)?;
        sync(folder)?;
        Ok(Self { path, database: Mutex::new(Some(database)) })
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Failure> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match held.take() {
            Some(open) => open,
            None => database(&self.path)?,
        };
        // On failure it is dropped, and opened anew by the next call.
        let done = act(&open).map_err(|error| Failure(format!("{}: {error}", self.path.display())))?;
        *held = Some(open);
        Ok(done)
    }
}

impl Records for File {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.with(|database| match database.begin_read()?.open_table(RECORDS) {
            Ok(table) => Ok(table.get(name)?.map(|record| record.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    fn write(&self, name: &str, record: &[u8]) -> Result<(), Failure> {
        if record.len() > RECORD_MAX {
            return Err(Failure(format!("a record of {} bytes is over the bound of {RECORD_MAX}", record.len())));
        }
        self.with(|database| {
            let writing = database.begin_write()?;
            writing.open_table(RECORDS)?.insert(name, record)?;
            Ok(writing.commit()?)
        })
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.with(|database| {
            let writing = database.begin_write()?;
            writing.open_table(RECORDS)?.remove(name)?;
            Ok(writing.commit()?)
        })
    }

    fn names(&self) -> Result<Vec<String>, Failure> {
        self.with(|database| match database.begin_read()?.open_table(RECORDS) {
            Ok(table) => table.iter()?.map(|entry| Ok(entry?.0.value().to_owned())).collect(),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        })
    }

    fn is_durable(&self) -> bool {
        true
    }
}

fn database(path: &Path) -> Result<Database, Failure> {
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    let database = opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            Failure(format!("{}: another process has it open; is another gateway running?", path.display()))
        }
        error => Failure(format!("{}: {error}", path.display())),
    })?;
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE)).map_err(failed(path))?;
    Ok(database)
}

/// Makes the folder, for its owner alone, where it is not there.
pub fn folder(path: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

/// The key in this file, and whether it was made just now.
pub fn key(path: &Path) -> Result<(MasterKey, bool), Failure> {
    let (text, made) = private(path, || Ok(MasterKey::made()?.1))?;
    let bytes = STANDARD.decode(text.trim()).map(Zeroizing::new);
    let key = bytes.ok().and_then(|bytes| MasterKey::new(&bytes));
    Ok((key.ok_or_else(|| Failure(format!("{}: this is no key of 32 bytes in base64", path.display())))?, made))
}

/// The token in this file, which is made where it is not there.
pub fn token(path: &Path) -> Result<Secret, Failure> {
    let (text, _) = private(path, || Ok(MasterKey::made()?.1))?;
    let token = text.trim();
    // An empty token would be everybody's.
    if token.len() < TOKEN_LEAST {
        return Err(Failure(format!("{}: this is no token; remove it, and the gateway makes another", path.display())));
    }
    Ok(Secret::new(token.to_owned()))
}

/// What stands in a file that only its owner reads, and whether it was made just now.
fn private(path: &Path, make: impl FnOnce() -> Result<Zeroizing<String>, Failure>) -> Result<(Zeroizing<String>, bool), Failure> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Ok(mut file) => {
            let text = make()?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(path))?;
            sync(path.parent().unwrap_or(Path::new(".")))?;
            Ok((text, true))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let open = fs::metadata(path).map_err(failed(path))?.permissions().mode() & 0o077 != 0;
            if open {
                return Err(Failure(format!(
                    "{}: others than its owner may read it; chmod 600 it, and think about a new key",
                    path.display()
                )));
            }
            Ok((Zeroizing::new(fs::read_to_string(path).map_err(failed(path))?), false))
        }
        Err(error) => Err(failed(path)(error)),
    }
}

/// A new file is there after a crash only once its folder is on disk.
fn sync(folder: &Path) -> Result<(), Failure> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| Failure(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_there_when_the_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::open(folder.path()).unwrap();
        assert_eq!(file.read("a").unwrap(), None);
        assert_eq!(file.names().unwrap(), Vec::<String>::new());
        file.write("a", b"1").unwrap();
        file.write("a", b"2").unwrap();
        file.write("b", b"3").unwrap();
        file.remove("b").unwrap();
        file.remove("c").unwrap();
        drop(file);
        let file = File::open(folder.path()).unwrap();
        assert_eq!((file.read("a").unwrap(), file.names().unwrap()), (Some(b"2".to_vec()), vec!["a".to_owned()]));
    }

    #[test]
    fn a_second_process_is_told_who_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let _first = File::open(folder.path()).unwrap();
        assert!(File::open(folder.path()).unwrap_err().0.contains("another gateway"));
    }

    #[test]
    fn store_and_key_are_their_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        super::folder(&inner).unwrap();
        let _file = File::open(&inner).unwrap();
        let (_, made) = key(&inner.join("k")).unwrap();
        assert!(made);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&inner.join("postern.redb")), mode(&inner.join("k"))), (0o700, 0o600, 0o600));
        assert!(!key(&inner.join("k")).unwrap().1);
    }

    #[test]
    fn a_key_file_that_others_may_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        key(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(key(&path).unwrap_err().0.contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "hunter2").unwrap();
        let error = key(&path).unwrap_err();
        assert!(error.0.contains("no key of 32 bytes") && !error.0.contains("hunter2"));
    }

    #[test]
    fn a_record_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::open(folder.path()).unwrap();
        assert!(file.write("a", &vec![0; RECORD_MAX]).is_ok());
        assert!(file.write("a", &vec![0; RECORD_MAX + 1]).is_err());
    }
}
