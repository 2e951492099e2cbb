//! Postern, an authenticating reverse proxy: applications call `/r/<resource>/<path>` and hold no upstream secret.
//!
//! The map of the house, top floor first; imports only go down (`ARCHITECTURE.md`).
//!
//! - [`mock`]: the sample API

pub mod admin;
pub mod audit;
pub mod auth;
pub mod body;
pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod middleware;
pub mod mock;
pub mod net;
pub mod path;
pub mod record;
pub mod secret;
pub mod server;
pub mod snapshot;
pub mod stack;
pub mod telemetry;
pub mod tree;
pub mod uri;
