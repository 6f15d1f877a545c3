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

use microcluster::record::NodeId;
use serde::{Deserialize, Serialize};

use super::membership::{read, remove, write};
use super::{Membership, MembershipError};

const FILE: &str = "leave.json";

/// See the module's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Whose line it is: one that a former node has left says nothing of the next.
    pub id: NodeId,
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
    /// Of the node that this membership makes.
    pub fn read(dir: &Path, membership: &Membership) -> Result<Option<Self>, MembershipError> {
        let found: Option<Self> = read(&dir.join(FILE))?;
        Ok(found.filter(|departure| departure.id == membership.id))
    }

    pub fn write(&self, dir: &Path) -> Result<(), MembershipError> {
        write(&dir.join(FILE), self)
    }

    /// Forgets it.
    pub fn remove(dir: &Path) -> io::Result<()> {
        remove(&dir.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::cluster::membership::sample;

    #[test]
    fn a_line_is_read_back_by_its_node_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, own) = (dir.path(), sample());
        assert_eq!(Departure::read(dir, &own).unwrap(), None);
        let line = Departure { id: own.id, step: Step::Going, cordoned: true };
        line.write(dir).unwrap();
        assert_eq!(Departure::read(dir, &own).unwrap(), Some(line));
        let later = Membership { id: NodeId::of_key(b"another key"), ..own.clone() };
        assert_eq!(Departure::read(dir, &later).unwrap(), None);
        Departure::remove(dir).unwrap();
        Departure::remove(dir).unwrap();
        assert_eq!(Departure::read(dir, &own).unwrap(), None);
    }
}
