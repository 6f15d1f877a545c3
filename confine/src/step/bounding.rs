//! The bounding set: capabilities that no program executed from here can ever have again.
//!
//! Comes before the change of user, since it needs CAP_SETPCAP.

use crate::{ConfineError, Profile, Syscall};

pub(crate) fn drop(syscall: &impl Syscall, profile: &Profile) -> Result<(), ConfineError> {
    let Some(kept) = profile.capabilities.mask() else { return Ok(()) };
    for number in (0..=syscall.last_capability()).filter(|number| kept & (1 << number) == 0) {
        syscall
            .drop_bounding(number)
            .map_err(|source| ConfineError::Bounding { number, source })?;
    }
    Ok(())
}
