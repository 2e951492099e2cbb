//! The configuration: found, read into one tree with places, resolved, and built into a plan, or into a report of
//! everything that is wrong with it. Nothing starts half valid.

pub mod listen;
mod load;
pub mod problem;
mod raw;
mod references;
pub mod resource;

pub use load::{Loaded, NotFound, Plan, load, plan};
pub use references::{Sources, System};
