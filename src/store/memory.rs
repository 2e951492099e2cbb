//! Records that live as long as the process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Failure, Records};

/// Most records: without a bound, whoever makes names fills the memory.
const RECORDS_MAX: usize = 100_000;

/// Records in memory.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Vec<u8>>>);

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    fn records(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records for Memory {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.records().get(name).cloned())
    }

    fn write(&self, name: &str, record: &[u8]) -> Result<(), Failure> {
        let mut records = self.records();
        if records.len() >= RECORDS_MAX && !records.contains_key(name) {
            return Err(Failure(format!("the store in memory holds {RECORDS_MAX} records already")));
        }
        records.insert(name.to_owned(), record.to_vec());
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.records().remove(name);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, Failure> {
        Ok(self.records().keys().cloned().collect())
    }

    fn is_durable(&self) -> bool {
        false
    }
}
