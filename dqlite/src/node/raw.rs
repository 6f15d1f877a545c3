//! The library's node, owned: every call that needs a pointer is here.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::IntoRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use super::error::NodeError;
use crate::connector::Connector;
use crate::identity::{MemberAddress, MemberId, MemberInfo};

/// The library keeps the directory in a buffer of the longest path and adds file names to it; what
/// does not fit it would cut without a word.
const DATA_DIR_BYTES_MAX: usize = 3500;

/// What the library's connect hook points to.
struct Hook {
    connector: Arc<dyn Connector>,
}

/// A node of the library. It may be running; who started it stops it before the drop.
pub(crate) struct RawNode {
    node: NonNull<dqlite_sys::dqlite_node>,
    /// Kept alive for the library, which holds its address. Freed after the node.
    _hook: Option<Box<Hook>>,
}

// SAFETY: the library ties a node to no thread: creation, start, stop and destruction may happen on
// different ones as long as they don't overlap, which `&mut` and ownership ensure. The hook is Send.
unsafe impl Send for RawNode {}

impl RawNode {
    /// Allocates a node; nothing is opened yet.
    pub(crate) fn create(
        id: MemberId,
        address: &MemberAddress,
        data_dir: &Path,
    ) -> Result<RawNode, NodeError> {
        let create = |message: String| NodeError::Create { data_dir: data_dir.into(), message };
        let c_address = c_string(address.as_str().as_bytes(), "address").map_err(create)?;
        let bytes = data_dir.as_os_str().as_encoded_bytes();
        if bytes.len() > DATA_DIR_BYTES_MAX {
            return Err(create(format!("path has more than {DATA_DIR_BYTES_MAX} bytes")));
        }
        let c_dir = c_string(bytes, "path").map_err(create)?;
        let mut pointer = std::ptr::null_mut();
        // SAFETY: both texts end with NUL and are copied; `pointer` is ours to be written to.
        let rc = unsafe {
            dqlite_sys::dqlite_node_create(id.0, c_address.as_ptr(), c_dir.as_ptr(), &mut pointer)
        };
        let Some(node) = NonNull::new(pointer) else {
            return Err(create(format!("no node was made ({rc})")));
        };
        // From here on the drop destroys it.
        let raw = RawNode { node, _hook: None };
        if rc == dqlite_sys::DQLITE_OK {
            return Ok(raw);
        }
        let error = create(raw.message(rc));
        // What failed half-way stays registered with SQLite as a file system. Were it freed, the
        // next node's registration would run through freed memory: it is kept, a few kilobytes.
        std::mem::forget(raw);
        Err(error)
    }

    /// The library's last words, or the code when it has none.
    pub(crate) fn message(&self, rc: c_int) -> String {
        // SAFETY: the node is alive; the text belongs to it, ends with NUL and is copied at once.
        let text = unsafe { CStr::from_ptr(dqlite_sys::dqlite_node_errmsg(self.node.as_ptr())) };
        match text.to_string_lossy() {
            text if text.is_empty() => match rc {
                dqlite_sys::DQLITE_MISUSE => "value not allowed".to_string(),
                dqlite_sys::DQLITE_NOMEM => "out of memory".to_string(),
                rc => format!("libdqlite says {rc} without a reason"),
            },
            text => text.into_owned(),
        }
    }

    /// Calls one of the library's setters.
    pub(crate) fn set(
        &mut self,
        what: &'static str,
        setter: impl FnOnce(*mut dqlite_sys::dqlite_node) -> c_int,
    ) -> Result<(), NodeError> {
        match setter(self.node.as_ptr()) {
            dqlite_sys::DQLITE_OK => Ok(()),
            rc => Err(NodeError::Setting { what, message: self.message(rc) }),
        }
    }

    /// How the library reaches other members. Only before the start, and once.
    pub(crate) fn set_connector(&mut self, connector: Arc<dyn Connector>) -> Result<(), NodeError> {
        let hook = Box::new(Hook { connector });
        let argument = std::ptr::from_ref::<Hook>(&hook).cast_mut().cast::<c_void>();
        // Keeping it before it is used: the box's content stays where it is when the box is moved.
        self._hook = Some(hook);
        // SAFETY: the node is alive; `argument` stays valid until after the node's destruction, since
        // `_hook` is replaced by nobody and fields drop after `RawNode::drop` has run.
        self.set("connect hook", |node| unsafe {
            dqlite_sys::dqlite_node_set_connect_func(node, connect_hook, argument)
        })
    }

    /// Binds; "@" takes a free abstract unix socket.
    pub(crate) fn bind(&mut self, address: &str) -> Result<(), NodeError> {
        let failed = |message| NodeError::Bind { address: address.to_string(), message };
        let c_address = c_string(address.as_bytes(), "address").map_err(failed)?;
        // SAFETY: the node is alive and not running; the text ends with NUL and is copied.
        let rc = unsafe {
            dqlite_sys::dqlite_node_set_bind_address(self.node.as_ptr(), c_address.as_ptr())
        };
        match rc {
            dqlite_sys::DQLITE_OK => Ok(()),
            rc => {
                let system = std::io::Error::last_os_error();
                Err(failed(format!("{} ({system})", self.message(rc))))
            }
        }
    }

