//! What the gateway presents to upstreams: one scheme is one file behind [`Scheme`].
//!
//! A scheme answers five questions (design, "One request"). Only `middleware/sign.rs` asks them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::HeaderName;

use crate::call::Call;
use crate::error::Error;

/// What a scheme owns in a request: a client's value for any of it is dropped before the scheme signs.
#[derive(Clone, Debug, Default)]
pub struct Owned {
    /// Fields.
    pub headers: Vec<HeaderName>,
    /// Query parameters, by decoded name.
    pub params: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
    /// Whether the client's own `Authorization` is to reach the upstream (`passthrough`).
    pub passes_authorization: bool,
}

/// The work of signing: most schemes are done at once, some must read the body or fetch a token.
pub enum Signing<'a> {
    /// Done.
    Done(Result<(), Error>),
    /// Under way.
    Later(Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>),
}

/// One way to authenticate to an upstream.
pub trait Scheme: std::fmt::Debug + Send + Sync {
    /// What it owns in the request.
    fn owns(&self) -> Owned;

    /// Whose credential this is: a fingerprint for the cache key and the audit record, made without I/O. `None` where
    /// nothing is presented.
    fn identity(&self) -> Option<Arc<str>>;

    /// Whether it sends something that must not travel in the clear (ruling G1).
    fn secret(&self) -> bool;

    /// What must change before the cache key is made. Nothing, for most.
    ///
    /// # Errors
    /// Where the request cannot be signed at all.
    fn prepare(&self, _call: &mut Call) -> Result<(), Error> {
        Ok(())
    }

    /// Signs this attempt.
    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a>;
}
