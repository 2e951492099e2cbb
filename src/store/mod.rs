//! What outlives a request: records by name, sealed at rest. The store knows neither tokens nor connections, and it never
//! sees an unsealed record on disk. Redis is not built.

mod config;
mod file;
mod memory;
mod sealed;

use std::fmt;
use std::path::PathBuf;

use crate::secret::Secret;

pub use config::{Backend, Config};
pub use file::File;
pub use memory::Memory;
pub use sealed::{MasterKey, Sealed};

/// Largest record, in bytes.
pub const RECORD_MAX: usize = 1 << 20;

/// Records by name. What was written is there after a crash of the process or the machine, where the kind says so.
pub trait Records: fmt::Debug + Send + Sync {
    /// The record of this name.
    ///
    /// # Errors
    /// If the medium cannot be read.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// Writes or replaces a record. When this returns it is durable, as far as this kind is.
    ///
    /// # Errors
    /// If the medium cannot be written; what was there before is then still there.
    fn write(&self, name: &str, record: &[u8]) -> Result<(), Failure>;

    /// Removes a record, if it is there.
    ///
    /// # Errors
    /// If the medium cannot be written.
    fn remove(&self, name: &str) -> Result<(), Failure>;

    /// All names.
    ///
    /// # Errors
    /// If the medium cannot be read.
    fn names(&self) -> Result<Vec<String>, Failure>;

    /// Whether records outlive the process.
    fn is_durable(&self) -> bool;
}

/// Why the store failed, for the log. Holds nothing of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for crate::error::Error {
    fn from(failure: Failure) -> Self {
        Self::StoreUnavailable(failure.0)
    }
}

/// Opens the store that the configuration names.
///
/// # Errors
/// If the folder or the file cannot be had, or if records are there that no key opens.
pub fn open(config: &Config) -> Result<Sealed, Failure> {
    match &config.backend {
        Backend::Memory => Sealed::open(Box::new(Memory::default()), vec![MasterKey::random()?]),
        Backend::File(folder) => {
            file::folder(folder)?;
            let records = File::open(folder)?;
            let mut keys = config.keys.clone();
            keys.extend(key_file(folder, keys.is_empty())?);
            Sealed::open(Box::new(records), keys)
        }
    }
}

/// The token by which programs of this user prove themselves to the running gateway where the operator has configured
/// none: in a file beside the store that only its owner reads. Made where `make` says so; `None` where nothing is kept.
///
/// # Errors
/// If the file cannot be read or made, or others may read it.
pub fn own_token(config: &Config, make: Make) -> Result<Option<Secret>, Failure> {
    let Backend::File(folder) = &config.backend else { return Ok(None) };
    let path = folder.join("admin.token");
    if make == Make::Never && !path.exists() {
        return Ok(None);
    }
    file::folder(folder)?;
    file::token(&path).map(Some)
}

/// Whether a file that is not there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// By the gateway itself.
    Once,
    /// By whoever only looks.
    Never,
}

/// The key file beside the store: read where it is there, made where there is no other key (ruling A13). It stays behind
/// a `master_key` that is given later, so that the records sealed with it can be opened and wrapped anew.
fn key_file(folder: &std::path::Path, needed: bool) -> Result<Option<MasterKey>, Failure> {
    let path: PathBuf = folder.join("master.key");
    if !path.exists() && !needed {
        return Ok(None);
    }
    let (key, made) = file::key(&path)?;
    if made {
        tracing::warn!("there is no master_key: the store is sealed with {}, made just now", path.display());
    } else if needed {
        tracing::warn!("there is no master_key: the store is sealed with {}", path.display());
    } else {
        tracing::info!("{} is no longer needed once the store has been opened with master_key", path.display());
    }
    Ok(Some(key))
}
