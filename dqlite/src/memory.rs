//! The C allocator of this process: libdqlite allocates there, and so does Rust.
//!
//! glibc keeps freed memory: one arena for each of many threads, and whatever lies below the last
//! allocation in use. Elsewhere (musl) nothing of this is needed, and everything here does nothing.

/// Gives free memory back to the kernel; true when some was. Takes milliseconds with a large heap,
/// so call it after work, not within.
pub fn trim() -> bool {
    glibc::trim()
}

/// Lets all threads share `arenas` arenas. Call it first thing in `main`: arenas that exist stay.
/// True when the allocator has such a setting.
pub fn limit_arenas(arenas: u16) -> bool {
    glibc::limit_arenas(arenas)
}

#[cfg(target_env = "gnu")]
mod glibc {
    use std::ffi::c_int;

    const M_ARENA_MAX: c_int = -8;

    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> c_int;
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }

    pub(super) fn trim() -> bool {
        // SAFETY: takes no pointer, locks the arenas itself, may be called from any thread.
        unsafe { malloc_trim(0) == 1 }
    }

    pub(super) fn limit_arenas(arenas: u16) -> bool {
        // SAFETY: takes no pointer and may be called at any time; it changes a tuning parameter.
        unsafe { mallopt(M_ARENA_MAX, c_int::from(arenas)) == 1 }
    }
}

#[cfg(not(target_env = "gnu"))]
mod glibc {
    pub(super) fn trim() -> bool {
        false
    }

    pub(super) fn limit_arenas(_arenas: u16) -> bool {
        false
    }
}
