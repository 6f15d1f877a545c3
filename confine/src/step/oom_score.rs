//! Who is ended first when memory is short.

use crate::{Profile, Syscall};

/// A wish, not a condition: lowering the score needs CAP_SYS_RESOURCE.
pub(crate) fn set(syscall: &impl Syscall, profile: &Profile, note: &mut dyn FnMut(String)) {
    if let Some(value) = profile.oom_score_adj
        && let Err(error) = syscall.set_oom_score_adj(value)
    {
        note(format!("the OOM score stays as it is, not {value}: {error}"));
    }
}
