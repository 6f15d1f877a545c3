//! How new files look and where relative paths begin.
//!
//! The place for a mount namespace that shows the daemon its own directories only.

use crate::{ConfineError, Profile, Syscall};

pub(crate) fn prepare(syscall: &impl Syscall, profile: &Profile) -> Result<(), ConfineError> {
    syscall.set_umask(profile.umask);
    let path = &profile.working_directory;
    syscall
        .change_directory(path)
        .map_err(|source| ConfineError::WorkingDirectory { path: path.clone(), source })
}
