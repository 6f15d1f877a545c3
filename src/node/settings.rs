//! Settings that all nodes share, on one node: what it runs with, and taking others up while it
//! runs.
//!
//! ```text
//!   wanted ─> valid here? ─> files, certificates ─> only the daemons that read another text restart
//!                │ no                                  │ ready, and stays so
//!                v                                     v
//!             refused                    yes: node/settings.json     no: everything as before
//! ```
//!
//! The file is written last, so that a node which dies in between begins with what it had. A lone
//! node's file is the record itself; a node of a cluster has the cluster's record, and its file says
//! how far it has got.

mod change;
mod kept;
mod notice;
mod take_up;

pub(super) use change::set;
pub use kept::{Kept, KeptError, shared};
pub use notice::idle;
pub(super) use notice::renew as renew_notices;
pub(super) use take_up::{
    TakeUpError, plan as plan_take_up, plan_restarts, take_up, wait_until_well,
};
