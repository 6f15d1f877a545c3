//! Bindings to libdqlite (1.18 or newer), written by hand and checked in.
//!
//! Only what `dqlite` uses is declared. Everything here is unsafe to call and is wrapped there; the
//! comments state what the C side expects, because its header leaves some of it out.

/// SQLite itself, for a modelled node.
pub mod sqlite;

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

/// The version whose header the build found, "1.18.7".
pub const LINKED_VERSION: &str = env!("DQLITE_LINKED_VERSION");

/// Everything went well.
pub const DQLITE_OK: c_int = 0;
/// Generic failure: ask `dqlite_node_errmsg`.
pub const DQLITE_ERROR: c_int = 1;
/// The call is not allowed in this state or with these values.
pub const DQLITE_MISUSE: c_int = 2;
/// Out of memory.
pub const DQLITE_NOMEM: c_int = 3;

/// Keep a fixed number of log entries behind a snapshot.
pub const DQLITE_SNAPSHOT_TRAILING_STATIC: c_int = 0;
/// Keep as many log entries behind a snapshot as the snapshot's size justifies.
pub const DQLITE_SNAPSHOT_TRAILING_DYNAMIC: c_int = 1;

/// A member that votes.
pub const DQLITE_VOTER: u64 = 0;
/// A member that receives the log without voting.
pub const DQLITE_STANDBY: u64 = 1;
/// A member that receives nothing.
pub const DQLITE_SPARE: u64 = 2;

/// Identity of a member.
#[allow(non_camel_case_types)]
pub type dqlite_node_id = c_ulonglong;

/// A node; opaque, allocated and freed by the library.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct dqlite_node {
    _opaque: [u8; 0],
    _not_send: std::marker::PhantomData<(*mut u8, std::marker::PhantomPinned)>,
}

/// Called on the library's threads to reach another member: writes a connected socket to `fd` and
/// returns 0, or returns non-zero. It must not unwind.
#[allow(non_camel_case_types)]
pub type dqlite_connect_func =
    unsafe extern "C" fn(arg: *mut c_void, address: *const c_char, fd: *mut c_int) -> c_int;

/// One member of the configuration given to `dqlite_node_recover_ext`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct dqlite_node_info_ext {
    /// Size of this struct in bytes: [`DQLITE_NODE_INFO_EXT_SIZE`].
    pub size: u64,
    /// Identity of the member.
    pub id: u64,
    /// A `const char *` to its address, as an integer.
    pub address: u64,
    /// `DQLITE_VOTER`, `DQLITE_STANDBY` or `DQLITE_SPARE`.
    pub dqlite_role: u64,
}

/// What the library calls the original size of `dqlite_node_info_ext`.
pub const DQLITE_NODE_INFO_EXT_SIZE: u64 = 32;

const _: () = assert!(size_of::<dqlite_node_info_ext>() as u64 == DQLITE_NODE_INFO_EXT_SIZE);

unsafe extern "C" {
    /// 11807 for 1.18.7.
    pub fn dqlite_version_number() -> c_int;

    /// Allocates a node. `address` and `data_dir` are copied. On failure `*n` may be set all the
    /// same, holds the message, and must be destroyed.
    pub fn dqlite_node_create(
        id: dqlite_node_id,
        address: *const c_char,
        data_dir: *const c_char,
        n: *mut *mut dqlite_node,
    ) -> c_int;

    /// Whether a node that runs does nothing any more; any thread may ask. Added by
    /// `recipe/say-when-broken.patch`: a library without it does not link.
    pub fn dqlite_node_is_broken(n: *mut dqlite_node) -> bool;

    /// Whether the loop writes the log itself; not once the node runs. Added by
    /// `recipe/write-on-the-loop.patch`: a library without it does not link.
    pub fn dqlite_node_set_write_on_loop(n: *mut dqlite_node, enabled: bool) -> c_int;

    /// Frees a node that was never started, or that was stopped.
    pub fn dqlite_node_destroy(n: *mut dqlite_node);

    /// Binds and listens at once: "@" picks a free abstract unix socket.
    pub fn dqlite_node_set_bind_address(n: *mut dqlite_node, address: *const c_char) -> c_int;

    /// The address that was bound, owned by the node; null before binding.
    pub fn dqlite_node_get_bind_address(n: *mut dqlite_node) -> *const c_char;

    /// How other members are reached. `arg` must outlive the node.
    pub fn dqlite_node_set_connect_func(
        n: *mut dqlite_node,
        f: dqlite_connect_func,
        arg: *mut c_void,
    ) -> c_int;

    /// Heartbeat becomes 1.5 and the election timeout 15 times the value.
    pub fn dqlite_node_set_network_latency_ms(n: *mut dqlite_node, milliseconds: c_uint) -> c_int;

    /// Reported by the wire's describe.
    pub fn dqlite_node_set_failure_domain(n: *mut dqlite_node, code: c_ulonglong) -> c_int;

    /// Refuses a trailing below the threshold or below 4.
    pub fn dqlite_node_set_snapshot_params(
        n: *mut dqlite_node,
        threshold: c_uint,
        trailing: c_uint,
    ) -> c_int;

    /// The same with a strategy for what trails.
    pub fn dqlite_node_set_snapshot_params_v2(
        n: *mut dqlite_node,
        threshold: c_uint,
        trailing: c_uint,
        strategy: c_int,
    ) -> c_int;

    /// Threads that run SQL off the main loop.
    pub fn dqlite_node_set_pool_thread_count(n: *mut dqlite_node, threads: c_uint) -> c_int;

    /// Whether snapshots are compressed with lz4.
    pub fn dqlite_node_set_snapshot_compression(n: *mut dqlite_node, enabled: bool) -> c_int;

    /// On by default: moves a damaged tail of the log away, acknowledged entries included.
    pub fn dqlite_node_set_auto_recovery(n: *mut dqlite_node, enabled: bool) -> c_int;

    /// How long a writer queues behind another one.
    pub fn dqlite_node_set_busy_timeout(n: *mut dqlite_node, milliseconds: c_uint) -> c_int;

    /// Blocks until the log is loaded and the main thread accepts connections.
    pub fn dqlite_node_start(n: *mut dqlite_node) -> c_int;

    /// Gives leadership, then voting rights, away. Returns non-zero when only the first worked.
    pub fn dqlite_node_handover(n: *mut dqlite_node) -> c_int;

    /// Ends the main thread and joins it.
    pub fn dqlite_node_stop(n: *mut dqlite_node) -> c_int;

    /// The last message, owned by the node; valid until the next call on it.
    pub fn dqlite_node_errmsg(n: *mut dqlite_node) -> *const c_char;

    /// Forces a configuration on a node that is not running.
    pub fn dqlite_node_recover_ext(
        n: *mut dqlite_node,
        infos: *mut dqlite_node_info_ext,
        count: c_int,
    ) -> c_int;

    /// Index and term of the last entry on disk of a node that is not running.
    pub fn dqlite_node_describe_last_entry(
        n: *mut dqlite_node,
        index: *mut u64,
        term: *mut u64,
    ) -> c_int;

    /// A random identity from the address and the clock.
    pub fn dqlite_generate_node_id(address: *const c_char) -> dqlite_node_id;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_the_one_whose_header_was_found() {
        let parts: Vec<i32> =
            LINKED_VERSION.split('.').map(|part| part.parse().expect("a number")).collect();
        let [major, minor, release] = parts[..] else { panic!("{LINKED_VERSION}") };
        // SAFETY: takes nothing, gives a constant.
        let number = unsafe { dqlite_version_number() };
        assert_eq!(number, major * 10_000 + minor * 100 + release);
    }
}
