//! The process of a node's skiffd, seen from outside.

use std::fs;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::paths::Paths;

/// A skiffd that ran when this was made.
#[derive(Debug)]
pub struct Skiffd {
    handle: OwnedFd,
}

impl Skiffd {
    /// The one that holds the node's lock; none when it has ended already.
    pub fn of(paths: &Paths) -> Option<Self> {
        let text = fs::read_to_string(paths.run().join("skiffd.pid")).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        pidfd_open(pid, PidfdFlags::NONBLOCK).ok().map(|handle| Self { handle })
    }

    /// Waits until it has ended; false when it still runs after `bound`.
    pub async fn ended(self, bound: Duration) -> bool {
        // A pidfd becomes readable when its process ends.
        #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps to its rules")]
        let Ok(handle) = AsyncFd::with_interest(self.handle, Interest::READABLE) else {
            return false;
        };
        tokio::time::timeout(bound, handle.readable()).await.is_ok()
    }
}
