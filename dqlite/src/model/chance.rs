//! Chance that a seed decides, for the whole process.
//!
//! The standard library and everything built on it (the order of a `HashMap`, which ready branch of
//! `select!` goes first) ask the C library's `getrandom`. A program that calls [`begin`] is linked
//! with the one below instead. Before the call it asks the kernel, after it a stream that the seed
//! decides: so a process that uses one thread does the same twice.

use std::ffi::{c_long, c_uint, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);
static BEGUN: AtomicBool = AtomicBool::new(false);

#[cfg(target_arch = "x86_64")]
const SYS_GETRANDOM: c_long = 318;
#[cfg(not(target_arch = "x86_64"))]
const SYS_GETRANDOM: c_long = 278;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// Begins the stream of `seed`; for ever, and for all threads.
pub fn begin(seed: u64) {
    STATE.store(seed, Ordering::SeqCst);
    BEGUN.store(true, Ordering::SeqCst);
}

fn next() -> u64 {
    let state = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Stands in the place of the C library's function of this name.
///
/// # Safety
///
/// `buffer` has room for `length` bytes, as the C library's function demands.
// SAFETY: name and signature are those of getrandom(2), whose contract it keeps: it fills the
// buffer and returns its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if !BEGUN.load(Ordering::SeqCst) {
        // SAFETY: the kernel's call takes the same arguments.
        return unsafe { syscall(SYS_GETRANDOM, buffer, length, flags) } as isize;
    }
    for at in 0..length {
        // SAFETY: the caller gives room for `length` bytes.
        unsafe { buffer.cast::<u8>().add(at).write(next() as u8) };
    }
    length as isize
}
