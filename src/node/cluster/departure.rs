//! The line on a node's disk that says how far it has left its cluster, so that whoever finds it
//! knows whether to go on or to take it back.
//!
//! ```text
//!   leave.json: moving ── the cluster is asked to let the node go ──> going ──> gone ──> all goes
//!      │  pods move, nothing is lost               │ the datastore keeps the node
//!      v                                           v
//!   taken back <────────────────────────────── moving
//! ```

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::MembershipError;
use super::membership::{read, remove, write};

const FILE: &str = "leave.json";

/// See the module's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    pub step: Step,
    /// The node was put out of service for this, and is put back when it stays.
    pub cordoned: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Its pods are moved away. Whoever finds this, and nobody at work, takes it back.
    Moving,
    /// The cluster may have let it go already: from here on it only goes on.
    Going,
    /// The cluster does not know it any more, or was given up. What is left is on this machine.
    Gone,
}

impl Departure {
    pub fn read(dir: &Path) -> Result<Option<Self>, MembershipError> {
        read(&dir.join(FILE))
    }

    pub fn write(&self, dir: &Path) -> Result<(), MembershipError> {
        write(&dir.join(FILE), self)
    }

    /// Forgets it.
    pub fn remove(dir: &Path) -> io::Result<()> {
        remove(&dir.join(FILE))
    }
}
