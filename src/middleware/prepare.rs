//! Changes what a signature demands of the request's shape, before anything depends on it: the cache key, the policies
//! behind it, the wire (ruling A10). Only where a scheme has such demands.

use crate::auth::Auth;
use crate::call::Call;
use crate::middleware::{Answer, Next, Step};

/// The step that lets schemes prepare a call.
#[derive(Debug)]
pub struct Prepare(Auth);

impl Prepare {
    /// The step, where any scheme needs it.
    pub fn new(auth: &Auth) -> Option<Self> {
        auth.prepares().then(|| Self(auth.clone()))
    }
}

impl Step for Prepare {
    async fn handle(&self, mut call: Call, next: &impl Next) -> Answer {
        self.0.prepare(&mut call)?;
        next.run(call).await
    }
}
