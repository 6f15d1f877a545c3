//! Addons: what the registry can enable, and the engine that enables it.
//!
//! An addon is a folder: `addon.toml` (what it is, its options, images and health), `manifests/`
//! and a `README.md`. What comes in: those folders, options, facts of the node. What goes out:
//! objects in the cluster, each with the addon's owner label, and a record of them in a ConfigMap,
//! so that any node can change or remove what another one enabled. One task lives here,
//! [`Addons::follow`]: it keeps the list of states by watches.

mod applied;
pub mod argument;
mod back;
mod cause;
mod check;
#[cfg(test)]
mod cluster_test;
mod compare;
mod definition;
mod describe;
mod diff;
mod engine;
mod error;
mod facts;
mod folder;
mod gzip;
mod image;
mod inherent;
mod lint;
mod manifest;
mod mend;
mod object;
mod option;
mod order;
mod record;
mod registry;
mod remove;
mod repositories;
mod repository;
#[cfg(test)]
mod schema_test;
mod skeleton;
mod stay;
mod store;
mod template;
mod texts;
mod unfold;
mod view;
mod work;

pub use definition::{Definition, DefinitionError};
pub use describe::details;
pub use engine::{Addons, Settings};
pub use error::AddonError;
pub use facts::Facts;
pub use image::{ImageError, ImageStore};
pub use lint::{Findings, lint};
pub use option::is_word;
pub use registry::{Addon, Registry};
pub use repository::digest as repository_digest;
pub use skeleton::write as write_skeleton;
pub use texts::{Texts, read as read_texts};
pub use unfold::plain_data;
pub use view::unseen;
pub use work::Report;
