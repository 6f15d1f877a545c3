//! Archives: a whole cluster in one file, and the way back from one.
//!
//! ```text
//!   datastore ── its own verified backup ──> kube.snapshot, cluster.snapshot ┐
//!   root ─────── pki, node, settings ──────> small parts, keys that fit ─────┤
//!                                                                            v
//!               read back, compared, named <── sealed (age) <── tar: manifest, parts, sum
//!
//!   archive ── opened, compared ──> a small root beside the node's ── one line ──> in its place
//! ```
//!
//! What comes in: a node's root and the sockets of its datastore; a file or a bucket. What goes
//! out: archives under their final names, and roots from which `skiff start` makes the cluster of
//! before. No task lives here; who takes archives by a schedule is `node::backup`.

mod create;
mod form;
mod keys;
mod manifest;
mod open;
mod part;
mod place;
mod record;
mod restore;
mod secrets;
mod settings;
mod switch;

pub use create::{CreateError, Created, Options as CreateOptions, To, create};
pub use form::FormError;
pub use keys::KeyError;
pub use manifest::{Manifest, Member, Part};
pub use open::{OpenError, Opened, open};
pub use place::{Environment, EnvironmentError};
pub use record::{Kept, RecordError, read as read_record};
pub use restore::{
    Options as RestoreOptions, Outcome, RestoreError, Restored, SettingsOf, restore,
};
pub use switch::{SwitchError, go_on, go_on_locked};
