//! No new privileges: what was given up stays given up, for this process and all its children.

use crate::{ConfineError, Profile, Syscall};

pub(crate) fn forbid_new(syscall: &impl Syscall, profile: &Profile) -> Result<(), ConfineError> {
    if profile.no_new_privileges {
        syscall.set_no_new_privileges().map_err(ConfineError::NoNewPrivileges)?;
    }
    Ok(())
}
