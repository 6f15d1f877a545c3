//! Addons: what the registry can enable, and the engine that enables it.
//!
//! An addon is a folder: `addon.toml` (what it is, its options, images and health), `manifests/`
//! and a `README.md`. What comes in: those folders, options, facts of the node. What goes out:
//! objects in the cluster, each with the addon's owner label, and a record of them in a ConfigMap,
//! so that any node can change or remove what another one enabled. One task lives here,
//! [`Addons::follow`]: it keeps the list of states by watches.

pub mod argument;
mod cause;
mod check;
#[cfg(test)]
mod cluster_test;
mod definition;
mod engine;
mod error;
mod facts;
mod folder;
mod image;
mod inherent;
mod manifest;
mod object;
mod option;
mod order;
mod record;
mod registry;
mod remove;
mod store;
mod template;
mod unfold;
mod view;
mod work;

pub use definition::{Definition, DefinitionError};
pub use engine::{Addons, Settings};
pub use error::AddonError;
pub use facts::Facts;
pub use image::{ImageError, ImageStore};
pub use registry::{Addon, Registry};
pub use unfold::plain_data;
pub use work::Report;
