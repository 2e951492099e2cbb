//! `none`: the upstream wants no credential, and none is sent. The client's own `Authorization` is still dropped.

use std::sync::Arc;

use crate::auth::read::fields;
use crate::auth::{Owned, Reading, Scheme, Signing};
use crate::call::Call;
use crate::tree::Node;

/// Presents nothing.
#[derive(Debug)]
pub struct Nothing;

/// Reads `none`, `{ none: {} }` or `{ none: null }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    if !node.is_null() {
        fields(node, "nothing or `{}`", reading.problems)?.finish();
    }
    Some(Box::new(Nothing))
}

impl Scheme for Nothing {
    fn owns(&self) -> Owned {
        Owned::default()
    }

    fn identity(&self, _: &Call) -> Option<Arc<str>> {
        None
    }

    fn secret(&self) -> bool {
        false
    }

    fn fresh(&self) -> bool {
        false
    }

    fn sign<'a>(&'a self, _: &'a mut Call) -> Signing<'a> {
        Signing::Done(Ok(()))
    }
}
