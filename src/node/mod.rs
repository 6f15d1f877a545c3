//! skiffd: brings a node up, keeps it up, answers for it, and ends it.
//!
//! What comes in: a root directory and its configuration, requests on the local socket, signals,
//! changes of the machine's addresses. What goes out: running daemons, fresh certificates, a
//! status. Tasks: the supervisor's engine, the server, one that follows the daemons, one that
//! follows the Node object, one that keeps identity and address true, one that follows the addons, one
//! that asks an external datastore.

pub mod account;
pub mod authorities;
mod backup;
mod bootstrap;
pub mod certificates;
mod clean;
pub mod cluster;
mod core;
mod credential;
mod external;
mod layout;
mod lock;
mod observe;
pub mod observed;
mod once;
pub mod plan;
mod pod_network;
pub mod prepare;
mod probe;
mod route;
mod routes;
mod run;
pub mod server;
pub mod settings;
mod space;
mod status;
mod stop;
mod upkeep;

pub use core::{Node, Order};
pub use lock::{Lock, LockError};
pub use run::{NodeError, Options, configuration, reset_stopped, run};

/// The group of people with all rights, as it stands in their certificates.
pub const fn admin_group() -> &'static str {
    bootstrap::ADMIN_GROUP
}
