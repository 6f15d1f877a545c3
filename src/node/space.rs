//! Room on the disk below the node's root: what to say before and when it runs out.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use skiff_api::Notice;

/// Name of the notice, so that a fresh one takes the place of the last.
pub const NAME: &str = "disk-full";
const MIB: u64 = 1 << 20;
/// The kubelet ends pods to make room below this (`evictionHard` in `daemons/kube_node.rs`).
const EVICTION_BYTES: u64 = 512 * MIB;
/// Twice the least segment that the datastore's log grows by: a write may fail from here on.
const WRITE_BYTES: u64 = 16 * MIB;
/// Early enough for a person to do something about it.
const WARNING_BYTES: u64 = 1024 * MIB;

/// Free bytes for root and for others, the lesser of them: the datastore is not root.
pub fn free(root: &Path) -> Option<u64> {
    statvfs(root).ok().map(|disk| disk.blocks_available() * disk.fragment_size())
}

/// What a person should know of the room that is left. Pure.
pub fn notice(root: &Path, free: u64) -> Option<Notice> {
    let consequence = if free < WRITE_BYTES {
        "nothing can be written any more; what was acknowledged is kept"
    } else if free < EVICTION_BYTES {
        "Kubernetes ends pods to make room and starts no others"
    } else if free < WARNING_BYTES {
        "below 512 MiB Kubernetes begins to end pods"
    } else {
        return None;
    };
    let root = root.display();
    Some(Notice {
        name: NAME.into(),
        message: format!("{} MiB free for {root}: {consequence}", free / MIB),
        remedy: Some(format!("free some space; `du -xh {root} | sort -h` shows what is large")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(mib: u64) -> Option<String> {
        notice(Path::new("/var/lib/skiff"), mib * MIB).map(|notice| notice.message)
    }

    #[test]
    fn the_less_room_the_graver_the_words() {
        assert_eq!(message(2000), None);
        assert!(message(800).unwrap().contains("begins to end pods"));
        assert!(message(100).unwrap().contains("ends pods to make room"));
        assert_eq!(
            message(3).unwrap(),
            "3 MiB free for /var/lib/skiff: nothing can be written any more; what was \
             acknowledged is kept"
        );
    }
}
