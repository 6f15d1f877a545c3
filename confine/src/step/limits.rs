//! Resource limits, soft and hard alike.

use crate::{ConfineError, Profile, Resource, Syscall};

/// Raising a hard limit needs CAP_SYS_RESOURCE, which root in a container may lack: then the
/// limit goes as far as the hard one allows, and a note says so.
pub(crate) fn set(
    syscall: &impl Syscall,
    profile: &Profile,
    note: &mut dyn FnMut(String),
) -> Result<(), ConfineError> {
    let limits = [
        (Resource::OpenFiles, "open_files", profile.limits.open_files),
        (Resource::Processes, "processes", profile.limits.processes),
        (Resource::CoreBytes, "core_bytes", profile.limits.core_bytes),
        (Resource::LockedBytes, "locked_bytes", profile.limits.locked_bytes),
    ];
    for (resource, name, value) in limits {
        let Some(value) = value else { continue };
        if syscall.set_limit(resource, value, value).is_ok() {
            continue;
        }
        let failed = |source| ConfineError::Limit { name, value, source };
        let (_, hard) = syscall.limit(resource).map_err(failed)?;
        let possible = value.min(hard);
        syscall.set_limit(resource, possible, hard).map_err(failed)?;
        note(format!("limit {name} is {possible}, not {value}: the hard limit may not be raised"));
    }
    Ok(())
}