    /// What was bound, in the library's notation.
    pub(crate) fn bound(&self) -> Option<Vec<u8>> {
        // SAFETY: the node is alive; the text is null or belongs to it, ends with NUL, is copied.
        unsafe {
            let bound = dqlite_sys::dqlite_node_get_bind_address(self.node.as_ptr());
            (!bound.is_null()).then(|| CStr::from_ptr(bound).to_bytes().to_vec())
        }
    }

    /// Loads the log and starts the library's threads.
    pub(crate) fn start(&mut self) -> Result<(), c_int> {
        // SAFETY: the node is alive and not running.
        done(unsafe { dqlite_sys::dqlite_node_start(self.node.as_ptr()) })
    }

    /// Whether the library gave up on its disk, or on raft.
    pub(crate) fn is_broken(&self) -> bool {
        // SAFETY: the node is alive; the call only reads flags that are set once.
        unsafe { dqlite_sys::dqlite_node_is_broken(self.node.as_ptr()) }
    }

    /// Gives leadership away.
    pub(crate) fn handover(&mut self) -> Result<(), c_int> {
        // SAFETY: the node is alive and runs; the call signals its thread and waits.
        done(unsafe { dqlite_sys::dqlite_node_handover(self.node.as_ptr()) })
    }

    /// Ends the library's main thread.
    pub(crate) fn stop(&mut self) -> Result<(), c_int> {
        // SAFETY: the node is alive and runs; the call signals its thread and joins it.
        done(unsafe { dqlite_sys::dqlite_node_stop(self.node.as_ptr()) })
    }

    /// Forces a configuration onto the data directory.
    pub(crate) fn recover(&mut self, members: &[MemberInfo]) -> Result<(), String> {
        let addresses: Result<Vec<CString>, String> = members
            .iter()
            .map(|member| c_string(member.address.as_str().as_bytes(), "address"))
            .collect();
        let addresses = addresses?;
        let info = |(member, address): (&MemberInfo, &CString)| dqlite_sys::dqlite_node_info_ext {
            size: dqlite_sys::DQLITE_NODE_INFO_EXT_SIZE,
            id: member.id.0,
            address: address.as_ptr().expose_provenance() as u64,
            dqlite_role: member.role.code(),
        };
        let mut infos: Vec<_> = members.iter().zip(&addresses).map(info).collect();
        let count = c_int::try_from(infos.len()).map_err(|e| e.to_string())?;
        // SAFETY: the node is alive and not running; `infos` has `count` elements whose texts live in
        // `addresses` until after the call, and are copied by it.
        let rc = unsafe {
            dqlite_sys::dqlite_node_recover_ext(self.node.as_ptr(), infos.as_mut_ptr(), count)
        };
        done(rc).map_err(|rc| self.message(rc))
    }

    /// Index and term of the last entry on disk.
    pub(crate) fn last_entry(&mut self) -> Result<(u64, u64), String> {
        let (mut index, mut term) = (0, 0);
        // SAFETY: the node is alive and not running; both places are ours to be written to.
        let rc = unsafe {
            dqlite_sys::dqlite_node_describe_last_entry(self.node.as_ptr(), &mut index, &mut term)
        };
        done(rc).map(|()| (index, term)).map_err(|rc| self.message(rc))
    }
}

/// A new identity from the address and the clock; see [`MemberId::generate`].
pub(crate) fn generate_id(address: &MemberAddress) -> MemberId {
    let text: Vec<u8> = address.as_str().bytes().filter(|b| *b != 0).collect();
    let c_address = CString::new(text).expect("the nul bytes were left out");
    // SAFETY: the text ends with NUL and is only read.
    MemberId(unsafe { dqlite_sys::dqlite_generate_node_id(c_address.as_ptr()) })
}

impl Drop for RawNode {
    fn drop(&mut self) {
        // SAFETY: the node is alive, not running (the owner stopped it, or it never ran), and nobody
        // uses it after this.
        unsafe { dqlite_sys::dqlite_node_destroy(self.node.as_ptr()) }
    }
}

fn done(rc: c_int) -> Result<(), c_int> {
    if rc == dqlite_sys::DQLITE_OK { Ok(()) } else { Err(rc) }
}

fn c_string(bytes: &[u8], what: &str) -> Result<CString, String> {
    CString::new(bytes).map_err(|e| format!("{what} holds a nul byte at {}", e.nul_position()))
}

/// Called by the library, on its threads, to reach another member.
///
/// # Safety
///
/// `argument` points to a live [`Hook`], `address` to a text that ends with NUL, and `fd` may be
/// written to. [`RawNode::set_connector`] and the library see to it.
unsafe extern "C" fn connect_hook(
    argument: *mut c_void,
    address: *const c_char,
    fd: *mut c_int,
) -> c_int {
    // Unwinding into C is undefined: a panic becomes a failed connection.
    let connected = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: see above.
        let (hook, address) = unsafe { (&*argument.cast::<Hook>(), CStr::from_ptr(address)) };
        let address = MemberAddress::new(address.to_string_lossy());
        match hook.connector.connect(&address) {
            Ok(socket) => Some(socket.into_raw_fd()),
            Err(error) => {
                tracing::debug!(%address, %error, "member not reached");
                None
            }
        }
    }));
    match connected {
        Ok(Some(socket)) => {
            // SAFETY: see above. The library owns the descriptor from here on.
            unsafe { *fd = socket };
            dqlite_sys::DQLITE_OK
        }
        Ok(None) | Err(_) => dqlite_sys::DQLITE_ERROR,
    }
}
