//! What the machine offers: addresses, resolvers, and whether a node can run on it.

pub mod address;
mod facts;
mod finding;
mod link;
mod listener;
pub mod resolver;
mod route;

pub use facts::{Facts, may_lower_oom_scores};
pub use finding::{CLOCK_MIN_S, Finding, Level, findings};
pub use link::mtu_at;
pub use listener::{Listener, is_listening, on_ports};
pub use route::{Route, routes};
