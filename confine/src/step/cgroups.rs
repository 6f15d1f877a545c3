//! The daemon's own control groups: by them it is accounted, and ended with all it started.
//!
//! Joined before the program runs, so that no child can be born outside.

use crate::{ConfineError, Profile, Syscall};

pub(crate) fn join(syscall: &impl Syscall, profile: &Profile) -> Result<(), ConfineError> {
    for path in &profile.cgroups {
        syscall
            .join_cgroup(path)
            .map_err(|source| ConfineError::Cgroup { path: path.clone(), source })?;
    }
    Ok(())
}
