//! Whether memory comes in pages of 2 MiB.

use crate::{Profile, Syscall};

/// A wish, not a condition: without it the daemon only takes more memory.
pub(crate) fn set(syscall: &impl Syscall, profile: &Profile, note: &mut dyn FnMut(String)) {
    if profile.no_huge_pages
        && let Err(error) = syscall.disable_huge_pages()
    {
        note(format!("memory may come in huge pages: {error}"));
    }
}
