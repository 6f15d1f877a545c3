//! The capabilities that are left: exactly those of the profile.
//!
//! A plain user keeps capabilities across execve(2) only as ambient ones; root gets what the
//! bounding set allows.

use crate::{Capability, ConfineError, Keep, Profile, Syscall};

pub(crate) fn keep(syscall: &impl Syscall, profile: &Profile) -> Result<(), ConfineError> {
    let Keep::Only(kept) = &profile.capabilities else { return Ok(()) };
    let mask = profile.capabilities.mask().unwrap_or_default();
    let failed = |source| ConfineError::Capabilities { mask, source };
    syscall.clear_ambient().map_err(failed)?;
    syscall.set_capabilities(mask).map_err(failed)?;
    if profile.user.as_ref().is_some_and(|user| user.uid != 0) {
        for number in kept.keys().copied().map(Capability::number) {
            syscall.raise_ambient(number).map_err(failed)?;
        }
    }
    Ok(())
}
