//! A request on its way through one resource: what the router makes of an arrival, and what every step changes.
//!
//! [`Call`] is a thin handle, so that passing it through a dozen steps costs nothing. Headers and target are the
//! client's until `shape` has run; from there on they are the upstream's.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method};

use crate::body::Body;
use crate::path::Target;
use crate::record::OpenRecord;

/// Who is calling.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The client's name; `anonymous` where nobody had to say.
    pub name: Arc<str>,
    /// The address of the peer; none on a Unix socket.
    pub ip: Option<IpAddr>,
    /// Whether the client's connection is TLS.
    pub tls: bool,
}

/// What one call is made of.
#[derive(Debug)]
pub struct Parts {
    /// The method.
    pub method: Method,
    /// Path and query as they stand: behind `/r/<resource>` as the client sent them, then with the base path and
    /// the resource's parameters.
    pub target: Target,
    /// The fields as they stand.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// Who is calling.
    pub caller: Caller,
    /// When the exchange must be over, where `timeouts.total` is set.
    pub deadline: Option<Instant>,
    /// Whether the client waits for 100 before it sends its body.
    pub expects_continue: bool,
    /// The client's side of a protocol switch, where it asks for one.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    /// The audit record.
    pub record: OpenRecord,
}

/// A request on its way: a handle to its [`Parts`].
#[derive(Debug)]
pub struct Call(Box<Parts>);

impl Call {
    /// Boxes the parts.
    pub fn new(parts: Parts) -> Self {
        Self(Box::new(parts))
    }
}

impl Deref for Call {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Call {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}
