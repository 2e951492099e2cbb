//! The built gateway over real sockets, one module per capability.

mod architecture;
mod audit;
mod canary;
mod counterparts;
mod drain;
mod edge;
mod failures;
mod forwarding;
mod newcomer;
mod refusals;
mod schemes;
mod streaming;
mod support;
mod wrong;
