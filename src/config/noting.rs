//! Sources that note which variables were read from the environment, so that a command that the gateway runs does not
//! inherit what the gateway holds for it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::references::Sources;
use crate::secrets::{Answers, Ask, Settings};

/// Gives what `inner` gives.
pub struct Noting<'s> {
    inner: &'s dyn Sources,
    read: RefCell<BTreeSet<String>>,
}

impl<'s> Noting<'s> {
    /// Sources over these.
    pub fn new(inner: &'s dyn Sources) -> Self {
        Self { inner, read: RefCell::default() }
    }

    /// The names of all variables that were read.
    pub fn into_names(self) -> BTreeSet<String> {
        self.read.into_inner()
    }
}

impl Sources for Noting<'_> {
    fn env(&self, name: &str) -> Option<String> {
        let mut read = self.read.borrow_mut();
        if !read.contains(name) {
            read.insert(name.to_owned());
        }
        self.inner.env(name)
    }

    fn variables(&self, prefix: &str) -> BTreeMap<String, String> {
        let all = self.inner.variables(prefix);
        self.read.borrow_mut().extend(all.keys().cloned());
        all
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        self.inner.file(path)
    }

    fn fetch(&self, asked: BTreeSet<Ask>, settings: Settings) -> Answers {
        self.inner.fetch(asked, settings)
    }
}
