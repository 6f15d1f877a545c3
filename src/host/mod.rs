//! What the machine offers: addresses, resolvers, and whether a node can run on it.

pub mod address;
mod facts;
mod finding;
mod listener;
pub mod resolver;

pub use facts::{Facts, may_lower_oom_scores};
pub use finding::{Finding, Level, findings};
pub use listener::Listener;
