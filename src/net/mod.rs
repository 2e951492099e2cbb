//! The way to an upstream: where it is, how TLS is spoken with it, a pool of connections per core, and what went wrong.

mod background;
pub mod base;
mod certificate;
mod cidr;
mod dial;
mod diversion;
mod failure;
mod fetch;
mod guard;
mod hosts;
mod identity;
mod multiplexed;
pub mod pool;
mod settings;
mod stages;
mod strict;
pub mod tls;
mod tunnel;
mod wire;

pub use crate::origin::Origin;
pub use background::Background;
pub use certificate::Certificate;
pub use cidr::Cidr;
pub use diversion::Diversion;
pub use failure::broken_body;
pub use fetch::{Bounds, fetch};
pub use guard::Reach;
pub use hosts::Hosts;
pub use identity::{ClientAuth, Identity, Shown};
pub use pool::{Lease, Pool, Stats, Upstream};
#[doc(hidden)]
pub use strict::passed;
pub use tunnel::{Bytes, tunnel};
pub use wire::poll_write_pieces;

use crate::body::Body;

thread_local! {
    static HERE: Pool<Body> = Pool::new();
}

/// This core's pool.
pub fn here() -> Pool<Body> {
    HERE.with(Clone::clone)
}
