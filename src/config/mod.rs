//! The configuration: found, read layer by layer into one tree with places, resolved, and built into a plan, or into a
//! report of everything that is wrong with it. Nothing starts half valid.

#[cfg(test)]
mod agreement;
mod base;
mod credentials;
mod environment;
mod granted;
mod layers;
pub mod listen;
mod load;
mod noting;
mod plan;
pub mod preset;
pub mod probe;
pub mod problem;
mod raw;
mod references;
pub mod resource;
mod restart;
pub mod schema;
mod settings;

pub use load::{Loaded, NotFound, Options, find, folder_of, load};
pub use plan::{Outcome, Plan, health_address, is_resource_name, plan, plan_over};
pub use references::{Sources, System};
pub use restart::Fixed;

/// The tree of one text by itself; `None` after an error was reported. References stay as they are written.
pub fn parse(text: &str, problems: &crate::tree::Problems) -> Option<crate::tree::Node> {
    raw::parse(text, 0, problems)
}
