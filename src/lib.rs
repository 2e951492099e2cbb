//! Postern, an authenticating reverse proxy.

pub mod error;
pub mod mock;
pub mod record;
pub mod secret;
pub mod tree;
pub mod uri;
