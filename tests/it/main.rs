//! The built gateway over real sockets, one module per capability.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod architecture;
mod audit;
mod aws_sigv4;
mod browsers;
mod canary;
mod client_certificates;
mod commands;
mod counterparts;
mod digest;
mod drain;
mod edge;
mod explain;
mod expressions;
mod failures;
mod forwarding;
mod hostile;
mod http2_clients;
mod http2_counterparts;
mod http2_floods;
mod http2_probes;
mod http2_upstreams;
mod http_signature;
mod issuers;
mod jwt;
mod layers;
mod listener_tls;
mod newcomer;
mod oauth1;
mod paths;
mod readers;
mod reflection;
mod refusals;
mod reload;
mod schema;
mod schemes;
mod secrets;
mod signatures;
mod slow;
mod smuggling;
mod stages;
mod streaming;
mod support;
mod tokens;
mod wrong;
