//! Postern, an authenticating reverse proxy: applications call `/r/<resource>/<path>` and hold no upstream secret.
//!
//! The map of the house, top floor first; imports only go down (`ARCHITECTURE.md`).
//!
//! - [`cli`], [`server`], [`admin`], [`connect`], [`mock`]: the command line, the listening side, health and figures, how people
//!   connect accounts, the sample API
//! - [`reload`], [`stack`], [`snapshot`]: a changed configuration takes over; THE order of the steps; the live resources
//! - [`config`]: from files to a plan, or to a report of everything that is wrong
//! - [`middleware`]: the steps of the stack, one file each
//! - [`auth`], [`audit`], [`secrets`]: what the gateway presents to upstreams; the audit log; where secrets come from
//! - [`net`], [`aws`], [`store`]: the way to an upstream; what speaks AWS; what outlives a request, sealed
//! - [`http1`], [`hex`], [`command`], [`call`], [`record`], [`body`], [`error`], [`secret`], [`key`], [`tree`], [`path`], [`uri`], [`mod@origin`],
//!   [`xml`], [`expr`], [`clock`], [`telemetry`], [`digest`], [`mod@file`], [`fill`], [`trailers`]: the ground

pub mod admin;
pub mod audit;
pub mod auth;
pub mod aws;
pub mod body;
pub mod call;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod connect;
pub mod digest;
pub mod error;
pub mod expr;
pub mod file;
pub mod fill;
#[doc(hidden)]
pub mod fuzz;
pub mod hex;
pub mod http1;
pub mod key;
pub mod middleware;
pub mod mock;
pub mod net;
pub mod origin;
pub mod path;
pub mod record;
pub mod reload;
pub mod secret;
pub mod secrets;
pub mod server;
pub mod snapshot;
pub mod stack;
pub mod store;
pub mod telemetry;
pub mod trailers;
pub mod tree;
pub mod uri;
pub mod xml;
