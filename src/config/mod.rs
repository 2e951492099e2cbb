//! The configuration: found, read layer by layer into one tree with places, resolved, and built into a plan, or into a
//! report of everything that is wrong with it. Nothing starts half valid.

mod environment;
mod layers;
pub mod listen;
mod load;
mod plan;
pub mod preset;
pub mod problem;
mod raw;
mod references;
pub mod resource;
pub mod schema;
mod settings;

pub use load::{Loaded, NotFound, Options, find, folder_of, load};
pub use plan::{Plan, is_resource_name, plan};
pub use references::{Sources, System};
