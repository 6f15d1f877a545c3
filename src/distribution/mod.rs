//! The distribution on disk, and the copy of it that a node runs.
//!
//! A distribution is a directory with `components.toml`, `bin/`, `cni/`, `images/` and `addons/`.
//! A node never runs from the place where a distribution was built or unpacked: it stages it below
//! its root first, so that a later build over the same files changes nothing that runs, so that
//! unprivileged daemons can read it, and so that the former build is there to go back to.

mod manifest;
mod stage;
mod trial;

pub use manifest::{Distribution, DistributionError, Image};
pub use stage::{BuildId, StageError, current, forget_builds, select, stage, staged};
pub use trial::{begin_trial, boot, cut_short, end_trial};
