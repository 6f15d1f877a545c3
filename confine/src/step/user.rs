//! Who the daemon is: groups first, since a plain user may not change them.

use crate::{ConfineError, Profile, Syscall};

pub(crate) fn become_user(syscall: &impl Syscall, profile: &Profile) -> Result<(), ConfineError> {
    let Some(user) = &profile.user else { return Ok(()) };
    let failed = |source| ConfineError::User { uid: user.uid, gid: user.gid, source };
    // Without this the kernel clears everything when root becomes somebody else.
    let keeps_some = profile.capabilities.mask().is_some_and(|mask| mask != 0);
    if keeps_some && user.uid != 0 {
        syscall.set_keep_capabilities(true).map_err(failed)?;
    }
    syscall.set_groups(&user.groups).map_err(failed)?;
    syscall.set_group(user.gid).map_err(failed)?;
    syscall.set_user(user.uid).map_err(failed)
}
