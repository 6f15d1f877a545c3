//! The capabilities that are left: exactly those of the profile.
//!
//! A plain user keeps capabilities across execve(2) only as ambient ones; root gets what the
//! bounding set allows.

use crate::{Capability, ConfineError, Keep, Profile, Syscall};

/// What the supervisor itself lacks (root in a container) cannot be kept: a note says so.
pub(crate) fn keep(
    syscall: &impl Syscall,
    profile: &Profile,
    note: &mut dyn FnMut(String),
) -> Result<(), ConfineError> {
    let Keep::Only(kept) = &profile.capabilities else { return Ok(()) };
    let wanted = profile.capabilities.mask().unwrap_or_default();
    let failed = |source| ConfineError::Capabilities { mask: wanted, source };
    let mask = wanted & syscall.permitted_capabilities().map_err(failed)?;
    let (had, lacked): (Vec<Capability>, Vec<Capability>) =
        kept.keys().copied().partition(|capability| mask & (1 << capability.number()) != 0);
    for capability in lacked {
        note(format!("capability {} is not there to be kept", capability.name()));
    }
    syscall.clear_ambient().map_err(failed)?;
    syscall.set_capabilities(mask).map_err(failed)?;
    if profile.user.as_ref().is_some_and(|user| user.uid != 0) {
        for capability in had {
            syscall.raise_ambient(capability.number()).map_err(failed)?;
        }
    }
    Ok(())
}
