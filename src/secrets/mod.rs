//! Where secrets come from, and how their change is noticed. What a reference means is `config::references`.

pub mod kept;
mod watch;

pub use kept::Kept;
pub use watch::Watch;
