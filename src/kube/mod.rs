//! Talking to the cluster: credentials that renew themselves, server-side apply, waits.
//!
//! What comes in: the path of a kubeconfig, objects as data. What goes out: objects as the API
//! server has them, and sentences about what is waited for. No task lives here; whoever waits
//! gives the bound.

mod apply;
mod client;
pub mod drain;
mod error;
mod wait;

pub use apply::{Applied, FIELD_MANAGER, Listed, Resources, TypeRef, bounded, type_of};
pub use client::{ClientError, ClientSource};
pub use error::ClusterError;
pub use wait::{Selection, WaitError, wait_gone, wait_until};
