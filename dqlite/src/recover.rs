//! What can be done to the data of a node that does not run: the way out of a lost quorum.

use std::path::Path;

use crate::identity::{MemberAddress, MemberId, MemberInfo};
use crate::node::NodeError;
use crate::node::raw::RawNode;

/// How far a member's log goes. Of several survivors the one with the greatest position, term first,
/// has everything that was acknowledged to anybody who still can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The term of the last entry.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// The last entry in a data directory. Its node must not run. Nothing is lost, but files change:
/// the log is loaded as by a start, which closes its open segments.
pub fn last_entry(data_dir: &Path) -> Result<LogPosition, NodeError> {
    let failed = |message| NodeError::Recover { data_dir: data_dir.into(), message };
    let mut raw = RawNode::create(MemberId::FIRST, &"unused".into(), data_dir)?;
    let (index, term) = raw.last_entry().map_err(failed)?;
    Ok(LogPosition { term, index })
}

/// Forces the cluster's configuration onto a data directory, whose node must not run.
///
/// Do this on one survivor only, start that one first, and let the others begin from empty
/// directories: two members with different forced logs never agree again.
pub fn reconfigure(
    data_dir: &Path,
    id: MemberId,
    address: &MemberAddress,
    members: &[MemberInfo],
) -> Result<(), NodeError> {
    let mut raw = RawNode::create(id, address, data_dir)?;
    raw.recover(members)
        .map_err(|message| NodeError::Recover { data_dir: data_dir.into(), message })
}
