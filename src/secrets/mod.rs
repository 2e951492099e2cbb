//! Where secrets come from, and how their change is noticed. What a reference means is `config::references`; here is what
//! each source needs to give a value, and what is kept of it while it does not.

pub mod ask;
pub mod aws;
pub mod exec;
pub mod kept;
pub mod remote;
pub mod settings;
pub mod vault;
mod watch;

pub use ask::{Answers, Ask, Kind, Trouble};
pub use kept::Kept;
pub use remote::{Anew, Remote};
pub use settings::Settings;
pub use watch::Watch;
