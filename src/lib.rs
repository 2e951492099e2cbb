//! Postern, an authenticating reverse proxy.

pub mod auth;
pub mod body;
pub mod call;
pub mod error;
pub mod middleware;
pub mod path;
pub mod record;
pub mod secret;
pub mod tree;
pub mod uri;
